//go:build unix && !midplane_safe && !race

package fib

import (
	"fmt"
	"syscall"
	"unsafe"
)

const defaultSize = 1 << 30

// anonymous returns memory of the system's, which takes room as it is used. It is not Go's heap: the garbage collector
// neither scans nor counts it.
func anonymous(size uint64) (words []uint64, release func(), err error) {
	b, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|mapNoReserve)
	if err != nil {
		return nil, nil, fmt.Errorf("memory for an image of %d octets: %w", size, err)
	}
	advise(b)
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), size/8), func() { _ = syscall.Munmap(b) }, nil
}
