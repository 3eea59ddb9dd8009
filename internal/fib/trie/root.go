package trie

import "midplane/internal/fib/image"

// How many routes a family has when its root becomes a direct table of 2^12 slots, and of 2^18; and when, on the way
// down, it is given back. A direct table thus never takes more than 11 octets a route that was there once.
const (
	wide12, wide18    = 1024, 98304
	narrow0, narrow12 = 64, 4096
	bits12, bits18    = 12, 18
	retryGrowth       = 512 // routes until the next try when there was no room
)

func (t *Tree) grow() {
	n := t.Len()
	if n < wide12 || n%retryGrowth != 0 {
		return
	}
	switch d, _ := t.root(); {
	case d < bits18 && n >= wide18:
		t.widen(bits18)
	case d < bits12:
		t.widen(bits12)
	}
}

// shrink gives a direct table back that has become too large, by building the small tree anew.
func (t *Tree) shrink() {
	d, _ := t.root()
	n := t.Len()
	if d == 0 || (n != narrow12 && n != narrow0) || (d == bits12 && n == narrow12) {
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

// Expect prepares an empty tree for n routes.
func (t *Tree) Expect(n int) {
	switch d, _ := t.root(); {
	case d < bits18 && n >= wide18:
		t.widen(bits18)
	case d < bits12 && n >= wide12:
		t.widen(bits12)
	}
}

func (t *Tree) allocTable(d uint) (table uint32, ok bool) {
	words := tableWords(d)
	at, ok := t.h.allocRun(words)
	if !ok {
		return 0, false
	}
	for i := range words {
		t.m.Fill(at+i, 0)
	}
	return at + image.TableAlign, true
}

// tableWords is how many words a direct table takes, with what is before it, of which the last is the top's slot.
func tableWords(d uint) uint32 { return image.TableAlign + 1<<d/2 }

func (t *Tree) freeTable(d uint, table uint32) { t.h.free(table-image.TableAlign, tableWords(d)) }

// widener moves a tree below a larger direct table. The blocks from the new depth on stay where they are.
type widener struct {
	t     *Tree
	d     uint
	table uint32
	gone  []freed
}

// widen gives the tree a direct table of d bits, more than it has. Readers meanwhile see the old root. Without room the
// tree stays as it is.
func (t *Tree) widen(d uint) {
	table, ok := t.allocTable(d)
	if !ok {
		return
	}
	w := &widener{t: t, d: d, table: table}
	oldD, old := t.root()
	if oldD == 0 {
		ok = w.move(t.rootRef().load(t.m), 0, Key{})
	} else {
		ok = w.copyTop(topRef(old).load(t.m), 0, Key{})
		for i := uint32(0); ok && i < 1<<oldD; i++ {
			if s := refOf(old, i).load(t.m); image.IsRef(s) {
				ok = w.move(s, oldD, Key{Hi: uint64(i) << (64 - oldD)})
			}
		}
	}
	top := topRef(table).load(t.m)
	if !ok {
		t.freeBlocks(top, t.h.freeNow)
		t.h.giveRun(table-image.TableAlign, tableWords(d))
		return
	}
	if top != 0 {
		t.pushBlock(image.At(top), 0, d, table, 0, 64, 0, 0)
	}
	t.setRoot(image.Root(d, table), t.defaultRef().load(t.m))
	for _, f := range w.gone {
		t.h.free(f.at, f.words)
	}
	if oldD != 0 {
		t.freeBlocks(topRef(old).load(t.m), t.h.free)
		t.freeTable(oldD, old)
	}
}

// prefixes puts the prefixes of a block into the new top.
func (w *widener) prefixes(b *block, depth uint, k Key) bool {
	return b.each(depth, k, func(k Key, n uint, nh uint32) bool {
		_, err := w.t.insert(topRef(w.table), 0, w.d-image.Stride, k, n, nh)
		return err == nil
	})
}

// move takes a block, which is above the new depth, apart.
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
	for e := range uint32(64) {
		if b.vec>>e&1 == 0 {
			continue
		}
		at := withEntry(k, depth, e)
		if depth+image.Stride == w.d {
			refOf(w.table, uint32(at.Hi>>(64-w.d))).store(w.t.m, b.child[e])
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
	for e := range uint32(64) {
		if b.vec>>e&1 != 0 && !w.copyTop(b.child[e], depth+image.Stride, withEntry(k, depth, e)) {
			return false
		}
	}
	return true
}

// freeBlocks gives the block of a slot and all below it to free.
func (t *Tree) freeBlocks(slot uint32, free func(at, words uint32)) {
	if !image.IsRef(slot) {
		return
	}
	at := image.At(slot)
	s := shapeOf(t.m, at)
	if s.w2&image.BlockExternal == 0 {
		for i := range s.children() {
			t.freeBlocks(t.m.Half(at+s.off, i), free)
		}
	}
	free(at, s.size)
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

// freeRoot puts all that is below a root aside.
func (t *Tree) freeRoot(low uint32) {
	d, table := image.RootTable(uint64(low))
	if d == 0 {
		t.freeBlocks(low, t.h.free)
		return
	}
	t.freeBlocks(topRef(table).load(t.m), t.h.free)
	for i := range uint32(1) << d {
		t.freeBlocks(refOf(table, i).load(t.m), t.h.free)
	}
	t.freeTable(d, table)
}
