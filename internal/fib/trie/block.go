package trie

import (
	"math/bits"

	"midplane/internal/fib/image"
)

// A prefix of n bits (1 to 6) within a block has the number 1<<n | bits, as the nodes of a heap do: its halves are the
// numbers 2h and 2h+1. Numbers of six bits are 64 and the entry.

// entries returns the first entry that prefix h covers, and how many.
func entries(h uint32) (first, count uint32) {
	up := 6 - uint32(bits.Len32(h)-1)
	return h<<up - 64, 1 << up
}

// ancestors[e] has a bit for each number, below 64, of the prefixes that cover entry e.
var ancestors = func() (a [64]uint64) {
	for e := range uint32(64) {
		for h := (64 + e) >> 1; h > 1; h >>= 1 {
			a[e] |= 1 << h
		}
	}
	return a
}()

// block is a block in the form in which it is changed.
type block struct {
	vec      uint64
	def      uint32
	external bool       // its entries are slots of the direct table
	short    uint64     // prefixes by number, those of up to five bits
	long     uint64     // those of six bits, by entry
	child    [64]uint32 // slots, where vec has a bit
	value    [128]uint32
}

// has says whether a prefix is there, set adds it or changes its next hop, and unset drops it.
func (b *block) has(h uint32) bool {
	if h < 64 {
		return b.short>>h&1 != 0
	}
	return b.long>>(h-64)&1 != 0
}

func (b *block) set(h, nh uint32) {
	b.value[h] = nh
	if h < 64 {
		b.short |= 1 << h
	} else {
		b.long |= 1 << (h - 64)
	}
}

func (b *block) unset(h uint32) {
	if h < 64 {
		b.short &^= 1 << h
	} else {
		b.long &^= 1 << (h - 64)
	}
}

func (b *block) empty() bool { return b.vec|b.short|b.long == 0 }

// owner returns the number of the longest prefix that covers an entry, 0 if there is none.
func (b *block) owner(e uint32) uint32 {
	if b.long>>e&1 != 0 {
		return 64 + e
	}
	if s := b.short & ancestors[e]; s != 0 {
		return uint32(63 - bits.LeadingZeros64(s))
	}
	return 0
}

// at returns the next hop that the block has for an entry, 0 if none.
func (b *block) at(e uint32) uint32 {
	if h := b.owner(e); h != 0 {
		return b.value[h]
	}
	return 0
}

// visible returns the prefixes that some leaf shows.
func (b *block) visible() (short, long uint64) {
	if b.external {
		return 0, 0
	}
	long = b.long &^ b.vec
	if b.short == 0 {
		return 0, long
	}
	for rest := ^(b.vec | b.long); rest != 0; rest &= rest - 1 {
		if s := b.short & ancestors[bits.TrailingZeros64(rest)]; s != 0 {
			short |= 1 << (63 - bits.LeadingZeros64(s))
		}
	}
	return short, long
}

// encode writes the block's words, and returns how many they are.
func (b *block) encode(w *[maxBlock]uint64) uint32 {
	var leafvec uint64
	var leaves [64]uint32
	nl, wide := uint32(0), uint32(0)
	if !b.external {
		last, have := uint32(0), false
		for rest := ^b.vec; rest != 0; rest &= rest - 1 {
			e := uint32(bits.TrailingZeros64(rest))
			if v := b.at(e); v != last || !have {
				last, have = v, true
				leafvec |= 1 << e
				leaves[nl] = v
				nl++
				wide |= v
			}
		}
	}
	n := uint32(image.BlockHead)
	w2 := uint64(b.def)
	if wide > 0xffff {
		w2 |= image.BlockWide
		n = putHalves(w, n, leaves[:nl])
	} else {
		for i := uint32(0); i < nl; i += 4 {
			w[n] = uint64(leaves[i]) | uint64(leaves[i+1])<<16 | uint64(leaves[i+2])<<32 | uint64(leaves[i+3])<<48
			n++
		}
	}
	w2 |= uint64(n*8-4) << image.BlockOff
	if b.external {
		w2 |= image.BlockExternal
	} else {
		var list [64]uint32
		k := 0
		for rest := b.vec; rest != 0; rest &= rest - 1 {
			list[k] = b.child[bits.TrailingZeros64(rest)]
			k++
		}
		n = putHalves(w, n, list[:k])
	}
	if b.short != 0 {
		w2 |= image.BlockShort
		w[n] = b.short
		n++
	}
	if b.long != 0 {
		w2 |= image.BlockLong
		w[n] = b.long
		n++
	}
	short, long := b.visible()
	var hidden [128]uint32
	k := 0
	for rest := b.short &^ short; rest != 0; rest &= rest - 1 {
		hidden[k] = b.value[bits.TrailingZeros64(rest)]
		k++
	}
	for rest := b.long &^ long; rest != 0; rest &= rest - 1 {
		hidden[k] = b.value[64+bits.TrailingZeros64(rest)]
		k++
	}
	w2 |= uint64(k) << image.BlockHidden
	n = putHalves(w, n, hidden[:k])
	w[0], w[1], w[2] = b.vec, leafvec, w2
	return n
}

func putHalves(w *[maxBlock]uint64, n uint32, list []uint32) uint32 {
	for len(list) > 1 {
		w[n] = image.Pair(list[0], list[1])
		list = list[2:]
		n++
	}
	if len(list) == 1 {
		w[n] = uint64(list[0])
		n++
	}
	return n
}

func childOff(w2 uint64) uint32 { return (uint32(uint16(w2>>image.BlockOff)) + 4) / 8 }

// shape is where the parts of an encoded block are.
type shape struct {
	vec, leafvec, w2 uint64
	off, exact       uint32 // of the child slots, and of what is behind them
	hidden, size     uint32 // where the hidden values are, and how many words the block has
}

func shapeOf(m *image.Words, at uint32) (s shape) {
	s.vec, s.leafvec, s.w2 = m.Load(at), m.Load(at+1), m.Load(at+2)
	s.off = childOff(s.w2)
	s.exact = s.off
	if s.w2&image.BlockExternal == 0 {
		s.exact += (uint32(bits.OnesCount64(s.vec)) + 1) / 2
	}
	s.hidden = s.exact + uint32(s.w2/image.BlockShort&1) + uint32(s.w2/image.BlockLong&1)
	s.size = s.hidden + (uint32(s.w2>>image.BlockHidden)&0xff+1)/2
	return s
}

// exactOf returns the prefixes of an encoded block.
func (s *shape) exactOf(m *image.Words, at uint32) (short, long uint64) {
	i := at + s.exact
	if s.w2&image.BlockShort != 0 {
		short = m.Load(i)
		i++
	}
	if s.w2&image.BlockLong != 0 {
		long = m.Load(i)
	}
	return short, long
}

// decode reads a block, and returns the number of its words. Values that b has from before and that no prefix refers
// to are left.
func (b *block) decode(m *image.Words, at uint32) uint32 {
	s := shapeOf(m, at)
	b.vec, b.def, b.external = s.vec, uint32(s.w2), s.w2&image.BlockExternal != 0
	b.short, b.long = s.exactOf(m, at)
	if !b.external {
		k := uint32(0)
		for rest := b.vec; rest != 0; rest &= rest - 1 {
			b.child[bits.TrailingZeros64(rest)] = m.Half(at+s.off, k)
			k++
		}
		next, leaf := uint32(0), uint32(0)
		for rest := ^b.vec; rest != 0; rest &= rest - 1 {
			e := uint32(bits.TrailingZeros64(rest))
			if s.leafvec>>e&1 != 0 {
				leaf = leafAt(m, at, s.w2, next)
				next++
			}
			if h := b.owner(e); h != 0 {
				b.value[h] = leaf
			}
		}
	}
	short, long := b.visible()
	k := uint32(0)
	for rest := b.short &^ short; rest != 0; rest &= rest - 1 {
		b.value[bits.TrailingZeros64(rest)] = m.Half(at+s.hidden, k)
		k++
	}
	for rest := b.long &^ long; rest != 0; rest &= rest - 1 {
		b.value[64+bits.TrailingZeros64(rest)] = m.Half(at+s.hidden, k)
		k++
	}
	return s.size
}

func leafAt(m *image.Words, at uint32, w2 uint64, k uint32) uint32 {
	if w2&image.BlockWide != 0 {
		return m.Half(at+image.BlockHead, k)
	}
	return uint32(m.Load(at+image.BlockHead+k/4)>>(k%4*16)) & 0xffff
}

// childSlot returns where the slot of entry e's child is, in a block that has one there.
func childSlot(m *image.Words, at, e uint32) ref {
	k := uint32(bits.OnesCount64(m.Load(at)<<(63-e))) - 1
	return refOf(at+childOff(m.Load(at+2)), k)
}

// ref is where a slot is: twice the word's index, and one for the high half.
type ref uint64

func refOf(word, k uint32) ref { return ref(uint64(word)*2 + uint64(k)) }

func (r ref) load(m *image.Words) uint32 { return m.Half(uint32(r>>1), uint32(r&1)) }

// store changes a slot. The other half of its word has the same writer.
func (r ref) store(m *image.Words, v uint32) {
	i := uint32(r >> 1)
	w := m.Load(i)
	if r&1 == 0 {
		w = image.Pair(v, image.Hi(w))
	} else {
		w = image.Pair(image.Lo(w), v)
	}
	m.Store(i, w)
}
