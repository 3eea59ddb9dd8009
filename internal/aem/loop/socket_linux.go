package loop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

type kind uint8

const (
	kindListener kind = iota + 1
	kindStream
	kindPacket
	kindPoll
)

// adopt takes the descriptor out of what the standard library made, which is closed in any case. It duplicates it,
// because the library gives none away.
func adopt(c interface{ Close() error }, nonblock bool) (int, error) {
	defer c.Close()
	s, ok := c.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("loop: %T has no descriptor: %w", c, ErrKind)
	}
	if u, ok := c.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // closing it here is not its end
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, ctl := -1, error(nil)
	err = raw.Control(func(p uintptr) {
		if fd, ctl = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0); ctl == nil && !nonblock {
			// An operation of io_uring on a descriptor that does not block fails where it should wait.
			ctl = unix.SetNonblock(fd, false)
		}
	})
	if err = errors.Join(err, ctl); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, err
	}
	return fd, nil
}

func sockType(fd int) int {
	t, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return -1
	}
	return t
}

// socketAddrs asks the kernel for the names of a socket.
func socketAddrs(fd int) (local, remote net.Addr, err error) {
	typ := sockType(fd)
	l, err := unix.Getsockname(fd)
	if err != nil {
		return nil, nil, os.NewSyscallError("getsockname", err)
	}
	local = netAddr(l, typ)
	if r, err := unix.Getpeername(fd); err == nil {
		remote = netAddr(r, typ)
	}
	return local, remote, nil
}

func netAddr(sa unix.Sockaddr, typ int) net.Addr {
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		network := map[int]string{unix.SOCK_STREAM: "unix", unix.SOCK_DGRAM: "unixgram", unix.SOCK_SEQPACKET: "unixpacket"}[typ]
		return &net.UnixAddr{Name: u.Name, Net: network}
	}
	a := addrOf(sa).AddrPort
	if typ == unix.SOCK_DGRAM {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

func addrOf(sa unix.Sockaddr) Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return Addr{AddrPort: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))}
	case *unix.SockaddrInet6:
		return Addr{AddrPort: netip.AddrPortFrom(zoned(netip.AddrFrom16(sa.Addr), sa.ZoneId), uint16(sa.Port))}
	case *unix.SockaddrUnix:
		return Addr{Path: sa.Name}
	}
	return Addr{}
}

// zoned gives addresses of a link their zone, by number: looking its name up is no business of a hot path.
func zoned(a netip.Addr, zone uint32) netip.Addr {
	if a.Is4In6() {
		return a.Unmap()
	}
	if zone != 0 {
		return a.WithZone(fmt.Sprint(zone))
	}
	return a
}

// parseAddr reads a socket address as the kernel wrote it.
func parseAddr(b []byte) Addr {
	if len(b) < 2 {
		return Addr{}
	}
	port := func() uint16 { return binary.BigEndian.Uint16(b[2:]) }
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= 8:
		return Addr{AddrPort: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port())}
	case family == unix.AF_INET6 && len(b) >= 28:
		return Addr{AddrPort: netip.AddrPortFrom(zoned(netip.AddrFrom16([16]byte(b[8:24])), binary.NativeEndian.Uint32(b[24:])), port())}
	case family == unix.AF_UNIX && len(b) > 2:
		path := b[2:]
		if path[0] == 0 { // an abstract one
			return Addr{Path: "@" + string(path[1:])}
		}
		if i := bytes.IndexByte(path, 0); i >= 0 {
			path = path[:i]
		}
		return Addr{Path: string(path)}
	}
	return Addr{}
}

// writeAddr writes a socket address as the kernel reads it into b, which has room for one, for a socket of that family.
// It returns its length, 0 if the address does not fit the family.
func writeAddr(b []byte, family int, to Addr) int {
	clear(b)
	binary.NativeEndian.PutUint16(b, uint16(family))
	switch {
	case family == unix.AF_INET && to.Addr().Unmap().Is4():
		binary.BigEndian.PutUint16(b[2:], to.Port())
		ip := to.Addr().Unmap().As4()
		copy(b[4:], ip[:])
		return unix.SizeofSockaddrInet4
	case family == unix.AF_INET6 && to.Addr().IsValid():
		binary.BigEndian.PutUint16(b[2:], to.Port())
		ip := to.Addr().As16()
		copy(b[8:], ip[:])
		if z := to.Addr().Zone(); z != "" {
			n, err := strconv.ParseUint(z, 10, 32)
			if err != nil {
				ifi, err := net.InterfaceByName(z)
				if err != nil {
					return 0
				}
				n = uint64(ifi.Index)
			}
			binary.NativeEndian.PutUint32(b[24:], uint32(n))
		}
		return unix.SizeofSockaddrInet6
	case family == unix.AF_UNIX && to.Path != "" && len(to.Path) < unix.SizeofSockaddrUnix-2:
		copy(b[2:], to.Path)
		if to.Path[0] == '@' {
			b[2] = 0
			return 2 + len(to.Path)
		}
		return 2 + len(to.Path) + 1
	}
	return 0
}

func sockFamily(fd int) int {
	f, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return unix.AF_UNSPEC
	}
	return f
}

// sendDatagram tries to send at once; unix.EAGAIN means that the socket has no room. scratch holds the address.
func sendDatagram(fd int, p []byte, family int, to Addr, scratch *[unix.SizeofSockaddrAny]byte) error {
	var name unsafe.Pointer
	n := 0
	if to != (Addr{}) {
		if n = writeAddr(scratch[:], family, to); n == 0 {
			return unix.EAFNOSUPPORT
		}
		name = unsafe.Pointer(scratch)
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(name), uintptr(n))
	if errno != 0 {
		return errno
	}
	return nil
}

// file makes a descriptor the program's own; it is given away, blocking or not as the kernel has it.
func file(fd int) *os.File {
	_ = unix.SetNonblock(fd, true) // so that the runtime's poller takes it
	return os.NewFile(uintptr(fd), "socket")
}

// reset lets closing be a reset for a TCP peer.
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// short says whether an error of accept is a lack that passes: descriptors or memory.
func short(err error) bool {
	return err == unix.EMFILE || err == unix.ENFILE || err == unix.ENOMEM || err == unix.ENOBUFS
}

// likeNet gives a listener the options that package net sets on what it accepts: on Linux they are inherited. Those of TCP
// are refused by other sockets, which is no harm.
func likeNet(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15) == nil {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
}
