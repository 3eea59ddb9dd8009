package image

// smallRoot are the low bits of a root with a direct table of 2^12 slots.
const smallRoot = 12 << 1

// Lookup6 is Lookup for IPv6.
func (v View) Lookup6(desc uint32, key Key) (nh uint32, ok bool) {
	epoch := v.Load(desc + DescEpoch)
	root := v.Load(desc + DescRoot + 1)
	s, best, hi := uint32(root), uint32(root>>32), key.Hi
	if s&(rootBits<<1|SlotRef) == smallRoot {
		s = v.half(s>>1&^rootBits, uint32(hi>>52))
		if IsTable(s) {
			s = v.half(min(s>>1, v.limit), uint32(hi>>40)&0xfff)
		} else if s&SlotRef != 0 {
			s, best = v.down(s, best, hi<<12, 2)
		}
	} else if s&SlotRef != 0 {
		s, best = v.down(s, best, hi, 4)
	}
	hi <<= DoubleDepth
	for range 2 {
		b := s >> 1
		if s&SlotRef == 0 || b > v.limit {
			break
		}
		if d := uint32(v.Load(b + 1)); d != 0 {
			best = d
		}
		s = v.double(b, hi)
		hi <<= DoubleStride
	}
	if s&SlotRef != 0 {
		s, best = v.deep(s, best, DoubleDepth+2*DoubleStride, key)
	}
	if s&SlotRef == 0 && s != 0 {
		best = s >> 1
	}
	if v.Load(desc+DescEpoch) != epoch {
		return v.again(desc, 1, key)
	}
	return best, true
}
