//go:build amd64 && !race && !midplane_safe

package image

import (
	"sync/atomic"
	"unsafe"
)

// View is how an image is read. It is a value of two words, which stays in registers. On amd64 loads are not reordered
// with loads, nor stores with stores (Intel SDM volume 3, 9.2.2), so plain instructions do for all but the changes of an
// epoch.
type View struct {
	base  unsafe.Pointer
	limit uint32 // no block begins behind it
}

// Words is the memory of an image, for its writer.
type Words struct {
	View
	w []uint64
}

// guard is how many words behind the start of a block a walk may read, whatever it finds there: an offset of 16 bits,
// and 64 slots.
const guard = 1<<13 + 64

// Make returns the Words of w, which must have at least MinWords words.
func Make(w []uint64) Words {
	return Words{View{unsafe.Pointer(unsafe.SliceData(w)), uint32(len(w) - guard)}, w}
}

func (v View) at(i uint32) *uint64 { return (*uint64)(unsafe.Add(v.base, uintptr(i)*8)) }

// Load returns a word. The index must be within the image.
func (v View) Load(i uint32) uint64 { return atomic.LoadUint64(v.at(i)) }

// Store changes a word that readers may be reading.
func (m *Words) Store(i uint32, w uint64) { *m.at(i) = w }

// Fill writes a word of memory that no slot refers to.
func (m *Words) Fill(i uint32, w uint64) { *m.at(i) = w }

// Bump changes an epoch: what was stored before is seen by whoever sees the change, and what is stored after is not
// seen by whoever does not.
func (m *Words) Bump(i uint32) { atomic.AddUint64(m.at(i), 1) }

// half returns the k-th 32-bit value from word i on.
func (v View) half(i, k uint32) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Add(v.base, uintptr(i)*8+uintptr(k)*4)))
}

// Block is a block. What is in it is read plainly, between loads of View and Inherits, which the compiler does not put
// before or behind it: each such load needs what the one before it has found, or is of what no writer changes where it is.
type Block struct{ p unsafe.Pointer }

// Block returns the block at a word, which must not be behind End.
func (v View) Block(at uint32) Block { return Block{unsafe.Pointer(v.at(at))} }

// Word returns the i-th word of the block.
func (b Block) Word(i int) uint64 { return *(*uint64)(unsafe.Add(b.p, i*8)) }

// Inherits returns what a double block has for what finds nothing in it and below. As a writer changes it where it is, it
// must be read before the slots of the block, so it is not a plain load, which the compiler could put behind others.
func (b Block) Inherits() uint32 { return uint32(atomic.LoadUint64((*uint64)(unsafe.Add(b.p, 8)))) }

// pair returns the k-th pair of a double block, from 1 on.
func (b Block) pair(k int) (runs uint64, off uint16) {
	p := (*struct{ runs, off uint64 })(unsafe.Add(b.p, k*16))
	return p.runs, uint16(p.off)
}

// Slot returns the k-th slot, from 1 on, of those that begin four octets behind octet off.
func (b Block) Slot(off uint16, k int) uint32 { return *(*uint32)(unsafe.Add(b.p, int(off)+k*4)) }

// Leaf returns the k-th 16-bit leaf, from 1 on.
func (b Block) Leaf(k int) uint32 { return uint32(*(*uint16)(unsafe.Add(b.p, k*2+(BlockHead*8-2)))) }
