package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
)

// nudValid is NUD_VALID (net/core/neighbour.h): the states in which the kernel itself sends to the MAC address.
const nudValid = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE | netlink.NUD_PROBE | netlink.NUD_STALE | netlink.NUD_DELAY

// groups are RTMGRP_LINK and RTMGRP_NEIGH (rtnetlink(7)).
const groups = 1 | 4

// watch is a socket on which the kernel tells of links and neighbours. Events lie in it until drain applies them under
// the forwarder's lock, so that none is applied after something newer.
type watch struct {
	file *os.File
	conn syscall.RawConn
	buf  []byte
}

func newWatch() (*watch, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	// A full buffer is not an error, only the reason for a resynchronisation.
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 1<<20)
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink: %w", err), syscall.Close(fd))
	}
	w := &watch{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10)}
	if w.conn, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	return w, nil
}

func (w *watch) close() error { return w.file.Close() }

// receive returns the messages of one read, none when there is nothing to read.
func (w *watch) receive() (l []syscall.NetlinkMessage, err error) {
	cerr := w.conn.Control(func(fd uintptr) {
		for {
			n, from, rerr := syscall.Recvfrom(int(fd), w.buf, syscall.MSG_DONTWAIT)
			if errors.Is(rerr, syscall.EINTR) {
				continue
			}
			if errors.Is(rerr, syscall.EAGAIN) {
				return
			}
			if rerr != nil {
				err = rerr
				return
			}
			if s, ok := from.(*syscall.SockaddrNetlink); !ok || s.Pid != 0 { // not from the kernel
				continue
			}
			l, err = syscall.ParseNetlinkMessage(w.buf[:n])
			return
		}
	})
	return l, errors.Join(err, cerr)
}

// drain applies all events that have come. The lock is held.
func (f *Forwarder) drain() error {
	for {
		l, err := f.watch.receive()
		if errors.Is(err, syscall.ENOBUFS) {
			err = f.resync()
		}
		if err != nil {
			return fmt.Errorf("neighbours and links: %w", err)
		}
		if len(l) == 0 {
			return nil
		}
		for _, m := range l {
			if err := f.event(m); err != nil {
				return err
			}
		}
	}
}

func (f *Forwarder) event(m syscall.NetlinkMessage) error {
	switch m.Header.Type {
	case syscall.RTM_NEWLINK, syscall.RTM_DELLINK:
		d, err := parseLink(m)
		if err != nil || m.Header.Type == syscall.RTM_DELLINK {
			d.Up = false
		}
		if d.Index == 0 {
			return nil
		}
		return f.setDevice(d)
	case syscall.RTM_NEWNEIGH, syscall.RTM_DELNEIGH:
		n, err := netlink.NeighDeserialize(m.Data)
		if err != nil {
			return nil // of a family that has none
		}
		return f.neighbour(n, m.Header.Type == syscall.RTM_DELNEIGH)
	}
	return nil
}

// parseLink reads what is needed of an RTM_NEWLINK message (struct ifinfomsg and attributes, rtnetlink(7)).
func parseLink(m syscall.NetlinkMessage) (Device, error) {
	if len(m.Data) < syscall.SizeofIfInfomsg {
		return Device{}, errors.New("truncated")
	}
	if m.Data[0] != syscall.AF_UNSPEC { // a bridge tells of its ports in the same way
		return Device{}, nil
	}
	flags := binary.NativeEndian.Uint32(m.Data[8:])
	d := Device{Index: binary.NativeEndian.Uint32(m.Data[4:]), Up: flags&syscall.IFF_UP != 0 && flags&syscall.IFF_RUNNING != 0}
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	for _, a := range attrs {
		switch a.Attr.Type {
		case syscall.IFLA_MTU:
			if len(a.Value) == 4 {
				d.MTU = binary.NativeEndian.Uint32(a.Value)
			}
		case syscall.IFLA_ADDRESS:
			if len(a.Value) == 6 {
				d.MAC = [6]byte(a.Value)
			}
		}
	}
	return d, err
}

// known turns the kernel's entry into ours; ok is false when it is not of a port, and valid when it has no MAC address
// that the kernel would send to.
func (f *Forwarder) known(k *netlink.Neigh) (n Neighbour, valid, ok bool) {
	p, isPort := f.ports[uint32(k.LinkIndex)]
	addr, isAddr := netip.AddrFromSlice(k.IP)
	if !isPort || !isAddr || addr.IsUnspecified() || addr.IsMulticast() || k.Flags&netlink.NTF_PROXY != 0 {
		return n, false, false
	}
	n.NeighbourKey = NeighbourKey{FIB: p.FIB, Device: p.Device, Addr: addr.Unmap()}
	if k.State&nudValid == 0 || len(k.HardwareAddr) != len(n.MAC) {
		return n, false, true
	}
	copy(n.MAC[:], k.HardwareAddr)
	return n, true, true
}

func (f *Forwarder) neighbour(k *netlink.Neigh, deleted bool) error {
	n, valid, ok := f.known(k)
	if !ok {
		return nil
	}
	if deleted || !valid {
		return f.deleteNeighbour(n.NeighbourKey)
	}
	if k.State == netlink.NUD_STALE {
		if err := f.confirm(n.NeighbourKey); err != nil {
			return err
		}
	}
	return ignore(f.setNeighbour(n), syscall.E2BIG) // those that do not fit go by the kernel
}

// confirm makes the kernel probe a neighbour that went stale if packets were forwarded to it: the kernel does not see
// them, and would neither notice that it is gone nor keep it.
func (f *Forwarder) confirm(k NeighbourKey) error {
	var v forwardNeighbour
	err := f.objs.Neighbours.Lookup(k.key(), &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) || v.Used == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	v.Used = 0
	if err := f.objs.Neighbours.Update(k.key(), v, ebpf.UpdateExist); err != nil {
		return err
	}
	if err := f.changed(); err != nil { // so that the next packet marks it again
		return err
	}
	f.ask(k)
	return nil
}

// Sync brings devices and neighbours in line with the kernel's at once. Follow does so by itself.
func (f *Forwarder) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	return errors.Join(f.drain(), f.resync())
}

// resync compares with dumps: desired, difference, apply. The lock is held.
func (f *Forwarder) resync() error {
	links, neighs, err := f.dump()
	if err != nil {
		return err
	}
	var errs []error
	there := map[uint32]bool{}
	for _, l := range links {
		a := l.Attrs()
		d := Device{Index: uint32(a.Index), MTU: uint32(a.MTU), Up: a.RawFlags&syscall.IFF_UP != 0 && a.RawFlags&syscall.IFF_RUNNING != 0}
		copy(d.MAC[:], a.HardwareAddr)
		there[d.Index] = true
		errs = append(errs, f.setDevice(d))
	}
	for device := range f.ports {
		if !there[device] {
			errs = append(errs, f.setDevice(Device{Index: device}))
		}
	}
	desired := map[NeighbourKey]Neighbour{}
	for _, k := range neighs {
		if n, valid, ok := f.known(&k); ok && valid {
			desired[n.NeighbourKey] = n
		}
	}
	have, err := f.neighbours()
	errs = append(errs, err)
	for _, n := range have {
		if _, ok := desired[n.NeighbourKey]; !ok {
			errs = append(errs, f.deleteNeighbour(n.NeighbourKey))
		}
	}
	for _, n := range desired {
		errs = append(errs, ignore(f.setNeighbour(n), syscall.E2BIG))
	}
	return errors.Join(errs...)
}

func (f *Forwarder) dump() (links []netlink.Link, neighs []netlink.Neigh, err error) {
	const tries = 5 // the kernel says when a dump was not of one moment
	for range tries {
		if links, err = f.handle.LinkList(); err == nil {
			if neighs, err = f.handle.NeighList(0, syscall.AF_UNSPEC); err == nil {
				return links, neighs, nil
			}
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return nil, nil, fmt.Errorf("links and neighbours: %w", err)
}

// Follow keeps devices and neighbours as the kernel has them, and has missing neighbours resolved, until the context
// ends, which is no error. One call at a time. When it does not run, the state stays as it was, and packets to
// neighbours that are not known go by the kernel.
func (f *Forwarder) Follow(ctx context.Context) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return errClosed
	}
	w := f.watch
	ring, err := ringbuf.NewReader(f.objs.Misses)
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("ring of missing neighbours: %w", err)
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, ring.Close())
	}
	if err := w.file.SetReadDeadline(time.Time{}); err != nil {
		return errors.Join(err, ring.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := make(chan error, 1)
	go func() {
		asked <- f.answer(ring)
		cancel()
	}()
	stop := context.AfterFunc(ctx, func() {
		_ = w.file.SetReadDeadline(time.Unix(1, 0))
		_ = ring.Close()
	})
	defer stop()
	var failed error
	err = w.conn.Read(func(uintptr) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.closed || ctx.Err() != nil {
			return true
		}
		failed = f.drain()
		return failed != nil
	})
	cancel()
	_ = ring.Close()
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return errors.Join(failed, err, <-asked)
}

// answer asks the kernel for the neighbours that the program misses. The program limits how often it tells of one, and
// the ring how many wait; the kernel bounds its table (net.ipv4.neigh.default.gc_thresh3).
func (f *Forwarder) answer(ring *ringbuf.Reader) error {
	for {
		r, err := ring.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ring of missing neighbours: %w", err)
		}
		if len(r.RawSample) < 24 {
			continue
		}
		b := r.RawSample
		k := keyOf(forwardNeighbourKey{
			Hi: binary.NativeEndian.Uint64(b), Lo: binary.NativeEndian.Uint64(b[8:]), Fib: binary.NativeEndian.Uint32(b[16:]), Ifindex: binary.NativeEndian.Uint32(b[20:]),
		})
		f.mu.Lock()
		if p, ok := f.ports[k.Device]; ok && p.FIB == k.FIB && !f.closed {
			f.ask(k)
		}
		f.mu.Unlock()
	}
}
