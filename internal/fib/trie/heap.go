package trie

import (
	"math/bits"

	"midplane/internal/fib/image"
)

// Sizes of blocks, in words. The first smallSizes are cut from slabs of one unit, which they fill, the others from slabs
// of four.
var sizes = [...]uint32{4, 5, 6, 7, 8, 10, 12, 14, 16, 21, 25, 31, 42, 63, 84, 102, 127, 170}

const smallSizes = 14

// sizeClass gives the class of a number of words.
var sizeClass = func() (c [maxAlloc + 1]uint8) {
	k := 0
	for n := range c {
		if n > int(sizes[k]) {
			k++
		}
		c[n] = uint8(k)
	}
	return c
}()

// maxBlock is how many words a block of a tree has at most, maxAlloc the most that is cut from slabs; what is larger
// has units of its own.
const (
	maxBlock = image.BlockMax
	maxAlloc = 170
)

// runHead is how many words are before a block that has units of its own: no block begins where a direct table may.
const runHead = 8

// A slab begins with two words: the blocks of it that are free, one bit each, and its class; and its neighbours in the
// list of slabs of its class that have free blocks. Its blocks end where the slab does, which puts those of 8 and 16
// words on cache lines of their own.
const (
	slabFree  = 0 // low half: free blocks; high half: class
	slabLinks = 1 // low half: next; high half: previous; 0: none
)

// Heap is the memory of one FIB.
type Heap struct {
	m       *image.Words
	space   Space
	epoch   uint32 // the word of the epoch of those who read it
	partial [len(sizes)]uint32
	put     []freed // aside until the epoch is changed
	aside   uint32  // words in put
	inPlace bool    // something that readers remember was changed where it is
	used    uint64  // words of blocks and runs that are in use
	taken   uint64  // words taken from space
	spare   *double // for the next change
}

type freed struct{ at, words uint32 }

// NewHeap makes an empty heap. The epoch of its readers is at the word epoch.
func NewHeap(m *image.Words, space Space, epoch uint32) *Heap {
	return &Heap{m: m, space: space, epoch: epoch}
}

// Used returns how many words blocks and direct tables have, and Taken how many words were taken from the Space for them.
func (h *Heap) Used() uint64  { return h.used }
func (h *Heap) Taken() uint64 { return h.taken }

func slabUnits(class uint8) uint32 {
	if class < smallSizes {
		return 1
	}
	return 4
}

func perSlab(class uint8) uint32 { return min(32, (slabUnits(class)*Unit-2)/sizes[class]) }

// slabOf returns the slab of a block, and its number in it.
func slabOf(class uint8, at uint32) (slab, n uint32) {
	words := slabUnits(class) * Unit
	slab = at &^ (words - 1)
	return slab, (at - firstBlock(class, slab)) / sizes[class]
}

func firstBlock(class uint8, slab uint32) uint32 {
	return slab + slabUnits(class)*Unit - perSlab(class)*sizes[class]
}

// Alloc returns memory that no reader knows, for what is not a tree.
func (h *Heap) Alloc(words uint32) (at uint32, ok bool) {
	if words > maxAlloc {
		return h.allocRun(words, false)
	}
	return h.alloc(words, false)
}

// Free puts memory of Alloc aside: readers may still know it. A change is complete, and memory comes back, with Settle.
func (h *Heap) Free(at, words uint32) { h.free(at, words) }

// Settle ends a change.
func (h *Heap) Settle() { h.settle() }

// Changed says that something that readers remember was changed where it is: Settle will change the epoch.
func (h *Heap) Changed() { h.changed() }

// alloc returns memory for a block. What was put aside is used again when nothing else is left.
func (h *Heap) alloc(words uint32, urgent bool) (uint32, bool) {
	if words > maxAlloc {
		at, ok := h.allocRun(words+runHead, urgent)
		return at + runHead, ok
	}
	class := sizeClass[words]
	if h.partial[class] == 0 && !h.newSlab(class, urgent) {
		if len(h.put) == 0 {
			return 0, false
		}
		h.Release()
		if h.partial[class] == 0 && !h.newSlab(class, urgent) {
			return 0, false
		}
	}
	slab := h.partial[class]
	w := h.m.Load(slab + slabFree)
	n := uint32(bits.TrailingZeros32(uint32(w)))
	w &^= 1 << n
	h.m.Fill(slab+slabFree, w)
	if uint32(w) == 0 {
		h.unlink(class, slab)
	}
	h.used += uint64(sizes[class])
	return firstBlock(class, slab) + n*sizes[class], true
}

func (h *Heap) newSlab(class uint8, urgent bool) bool {
	slab, ok := h.space.Take(slabUnits(class), urgent)
	if !ok {
		return false
	}
	h.taken += uint64(slabUnits(class)) * Unit
	h.m.Fill(slab+slabFree, image.Pair(uint32(uint64(1)<<perSlab(class)-1), uint32(class)))
	h.link(class, slab)
	return true
}

func (h *Heap) link(class uint8, slab uint32) {
	next := h.partial[class]
	h.m.Fill(slab+slabLinks, image.Pair(next, 0))
	if next != 0 {
		h.m.Fill(next+slabLinks, image.Pair(image.Lo(h.m.Load(next+slabLinks)), slab))
	}
	h.partial[class] = slab
}

func (h *Heap) unlink(class uint8, slab uint32) {
	l := h.m.Load(slab + slabLinks)
	next, prev := image.Lo(l), image.Hi(l)
	if next != 0 {
		h.m.Fill(next+slabLinks, image.Pair(image.Lo(h.m.Load(next+slabLinks)), prev))
	}
	if prev != 0 {
		h.m.Fill(prev+slabLinks, image.Pair(next, image.Hi(h.m.Load(prev+slabLinks))))
	} else {
		h.partial[class] = next
	}
}

// free puts a block aside that readers may still be reading.
func (h *Heap) free(at, words uint32) {
	h.put = append(h.put, freed{at, words})
	h.aside += words
}

// changed says that a def or a default route was changed where it is. A reader that has seen the old one must not take
// it for the answer after the next change, when a longer prefix may be gone; so the epoch is changed in between.
func (h *Heap) changed() { h.inPlace = true }

// settle ends an update. It changes the epoch if it must, or when so much was put aside that it is worth that readers see
// a change. Small FIBs stay small.
func (h *Heap) settle() {
	if h.inPlace || uint64(h.aside) > min(4096, 128+h.used/32) {
		h.Release()
	}
}

// Release changes the epoch, and makes what was put aside free.
func (h *Heap) Release() {
	if len(h.put) == 0 && !h.inPlace {
		return
	}
	h.m.Bump(h.epoch)
	h.inPlace = false
	for _, f := range h.put {
		h.freeNow(f.at, f.words)
	}
	h.put, h.aside = h.put[:0], 0
	if cap(h.put) > 1<<12 {
		h.put = nil
	}
}

// freeNow makes memory free that no reader can be reading.
func (h *Heap) freeNow(at, words uint32) {
	if words > maxAlloc {
		head := at % Unit
		h.giveRun(at-head, words+head)
		return
	}
	class := sizeClass[words]
	slab, n := slabOf(class, at)
	w := h.m.Load(slab + slabFree)
	if uint8(image.Hi(w)) != class || w>>n&1 != 0 {
		panic("trie: a block is freed twice")
	}
	if uint32(w) == 0 {
		h.link(class, slab)
	}
	w |= 1 << n
	h.m.Fill(slab+slabFree, w)
	h.used -= uint64(sizes[class])
	if uint64(uint32(w)) == uint64(1)<<perSlab(class)-1 {
		h.unlink(class, slab)
		h.taken -= uint64(slabUnits(class)) * Unit
		h.space.Give(slab, slabUnits(class))
	}
}

// allocRun returns memory of whole units.
func (h *Heap) allocRun(words uint32, urgent bool) (uint32, bool) {
	units := (words + Unit - 1) / Unit
	at, ok := h.space.Take(units, urgent)
	if !ok {
		h.Release()
		if at, ok = h.space.Take(units, urgent); !ok {
			return 0, false
		}
	}
	h.used += uint64(units) * Unit
	h.taken += uint64(units) * Unit
	return at, true
}

func (h *Heap) giveRun(at, words uint32) {
	units := (words + Unit - 1) / Unit
	h.used -= uint64(units) * Unit
	h.taken -= uint64(units) * Unit
	h.space.Give(at, units)
}
