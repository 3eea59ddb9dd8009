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

// entry12 returns the twelve.
func entry12(k Key, depth uint) uint32 {
	if depth < 64 {
		return uint32((k.Hi<<depth | k.Lo>>(64-depth)) >> 52)
	}
	return uint32(k.Lo << (depth - 64) >> 52)
}

// number returns the number, in its block, of the prefix of n bits of a key; depth is the block's.
func number(k Key, depth, n uint) uint32 {
	l := n - depth
	return 1<<l | entry(k, depth)>>(6-l)
}

// number12 is number for a double block.
func number12(k Key, depth, n uint) uint32 {
	up := image.DoubleStride - (n - depth)
	return entry12(k, depth)>>up<<up<<4 | uint32(n-depth)
}

// double says whether the blocks at a depth are double ones.
func (t *Tree) double(depth uint) bool { return t.family != 0 && depth >= image.DoubleDepth }

// below returns the depth of the children of a block.
func (t *Tree) below(depth uint) uint {
	if t.double(depth) {
		return depth + image.DoubleStride
	}
	return depth + image.Stride
}

// above is the reverse of below.
func (t *Tree) above(depth uint) uint {
	if t.double(depth - 1) {
		return depth - image.DoubleStride
	}
	return depth - image.Stride
}

// blockDepth returns at which depth the block of prefixes of n bits is.
func (t *Tree) blockDepth(n uint) uint {
	if t.double(n - 1) {
		return image.DoubleDepth + (n-1-image.DoubleDepth)/image.DoubleStride*image.DoubleStride
	}
	return (n - 1) / image.Stride * image.Stride
}

// size returns how many words a block has.
func (t *Tree) size(at uint32, depth uint) uint32 {
	if t.double(depth) {
		return outlineOf(t.m, at).size
	}
	return shapeOf(t.m, at).size
}

// childAt returns where the slot of the child is in which a key is, if there is one.
func (t *Tree) childAt(at uint32, depth uint, k Key) (r ref, ok bool) {
	if t.double(depth) {
		r = run(t.m, at, entry12(k, depth))
		return r, image.IsRef(r.load(t.m))
	}
	if e := entry(k, depth); t.m.Load(at)>>e&1 != 0 {
		return childSlot(t.m, at, e), true
	}
	return 0, false
}

// children calls f for the slots of a block's children.
func (t *Tree) children(at uint32, depth uint, f func(r ref)) {
	from, n := uint32(0), uint32(0)
	if t.double(depth) {
		o := outlineOf(t.m, at)
		from, n = o.first, o.runs
	} else if s := shapeOf(t.m, at); s.w2&image.BlockExternal == 0 {
		from, n = s.off, s.children()
	}
	for i := range n {
		if r := refOf(at+from, i); image.IsRef(r.load(t.m)) {
			f(r)
		}
	}
}

// only returns the slot of the only child of a block that has one at most, 0 if it has none.
func (t *Tree) only(at uint32, depth uint) (slot uint32) {
	t.children(at, depth, func(r ref) { slot = r.load(t.m) })
	return slot
}

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

// writeDouble stores the words of a double block.
func (t *Tree) writeDouble(words []uint64, urgent bool) (slot uint32, err error) {
	at, ok := t.h.alloc(uint32(len(words)), urgent)
	if !ok {
		return 0, ErrFull
	}
	for i, w := range words {
		t.m.Fill(at+uint32(i), w)
	}
	return image.Ref(at), nil
}

// editDouble changes the double block that r refers to.
func (t *Tree) editDouble(r ref, at uint32, o *outline, c edit, urgent bool) error {
	b := t.h.double()
	defer t.h.release(b)
	s, err := t.writeDouble(b.edit(t.m, at, o, c), urgent)
	if err != nil {
		return err
	}
	r.store(t.m, s)
	t.h.free(at, o.size)
	if c.h != 0 {
		for _, below := range b.child {
			t.setDef(image.At(below.slot), true, below.nh)
		}
	}
	return nil
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
			t.divide(p)
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
	target := t.blockDepth(n)
	for {
		s := r.load(t.m)
		if !image.IsRef(s) { // in a direct table it is what was pushed there
			s, err = t.chain(depth, ext, k, n, nh, image.At(s))
			if err == nil {
				r.store(t.m, s)
			}
			return 0, err
		}
		at := image.At(s)
		if depth == target && t.double(depth) {
			return t.changeDouble(r, at, number12(k, depth, n), nh)
		}
		if depth == target {
			return t.change(r, at, depth, number(k, depth, n), nh)
		}
		below, ok := t.childAt(at, depth, k)
		if !ok {
			return 0, t.branch(r, at, depth, ext, k, n, nh)
		}
		r, depth = below, t.below(depth)
	}
}

// change sets a prefix in a block.
func (t *Tree) change(r ref, at uint32, depth uint, h, nh uint32) (old uint32, err error) {
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
	t.defs(&b, depth, h)
	return old, nil
}

// changeDouble is change for a double block.
func (t *Tree) changeDouble(r ref, at, h, nh uint32) (old uint32, err error) {
	o := outlineOf(t.m, at)
	if old = o.get(t.m, at, h); old != nh {
		err = t.editDouble(r, at, &o, edit{h: h, nh: nh}, false)
	}
	return old, err
}

// defs tells the children that the prefix h covers, in a block that was written, what the block has for them now. It
// does not do so for those of direct tables (push does).
func (t *Tree) defs(b *block, depth uint, h uint32) {
	if b.external {
		return
	}
	first, count := entries(h)
	covered := ^uint64(0) >> (64 - count) << first
	for rest := b.vec & covered; rest != 0; rest &= rest - 1 {
		e := uint32(bits.TrailingZeros64(rest))
		t.setDef(image.At(b.child[e]), t.double(depth+image.Stride), b.at(e))
	}
}

// defOf returns where the def of a block is.
func defOf(at uint32, double bool) ref {
	if double {
		return refOf(at+1, 0)
	}
	return refOf(at+2, 0)
}

// setDef changes the def of a block where it is.
func (t *Tree) setDef(at uint32, double bool, nh uint32) {
	if r := defOf(at, double); r.load(t.m) != nh {
		r.store(t.m, nh)
		t.h.changed()
	}
}

// branch adds a child, with all that is below it down to the prefix, to a block.
func (t *Tree) branch(r ref, at uint32, depth, ext uint, k Key, n uint, nh uint32) error {
	if t.double(depth) {
		return t.branchDouble(r, at, depth, k, n, nh)
	}
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
		t.drop(s, depth+image.Stride)
		return err
	}
	r.store(t.m, slot)
	t.h.free(at, size)
	return nil
}

func (t *Tree) branchDouble(r ref, at uint32, depth uint, k Key, n uint, nh uint32) error {
	e, o := entry12(k, depth), outlineOf(t.m, at)
	s, err := t.chain(t.below(depth), noExt, k, n, nh, o.above(t.m, at, 0, e))
	if err != nil {
		return err
	}
	if err = t.editDouble(r, at, &o, edit{e: e, slot: s}, false); err != nil {
		t.drop(s, t.below(depth))
	}
	return err
}

// chain makes the block of a prefix, and those between it and depth, each with one child, and returns the slot of the
// first. def is what the first has for what finds nothing in it.
func (t *Tree) chain(depth, ext uint, k Key, n uint, nh, def uint32) (slot uint32, err error) {
	d := t.h.double()
	defer t.h.release(d)
	for at := t.blockDepth(n); ; at = t.above(at) {
		own := uint32(0)
		if at == depth {
			own = def
		}
		below := slot
		if t.double(at) {
			d.clear()
			if d.def = own; below == 0 {
				d.set(number12(k, at, n), nh)
			} else {
				d.setChild(entry12(k, at), below)
			}
			slot, err = t.writeDouble(d.encode(), false)
		} else {
			b := block{def: own}
			if e := entry(k, at); below == 0 {
				b.external = at == ext
				b.set(number(k, at, n), nh)
			} else {
				b.vec = 1 << e
				b.child[e] = below
			}
			slot, err = t.write(&b, false)
		}
		if err != nil {
			t.drop(below, t.below(at))
			return 0, err
		}
		if at == depth {
			return slot, nil
		}
	}
}

// drop frees a chain that was made, from a depth on, and that no slot refers to.
func (t *Tree) drop(slot uint32, depth uint) {
	for slot != 0 {
		at := image.At(slot)
		slot = t.only(at, depth)
		t.h.freeNow(at, t.size(at, depth))
		depth = t.below(depth)
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

// step is a slot on the way to a prefix, and the depth of what it refers to.
type step struct {
	r     ref
	depth uint
}

func (t *Tree) delete(p place, k Key, n uint) (old uint32, err error) {
	var path [maxBlocks]step
	r, depth := p.r, p.depth
	target, i := t.blockDepth(n), 0
	for {
		path[i] = step{r, depth}
		s := r.load(t.m)
		if !image.IsRef(s) {
			return 0, nil
		}
		if depth == target {
			break
		}
		below, ok := t.childAt(image.At(s), depth, k)
		if !ok {
			return 0, nil
		}
		r, depth, i = below, t.below(depth), i+1
	}
	empty := false
	if t.double(depth) {
		old, empty, err = t.unsetDouble(r, number12(k, depth, n))
	} else {
		old, empty, err = t.unset(r, depth, number(k, depth, n))
	}
	if empty {
		err = t.prune(path[:i+1], p, k)
	}
	return old, err
}

// unset takes a prefix out of a block, unless the block would then be empty.
func (t *Tree) unset(r ref, depth uint, h uint32) (old uint32, empty bool, err error) {
	at := image.At(r.load(t.m))
	var b block
	size := b.decode(t.m, at)
	if !b.has(h) {
		return 0, false, nil
	}
	old = b.value[h]
	if b.unset(h); b.empty() {
		return old, true, nil
	}
	s, err := t.write(&b, true)
	if err != nil {
		return 0, false, err
	}
	r.store(t.m, s)
	t.h.free(at, size)
	t.defs(&b, depth, h)
	return old, false, nil
}

func (t *Tree) unsetDouble(r ref, h uint32) (old uint32, empty bool, err error) {
	at := image.At(r.load(t.m))
	o := outlineOf(t.m, at)
	switch old = o.get(t.m, at, h); {
	case old == 0:
		return 0, false, nil
	case o.count == 1 && t.only(at, image.DoubleDepth) == 0:
		return old, true, nil
	}
	return old, false, t.editDouble(r, at, &o, edit{h: h}, true)
}

// unbranch takes the child in which a key is out of a block, unless the block would then be empty.
func (t *Tree) unbranch(s step, k Key) (empty bool, err error) {
	at := image.At(s.r.load(t.m))
	if t.double(s.depth) {
		o := outlineOf(t.m, at)
		if o.count == 0 && o.children(t.m, at) == 1 {
			return true, nil
		}
		return false, t.editDouble(s.r, at, &o, edit{e: entry12(k, s.depth)}, true)
	}
	var b block
	size := b.decode(t.m, at)
	if b.vec &^= 1 << entry(k, s.depth); b.empty() {
		return true, nil
	}
	slot, err := t.write(&b, true)
	if err != nil {
		return false, err
	}
	s.r.store(t.m, slot)
	t.h.free(at, size)
	return false, nil
}

// prune removes the last block of a path, which became empty, and those above it that have nothing but it.
func (t *Tree) prune(path []step, p place, k Key) error {
	for i := len(path) - 1; i > 0; i-- {
		gone := path[i].r.load(t.m)
		empty, err := t.unbranch(path[i-1], k)
		if err != nil {
			return err
		}
		if !empty {
			t.retire(gone, path[i].depth)
			return nil
		}
	}
	gone, slot := path[0].r.load(t.m), uint32(0)
	if p.depth != 0 && p.top.bits == 0 { // a slot of a direct table again has itself what was pushed
		slot = defOf(image.At(gone), t.double(p.depth)).load(t.m) << 1
	}
	path[0].r.store(t.m, slot)
	t.retire(gone, path[0].depth)
	return nil
}

// retire puts a chain aside, from a depth on, that readers may be in.
func (t *Tree) retire(slot uint32, depth uint) {
	for image.IsRef(slot) {
		at := image.At(slot)
		slot = t.only(at, depth)
		t.h.free(at, t.size(at, depth))
		depth = t.below(depth)
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
			t.setDef(image.At(s), t.double(d.end()), v)
		case s != v<<1:
			r.store(t.m, v<<1)
		}
	}
}
