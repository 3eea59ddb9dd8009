package image

import "math/bits"

// Tries is how often a lookup is repeated when memory was used again under it. A writer changes the epoch once in
// hundreds of updates, so a second try is rare, and Tries in a row do not happen unless the reader is stopped in each.
const Tries = 64

// End returns where the heap ends: blocks that begin behind it are not read.
func (m *Words) End() uint32 { return m.limit }

// Len returns the number of words.
func (m *Words) Len() uint32 { return uint32(len(m.w)) }

// Half returns the k-th 32-bit value from word i on: a slot of a direct table, a child slot, a bucket.
func (m *Words) Half(i, k uint32) uint32 { return m.half(i, k) }

// Key is an address, its first bit the highest of Hi. IPv4 addresses are in the high half of Hi.
type Key struct{ Hi, Lo uint64 }

// Lookup returns the next hop of the longest prefix that contains an address in the FIB whose descriptor is at word
// desc, 0 if there is none; family is 0 for IPv4 and 1 for IPv6. It is not ok if memory was used again under each try.
func (m *Words) Lookup(desc, family uint32, key Key) (nh uint32, ok bool) {
	for range Tries {
		epoch := m.Load(desc + DescEpoch)
		nh := m.walk(m.Load(desc+DescRoot+family), key)
		if m.Load(desc+DescEpoch) == epoch {
			return nh, true
		}
	}
	return 0, false
}

// walk goes down from a root. Whatever it reads, it ends after 30 blocks and stays inside the image.
func (m *Words) walk(root uint64, key Key) (best uint32) {
	s, depth := uint32(root), uint(0)
	best = uint32(root >> 32)
	if s&SlotRef == 0 {
		if s == 0 {
			return best
		}
		depth = uint(s>>1) & rootBits
		s = m.half(min(s>>1&^rootBits, m.limit), uint32(key.Hi>>(-depth&63)))
		if IsTable(s) {
			s, depth = m.half(min(s>>1, m.limit), uint32(key.Hi>>40)&0xfff), 24
		}
	}
	hi, lo := key.Hi, key.Lo
	for range 3 { // of 60 bits at most
		for ; depth < 60; depth += Stride {
			if s&SlotRef == 0 {
				if s != 0 {
					best = s >> 1
				}
				return best
			}
			b := s >> 1
			if b > m.limit {
				return 0 // memory was used again
			}
			w2 := m.Load(b + 2)
			if d := uint32(w2); d != 0 {
				best = d
			}
			after := ^uint(hi<<(depth&63)>>58) & 63 // how many entries are behind this one
			vec := m.Load(b) << after
			if int64(vec) < 0 {
				s = m.child(b, w2, uint32(bits.OnesCount64(vec)))
				continue
			}
			k := uint32(bits.OnesCount64(m.Load(b+1) << after))
			if w2&BlockWide != 0 {
				if l := m.half(b+BlockHead, (k-1)&63); l != 0 {
					best = l
				}
			} else if l := m.leaf(b, k); l != 0 {
				best = l
			}
			return best
		}
		hi, lo, depth = hi<<60|lo>>4, lo<<60, 0
	}
	return best
}
