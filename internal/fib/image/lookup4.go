package image

import "math/bits"

// wideRoot are the low bits of a root with a direct table of 2^18 slots.
const wideRoot = 18 << 1

// Lookup4 is Lookup for IPv4: the same walk, unrolled for a large table, in which nearly all addresses end in the direct
// table or the first block.
func (v View) Lookup4(desc, addr uint32) (nh uint32, ok bool) {
	epoch := v.Load(desc + DescEpoch)
	root := v.Load(desc + DescRoot)
	low := uint32(root)
	if low&(rootBits<<1|SlotRef) != wideRoot {
		return v.Lookup(desc, 0, Key{Hi: uint64(addr) << 32})
	}
	best := uint32(root >> 32)
	if s := v.half(low>>1&^rootBits, addr>>14); s&SlotRef == 0 {
		if s != 0 {
			best = s >> 1
		}
	} else {
		b := s >> 1
		if b > v.limit {
			return v.again(desc, 0, Key{Hi: uint64(addr) << 32})
		}
		w2, after := v.Load(b+2), ^(addr>>8)&63
		if w2&BlockWide != 0 || int64(v.Load(b)<<after) < 0 {
			return v.Lookup(desc, 0, Key{Hi: uint64(addr) << 32})
		}
		if d := uint32(w2); d != 0 {
			best = d
		}
		if l := v.leaf(b, uint32(bits.OnesCount64(v.Load(b+1)<<after))); l != 0 {
			best = l
		}
	}
	if v.Load(desc+DescEpoch) != epoch {
		return v.again(desc, 0, Key{Hi: uint64(addr) << 32})
	}
	return best, true
}
