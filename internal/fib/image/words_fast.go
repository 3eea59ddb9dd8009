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

// child returns the k-th child slot, from 1 on, of the block at b, whose word 2 is w2.
func (v View) child(b uint32, w2 uint64, k uint32) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Add(v.base, uintptr(b)*8+uintptr(uint16(w2>>BlockOff))+uintptr(k)*4)))
}

// slot returns the k-th slot, from 1 on, of those that begin four octets behind octet off of the block at b.
func (v View) slot(b uint32, off uint16, k uint32) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Add(v.base, uintptr(b)*8+uintptr(off)+uintptr(k)*4)))
}

// leaf returns the k-th 16-bit leaf, from 1 on, of the block at b.
func (v View) leaf(b, k uint32) uint32 {
	return uint32(*(*uint16)(unsafe.Add(v.base, uintptr(b)*8+uintptr(k)*2+(BlockHead*8-2))))
}
