//go:build !amd64 || race || midplane_safe

package image

import "sync/atomic"

// View is how an image is read. All accesses are atomic ones of package sync/atomic, and indexes are checked: the build
// for architectures that reorder memory accesses, for the race detector, and for fuzzing (tag midplane_safe).
type View struct {
	w     []uint64
	limit uint32 // no block begins behind it
}

// Words is the memory of an image, for its writer.
type Words struct{ View }

// guard is how many words behind the start of a block a walk may read, whatever it finds there.
const guard = 1<<13 + 64

// Make returns the Words of w, which must have at least MinWords words.
func Make(w []uint64) Words { return Words{View{w, uint32(len(w) - guard)}} }

// Load returns a word. The index must be within the image.
func (v View) Load(i uint32) uint64 { return atomic.LoadUint64(&v.w[i]) }

// Store changes a word that readers may be reading.
func (m *Words) Store(i uint32, w uint64) { atomic.StoreUint64(&m.w[i], w) }

// Fill writes a word of memory that no slot refers to; a reader that walks through memory that was used again may
// still read it.
func (m *Words) Fill(i uint32, w uint64) { atomic.StoreUint64(&m.w[i], w) }

// Bump changes an epoch: what was stored before is seen by whoever sees the change, and what is stored after is not
// seen by whoever does not.
func (m *Words) Bump(i uint32) { atomic.AddUint64(&m.w[i], 1) }

// half returns the k-th 32-bit value from word i on.
func (v View) half(i, k uint32) uint32 { return uint32(v.Load(i+k>>1) >> (k & 1 * 32)) }

// Block is a block.
type Block struct {
	v  View
	at uint32
}

// Block returns the block at a word, which must not be behind End.
func (v View) Block(at uint32) Block { return Block{v, at} }

// Word returns the i-th word of the block.
func (b Block) Word(i int) uint64 { return b.v.Load(b.at + uint32(i)) }

// Inherits returns what a double block has for what finds nothing in it and below. It must be read before the slots of the
// block, as a writer changes it where it is.
func (b Block) Inherits() uint32 { return uint32(b.Word(1)) }

// pair returns the k-th pair of a double block, from 1 on.
func (b Block) pair(k int) (runs uint64, off uint16) { return b.Word(2 * k), uint16(b.Word(2*k + 1)) }

// Slot returns the k-th slot, from 1 on, of those that begin four octets behind octet off.
func (b Block) Slot(off uint16, k int) uint32 { return b.v.half(b.at, uint32(off)/4+uint32(k)) }

// Leaf returns the k-th 16-bit leaf, from 1 on.
func (b Block) Leaf(k int) uint32 {
	k += BlockHead*4 - 1
	return uint32(b.Word(k>>2)>>(k&3*16)) & 0xffff
}
