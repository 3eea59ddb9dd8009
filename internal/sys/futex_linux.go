package sys

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Futex operations on memory of this process alone (include/uapi/linux/futex.h), which x/sys does not name.
const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// FutexWait puts the calling thread to sleep as long as the word is v, until FutexWake. It may return early. The runtime
// sees a system call that blocks.
func FutexWait(word *atomic.Uint32, v uint32) {
	syscall.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(v), 0, 0, 0)
}

// FutexWake wakes one thread that sleeps on the word. It does not block, so the runtime is not told.
func FutexWake(word *atomic.Uint32) {
	syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0)
}
