package trie

import (
	"errors"
	"math/bits"

	"midplane/internal/fib/image"
)

// ErrFull says that the image has no room. The tree is as it was.
var ErrFull = errors.New("no room is left in the image")

// Key is an address or the first bits of one; bits behind a prefix are zero.
type Key = image.Key

// entry returns the six bits of a key at a depth.
func entry(k Key, depth uint) uint32 {
	switch {
	case depth <= 58:
		return uint32(k.Hi << depth >> 58)
	case depth < 64:
		return uint32(k.Hi<<depth>>58 | k.Lo>>(122-depth))
	}
	return uint32(k.Lo << (depth - 64) >> 58)
}

// number returns the number, in its block, of the prefix of n bits of a key; depth is the block's.
func number(k Key, depth, n uint) uint32 {
	l := n - depth
	return 1<<l | entry(k, depth)>>(6-l)
}

// blockDepth returns at which depth the block of prefixes of n bits is.
func blockDepth(n uint) uint { return (n - 1) / image.Stride * image.Stride }

// Tree is one family of a FIB.
type Tree struct {
	m      *image.Words
	h      *Heap
	desc   uint32
	family uint32
	width  uint // bits of an address
}

// NewTree returns the tree of a family (0: IPv4, 1: IPv6) of the FIB with the descriptor at desc, in whose heap it is.
func NewTree(m *image.Words, h *Heap, desc, family uint32) Tree {
	t := Tree{m: m, h: h, desc: desc, family: family, width: 32}
	if family == 1 {
		t.width = 128
	}
	return t
}

// Len returns how many routes there are.
func (t *Tree) Len() int { return int(t.m.Half(t.desc+image.DescCount, t.family)) }

func (t *Tree) count(d int) {
	r := refOf(t.desc+image.DescCount, t.family)
	r.store(t.m, uint32(int(r.load(t.m))+d))
}

// table is a direct table: 2^bits slots, for the addresses' bits from base on. The word before it has the slot of its top,
// the one before that what its slots inherit.
type table struct {
	at         uint32
	base, bits uint
}

// rootTable returns the direct table of the root; it has no bits if there is none.
func (t *Tree) rootTable() table {
	d, at := image.RootTable(t.m.Load(t.desc + image.DescRoot + t.family))
	return table{at, 0, d}
}

// subTable returns the direct table that a slot of the root's refers to.
func subTable(slot uint32) table { return table{image.At(slot), bits12, bits12} }

// index returns which slot of the table an address is in, slot where that is.
func (d table) index(k Key) uint32 { return uint32(k.Hi << d.base >> (64 - d.bits)) }
func (d table) slot(k Key) ref     { return refOf(d.at, d.index(k)) }
func (d table) top() ref           { return refOf(d.at-image.DirectTop, 0) }
func (d table) inherits() ref      { return refOf(d.at-image.DirectTop-1, 0) }
func (d table) size() uint32       { return 1 << d.bits }

// end is the depth below the table, ext that of the lowest blocks of its top, whose entries are its slots.
func (d table) end() uint { return d.base + d.bits }
func (d table) ext() uint { return d.end() - image.Stride }

// key returns the first address of slot i of the table at k.
func (d table) key(k Key, i uint32) Key {
	return Key{Hi: k.Hi | uint64(i)<<(64-d.end()), Lo: k.Lo}
}

// rootRef is the root's slot, when there is no direct table.
func (t *Tree) rootRef() ref { return refOf(t.desc+image.DescRoot+t.family, 0) }

// defaultRef is where the default route is, which is a next hop, not a slot.
func (t *Tree) defaultRef() ref { return refOf(t.desc+image.DescRoot+t.family, 1) }

// place is where the walk for a prefix begins: a slot, the depth of what it refers to, and the table in whose top it is,
// which has no bits if it is in none.
type place struct {
	r     ref
	depth uint
	top   table
}

// ext is the depth of blocks whose entries are slots of a table; no block is there if the place is in no top.
func (p place) ext() uint {
	if p.top.bits == 0 {
		return 1 << 10
	}
	return p.top.ext()
}

// start returns the place for a prefix of n bits of a key: in the top of the first table that has it in its slots, else
// at the slot of the last one, or at the root.
func (t *Tree) start(k Key, n uint) place {
	d := t.rootTable()
	if d.bits == 0 {
		return place{r: t.rootRef()}
	}
	for {
		if n <= d.end() {
			return place{d.top(), d.base, d}
		}
		r := d.slot(k)
		s := r.load(t.m)
		if !image.IsTable(s) {
			return place{r: r, depth: d.end()}
		}
		d = subTable(s)
	}
}

func (t *Tree) setDefault(nh uint32) (old uint32) {
	if old = t.defaultRef().load(t.m); old != nh {
		t.defaultRef().store(t.m, nh)
		t.h.changed()
	}
	return old
}

// setRoot changes root and default route in one step. low is the low half of the root.
func (t *Tree) setRoot(low, nh uint32) {
	t.m.Store(t.desc+image.DescRoot+t.family, image.Pair(low, nh))
}

// write stores a block, and returns the slot that refers to it.
func (t *Tree) write(b *block, urgent bool) (slot uint32, err error) {
	var buf [maxBlock]uint64
	n := b.encode(&buf)
	at, ok := t.h.alloc(n, urgent)
	if !ok {
		return 0, ErrFull
	}
	for i, w := range buf[:n] {
		t.m.Fill(at+uint32(i), w)
	}
	return image.Ref(at), nil
}

// Insert adds a prefix of n bits or changes its next hop, and returns the next hop that it had, 0 if it is new.
func (t *Tree) Insert(k Key, n uint, nh uint32) (old uint32, err error) {
	if n == 0 {
		old = t.setDefault(nh)
	} else {
		p := t.start(k, n)
		if old, err = t.insert(p.r, p.depth, p.ext(), k, n, nh); err != nil {
			return 0, err
		}
		if p.top.bits != 0 && old != nh {
			t.push(p.top, k, n)
		}
		if old == 0 {
			t.divide(p, k, n)
		}
	}
	if old == 0 {
		t.count(1)
		t.grow()
	}
	t.h.settle()
	return old, nil
}

func (t *Tree) insert(r ref, depth, ext uint, k Key, n uint, nh uint32) (old uint32, err error) {
	target := blockDepth(n)
	for {
		s := r.load(t.m)
		if !image.IsRef(s) { // in a direct table it is what was pushed there
			s, err = t.chain(depth, ext, k, n, nh, image.At(s))
			if err == nil {
				r.store(t.m, s)
			}
			return 0, err
		}
		at, e := image.At(s), entry(k, depth)
		if depth == target {
			return t.change(r, at, number(k, depth, n), nh)
		}
		if t.m.Load(at)>>e&1 == 0 {
			return 0, t.branch(r, at, depth, ext, k, n, nh)
		}
		r, depth = childSlot(t.m, at, e), depth+image.Stride
	}
}

// change sets a prefix in a block.
func (t *Tree) change(r ref, at, h, nh uint32) (old uint32, err error) {
	var b block
	size := b.decode(t.m, at)
	if b.has(h) {
		if old = b.value[h]; old == nh {
			return old, nil
		}
	}
	b.set(h, nh)
	s, err := t.write(&b, false)
	if err != nil {
		return 0, err
	}
	r.store(t.m, s)
	t.h.free(at, size)
	t.defs(&b, h)
	return old, nil
}

// defs tells the children that the prefix h covers, in a block that was written, what the block has for them now. It
// does not do so for those of direct tables (push does).
func (t *Tree) defs(b *block, h uint32) {
	if b.external {
		return
	}
	first, count := entries(h)
	covered := ^uint64(0) >> (64 - count) << first
	for rest := b.vec & covered; rest != 0; rest &= rest - 1 {
		e := uint32(bits.TrailingZeros64(rest))
		t.setDef(image.At(b.child[e]), b.at(e))
	}
}

// setDef changes the def of a block where it is.
func (t *Tree) setDef(at, nh uint32) {
	if w2 := t.m.Load(at + 2); uint32(w2) != nh {
		t.m.Store(at+2, w2&^0xffffffff|uint64(nh))
		t.h.changed()
	}
}

// branch adds a child, with all that is below it down to the prefix, to a block.
func (t *Tree) branch(r ref, at uint32, depth, ext uint, k Key, n uint, nh uint32) error {
	e := entry(k, depth)
	var b block
	size := b.decode(t.m, at)
	s, err := t.chain(depth+image.Stride, ext, k, n, nh, b.at(e))
	if err != nil {
		return err
	}
	b.vec |= 1 << e
	b.child[e] = s
	slot, err := t.write(&b, false)
	if err != nil {
		t.drop(s)
		return err
	}
	r.store(t.m, slot)
	t.h.free(at, size)
	return nil
}

// chain makes the block of a prefix, and those between it and depth, each with one child, and returns the slot of the
// first. def is what the first has for what finds nothing in it.
func (t *Tree) chain(depth, ext uint, k Key, n uint, nh, def uint32) (slot uint32, err error) {
	target := blockDepth(n)
	b := block{external: target == ext}
	b.set(number(k, target, n), nh)
	for at := target; ; at -= image.Stride {
		if at == depth {
			b.def = def
		}
		s, err := t.write(&b, false)
		if err != nil {
			if slot != 0 {
				t.drop(slot)
			}
			return 0, err
		}
		if slot = s; at == depth {
			return slot, nil
		}
		e := entry(k, at-image.Stride)
		b = block{vec: 1 << e}
		b.child[e] = slot
	}
}

// drop frees a chain that was made and that no slot refers to.
func (t *Tree) drop(slot uint32) {
	for slot != 0 {
		at := image.At(slot)
		s := shapeOf(t.m, at)
		slot = 0
		if s.vec != 0 {
			slot = t.m.Half(at+s.off, 0)
		}
		t.h.freeNow(at, s.size)
	}
}

// Delete removes a prefix of n bits, and returns the next hop that it had, 0 if it was not there.
func (t *Tree) Delete(k Key, n uint) (old uint32, err error) {
	if n == 0 {
		old = t.setDefault(0)
	} else {
		p := t.start(k, n)
		if old, err = t.delete(p, k, n); err != nil {
			return 0, err
		}
		if p.top.bits != 0 && old != 0 {
			t.push(p.top, k, n)
		}
	}
	if old != 0 {
		t.count(-1)
		t.shrink()
	}
	t.h.settle()
	return old, nil
}

// maxBlocks bounds the blocks from a root to a prefix.
const maxBlocks = 22

func (t *Tree) delete(p place, k Key, n uint) (old uint32, err error) {
	var path [maxBlocks]ref
	r, depth := p.r, p.depth
	target, i := blockDepth(n), 0
	for {
		path[i] = r
		s := r.load(t.m)
		if !image.IsRef(s) {
			return 0, nil
		}
		if depth == target {
			break
		}
		at, e := image.At(s), entry(k, depth)
		if t.m.Load(at)>>e&1 == 0 {
			return 0, nil
		}
		r, depth, i = childSlot(t.m, at, e), depth+image.Stride, i+1
	}
	at, h := image.At(r.load(t.m)), number(k, depth, n)
	var b block
	size := b.decode(t.m, at)
	if !b.has(h) {
		return 0, nil
	}
	old = b.value[h]
	if b.unset(h); !b.empty() {
		s, err := t.write(&b, true)
		if err != nil {
			return 0, err
		}
		r.store(t.m, s)
		t.h.free(at, size)
		t.defs(&b, h)
		return old, nil
	}
	return old, t.prune(path[:i+1], p, k)
}

// prune removes the last block of a path, which became empty, and those above it that have nothing but it.
func (t *Tree) prune(path []ref, p place, k Key) error {
	i := len(path) - 1
	for ; i > 0; i-- {
		depth := p.depth + uint(i-1)*image.Stride
		at, e := image.At(path[i-1].load(t.m)), entry(k, depth)
		var b block
		size := b.decode(t.m, at)
		if b.vec &^= 1 << e; b.empty() {
			continue
		}
		gone := path[i].load(t.m)
		s, err := t.write(&b, true)
		if err != nil {
			return err
		}
		path[i-1].store(t.m, s)
		t.retire(gone)
		t.h.free(at, size)
		return nil
	}
	gone, slot := path[0].load(t.m), uint32(0)
	if p.depth != 0 && p.top.bits == 0 { // a slot of a direct table again has itself what was pushed
		slot = uint32(t.m.Load(image.At(gone)+2)) << 1
	}
	path[0].store(t.m, slot)
	t.retire(gone)
	return nil
}

// retire puts a chain aside that readers may be in.
func (t *Tree) retire(slot uint32) {
	for image.IsRef(slot) {
		at := image.At(slot)
		s := shapeOf(t.m, at)
		slot = 0
		if s.vec != 0 {
			slot = t.m.Half(at+s.off, 0)
		}
		t.h.free(at, s.size)
	}
}

// push brings what the top of a table says about the slots that a prefix of n bits covers into them.
func (t *Tree) push(d table, k Key, n uint) {
	s, depth, best := d.top().load(t.m), d.base, d.inherits().load(t.m)
	for ; s != 0 && n > depth+image.Stride; depth += image.Stride {
		at, e := image.At(s), entry(k, depth)
		var b block
		b.decode(t.m, at)
		if v := b.at(e); v != 0 {
			best = v
		}
		if s = 0; b.vec>>e&1 != 0 {
			s = b.child[e]
		}
	}
	if s == 0 {
		t.fill(d, d.index(k), 1<<(d.end()-n), best)
		return
	}
	e, count := entries(number(k, depth, n))
	t.pushBlock(image.At(s), depth, d, e, count, d.index(k), best)
}

// pushAll is push for all slots of a table.
func (t *Tree) pushAll(d table) {
	best := d.inherits().load(t.m)
	if s := d.top().load(t.m); s != 0 {
		t.pushBlock(image.At(s), d.base, d, 0, 64, 0, best)
	} else {
		t.fill(d, 0, d.size(), best)
	}
}

// pushBlock pushes count entries of a block of the top, from e on, into the slots from slot on.
func (t *Tree) pushBlock(at uint32, depth uint, d table, e, count, slot, best uint32) {
	var b block
	b.decode(t.m, at)
	each := uint32(1) << (d.end() - depth - image.Stride) // slots an entry
	for end := e + count; e < end; e, slot = e+1, slot+each {
		v := b.at(e)
		if v == 0 {
			v = best
		}
		if b.vec>>e&1 != 0 {
			t.pushBlock(image.At(b.child[e]), depth+image.Stride, d, 0, 64, slot, v)
		} else {
			t.fill(d, slot, each, v)
		}
	}
}

// fill makes v what slots of a direct table have for what finds nothing below them.
func (t *Tree) fill(d table, slot, count, v uint32) {
	for end := slot + count; slot < end; slot++ {
		r := refOf(d.at, slot)
		s := r.load(t.m)
		switch {
		case image.IsTable(s):
			if sub := subTable(s); sub.inherits().load(t.m) != v {
				sub.inherits().store(t.m, v)
				t.pushAll(sub)
			}
		case image.IsRef(s):
			t.setDef(image.At(s), v)
		case s != v<<1:
			r.store(t.m, v<<1)
		}
	}
}
