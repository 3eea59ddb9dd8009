package lease

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The signal that the kernel sends for a lease, and the one that it sends when there is no room to queue the first.
const (
	sigBreak = 62
	sigLost  = unix.SIGIO
)

const (
	fSetSig   = 10
	fSetOwnEx = 15
	ownerTID  = 0
)

// Keeper takes leases and tells when they break. The kernel tells by a signal to one thread, which has it blocked and
// reads it from a descriptor, so that it says which file it is about; os/signal would not.
type Keeper struct {
	tid    int32
	broken func(fd int)
	lost   func()
	stop   int
	done   chan struct{}
}

// New starts a keeper. It calls broken, from one goroutine, with the descriptor that Take was given, for each lease that a
// writer waits for. It calls lost instead when there was no room to tell which: Broken says so of each.
func New(broken func(fd int), lost func()) (*Keeper, error) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	k := &Keeper{broken: broken, lost: lost, stop: stop, done: make(chan struct{})}
	ready := make(chan error)
	go k.run(ready)
	if err := <-ready; err != nil {
		unix.Close(stop)
		return nil, fmt.Errorf("lease: %w", err)
	}
	return k, nil
}

func sigset(signals ...int) (s unix.Sigset_t) {
	for _, n := range signals {
		bits := 8 * int(unsafe.Sizeof(s.Val[0]))
		s.Val[(n-1)/bits] |= 1 << ((n - 1) % bits)
	}
	return s
}

func (k *Keeper) run(ready chan<- error) {
	defer close(k.done)
	// The thread is never given back: its signal mask is not that of others, and it ends with this goroutine.
	runtime.LockOSThread()
	set := sigset(sigBreak, int(sigLost))
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		ready <- os.NewSyscallError("sigprocmask", err)
		return
	}
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		ready <- os.NewSyscallError("signalfd", err)
		return
	}
	defer unix.Close(fd)
	k.tid = int32(unix.Gettid())
	ready <- nil
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(k.stop), Events: unix.POLLIN}}
	var info [16]unix.SignalfdSiginfo
	b := unsafe.Slice((*byte)(unsafe.Pointer(&info[0])), unsafe.Sizeof(info))
	for {
		if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) {
			k.lost()
		}
		if p[1].Revents != 0 {
			return
		}
		n, err := unix.Read(fd, b)
		if err != nil {
			continue
		}
		for i := range n / int(unsafe.Sizeof(info[0])) {
			if info[i].Signo == sigBreak {
				k.broken(int(info[i].Fd))
			} else {
				k.lost()
			}
		}
	}
}

// Take takes a read lease through a descriptor that is open for reading. ErrWriter and ErrNoLease say why there is none.
func (k *Keeper) Take(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), fSetSig, sigBreak); err != nil {
		return os.NewSyscallError("fcntl F_SETSIG", err)
	}
	owner := struct{ kind, id int32 }{ownerTID, k.tid}
	if _, _, e := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), fSetOwnEx, uintptr(unsafe.Pointer(&owner))); e != 0 {
		return os.NewSyscallError("fcntl F_SETOWN_EX", e)
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN):
		return ErrWriter
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EACCES):
		return ErrNoLease
	}
	return os.NewSyscallError("fcntl F_SETLEASE", err)
}

// Release releases the lease that was taken through a descriptor, for everyone who holds it. There need not be one.
func Release(fd int) {
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
}

// Broken says whether a lease that was taken through fd is gone or has a writer waiting.
func Broken(fd int) bool {
	kind, err := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0)
	return err != nil || kind != unix.F_RDLCK
}

// Close ends the thread. Leases stay; what breaks later is not told.
func (k *Keeper) Close() {
	var one [8]byte
	one[0] = 1
	_, _ = unix.Write(k.stop, one[:])
	<-k.done
	unix.Close(k.stop)
}
