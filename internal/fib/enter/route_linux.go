package enter

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
)

// RoutePort asks the kernel which port of a FIB of back end rules its route to an address leads to now (RTM_GETROUTE
// with RTA_MARK; net/ipv4/route.c inet_rtm_getroute). It needs no privilege and takes some microseconds.
func RoutePort(b binding.Binding, to netip.Addr) (string, error) {
	to = to.Unmap().WithZone("")
	index, local, err := routeDevice(b.Mark, to)
	if err != nil {
		return "", fmt.Errorf("fib %s: no route to %s: %w", Title(b), to, err)
	}
	if local {
		return addressPort(b, to)
	}
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return "", fmt.Errorf("fib %s: route to %s: %w", Title(b), to, err)
	}
	if !slices.Contains(b.Ports, i.Name) {
		return "", &PortError{Title(b), i.Name, fmt.Sprintf("a route to %s that leaves by one of %q", to, b.Ports)}
	}
	return i.Name, nil
}

// addressPort returns the port of a FIB that has an address.
func addressPort(b binding.Binding, a netip.Addr) (string, error) {
	for _, port := range b.Ports {
		i, err := net.InterfaceByName(port)
		if err != nil {
			continue
		}
		l, err := i.Addrs()
		if err != nil {
			return "", fmt.Errorf("fib %s: addresses of %s: %w", Title(b), port, err)
		}
		for _, n := range l {
			if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr() == a {
				return port, nil
			}
		}
	}
	return "", fmt.Errorf("fib %s: %s is an address of this host, but of none of the FIB's ports: %w", Title(b), a, unix.EADDRNOTAVAIL)
}

func routeDevice(mark uint32, to netip.Addr) (index int, local bool, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, false, err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, routeRequest(mark, to), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, false, err
	}
	b := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return 0, false, err
	}
	return routeReply(b[:n])
}

func routeRequest(mark uint32, to netip.Addr) []byte {
	e := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg)
	e.PutUint16(b[4:], unix.RTM_GETROUTE)
	e.PutUint16(b[6:], unix.NLM_F_REQUEST)
	b[16] = unix.AF_INET
	if to.Is6() {
		b[16] = unix.AF_INET6
	}
	b[17] = byte(to.BitLen())
	b = attribute(b, unix.RTA_DST, to.AsSlice())
	b = attribute(b, unix.RTA_MARK, e.AppendUint32(nil, mark))
	e.PutUint32(b, uint32(len(b)))
	return b
}

func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(b, value...) // all values here are multiples of 4 octets
}

// routeReply finds the device (RTA_OIF) in the answer, and whether the destination is this host.
func routeReply(b []byte) (index int, local bool, err error) {
	e := binary.NativeEndian
	if len(b) < 20 {
		return 0, false, unix.EBADMSG
	}
	if e.Uint16(b[4:]) == unix.NLMSG_ERROR {
		return 0, false, unix.Errno(-int32(e.Uint32(b[16:])))
	}
	if e.Uint16(b[4:]) != unix.RTM_NEWROUTE || len(b) < unix.SizeofNlMsghdr+unix.SizeofRtMsg {
		return 0, false, unix.EBADMSG
	}
	switch b[unix.SizeofNlMsghdr+7] { // rtm_type
	case unix.RTN_LOCAL:
		local = true
	case unix.RTN_UNREACHABLE:
		return 0, false, unix.EHOSTUNREACH
	case unix.RTN_BLACKHOLE:
		return 0, false, unix.EINVAL // what a connection gets
	case unix.RTN_PROHIBIT:
		return 0, false, unix.EACCES
	}
	for a := b[unix.SizeofNlMsghdr+unix.SizeofRtMsg:]; len(a) >= 4; {
		n := int(e.Uint16(a))
		if n < 4 || n > len(a) {
			return 0, false, unix.EBADMSG
		}
		if e.Uint16(a[2:]) == unix.RTA_OIF && n == 8 {
			return int(e.Uint32(a[4:])), local, nil
		}
		a = a[min((n+3)&^3, len(a)):]
	}
	return 0, false, unix.ENETUNREACH
}
