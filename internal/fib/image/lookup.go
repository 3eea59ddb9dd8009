package image

import "math/bits"

// Tries is how often a lookup is repeated when memory was used again under it. A writer changes the epoch once in
// hundreds of updates, so a second try is rare, and Tries in a row do not happen unless the reader is stopped in each.
const Tries = 64

// End returns where the heap ends: blocks that begin behind it are not read.
func (v View) End() uint32 { return v.limit }

// Len returns the number of words.
func (m *Words) Len() uint32 { return uint32(len(m.w)) }

// Half returns the k-th 32-bit value from word i on: a slot of a direct table, a child slot, a bucket.
func (v View) Half(i, k uint32) uint32 { return v.half(i, k) }

// Key is an address, its first bit the highest of Hi. IPv4 addresses are in the high half of Hi.
type Key struct{ Hi, Lo uint64 }

// Lookup returns the next hop of the longest prefix that contains an address in the FIB whose descriptor is at word
// desc, 0 if there is none; family is 0 for IPv4 and 1 for IPv6. It is not ok if memory was used again under each try.
//
// Whatever a walk reads, it ends after 13 blocks and stays inside the image.
func (v View) Lookup(desc, family uint32, key Key) (nh uint32, ok bool) {
	for range Tries {
		epoch := v.Load(desc + DescEpoch)
		root := v.Load(desc + DescRoot + family)
		if nh = v.walk(root, family, key); v.Load(desc+DescEpoch) == epoch {
			return nh, true
		}
	}
	return 0, false
}

// walk is what a lookup does between its two looks at the epoch.
func (v View) walk(root uint64, family uint32, key Key) uint32 {
	s, best, depth := uint32(root), uint32(root>>32), uint(0)
	if s&SlotRef == 0 && s != 0 {
		depth = uint(s>>1) & rootBits
		s = v.half(min(s>>1&^rootBits, v.limit), uint32(key.Hi>>(-depth&63)))
		if depth == 12 && IsTable(s) {
			s, depth = v.half(min(s>>1, v.limit), uint32(key.Hi>>40)&0xfff), DoubleDepth
		}
	}
	end := uint(32)
	if family != 0 {
		end = DoubleDepth
	}
	s, best = v.down(s, best, key.Hi<<(depth&63), (end-depth+Stride-1)/Stride)
	if family != 0 && s&SlotRef != 0 {
		s, best = v.deep(s, best, DoubleDepth, key)
	}
	if s&SlotRef == 0 && s != 0 {
		best = s >> 1
	}
	return best
}

// down goes down from a slot, through n blocks at most; the first bits of hi are those from its depth on.
func (v View) down(s, best uint32, hi uint64, n uint) (slot, soFar uint32) {
	for ; n > 0 && s&SlotRef != 0; n-- {
		b := v.Block(min(s>>1, v.limit))
		w2 := b.Word(2)
		if d := uint32(w2); d != 0 {
			best = d
		}
		after := ^(hi >> 58) & 63 // how many entries are behind this one
		hi <<= Stride
		if vec := b.Word(0) << after; int64(vec) < 0 {
			s = b.Slot(uint16(w2>>BlockOff), bits.OnesCount64(vec))
			continue
		}
		k := bits.OnesCount64(b.Word(1) << after)
		s = b.Leaf(k)
		if w2&BlockWide != 0 {
			s = b.WideLeaf(k)
		}
		s <<= 1
	}
	return s, best
}

// WideLeaf returns the k-th 32-bit leaf, from 1 on. There is none of number 0: what is before the first is nothing.
func (b Block) WideLeaf(k int) uint32 {
	k = (k - 1) & 63
	return uint32(b.Word(BlockHead+k>>1) >> (k & 1 * 32))
}

// deep goes down from the slot of a double block at a depth.
func (v View) deep(s, best uint32, depth uint, key Key) (slot, soFar uint32) {
	for ; depth < 128 && s&SlotRef != 0; depth += DoubleStride {
		b := v.Block(min(s>>1, v.limit))
		if d := b.Inherits(); d != 0 {
			best = d
		}
		hi := key.Lo << (depth & 63)
		if depth < 64 {
			hi = key.Hi<<depth | key.Lo>>(64-depth)
		}
		s = b.Run(^hi >> (64 - DoubleStride))
	}
	return s, best
}

// Run returns the slot of an address in a double block. The last twelve bits of n are the complement of those of the
// address from the block's depth on: how many parts, and how many entries of the part, are behind that of the address.
func (b Block) Run(n uint64) (slot uint32) {
	vec := b.Word(0) << (n >> 6 & 63)
	runs, off := b.pair(bits.OnesCount64(vec))
	runs <<= n & 63 & uint64(int64(vec)>>63) // all of them if no run begins in the entry's part
	return b.Slot(off, bits.OnesCount64(runs))
}

// All returns all words, for a test that maps or damages them.
func (m *Words) All() []uint64 { return m.w }
