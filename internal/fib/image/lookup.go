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
func (v View) Half(i, k uint32) uint32 { return v.half(i, k) }

// Key is an address, its first bit the highest of Hi. IPv4 addresses are in the high half of Hi.
type Key struct{ Hi, Lo uint64 }

// Lookup returns the next hop of the longest prefix that contains an address in the FIB whose descriptor is at word
// desc, 0 if there is none; family is 0 for IPv4 and 1 for IPv6. It is not ok if memory was used again under each try.
//
// Whatever a walk reads, it ends after 30 blocks and stays inside the image.
func (v View) Lookup(desc, family uint32, key Key) (nh uint32, ok bool) {
	epoch := v.Load(desc + DescEpoch)
	root := v.Load(desc + DescRoot + family)
	s, best, depth := uint32(root), uint32(root>>32), uint(0)
	if s&SlotRef == 0 && s != 0 {
		depth = uint(s>>1) & rootBits
		s = v.half(min(s>>1&^rootBits, v.limit), uint32(key.Hi>>(-depth&63)))
		if depth == 12 && IsTable(s) {
			s, depth = v.half(min(s>>1, v.limit), uint32(key.Hi>>40)&0xfff), 24
		}
	}
	for hi := key.Hi << depth; s&SlotRef != 0; hi <<= Stride {
		b := s >> 1
		if b > v.limit {
			break // memory was used again
		}
		w2 := v.Load(b + 2)
		if d := uint32(w2); d != 0 {
			best = d
		}
		after := ^(hi >> 58) & 63 // how many entries are behind this one
		if vec := v.Load(b) << after; int64(vec) < 0 {
			s = v.child(b, w2, uint32(bits.OnesCount64(vec)))
			if depth += Stride; depth == 60 {
				s, best = v.deep(s, best, key)
				break
			}
			continue
		}
		k := uint32(bits.OnesCount64(v.Load(b+1) << after))
		s = v.leaf(b, k)
		if w2&BlockWide != 0 {
			s = v.half(b+BlockHead, (k-1)&63)
		}
		s <<= 1
	}
	if s != 0 {
		best = s >> 1
	}
	if v.Load(desc+DescEpoch) != epoch {
		return v.again(desc, family, key)
	}
	return best, true
}

// walk is what Lookup does between its two looks at the epoch, in fewer words.
func (v View) walk(root uint64, key Key) uint32 {
	s, best, depth := uint32(root), uint32(root>>32), uint(0)
	if s&SlotRef == 0 && s != 0 {
		depth = uint(s>>1) & rootBits
		s = v.half(min(s>>1&^rootBits, v.limit), uint32(key.Hi>>(-depth&63)))
		if depth == 12 && IsTable(s) {
			s, depth = v.half(min(s>>1, v.limit), uint32(key.Hi>>40)&0xfff), 24
		}
	}
	if depth != 0 {
		key = Key{key.Hi<<(depth&63) | key.Lo>>(-depth&63), key.Lo << (depth & 63)}
	}
	if s, best = v.down(s, best, key); s != 0 {
		best = s >> 1
	}
	return best
}

// deep goes on with a lookup from the 60th bit.
func (v View) deep(s, best uint32, key Key) (slot, soFar uint32) {
	return v.down(s, best, Key{key.Hi<<60 | key.Lo>>4, key.Lo << 60})
}

// down goes down from a slot; the bits of key are those from its depth on.
//
//go:noinline
func (v View) down(s, best uint32, key Key) (slot, soFar uint32) {
	hi, lo := key.Hi, key.Lo
	for range 24 {
		if s&SlotRef == 0 {
			break
		}
		b := min(s>>1, v.limit)
		w2 := v.Load(b + 2)
		if d := uint32(w2); d != 0 {
			best = d
		}
		after := ^(hi >> 58) & 63
		hi, lo = hi<<Stride|lo>>(64-Stride), lo<<Stride
		if vec := v.Load(b) << after; int64(vec) < 0 {
			s = v.child(b, w2, uint32(bits.OnesCount64(vec)))
			continue
		}
		k := uint32(bits.OnesCount64(v.Load(b+1) << after))
		s = v.leaf(b, k)
		if w2&BlockWide != 0 {
			s = v.half(b+BlockHead, (k-1)&63)
		}
		return s << 1, best
	}
	return s, best
}

// again repeats a lookup that met memory that was used again.
//
//go:noinline
func (v View) again(desc, family uint32, key Key) (nh uint32, ok bool) {
	for range Tries {
		epoch := v.Load(desc + DescEpoch)
		root := v.Load(desc + DescRoot + family)
		if nh = v.walk(root, key); v.Load(desc+DescEpoch) == epoch {
			return nh, true
		}
	}
	return 0, false
}

// All returns all words, for a test that maps or damages them.
func (m *Words) All() []uint64 { return m.w }
