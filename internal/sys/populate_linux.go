package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20 // a hint; where huge pages have another size the kernel rounds

// Populate makes the kernel give memory for b, of which nothing is in use yet, all at once and in huge pages where it can (madvise(2)).
func Populate(b []byte) {
	if h := aligned(b, hugePage); len(h) > 0 {
		_ = unix.Madvise(h, unix.MADV_HUGEPAGE)
	}
	if p := aligned(b, uintptr(os.Getpagesize())); len(p) == 0 || unix.Madvise(p, unix.MADV_POPULATE_WRITE) != nil { // before Linux 5.14
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 0
		}
	}
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
