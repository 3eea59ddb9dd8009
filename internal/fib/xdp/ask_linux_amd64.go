package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
)

// asker is a socket on which the kernel is asked for the state of one neighbour.
type asker struct {
	fd  int
	seq uint32
	buf [4096]byte
}

func newAsker() (*asker, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink: %w", err), syscall.Close(fd))
	}
	return &asker{fd: fd}, nil
}

func (a *asker) close() error { return syscall.Close(a.fd) }

const (
	sizeofNdmsg = 12
	ndaDst      = 1 // include/uapi/linux/neighbour.h
)

// state is the NUD_ state of a neighbour in the kernel, 0 if it has none (RTM_GETNEIGH, Linux 5.0).
func (a *asker) state(k NeighbourKey) (int, error) {
	a.seq++
	addr := k.Addr.AsSlice()
	b := make([]byte, syscall.NLMSG_HDRLEN+sizeofNdmsg+4+len(addr))
	ne := binary.NativeEndian
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], syscall.RTM_GETNEIGH)
	ne.PutUint16(b[6:], syscall.NLM_F_REQUEST)
	ne.PutUint32(b[8:], a.seq)
	m := b[syscall.NLMSG_HDRLEN:]
	m[0] = syscall.AF_INET6
	if k.Addr.Is4() {
		m[0] = syscall.AF_INET
	}
	ne.PutUint32(m[4:], k.Device)
	ne.PutUint16(m[sizeofNdmsg:], uint16(4+len(addr)))
	ne.PutUint16(m[sizeofNdmsg+2:], ndaDst)
	copy(m[sizeofNdmsg+4:], addr)
	if err := syscall.Sendto(a.fd, b, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return 0, err
	}
	for { // the answer is there when the request has been sent
		n, from, err := syscall.Recvfrom(a.fd, a.buf[:], syscall.MSG_DONTWAIT)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if s, ok := from.(*syscall.SockaddrNetlink); !ok || s.Pid != 0 { // not from the kernel
			continue
		}
		l, err := syscall.ParseNetlinkMessage(a.buf[:n])
		if err != nil {
			return 0, err
		}
		for _, r := range l {
			switch {
			case r.Header.Seq != a.seq:
			case r.Header.Type == syscall.NLMSG_ERROR && len(r.Data) >= 4:
				no := syscall.Errno(-int32(ne.Uint32(r.Data)))
				return 0, ignore(no, syscall.ENOENT)
			case r.Header.Type == syscall.RTM_NEWNEIGH && len(r.Data) >= sizeofNdmsg:
				return int(ne.Uint16(r.Data[8:])), nil
			}
		}
	}
}

// ask makes the kernel resolve or confirm a neighbour, as if it had a packet for it (NTF_USE: neigh_event_send). It is
// not done to one that somebody entered for good: since Linux 5.16 it would lose its MAC address (net/core/neighbour.c,
// __neigh_update). If the kernel cannot, such as when its table is full, the next packet asks again.
func (f *Forwarder) ask(k NeighbourKey) {
	if s, err := f.asker.state(k); err != nil || s&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 {
		return
	}
	_ = f.handle.NeighSet(&netlink.Neigh{LinkIndex: int(k.Device), IP: net.IP(k.Addr.AsSlice()), State: netlink.NUD_NONE, Flags: netlink.NTF_USE})
}
