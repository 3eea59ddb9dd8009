package image

import "math/bits"

// Lanes is how many lookups LookupBatch does side by side: enough that some compute while others wait for memory, few
// enough that their state stays in the first-level cache.
const Lanes = 32

// Batch is a number of lookups of one family in one FIB. The caller fills N, Family and Hi.
type Batch struct {
	N      int           // 1 to Lanes
	Family uint32        // 0 for IPv4
	Hi     [Lanes]uint64 // the first 64 bits of each address
	Best   [Lanes]uint32 // answers: next hops, 0 for none

	// Of IPv6: the slots before the double blocks, and behind the first; and the next hops that lanes
	// have from above: from the root, from the blocks before the double ones, if they went through some, and from those.
	at   [2][Lanes]uint32
	root uint32
	own  uint32 // lanes that have one in def[0]
	def  [3][Lanes]uint32

	// Of IPv4.
	slot   [Lanes]uint32
	rest   [Lanes]uint64 // the bits of Hi from the lane's depth on
	active [Lanes]uint8
}

// maxRounds is how many blocks of IPv4 a batch goes through: all that there can be.
const maxRounds = 6

// LookupBatch does the lookups of b, interleaved step by step. left has a bit for each lane that is to be looked up by
// itself, as nearly none is. It is not ok as Lookup is not.
func (v View) LookupBatch(desc uint32, b *Batch) (left uint32, ok bool) {
	for range Tries {
		epoch := v.Load(desc + DescEpoch)
		root := v.Load(desc + DescRoot + b.Family)
		if b.Family == 0 {
			left = v.rounds(b, v.begin4(root, b))
		} else {
			v.begin6(root, b)
			v.first6(b)
			left = v.second6(b)
		}
		if v.Load(desc+DescEpoch) == epoch {
			return left, true
		}
	}
	return 0, false
}

// begin6 takes the lanes to their first double block.
func (v View) begin6(root uint64, b *Batch) {
	low, table, others := uint32(root), TableAt(root), uint32(0)
	b.root = uint32(root >> 32)
	if !IsRoot(root, DoubleDepth/2) {
		for i := range min(b.N, Lanes) {
			b.at[0][i], b.def[0][i] = v.down(low, b.root, b.Hi[i], DoubleDepth/Stride)
		}
		b.own = ^uint32(0)
		return
	}
	for i := range min(b.N, Lanes) {
		hi := b.Hi[i]
		s := v.half(table, uint32(hi>>52))
		if IsTable(s) && s>>1 <= v.limit {
			s = v.half(s>>1, uint32(hi>>40)&0xfff)
		} else {
			others |= s & SlotRef << i
		}
		b.at[0][i] = s
	}
	for b.own = others; others != 0; others &= others - 1 {
		i := bits.TrailingZeros32(others) & (Lanes - 1)
		b.at[0][i], b.def[0][i] = v.down(b.at[0][i], b.root, b.Hi[i]<<(DoubleDepth/2), DoubleDepth/2/Stride)
	}
}

// first6 takes the lanes through their first double block. Nearly all have one.
func (v View) first6(b *Batch) {
	for i := range min(b.N, Lanes) {
		s := b.at[0][i]
		if at := s >> 1; s&SlotRef != 0 && at <= v.limit { // behind it, memory was used again
			block := v.Block(at)
			b.def[1][i] = block.Inherits()
			s = block.Run(^b.Hi[i] >> (64 - DoubleDepth - DoubleStride))
		}
		b.at[1][i] = s
	}
}

// second6 takes them through their second one, fills in the answers, and returns which lanes have not come to an end. How
// many have a second one cannot be guessed, so there is no branch for it: the others go through that at word 0, which is
// the header, and what they find there does not count.
func (v View) second6(b *Batch) (left uint32) {
	for i := range min(b.N, Lanes) {
		s := b.at[1][i]
		ref := -(s & SlotRef)
		if at := s >> 1 & ref; at <= v.limit {
			block := v.Block(at)
			b.def[2][i] = block.Inherits()
			if x := block.Run(^b.Hi[i] >> (64 - DoubleDepth - 2*DoubleStride)); ref != 0 {
				s = x
			}
		}
		b.Best[i] = s >> 1
		if s == 0 {
			b.Best[i] = b.inherited(i)
		}
		left |= s & SlotRef << i
	}
	return left
}

// inherited returns what a lane has that has found nothing but next hops from above.
func (b *Batch) inherited(i int) uint32 {
	for k := 2; k > 0; k-- {
		if nh := b.def[k][i]; nh != 0 && b.at[k-1][i]&SlotRef != 0 {
			return nh
		}
	}
	if b.own>>i&1 != 0 {
		return b.def[0][i]
	}
	return b.root
}

// begin4 takes the lanes of IPv4 to their first block. As sort and round, it returns how many are then active.
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

// rounds takes the lanes to their ends, and returns which have not come there.
func (v View) rounds(b *Batch, n int) (left uint32) {
	for range maxRounds {
		if n == 0 {
			break
		}
		n = v.round(b, n)
	}
	for _, i := range b.active[:n&(2*Lanes-1)] {
		left |= 1 << i
	}
	return left
}

// round takes the active lanes through one block each.
func (v View) round(b *Batch, n int) (left int) {
	for _, i := range b.active[:n&(2*Lanes-1)] {
		i &= Lanes - 1
		at := b.slot[i] >> 1
		if at > v.limit {
			continue // memory was used again
		}
		block := v.Block(at)
		w2, hi, best := block.Word(2), b.rest[i], b.Best[i]
		if d := uint32(w2); d != 0 {
			best = d
		}
		after := ^(hi >> 58) & 63
		if vec := block.Word(0) << after; int64(vec) < 0 {
			b.slot[i] = block.Slot(uint16(w2>>BlockOff), bits.OnesCount64(vec))
			b.rest[i] = hi << Stride
			b.active[left&(Lanes-1)] = i
			left++
		} else {
			k := bits.OnesCount64(block.Word(1) << after)
			l := block.Leaf(k)
			if w2&BlockWide != 0 {
				l = block.WideLeaf(k)
			}
			if l != 0 {
				best = l
			}
		}
		b.Best[i] = best
	}
	return left
}
