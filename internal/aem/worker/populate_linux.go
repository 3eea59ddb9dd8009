package worker

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20 // a hint; where huge pages have another size the kernel rounds

// populate makes the kernel give memory for b, all of it at once and in huge pages where it can (madvise(2)).
func populate(b []byte) {
	if h := aligned(b, hugePage); len(h) > 0 {
		_ = unix.Madvise(h, unix.MADV_HUGEPAGE)
	}
	if p := aligned(b, uintptr(os.Getpagesize())); len(p) == 0 || unix.Madvise(p, unix.MADV_POPULATE_WRITE) != nil { // before Linux 5.14
		touch(b)
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
