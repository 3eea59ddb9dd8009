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

// withEntry12 is withEntry for twelve bits.
func withEntry12(k Key, depth uint, e uint32) Key {
	if depth < 64 {
		k.Hi |= uint64(e) << 52 >> depth
		k.Lo |= uint64(e) << 52 << (64 - depth)
	} else {
		k.Lo |= uint64(e) << 52 >> (depth - 64)
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
	w := &walker{t, from, after}
	if d := t.rootTable(); d.bits != 0 {
		w.top(d, d.top().load(t.m), 0, Key{})
	} else {
		w.tree(t.rootRef().load(t.m), 0, Key{})
	}
}

// tree visits a block and those below it.
func (w *walker) tree(s uint32, depth uint, k Key) bool {
	if !image.IsRef(s) {
		return true
	}
	if w.t.double(depth) {
		return w.double(image.At(s), depth, k)
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

// double visits a double block and those below it.
func (w *walker) double(at uint32, depth uint, k Key) bool {
	b := w.t.h.double()
	defer w.t.h.release(b)
	b.decode(w.t.m, at)
	below := b.child
	for i := 0; i < len(b.exact) || len(below) > 0; {
		if i < len(b.exact) && (len(below) == 0 || b.exact[i].h>>4 <= below[0].e) {
			x := b.exact[i]
			if !w.yield(withEntry12(k, depth, x.h>>4), depth+uint(x.h&15), x.nh) {
				return false
			}
			i++
			continue
		}
		at := withEntry12(k, depth, below[0].e)
		if !less(last(at, w.t.below(depth)), w.from) && !w.tree(below[0].slot, w.t.below(depth), at) {
			return false
		}
		below = below[1:]
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

// top visits a block of the top of a table, if there is one there, and the part of the table below it.
func (w *walker) top(d table, s uint32, depth uint, k Key) bool {
	if less(last(k, depth), w.from) {
		return true
	}
	if s == 0 {
		i := d.index(k)
		for end := i + 1<<(d.end()-depth); i < end; i++ {
			if !w.slot(d, i, k) {
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
			if !w.slot(d, d.index(at), k) {
				return false
			}
			continue
		}
		child := uint32(0)
		if b.vec>>e&1 != 0 {
			child = b.child[e]
		}
		if !w.top(d, child, depth+image.Stride, at) {
			return false
		}
	}
	return true
}

// slot visits what is below a slot of a table, in which k is.
func (w *walker) slot(d table, i uint32, k Key) bool {
	s := refOf(d.at, i).load(w.t.m)
	if !image.IsRef(s) {
		return true
	}
	k = d.key(Key{Hi: k.Hi &^ (1<<(64-d.base) - 1)}, i)
	switch {
	case less(last(k, d.end()), w.from):
		return true
	case image.IsTable(s):
		sub := subTable(s)
		return w.top(sub, sub.top().load(w.t.m), sub.base, k)
	}
	return w.tree(s, d.end(), k)
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
	d := t.rootTable()
	if d.bits == 0 {
		t.path(t.rootRef().load(t.m), 0, k, n, yield)
		return
	}
	for t.path(d.top().load(t.m), d.base, k, n, yield) && n > d.end() {
		s := d.slot(k).load(t.m)
		if !image.IsTable(s) {
			t.path(s, d.end(), k, n, yield)
			return
		}
		d = subTable(s)
	}
}

func (t *Tree) path(s uint32, depth uint, k Key, n uint, yield func(uint, uint32) bool) bool {
	for ; image.IsRef(s) && depth < n; depth = t.below(depth) {
		at := image.At(s)
		if !t.pathIn(at, depth, k, n, yield) {
			return false
		}
		s = 0
		if r, ok := t.childAt(at, depth, k); ok {
			s = r.load(t.m)
		}
	}
	return true
}

// pathIn is path within a block.
func (t *Tree) pathIn(at uint32, depth uint, k Key, n uint, yield func(uint, uint32) bool) bool {
	if t.double(depth) {
		o := outlineOf(t.m, at)
		for l := depth + 1; l <= min(n, depth+image.DoubleStride); l++ {
			if nh := o.get(t.m, at, number12(k, depth, l)); nh != 0 && !yield(l, nh) {
				return false
			}
		}
		return true
	}
	var b block
	b.decode(t.m, at)
	for l := depth + 1; l <= min(n, depth+image.Stride); l++ {
		if h := number(k, depth, l); b.has(h) && !yield(l, b.value[h]) {
			return false
		}
	}
	return true
}

// Copy makes the content of t that of the empty tree c, in another heap of the same image.
func (t *Tree) Copy(c *Tree) error {
	low, ok := t.rootRef().load(t.m), true
	if d := t.rootTable(); d.bits != 0 {
		var to table
		if to, ok = t.copyTable(c, d); ok {
			low = image.Root(to.bits, to.at)
		}
	} else {
		low, ok = t.copyBlocks(c, low, 0)
	}
	if !ok {
		return ErrFull
	}
	c.setRoot(low, t.defaultRef().load(t.m))
	c.count(t.Len())
	return nil
}

// copyTable copies a table and what is below it.
func (t *Tree) copyTable(c *Tree, d table) (table, bool) {
	to, ok := c.allocTable(table{base: d.base, bits: d.bits})
	if !ok {
		return to, false
	}
	to.inherits().store(c.m, d.inherits().load(t.m))
	s, ok := t.copyBlocks(c, d.top().load(t.m), d.base)
	to.top().store(c.m, s)
	for i := uint32(0); ok && i < d.size(); i++ {
		s, ok = t.copyBlocks(c, refOf(d.at, i).load(t.m), d.end())
		refOf(to.at, i).store(c.m, s)
	}
	if !ok {
		c.freeAll(to, c.h.freeNow)
	}
	return to, ok
}

// copyBlocks copies what a slot refers to, which is at a depth, and returns the slot that refers to the copy, 0 if there
// is no room for all.
func (t *Tree) copyBlocks(c *Tree, slot uint32, depth uint) (uint32, bool) {
	if image.IsTable(slot) {
		to, ok := t.copyTable(c, subTable(slot))
		if !ok {
			return 0, false
		}
		return image.Ref(to.at), true
	}
	if !image.IsRef(slot) {
		return slot, true
	}
	at := image.At(slot)
	size := t.size(at, depth)
	to, ok := c.h.alloc(size, false)
	if !ok {
		return 0, false
	}
	for i := range size {
		c.m.Fill(to+i, t.m.Load(at+i))
	}
	t.children(at, depth, func(r ref) {
		below := uint32(0)
		if ok {
			below, ok = t.copyBlocks(c, r.load(t.m), t.below(depth))
		}
		(r + refOf(to, 0) - refOf(at, 0)).store(c.m, below)
	})
	if !ok {
		c.freeBlocks(image.Ref(to), depth, c.h.freeNow)
		return 0, false
	}
	return image.Ref(to), true
}
