package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mmsg is struct mmsghdr: one message of a Recvmmsg or Sendmmsg call. The
// pointers in Hdr are Go pointers, so what they refer to stays alive.
type Mmsg struct {
	Hdr unix.Msghdr
	Len uint32 // octets received or sent
}

// Recvmmsg receives up to len(m) messages in one call and returns how many it
// got. fd should be non-blocking. The errno is 0 when the call succeeded.
func Recvmmsg(fd int, m []Mmsg, flags int) (int, syscall.Errno) {
	if len(m) == 0 {
		return 0, 0
	}
	n, _, e := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(flags), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// Sendmmsg sends up to len(m) messages in one call and returns how many were
// sent. An error is reported only when the first message failed; after a
// partial success the caller calls again with the rest.
func Sendmmsg(fd int, m []Mmsg, flags int) (int, syscall.Errno) {
	if len(m) == 0 {
		return 0, 0
	}
	n, _, e := syscall.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(flags), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// Recvmsg is Recvmmsg for one message; it costs a little less.
func Recvmsg(fd int, m *Mmsg, flags int) syscall.Errno {
	n, _, e := syscall.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.Hdr)), uintptr(flags))
	if e == 0 {
		m.Len = uint32(n)
	}
	return e
}

// Sendmsg is Sendmmsg for one message; it costs a little less.
func Sendmsg(fd int, m *Mmsg, flags int) syscall.Errno {
	n, _, e := syscall.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.Hdr)), uintptr(flags))
	if e == 0 {
		m.Len = uint32(n)
	}
	return e
}

// SetBuffers asks for socket buffers of rcv and snd octets, beyond the
// system's limit when the process may (CAP_NET_ADMIN), and returns what was
// granted. A size that is not positive is left alone.
func SetBuffers(fd, rcv, snd int) (gotRcv, gotSnd int) {
	set := func(size, force, plain int) int {
		if size > 0 && unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
		}
		got, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain)
		return got / 2 // the kernel counts its own overhead as the other half
	}
	return set(rcv, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF), set(snd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
}
