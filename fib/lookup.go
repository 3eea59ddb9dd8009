package fib

import (
	"cmp"
	"math/bits"
	"net/netip"

	"midplane/internal/fib/image"
)

// Lookup returns the next hop or group of the longest prefix that contains an address. IPv4 in IPv6 is taken for IPv4;
// zones do not count. It does not block and does not allocate.
//
// It is the walk of image.View.Lookup, unrolled for large tables and in one function with the checks around it, so that a
// processor has as many lookups as it can in flight: of IPv4, nearly all addresses end in the direct table or in the first
// block; of IPv6, in the table of a crowded place or in the first two double blocks. What does not, and what is overtaken
// by a writer, is left to lookupSlowly.
func (t *Table) Lookup(a netip.Addr) (NextHopID, bool) {
	if !layout {
		return t.lookupSlowly(a)
	}
	hi, lo, valid := mapped(a)
	v, d := t.view, t.desc.Load()
	epoch := v.Load(d + image.DescEpoch)
	if hi == 0 && lo>>32 == 0xffff {
		root := v.Load(d + image.DescRoot)
		addr, best := uint32(lo), uint32(root>>32)
		if !image.IsRoot(root, 18) {
			return t.lookupSlowly(a)
		}
		s := v.Half(image.TableAt(root), addr>>14)
		// Whether it is a next hop or refers to a block cannot be guessed, so there is no branch for it: a next hop
		// goes through the block at word 0, which is the header, and what it finds there does not count.
		ref := -(s & image.SlotRef)
		b := s >> 1 & ref
		if b > v.End() {
			return t.lookupSlowly(a)
		}
		block, after := v.Block(b), ^(addr>>8)&63
		w2 := block.Word(2)
		if (w2&image.BlockWide|block.Word(0)<<after>>63)&uint64(ref) != 0 {
			return t.lookupSlowly(a)
		}
		if nh := uint32(w2)&ref | s>>1&^ref; nh != 0 {
			best = nh
		}
		if nh := block.Leaf(bits.OnesCount64(block.Word(1)<<after)) & ref; nh != 0 {
			best = nh
		}
		if v.Load(d+image.DescEpoch) != epoch || t.desc.Load() != d {
			return t.lookupSlowly(a)
		}
		return NextHopID(best), best != 0
	}

	root := v.Load(d + image.DescRoot + 1)
	if !image.IsRoot(root, 12) || (hi == 0 && !valid) {
		return t.lookupSlowly(a)
	}
	s := v.Half(image.TableAt(root), uint32(hi>>52))
	if s&image.SlotRef != 0 {
		if !image.IsTable(s) || s>>1 > v.End() {
			return t.lookupSlowly(a)
		}
		s = v.Half(s>>1, uint32(hi>>40)&0xfff)
	}
	first, second := uint32(0), uint32(0)
	if s&image.SlotRef != 0 {
		if s>>1 > v.End() {
			return t.lookupSlowly(a)
		}
		b := v.Block(s >> 1)
		first, s = b.Inherits(), b.Run(^hi>>28)

		// A quarter of the addresses ends here, so there is no branch for it: they go through the block at word 0.
		ref := -(s & image.SlotRef)
		at := s >> 1 & ref
		if at > v.End() {
			return t.lookupSlowly(a)
		}
		b = v.Block(at)
		second = b.Inherits() & ref
		if below := b.Run(^hi >> 16); ref != 0 {
			s = below
		}
	}
	if s&image.SlotRef != 0 || v.Load(d+image.DescEpoch) != epoch || t.desc.Load() != d {
		return t.lookupSlowly(a)
	}
	best := NextHopID(s >> 1)
	if s == 0 {
		best = NextHopID(cmp.Or(second, first, uint32(root>>32)))
	}
	return best, best != 0
}

// lookupSlowly is Lookup for all tables, and for the reader under whom memory was used again in every try, who takes a
// writer's turn.
//
//go:noinline
func (t *Table) lookupSlowly(a netip.Addr) (NextHopID, bool) {
	family, k, ok := slowKey(a)
	if !ok {
		return 0, false // not an address
	}
	d := t.desc.Load()
	if nh, ok := t.view.Lookup(d, family, k); ok && t.desc.Load() == d {
		return NextHopID(nh), nh != 0
	}
	return t.lookupLocked(family, k)
}
