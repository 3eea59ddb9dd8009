package fib

import (
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
		w2, after := v.Load(b+2), ^(addr>>8)&63
		if (w2&image.BlockWide|v.Load(b)<<after>>63)&uint64(ref) != 0 {
			return t.lookupSlowly(a)
		}
		if nh := uint32(w2)&ref | s>>1&^ref; nh != 0 {
			best = nh
		}
		if nh := v.Leaf(b, uint32(bits.OnesCount64(v.Load(b+1)<<after))) & ref; nh != 0 {
			best = nh
		}
		if v.Load(d+image.DescEpoch) != epoch || t.desc.Load() != d {
			return t.lookupSlowly(a)
		}
		return NextHopID(best), best != 0
	}

	root := v.Load(d + image.DescRoot + 1)
	if !image.IsRoot(root, 12) || !valid {
		return t.lookupSlowly(a)
	}
	s, best := v.Half(image.TableAt(root), uint32(hi>>52)), uint32(root>>32)
	if s&image.SlotRef != 0 {
		if !image.IsTable(s) || s>>1 > v.End() {
			return t.lookupSlowly(a)
		}
		s = v.Half(s>>1, uint32(hi>>40)&0xfff)
	}
	if s&image.SlotRef != 0 {
		b := s >> 1
		if b > v.End() {
			return t.lookupSlowly(a)
		}
		if def := uint32(v.Load(b + 1)); def != 0 {
			best = def
		}
		vec := v.Load(b) << (^(hi >> 34) & 63)
		pair := b + 2*uint32(bits.OnesCount64(vec))
		runs := v.Load(pair) << (^(hi >> 28) & 63 & uint64(int64(vec)>>63))
		s = v.Slot(b, uint16(v.Load(pair+1)), uint32(bits.OnesCount64(runs)))
	}
	if s&image.SlotRef != 0 {
		b := s >> 1
		if b > v.End() {
			return t.lookupSlowly(a)
		}
		if def := uint32(v.Load(b + 1)); def != 0 {
			best = def
		}
		vec := v.Load(b) << (^(hi >> 22) & 63)
		pair := b + 2*uint32(bits.OnesCount64(vec))
		runs := v.Load(pair) << (^(hi >> 16) & 63 & uint64(int64(vec)>>63))
		s = v.Slot(b, uint16(v.Load(pair+1)), uint32(bits.OnesCount64(runs)))
	}
	if s&image.SlotRef != 0 || v.Load(d+image.DescEpoch) != epoch || t.desc.Load() != d {
		return t.lookupSlowly(a)
	}
	if s != 0 {
		best = s >> 1
	}
	return NextHopID(best), best != 0
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
