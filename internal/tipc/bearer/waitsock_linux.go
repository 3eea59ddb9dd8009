package bearer

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// waitSock is a datagram socket on which goroutines wait in system calls, not in Go's poller. That one would be woken by
// every datagram that comes and by every one that has left, to wake a goroutine in turn; here a datagram wakes the
// thread that reads it. The price is a thread for each goroutine that waits.
//
// It implements syscall.RawConn: Read and Write call their function until it returns true and wait in poll(2) in
// between. The socket itself blocks, for DirectTime when receiving: a function that must not wait says MSG_DONTWAIT. One
// goroutine at a time may Read, and one Write.
type waitSock struct {
	fd   int
	own  unix.Sockaddr
	once sync.Once
	gone chan struct{} // closed with fd

	refs atomic.Int64 // users of fd, and one for not being closed
	shut atomic.Bool  // closing: no more users may come

	patience time.Duration // of Write, negative: no end

	// Arguments of system calls, which escape.
	rdFds, wrFds [1]unix.PollFd
	ts           unix.Timespec
}

// newWaitSock takes fd over.
func newWaitSock(fd int) (*waitSock, error) {
	own, err := unix.Getsockname(fd)
	if err == nil {
		tv := unix.NsecToTimeval(int64(DirectTime))
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("getsockname, setsockopt SO_RCVTIMEO", err)
	}
	s := &waitSock{fd: fd, own: own, gone: make(chan struct{}), patience: -1}
	s.refs.Store(1)
	return s, nil
}

// LocalAddr is the address the socket is bound to.
func (s *waitSock) LocalAddr() net.Addr {
	switch sa := s.own.(type) {
	case *unix.SockaddrInet4:
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
	case *unix.SockaddrInet6:
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	}
	return nil
}

// SyscallConn implements syscall.Conn.
func (s *waitSock) SyscallConn() (syscall.RawConn, error) { return s, nil }

// Close wakes all who wait, and returns when the file descriptor is closed.
func (s *waitSock) Close() error {
	err := error(ErrClosed)
	s.once.Do(func() {
		err = nil
		s.shut.Store(true)
		// It fails with ENOTCONN, but wakes those who wait now or later.
		unix.Shutdown(s.fd, unix.SHUT_RDWR)
		s.release()
	})
	<-s.gone
	return err
}

func (s *waitSock) acquire() error {
	for {
		n := s.refs.Load()
		if n == 0 || s.shut.Load() {
			return ErrClosed
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

func (s *waitSock) release() {
	if s.refs.Add(-1) == 0 {
		unix.Close(s.fd)
		close(s.gone)
	}
}

// Control implements syscall.RawConn.
func (s *waitSock) Control(f func(fd uintptr)) error {
	if err := s.acquire(); err != nil {
		return err
	}
	defer s.release()
	f(uintptr(s.fd))
	return nil
}

// Read implements syscall.RawConn.
func (s *waitSock) Read(f func(fd uintptr) bool) error {
	return s.loop(f, unix.POLLIN, &s.rdFds, -1)
}

// Write implements syscall.RawConn. It gives up with os.ErrDeadlineExceeded.
func (s *waitSock) Write(f func(fd uintptr) bool) error {
	return s.loop(f, unix.POLLOUT, &s.wrFds, s.patience)
}

// SetWriteDeadline is for the goroutine that writes: it changes nothing for one that waits already.
func (s *waitSock) SetWriteDeadline(t time.Time) error {
	s.patience = -1
	if !t.IsZero() {
		s.patience = max(0, time.Until(t))
	}
	return nil
}

func (s *waitSock) loop(f func(fd uintptr) bool, events int16, fds *[1]unix.PollFd, patience time.Duration) error {
	if err := s.acquire(); err != nil {
		return err
	}
	defer s.release()
	for !f(uintptr(s.fd)) {
		var timeout *unix.Timespec
		if patience >= 0 {
			s.ts = unix.NsecToTimespec(int64(patience))
			timeout = &s.ts
		}
		fds[0] = unix.PollFd{Fd: int32(s.fd), Events: events}
		n, err := unix.Ppoll(fds[:], timeout, nil)
		switch {
		case s.shut.Load():
			return ErrClosed
		case n == 0 && err == nil:
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}

// kick makes the socket readable.
func (s *waitSock) kick() {
	if s.acquire() == nil {
		unix.Sendto(s.fd, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, s.own)
		s.release()
	}
}
