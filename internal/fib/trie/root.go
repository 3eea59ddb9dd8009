package trie

import (
	"math/bits"

	"midplane/internal/fib/image"
)

// How many routes a family has when its root becomes a direct table of 2^12 slots, and IPv4's of 2^18; and when, on the
// way down, that is given back. A direct table thus never takes more than 17 octets a route that was there once. IPv6,
// whose prefixes crowd in few places, gets small tables below the slots of the first (divide) in place of a large one.
const (
	wide12, wide18    = 1024, 98304
	narrow0, narrow12 = 64, 4096
	bits12, bits18    = 12, 18
	retryGrowth       = 512 // routes until the next try when there was no room
)

// crowded is how many routes are below a slot of a root's table of 12 bits when it gets a table of its own, which never
// takes more than 20 octets a route that was there once. They are counted every countEach routes.
const crowded, countEach = 1024, 64

func (t *Tree) grow() {
	if n := t.Len(); n%retryGrowth == 0 {
		t.Expect(n)
	}
}

// Expect prepares the tree for n routes.
func (t *Tree) Expect(n int) {
	switch d := t.rootTable().bits; {
	case t.family == 0 && d < bits18 && n >= wide18:
		t.widen(t.rootRef(), table{bits: bits18})
	case d < bits12 && n >= wide12:
		t.widen(t.rootRef(), table{bits: bits12})
	}
}

// divide gives the slot of the root's table that a new prefix is in a table of its own, if it is crowded.
func (t *Tree) divide(p place) {
	if t.family == 0 || p.depth != bits12 || p.top.bits != 0 || t.Len()%countEach != 0 {
		return
	}
	if s := p.r.load(t.m); t.routes(s, bits12, crowded) >= crowded {
		t.widen(p.r, table{base: bits12, bits: bits12})
	}
}

// routes counts the routes below the slot of a block, up to most or some more.
func (t *Tree) routes(slot uint32, depth uint, most int) (n int) {
	at := image.At(slot)
	if t.double(depth) {
		n = int(outlineOf(t.m, at).count)
	} else {
		s := shapeOf(t.m, at)
		short, long := s.exactOf(t.m, at)
		n = bits.OnesCount64(short) + bits.OnesCount64(long)
	}
	t.children(at, depth, func(r ref) {
		if n < most {
			n += t.routes(r.load(t.m), t.below(depth), most-n)
		}
	})
	return n
}

// shrink gives direct tables back that have become too large, by building the small tree anew.
func (t *Tree) shrink() {
	d := t.rootTable().bits
	n := t.Len()
	if d == 0 || (n != narrow12 && n != narrow0) || (d == bits12 && n == narrow12 && t.family == 0) {
		return
	}
	b, err := t.Build()
	if err != nil {
		return
	}
	ok := true
	t.Ascend(Key{}, 0, func(k Key, n uint, nh uint32) bool {
		_, err := b.Insert(k, n, nh)
		ok = err == nil
		return ok
	})
	if ok {
		t.Swap(b)
	} else {
		b.Discard()
	}
}

func (t *Tree) allocTable(d table) (table, bool) {
	words := tableWords(d.bits)
	at, ok := t.h.allocRun(words, false)
	if !ok {
		return d, false
	}
	for i := range words {
		t.m.Fill(at+i, 0)
	}
	d.at = at + image.TableAlign
	return d, true
}

// tableWords is how many words a direct table takes, with what is before it.
func tableWords(bits uint) uint32 { return image.TableAlign + 1<<bits/2 }

func (t *Tree) freeTable(d table, free func(at, words uint32)) {
	free(d.at-image.TableAlign, tableWords(d.bits))
}

// widener puts a direct table where blocks were, or a smaller table. The blocks from its end on stay where they are.
type widener struct {
	t    *Tree
	d    table
	gone []freed
}

// widen puts the table d where r, the root or a slot of its table, refers to now. Readers meanwhile see what was there,
// which the new defs of blocks that stay fit too. Without room the tree stays as it is.
func (t *Tree) widen(r ref, d table) {
	d, ok := t.allocTable(d)
	if !ok {
		return
	}
	w := &widener{t: t, d: d}
	s, old := r.load(t.m), table{}
	switch {
	case d.base != 0:
		d.inherits().store(t.m, image.Lo(t.m.Load(image.At(s)+2)))
		ok = w.move(s, d.base, Key{})
	case image.IsRef(s):
		ok = w.move(s, 0, Key{})
	case s != 0:
		old = t.rootTable()
		ok = w.copyTop(old.top().load(t.m), 0, Key{})
		for i := uint32(0); ok && i < old.size(); i++ {
			ok = w.move(refOf(old.at, i).load(t.m), old.end(), old.key(Key{}, i))
		}
	}
	if !ok {
		t.freeBlocks(d.top().load(t.m), d.base, t.h.freeNow)
		t.freeTable(d, t.h.giveRun)
		return
	}
	t.pushAll(d)
	if d.base != 0 {
		r.store(t.m, image.Ref(d.at))
	} else {
		r.store(t.m, image.Root(d.bits, d.at))
	}
	for _, f := range w.gone {
		t.h.free(f.at, f.words)
	}
	if old.bits != 0 {
		t.freeBlocks(old.top().load(t.m), old.base, t.h.free)
		t.freeTable(old, t.h.free)
	}
}

// prefixes puts the prefixes of a block into the new top.
func (w *widener) prefixes(b *block, depth uint, k Key) bool {
	return b.each(depth, k, func(k Key, n uint, nh uint32) bool {
		_, err := w.t.insert(w.d.top(), w.d.base, w.d.ext(), k, n, nh)
		return err == nil
	})
}

// move takes a block, which is above the end of the new table, apart. The bits of its key before the table do not count.
func (w *widener) move(s uint32, depth uint, k Key) bool {
	if !image.IsRef(s) {
		return true
	}
	var b block
	size := b.decode(w.t.m, image.At(s))
	w.gone = append(w.gone, freed{image.At(s), size})
	if !w.prefixes(&b, depth, k) {
		return false
	}
	for rest := b.vec; rest != 0; rest &= rest - 1 {
		e := uint32(bits.TrailingZeros64(rest))
		at := withEntry(k, depth, e)
		if depth+image.Stride == w.d.end() {
			w.d.slot(at).store(w.t.m, b.child[e])
		} else if !w.move(b.child[e], depth+image.Stride, at) {
			return false
		}
	}
	return true
}

func (w *widener) copyTop(s uint32, depth uint, k Key) bool {
	if s == 0 {
		return true
	}
	var b block
	b.decode(w.t.m, image.At(s))
	if !w.prefixes(&b, depth, k) {
		return false
	}
	for rest := b.vec; rest != 0; rest &= rest - 1 {
		e := uint32(bits.TrailingZeros64(rest))
		if !w.copyTop(b.child[e], depth+image.Stride, withEntry(k, depth, e)) {
			return false
		}
	}
	return true
}

// freeBlocks gives what a slot refers to, which is at a depth, and all below it, to free.
func (t *Tree) freeBlocks(slot uint32, depth uint, free func(at, words uint32)) {
	switch {
	case image.IsTable(slot):
		t.freeAll(subTable(slot), free)
	case image.IsRef(slot):
		at := image.At(slot)
		t.children(at, depth, func(r ref) { t.freeBlocks(r.load(t.m), t.below(depth), free) })
		free(at, t.size(at, depth))
	}
}

// freeAll is freeBlocks for a table.
func (t *Tree) freeAll(d table, free func(at, words uint32)) {
	t.freeBlocks(d.top().load(t.m), d.base, free)
	for i := range d.size() {
		t.freeBlocks(refOf(d.at, i).load(t.m), d.end(), free)
	}
	t.freeTable(d, free)
}

// freeRoot puts all that the low half of a root tells of aside.
func (t *Tree) freeRoot(low uint32) {
	if bits, at := image.RootTable(uint64(low)); bits != 0 {
		t.freeAll(table{at, 0, bits}, t.h.free)
	} else {
		t.freeBlocks(low, 0, t.h.free)
	}
}

// Build makes an empty tree beside t, in the same heap, which no reader sees; Swap makes it the content of t, Discard
// drops it.
func (t *Tree) Build() (*Tree, error) {
	desc, ok := t.h.alloc(image.DescWords, true)
	if !ok {
		return nil, ErrFull
	}
	for i := range uint32(image.DescWords) {
		t.m.Fill(desc+i, 0)
	}
	b := NewTree(t.m, t.h, desc, t.family)
	return &b, nil
}

// Swap makes the content of b, which t.Build made, that of t: lookups see all of the old or all of the new one. b is of
// no use any more.
func (t *Tree) Swap(b *Tree) {
	old := t.rootRef().load(t.m)
	t.setRoot(b.rootRef().load(b.m), b.defaultRef().load(b.m))
	t.count(b.Len() - t.Len())
	t.freeRoot(old)
	t.h.freeNow(b.desc, image.DescWords)
	t.h.Release()
}

// Discard frees a tree that Build made.
func (t *Tree) Discard() {
	t.freeRoot(t.rootRef().load(t.m))
	t.h.freeNow(t.desc, image.DescWords)
	t.h.Release()
}

// Clear removes all routes.
func (t *Tree) Clear() {
	old := t.rootRef().load(t.m)
	t.setRoot(0, 0)
	t.count(-t.Len())
	t.freeRoot(old)
	t.h.Release()
}
