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

// root returns the bits of the direct table, and where it is; bits 0 if there is none.
func (t *Tree) root() (d uint, table uint32) {
	return image.RootTable(t.m.Load(t.desc + image.DescRoot + t.family))
}

// rootRef is the root's slot, when there is no direct table.
func (t *Tree) rootRef() ref { return refOf(t.desc+image.DescRoot+t.family, 0) }

func topRef(table uint32) ref { return refOf(table-image.DirectTop, 0) }

// defaultRef is where the default route is, which is a next hop, not a slot.
func (t *Tree) defaultRef() ref { return refOf(t.desc+image.DescRoot+t.family, 1) }

// noTop is no block's depth.
const noTop uint = 1 << 10

// start returns where the walk for a prefix of n bits of a key begins: in the top, if there is one and the prefix is in
// it, else at the slot of the direct table, or at the root. ext is the depth of the lowest blocks of the top, whose
// entries are slots of the direct table; noTop if the walk is not in the top.
func (t *Tree) start(k Key, n uint) (r ref, depth, ext uint) {
	d, table := t.root()
	switch {
	case d == 0:
		return t.rootRef(), 0, noTop
	case n <= d:
		return topRef(table), 0, d - image.Stride
	}
	return refOf(table, uint32(k.Hi>>(64-d))), d, noTop
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
		r, depth, ext := t.start(k, n)
		if old, err = t.insert(r, depth, ext, k, n, nh); err != nil {
			return 0, err
		}
		if ext != noTop && old != nh {
			t.push(k, n)
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
		r, depth, ext := t.start(k, n)
		if old, err = t.delete(r, depth, k, n); err != nil {
			return 0, err
		}
		if ext != noTop && old != 0 {
			t.push(k, n)
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

func (t *Tree) delete(r ref, depth uint, k Key, n uint) (old uint32, err error) {
	var path [maxBlocks]ref
	target, base, i := blockDepth(n), depth, 0
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
	return old, t.prune(path[:i+1], base, k)
}

// prune removes the last block of a path, which became empty, and those above it that have nothing but it.
func (t *Tree) prune(path []ref, base uint, k Key) error {
	i := len(path) - 1
	for ; i > 0; i-- {
		depth := base + uint(i-1)*image.Stride
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
	if base != 0 { // a slot of the direct table again has itself what was pushed
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

// push brings what the top says about the slots of the direct table that a prefix of n bits covers into them.
func (t *Tree) push(k Key, n uint) {
	d, table := t.root()
	s, depth, best := topRef(table).load(t.m), uint(0), uint32(0)
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
	first := uint32(k.Hi >> (64 - d))
	if s == 0 {
		t.fill(table, first, 1<<(d-n), best)
		return
	}
	at, count := entries(number(k, depth, n))
	t.pushBlock(image.At(s), depth, d, table, at, count, first, best)
}

// pushBlock pushes count entries of a block of the top, from e on, into the slots from slot on.
func (t *Tree) pushBlock(at uint32, depth, d uint, table, e, count, slot, best uint32) {
	var b block
	b.decode(t.m, at)
	each := uint32(1) << (d - depth - image.Stride) // slots an entry
	for end := e + count; e < end; e, slot = e+1, slot+each {
		v := b.at(e)
		if v == 0 {
			v = best
		}
		if b.vec>>e&1 != 0 {
			t.pushBlock(image.At(b.child[e]), depth+image.Stride, d, table, 0, 64, slot, v)
		} else {
			t.fill(table, slot, each, v)
		}
	}
}

// fill makes v what slots of a direct table have for what finds nothing below them.
func (t *Tree) fill(table, slot, count, v uint32) {
	for end := slot + count; slot < end; slot++ {
		r := refOf(table, slot)
		s := r.load(t.m)
		switch {
		case image.IsRef(s):
			t.setDef(image.At(s), v)
		case s != v<<1:
			r.store(t.m, v<<1)
		}
	}
}
