package image

import "math/bits"

// wideRoot are the low bits of a root with a direct table of 2^18 slots.
const wideRoot = 18 << 1

// Lookup4 is Lookup for IPv4: the same walk, unrolled for a large table, in which nearly all addresses end in the direct
// table or the first block. Which of the two cannot be guessed, so there is no branch for it: an address that ends in
// the table goes through the block at word 0, which is the header, and what it finds there does not count.
func (v View) Lookup4(desc, addr uint32) (nh uint32, ok bool) {
	epoch := v.Load(desc + DescEpoch)
	root := v.Load(desc + DescRoot)
	low, best := uint32(root), uint32(root>>32)
	if low&(rootBits<<1|SlotRef) != wideRoot {
		return v.other4(desc, addr)
	}
	s := v.half(low>>1&^rootBits, addr>>14)
	ref := -(s & SlotRef) // all ones if it refers to a block
	b := s >> 1 & ref
	if b > v.limit {
		return v.again(desc, 0, Key{Hi: uint64(addr) << 32})
	}
	w2, after := v.Load(b+2), ^(addr>>8)&63
	vec := v.Load(b) << after
	if (w2&BlockWide|vec>>63)&uint64(ref) != 0 {
		return v.other4(desc, addr)
	}
	d := uint32(w2)&ref | s>>1&^ref
	if d != 0 {
		best = d
	}
	if l := v.leaf(b, uint32(bits.OnesCount64(v.Load(b+1)<<after))) & ref; l != 0 {
		best = l
	}
	if v.Load(desc+DescEpoch) != epoch {
		return v.again(desc, 0, Key{Hi: uint64(addr) << 32})
	}
	return best, true
}

// other4 is Lookup4 for what is not as it expects.
//
//go:noinline
func (v View) other4(desc, addr uint32) (nh uint32, ok bool) {
	epoch := v.Load(desc + DescEpoch)
	key := Key{Hi: uint64(addr) << 32}
	nh = v.walk(v.Load(desc+DescRoot), 0, key)
	if v.Load(desc+DescEpoch) != epoch {
		return v.again(desc, 0, key)
	}
	return nh, true
}
