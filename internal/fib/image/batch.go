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

// maxRounds is how many blocks of IPv4 a batch goes through: all that there can be.
const maxRounds = 6

// doubleRounds is how many double blocks it goes through: nearly all addresses end in them. A lane that is not done by
// then is looked up by itself.
const doubleRounds = 2

// LookupBatch does the lookups of b, interleaved step by step. It is not ok as Lookup is not.
func (v View) LookupBatch(desc, family uint32, b *Batch) bool {
	for range Tries {
		epoch := v.Load(desc + DescEpoch)
		root := v.Load(desc + DescRoot + family)
		n := 0
		if family == 0 {
			n = v.rounds(b, v.begin4(root, b))
		} else {
			n = v.doubleRounds(b, v.begin6(root, b))
		}
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

// begin4 takes the lanes to their first block. As begin6, sort and the rounds, it returns how many lanes are then active.
func (v View) begin4(root uint64, b *Batch) int {
	low := uint32(root)
	lanes := min(b.N, Lanes)
	if low&SlotRef == 0 && low != 0 {
		depth, table := uint(low>>1)&rootBits, low>>1&^rootBits
		for i := range lanes {
			b.slot[i] = v.half(table, uint32(b.Hi[i]>>(-depth&63)))
			b.rest[i] = b.Hi[i] << (depth & 63)
		}
	} else {
		for i := range lanes {
			b.slot[i], b.rest[i] = low, b.Hi[i]
		}
	}
	for i := range lanes {
		b.Best[i] = uint32(root >> 32)
	}
	return b.sort(lanes)
}

// begin6 takes the lanes to their first double block.
func (v View) begin6(root uint64, b *Batch) int {
	low, def := uint32(root), uint32(root>>32)
	lanes := min(b.N, Lanes)
	if !IsRoot(root, 12) {
		for i := range lanes {
			b.slot[i], b.Best[i] = v.down(low, def, b.Hi[i], DoubleDepth/Stride)
			b.rest[i] = b.Hi[i] << DoubleDepth
		}
		return b.sort(lanes)
	}
	table := TableAt(root)
	for i := range lanes {
		b.slot[i] = v.half(table, uint32(b.Hi[i]>>52))
		b.rest[i] = b.Hi[i] << DoubleDepth
		b.Best[i] = def
	}
	for i := range lanes {
		if s := b.slot[i]; IsTable(s) {
			b.slot[i] = v.half(min(s>>1, v.limit), uint32(b.Hi[i]>>40)&0xfff)
		} else if s&SlotRef != 0 {
			b.slot[i], b.Best[i] = v.down(s, def, b.Hi[i]<<12, 2)
		}
	}
	return b.sort(lanes)
}

// sort says which lanes are active, and what the others have found. Which is which cannot be guessed, so it has no
// branch for it.
func (b *Batch) sort(lanes int) (n int) {
	for i := range lanes {
		s, best := b.slot[i], b.Best[i]
		if nh := s >> 1 &^ -(s & SlotRef); nh != 0 {
			best = nh
		}
		b.Best[i] = best
		b.active[n&(Lanes-1)] = uint8(i)
		n += int(s & SlotRef)
	}
	return n
}

func (v View) doubleRounds(b *Batch, n int) int {
	for range doubleRounds {
		n = v.doubleRound(b, n)
	}
	return n
}

// doubleRound takes the active lanes through one double block each.
func (v View) doubleRound(b *Batch, n int) (left int) {
	for _, i := range b.active[:n&(2*Lanes-1)] {
		i &= Lanes - 1
		at := b.slot[i] >> 1
		if at > v.limit {
			continue // memory was used again
		}
		hi, best := b.rest[i], b.Best[i]
		if d := uint32(v.Load(at + 1)); d != 0 {
			best = d
		}
		vec := v.Load(at) << (^(hi >> 58) & 63)
		pair := at + 2*uint32(bits.OnesCount64(vec))
		runs := v.Load(pair) << (^(hi >> 52) & 63 & uint64(int64(vec)>>63))
		s := v.slot(at, uint16(v.Load(pair+1)), uint32(bits.OnesCount64(runs)))
		if nh := s >> 1 &^ -(s & SlotRef); nh != 0 {
			best = nh
		}
		b.Best[i], b.slot[i], b.rest[i] = best, s, hi<<DoubleStride
		b.active[left&(Lanes-1)] = i
		left += int(s & SlotRef)
	}
	return left
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

// round takes the active lanes through one block each.
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
