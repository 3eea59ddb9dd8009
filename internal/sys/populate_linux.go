package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20 // a hint; where huge pages have another size the kernel rounds

// Populate makes the kernel give memory for the whole pages of b, of which nothing is in use yet, all at once and in huge pages where it can
// (madvise(2)). It fails before Linux 5.14.
func Populate(b []byte) error {
	if h := aligned(b, hugePage); len(h) > 0 {
		_ = unix.Madvise(h, unix.MADV_HUGEPAGE)
	}
	return unix.Madvise(aligned(b, uintptr(os.Getpagesize())), unix.MADV_POPULATE_WRITE)
}

// aligned returns the whole pages of b.
func aligned(b []byte, page uintptr) []byte {
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (page - 1)
	if skip >= uintptr(len(b)) {
		return nil
	}
	b = b[skip:]
	return b[:uintptr(len(b))&^(page-1)]
}
