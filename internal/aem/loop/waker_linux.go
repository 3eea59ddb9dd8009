package loop

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waker ends a wait of the kernel's from another thread. Who wakes pays a system call only if the loop may be asleep and
// nobody else has.
type waker struct {
	fd    int
	state atomic.Uint32 // awake, asleep, called
	mu    sync.RWMutex  // the descriptor is not closed while somebody writes to it
	dead  bool
}

const (
	awake  = iota
	asleep // the loop waits, or is about to
	called // and has been woken
)

func (w *waker) open() (err error) {
	w.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

func (w *waker) wake() {
	if w.state.Swap(called) != asleep {
		return
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if !w.dead {
		one := [8]byte{0: 1, 7: 1} // not zero in either byte order
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// sleep is called before a wait; false says that it must not wait, because it was called.
func (w *waker) sleep() bool { return w.state.CompareAndSwap(awake, asleep) }

// rise is called after each wait.
func (w *waker) rise() { w.state.Store(awake) }

func (w *waker) drain() {
	var b [8]byte
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(w.fd), uintptr(unsafe.Pointer(&b)), 8)
}

func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dead {
		w.dead = true
		unix.Close(w.fd)
	}
}
