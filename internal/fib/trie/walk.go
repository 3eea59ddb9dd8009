package trie

import (
	"math/bits"

	"midplane/internal/fib/image"
)

// withEntry puts six bits into a key at a depth where it has zeros.
func withEntry(k Key, depth uint, e uint32) Key {
	switch {
	case depth <= 58:
		k.Hi |= uint64(e) << (58 - depth)
	case depth < 64:
		k.Hi |= uint64(e) >> (depth - 58)
		k.Lo |= uint64(e) << (122 - depth)
	case depth <= 122:
		k.Lo |= uint64(e) << (122 - depth)
	default:
		k.Lo |= uint64(e) >> (depth - 122)
	}
	return k
}

// last returns the last address of a prefix.
func last(k Key, n uint) Key {
	switch {
	case n == 0:
		return Key{Hi: ^uint64(0), Lo: ^uint64(0)}
	case n <= 64:
		return Key{Hi: k.Hi | (uint64(1)<<(64-n) - 1), Lo: ^uint64(0)}
	}
	return Key{Hi: k.Hi, Lo: k.Lo | (uint64(1)<<(128-n) - 1)}
}

func less(a, b Key) bool { return a.Hi < b.Hi || (a.Hi == b.Hi && a.Lo < b.Lo) }

// starts calls f for the prefixes that begin at an entry, shortest first.
func (b *block) starts(depth uint, k Key, e uint32, f func(Key, uint, uint32) bool) bool {
	at := withEntry(k, depth, e)
	for l := uint(1); l <= image.Stride; l++ {
		up := image.Stride - l
		if e&(1<<up-1) != 0 {
			continue
		}
		if h := (64 + e) >> up; b.has(h) && !f(at, depth+l, b.value[h]) {
			return false
		}
	}
	return true
}

// each calls f for all prefixes of a block.
func (b *block) each(depth uint, k Key, f func(Key, uint, uint32) bool) bool {
	for e := range uint32(64) {
		if !b.starts(depth, k, e, f) {
			return false
		}
	}
	return true
}

func (s *shape) children() uint32 { return uint32(bits.OnesCount64(s.vec)) }

// walker goes through a tree in order.
type walker struct {
	t     *Tree
	d     uint
	table uint32
	from  Key // what ends before is passed over
	yield func(Key, uint, uint32) bool
}

// Ascend calls yield for the routes from the prefix of n bits of a key on, itself among them, in order: by address, shorter
// prefixes first, until yield returns false. The tree must not be changed meanwhile.
func (t *Tree) Ascend(from Key, n uint, yield func(Key, uint, uint32) bool) {
	after := func(k Key, bits uint, nh uint32) bool {
		if less(k, from) || (k == from && bits < n) {
			return true
		}
		return yield(k, bits, nh)
	}
	if nh := t.defaultRef().load(t.m); nh != 0 && !after(Key{}, 0, nh) {
		return
	}
	w := &walker{t: t, from: from, yield: after}
	if w.d, w.table = t.root(); w.d == 0 {
		w.tree(t.rootRef().load(t.m), 0, Key{})
	} else {
		w.top(topRef(w.table).load(t.m), 0, Key{})
	}
}

// tree visits a block and those below it.
func (w *walker) tree(s uint32, depth uint, k Key) bool {
	if !image.IsRef(s) {
		return true
	}
	var b block
	b.decode(w.t.m, image.At(s))
	interesting := b.interesting()
	for ; interesting != 0; interesting &= interesting - 1 {
		e := uint32(bits.TrailingZeros64(interesting))
		if !b.starts(depth, k, e, w.yield) {
			return false
		}
		if b.vec>>e&1 == 0 {
			continue
		}
		at := withEntry(k, depth, e)
		if less(last(at, depth+image.Stride), w.from) {
			continue
		}
		if !w.tree(b.child[e], depth+image.Stride, at) {
			return false
		}
	}
	return true
}

// interesting returns the entries at which a prefix begins or that have a child.
func (b *block) interesting() uint64 {
	v := b.vec | b.long
	for rest := b.short; rest != 0; rest &= rest - 1 {
		first, _ := entries(uint32(bits.TrailingZeros64(rest)))
		v |= 1 << first
	}
	return v
}

// top visits a block of the top, if there is one there, and the part of the direct table below it.
func (w *walker) top(s uint32, depth uint, k Key) bool {
	if less(last(k, depth), w.from) {
		return true
	}
	if s == 0 {
		i := uint32(k.Hi >> (64 - w.d))
		for end := i + 1<<(w.d-depth); i < end; i++ {
			if !w.slot(i) {
				return false
			}
		}
		return true
	}
	var b block
	b.decode(w.t.m, image.At(s))
	for e := range uint32(64) {
		if !b.starts(depth, k, e, w.yield) {
			return false
		}
		at := withEntry(k, depth, e)
		if b.external {
			if !w.slot(uint32(at.Hi >> (64 - w.d))) {
				return false
			}
			continue
		}
		child := uint32(0)
		if b.vec>>e&1 != 0 {
			child = b.child[e]
		}
		if !w.top(child, depth+image.Stride, at) {
			return false
		}
	}
	return true
}

// slot visits what is below a slot of the direct table.
func (w *walker) slot(i uint32) bool {
	s := refOf(w.table, i).load(w.t.m)
	if !image.IsRef(s) {
		return true
	}
	k := Key{Hi: uint64(i) << (64 - w.d)}
	if less(last(k, w.d), w.from) {
		return true
	}
	return w.tree(s, w.d, k)
}

// Get returns the next hop of a prefix, 0 if it is not there.
func (t *Tree) Get(k Key, n uint) (nh uint32) {
	t.Path(k, n, func(bits uint, v uint32) bool {
		if bits == n {
			nh = v
		}
		return true
	})
	return nh
}

// Path calls yield for the routes that cover a prefix of n bits, itself among them, shortest first.
func (t *Tree) Path(k Key, n uint, yield func(bits uint, nh uint32) bool) {
	if nh := t.defaultRef().load(t.m); nh != 0 && !yield(0, nh) {
		return
	}
	d, table := t.root()
	if d == 0 {
		t.path(t.rootRef().load(t.m), 0, k, n, yield)
		return
	}
	if t.path(topRef(table).load(t.m), 0, k, n, yield) && n > d {
		t.path(refOf(table, uint32(k.Hi>>(64-d))).load(t.m), d, k, n, yield)
	}
}

func (t *Tree) path(s uint32, depth uint, k Key, n uint, yield func(uint, uint32) bool) bool {
	for ; image.IsRef(s) && depth < n; depth += image.Stride {
		var b block
		b.decode(t.m, image.At(s))
		e := entry(k, depth)
		for l := uint(1); l <= image.Stride && depth+l <= n; l++ {
			if h := (64 + e) >> (image.Stride - l); b.has(h) && !yield(depth+l, b.value[h]) {
				return false
			}
		}
		if s = 0; b.vec>>e&1 != 0 {
			s = b.child[e]
		}
	}
	return true
}

// Copy makes the content of t that of the empty tree c, in another heap of the same image.
func (t *Tree) Copy(c *Tree) error {
	d, table := t.root()
	low, ok := uint32(0), true
	if d == 0 {
		low, ok = t.copyBlocks(c, t.rootRef().load(t.m))
	} else {
		to, room := c.allocTable(d)
		if !room {
			return ErrFull
		}
		low = image.Root(d, to)
		var s uint32
		s, ok = t.copyBlocks(c, topRef(table).load(t.m))
		topRef(to).store(t.m, s)
		for i := uint32(0); ok && i < 1<<d; i++ {
			s, ok = t.copyBlocks(c, refOf(table, i).load(t.m))
			refOf(to, i).store(t.m, s)
		}
	}
	c.setRoot(low, t.defaultRef().load(t.m))
	c.count(t.Len())
	if !ok {
		c.Clear()
		return ErrFull
	}
	return nil
}

// copyBlocks copies what a slot refers to, and returns the slot that refers to the copy; without room what there is of it.
func (t *Tree) copyBlocks(c *Tree, slot uint32) (uint32, bool) {
	if !image.IsRef(slot) {
		return slot, true
	}
	at := image.At(slot)
	s := shapeOf(t.m, at)
	to, ok := c.h.alloc(s.size, false)
	if !ok {
		return 0, false
	}
	for i := range s.size {
		c.m.Fill(to+i, t.m.Load(at+i))
	}
	if s.w2&image.BlockExternal == 0 {
		for i := range s.children() {
			child := uint32(0)
			if ok {
				child, ok = t.copyBlocks(c, t.m.Half(at+s.off, i))
			}
			refOf(to+s.off, i).store(c.m, child)
		}
	}
	return image.Ref(to), ok
}
