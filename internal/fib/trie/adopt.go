package trie

import (
	"fmt"
	"math/bits"

	"midplane/internal/fib/image"
)

// Claimer is a Space in which what is in use already can be said.
type Claimer interface {
	Space
	Claim(start, units uint32) bool
}

// Adopter takes what is in an image from before into a Heap: whoever wrote it may have died in the middle of a change.
// Nothing that it reads is trusted: what cannot be is an error, after which the image is of no use to a writer.
type Adopter struct {
	m     *image.Words
	c     Claimer
	h     *Heap
	slabs map[uint32]uint8 // slabs of this heap, and their class
}

// NewAdopter begins to fill the empty heap h.
func NewAdopter(m *image.Words, c Claimer, h *Heap) *Adopter {
	return &Adopter{m, c, h, map[uint32]uint8{}}
}

// Block says that words from at on are in use.
func (a *Adopter) Block(at, words uint32) error {
	if words == 0 || at >= a.m.End() {
		return fmt.Errorf("word %d: no block can be there", at)
	}
	if words > maxAlloc {
		head := at % Unit
		return a.run(at-head, words+head)
	}
	class := sizeClass[words]
	slab, n := slabOf(class, at)
	if at < firstBlock(class, slab) || n >= perSlab(class) || firstBlock(class, slab)+n*sizes[class] != at {
		return fmt.Errorf("word %d: no block of %d words can be there", at, words)
	}
	if known, ok := a.slabs[slab]; !ok {
		if !a.c.Claim(slab, slabUnits(class)) {
			return fmt.Errorf("word %d: memory is in use twice", at)
		}
		a.slabs[slab] = class
		a.m.Fill(slab+slabFree, image.Pair(uint32(uint64(1)<<perSlab(class)-1), uint32(class)))
		a.h.taken += uint64(slabUnits(class)) * Unit
	} else if known != class {
		return fmt.Errorf("word %d: a block of %d words among others of %d", at, words, sizes[known])
	}
	w := a.m.Load(slab + slabFree)
	if w>>n&1 == 0 {
		return fmt.Errorf("word %d: a block is in use twice", at)
	}
	a.m.Fill(slab+slabFree, w&^(1<<n))
	a.h.used += uint64(sizes[class])
	return nil
}

func (a *Adopter) run(at, words uint32) error {
	units := (words + Unit - 1) / Unit
	if !a.c.Claim(at, units) {
		return fmt.Errorf("word %d: memory is in use twice", at)
	}
	a.h.used += uint64(units) * Unit
	a.h.taken += uint64(units) * Unit
	return nil
}

// Done ends it: what is free in the slabs can be allocated from now on.
func (a *Adopter) Done() {
	for slab, class := range a.slabs {
		if uint32(a.m.Load(slab+slabFree)) != 0 {
			a.h.link(class, slab)
		}
	}
	a.slabs = nil
}

// Tree takes in what is below the root of a family, and returns how often it refers to each next hop. What a change that
// was not completed left undone is done: defs, slots of direct tables and counts are made to fit the exact prefixes.
func (a *Adopter) Tree(t *Tree, maxHop uint32) (uses map[uint32]int, err error) {
	d := t.rootTable()
	if root := t.rootRef().load(t.m); d.bits == 0 && root != 0 {
		err = a.blocks(t, root, 0, noExt, 0)
	} else if d.bits != 0 {
		if d.bits != bits12 && d.bits != bits18 {
			return nil, fmt.Errorf("a direct table of %d bits", d.bits)
		}
		if err = a.table(t, d); err == nil {
			t.pushAll(d)
		}
	}
	if err != nil {
		return nil, err
	}
	uses = map[uint32]int{}
	n := 0
	t.Ascend(Key{}, 0, func(k Key, bits uint, nh uint32) bool {
		if n++; nh == 0 || nh > maxHop || bits > t.width {
			err = fmt.Errorf("prefix %x/%d has next hop %d", k, bits, nh)
		}
		uses[nh]++
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	t.count(n - t.Len())
	return uses, nil
}

// noExt is no block's depth.
const noExt uint = 1 << 10

// table takes in a direct table and what is below it, but does not push yet.
func (a *Adopter) table(t *Tree, d table) error {
	if d.at < 2*image.TableAlign || d.at%image.TableAlign != 0 || uint64(d.at)+uint64(d.size()/2) > uint64(t.m.End()) {
		return fmt.Errorf("word %d: no direct table can be there", d.at)
	}
	if err := a.run(d.at-image.TableAlign, tableWords(d.bits)); err != nil {
		return err
	}
	if top := d.top().load(t.m); top != 0 {
		if err := a.blocks(t, top, d.base, d.ext(), 0); err != nil {
			return err
		}
	}
	for i := range d.size() {
		s := refOf(d.at, i).load(t.m)
		var err error
		switch {
		case image.IsTable(s):
			if d.base != 0 || d.bits != bits12 {
				return fmt.Errorf("word %d: a table below one of %d bits", image.At(s), d.bits)
			}
			err = a.table(t, subTable(s))
		case image.IsRef(s):
			err = a.blocks(t, s, d.end(), noExt, defOf(min(image.At(s), t.m.End()), t.double(d.end())).load(t.m))
		}
		if err != nil {
			return err
		}
	}
	// What the slots inherit may be from before the change that was not completed, which pushing finds out about.
	if d.base != 0 {
		d.inherits().store(t.m, image.MaxID)
	}
	return nil
}

// blocks takes in the block of a slot and what is below it. def is what it is to have.
func (a *Adopter) blocks(t *Tree, slot uint32, depth, ext uint, def uint32) error {
	at := image.At(slot)
	if !image.IsRef(slot) || depth >= t.width || at >= t.m.End() {
		return fmt.Errorf("slot %d at depth %d", slot, depth)
	}
	if t.double(depth) {
		return a.double(t, at, depth, def)
	}
	s := shapeOf(t.m, at)
	if err := s.check(depth == ext); err != nil {
		return fmt.Errorf("block at word %d: %w", at, err)
	}
	if err := a.Block(at, s.size); err != nil {
		return err
	}
	var b block
	b.decode(t.m, at)
	if b.empty() || !b.same(t.m, at) {
		return fmt.Errorf("block at word %d does not fit together", at)
	}
	t.setDef(at, false, def)
	if b.external {
		return nil
	}
	for rest := b.vec; rest != 0; rest &= rest - 1 {
		e := uint32(bits.TrailingZeros64(rest))
		if err := a.blocks(t, b.child[e], depth+image.Stride, ext, b.at(e)); err != nil {
			return err
		}
	}
	return nil
}

// double is blocks for a double block.
func (a *Adopter) double(t *Tree, at uint32, depth uint, def uint32) error {
	o := outlineOf(t.m, at)
	if err := o.check(t.m, at); err != nil {
		return fmt.Errorf("block at word %d: %w", at, err)
	}
	if err := a.Block(at, o.size); err != nil {
		return err
	}
	b := t.h.double()
	defer t.h.release(b)
	b.decode(t.m, at)
	if b.empty() || !b.same(t.m, at, o.size) {
		return fmt.Errorf("block at word %d does not fit together", at)
	}
	t.setDef(at, true, def)
	for _, c := range b.child {
		if err := a.blocks(t, c.slot, t.below(depth), noExt, c.nh); err != nil {
			return err
		}
	}
	return nil
}

// check says whether the parts of a block fit together, so far that it can be decoded.
func (s *shape) check(external bool) error {
	leaves := uint32(bits.OnesCount64(s.leafvec))
	words := (leaves + 3) / 4
	if s.w2&image.BlockWide != 0 {
		words = (leaves + 1) / 2
	}
	switch {
	case s.w2&image.BlockExternal != 0 != external:
		return fmt.Errorf("flags %x", s.w2>>48)
	case s.vec&s.leafvec != 0, external && s.vec|s.leafvec != 0:
		return fmt.Errorf("entries are both leaf and child")
	case uint32(uint16(s.w2>>image.BlockOff)) != s.off*8-4 || s.off != image.BlockHead+words:
		return fmt.Errorf("%d leaves, and children at %d", leaves, s.off)
	case s.size > maxBlock:
		return fmt.Errorf("%d words", s.size)
	}
	return nil
}

// same says whether a block that was decoded is encoded as it stands there.
func (b *block) same(m *image.Words, at uint32) bool {
	var w [maxBlock]uint64
	for i := range b.encode(&w) {
		if m.Load(at+i) != w[i] {
			return false
		}
	}
	return true
}
