package image

import "math/bits"

// Lanes is how many lookups LookupBatch does side by side: enough that some compute while others wait for memory, few
// enough that their state stays in the first-level cache.
const Lanes = 16

// Batch is a number of lookups of one family in one FIB. The caller fills N, Hi and Lo.
type Batch struct {
	N      int    // 1 to Lanes
	Family uint32 // for the caller
	Hi     [Lanes]uint64
	Lo     [Lanes]uint64
	Best   [Lanes]uint32 // answers: next hops, 0 for none

	slot   [Lanes]uint32
	rest   [Lanes]uint64 // the bits of Hi from the lane's depth on
	active [Lanes]uint8
}

// maxRounds is how many blocks a batch goes through, from a direct table to less than 60 bits: all of IPv4 and nearly all
// of IPv6. A lane that is not done by then is looked up by itself.
const maxRounds = 6

// LookupBatch does the lookups of b, interleaved step by step. It is not ok as Lookup is not.
func (v View) LookupBatch(desc, family uint32, b *Batch) bool {
	for range Tries {
		epoch := v.Load(desc + DescEpoch)
		n := v.batch(v.Load(desc+DescRoot+family), b)
		ok := true
		for _, i := range b.active[:n] {
			var done bool
			b.Best[i], done = v.Lookup(desc, family, Key{b.Hi[i], b.Lo[i]})
			ok = ok && done
		}
		if ok && v.Load(desc+DescEpoch) == epoch {
			return true
		}
	}
	return false
}

// batch returns how many lanes are still active.
func (v View) batch(root uint64, b *Batch) int {
	s, best := uint32(root), uint32(root>>32)
	lanes := min(b.N, Lanes)
	if s&(rootBits<<1|SlotRef) == wideRoot {
		return v.batchWide(s>>1&^rootBits, best, b)
	}
	if s&SlotRef == 0 && s != 0 {
		depth := uint(s>>1) & rootBits
		table := min(s>>1&^rootBits, v.limit)
		for i := range lanes {
			b.slot[i] = v.half(table, uint32(b.Hi[i]>>(-depth&63)))
		}
		for i := range lanes {
			b.rest[i] = b.Hi[i] << (depth & 63)
			if s := b.slot[i]; depth == 12 && IsTable(s) {
				b.slot[i] = v.half(min(s>>1, v.limit), uint32(b.Hi[i]>>40)&0xfff)
				b.rest[i] = b.Hi[i] << 24
			}
		}
	} else {
		for i := range lanes {
			b.slot[i], b.rest[i] = s, b.Hi[i]
		}
	}
	n := 0
	for i := range lanes {
		s := b.slot[i]
		b.Best[i] = best
		if s&SlotRef != 0 {
			b.active[n&(Lanes-1)] = uint8(i)
			n++
		} else if s != 0 {
			b.Best[i] = s >> 1
		}
	}
	return v.rounds(b, n)
}

func (v View) rounds(b *Batch, n int) int {
	for range maxRounds {
		if n == 0 {
			break
		}
		n = v.round(b, n)
	}
	return n
}

// batchWide is batch for a root with a direct table of 2^18 slots, in which nearly all addresses end there or in the
// first block: what Lookup4 is to Lookup.
func (v View) batchWide(table, def uint32, b *Batch) (n int) {
	lanes := min(b.N, Lanes)
	for i := range lanes {
		b.slot[i] = v.half(table, uint32(b.Hi[i]>>46))
	}
	for i := range lanes {
		s, best := b.slot[i], def
		if s&SlotRef == 0 {
			if s != 0 {
				best = s >> 1
			}
			b.Best[i] = best
			continue
		}
		at := s >> 1
		if at > v.limit {
			continue // memory was used again
		}
		w2, after := v.Load(at+2), ^(b.Hi[i]>>40)&63
		if d := uint32(w2); d != 0 {
			best = d
		}
		if vec := v.Load(at) << after; int64(vec) < 0 {
			b.slot[i] = v.child(at, w2, uint32(bits.OnesCount64(vec)))
			b.rest[i] = b.Hi[i] << (18 + Stride)
			b.active[n&(Lanes-1)] = uint8(i)
			n++
		} else {
			k := uint32(bits.OnesCount64(v.Load(at+1) << after))
			l := v.leaf(at, k)
			if w2&BlockWide != 0 {
				l = v.half(at+BlockHead, (k-1)&63)
			}
			if l != 0 {
				best = l
			}
		}
		b.Best[i] = best
	}
	return v.rounds(b, n)
}

// round takes the active lanes through one block each, and returns how many are active after it.
func (v View) round(b *Batch, n int) (left int) {
	for _, i := range b.active[:n&(2*Lanes-1)] {
		i &= Lanes - 1
		at := b.slot[i] >> 1
		if at > v.limit {
			continue // memory was used again
		}
		w2, hi, best := v.Load(at+2), b.rest[i], b.Best[i]
		if d := uint32(w2); d != 0 {
			best = d
		}
		after := ^(hi >> 58) & 63
		if vec := v.Load(at) << after; int64(vec) < 0 {
			b.slot[i] = v.child(at, w2, uint32(bits.OnesCount64(vec)))
			b.rest[i] = hi << Stride
			b.active[left&(Lanes-1)] = i
			left++
		} else {
			k := uint32(bits.OnesCount64(v.Load(at+1) << after))
			l := v.leaf(at, k)
			if w2&BlockWide != 0 {
				l = v.half(at+BlockHead, (k-1)&63)
			}
			if l != 0 {
				best = l
			}
		}
		b.Best[i] = best
	}
	return left
}
