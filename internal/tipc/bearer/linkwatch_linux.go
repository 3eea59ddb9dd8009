package bearer

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// linkState is what a bearer cares about in a network device.
type linkState struct {
	up   bool // set up, and with a carrier
	mtu  int
	mac  [6]byte
	gone bool // removed, renamed, or its MTU is too small
}

// linkWatch reads the kernel's notifications (RTMGRP_LINK) about one device.
// Its socket stays in the network namespace that it was made in.
type linkWatch struct {
	index int
	name  string
	sock  *os.File
}

func watchLink(index int, name string) (*linkWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	w := &linkWatch{index: index, name: name, sock: os.NewFile(uintptr(fd), "netlink")}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		w.close()
		return nil, os.NewSyscallError("bind", err)
	}
	if err := w.ask(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *linkWatch) close() error { return w.sock.Close() }

// ask requests the device's state; the answer looks like a notification.
func (w *linkWatch) ask() error {
	var m [unix.SizeofNlMsghdr + unix.SizeofIfInfomsg]byte
	ne := binary.NativeEndian
	ne.PutUint32(m[0:], uint32(len(m)))
	ne.PutUint16(m[4:], unix.RTM_GETLINK)
	ne.PutUint16(m[6:], unix.NLM_F_REQUEST)
	m[16] = unix.AF_UNSPEC
	ne.PutUint32(m[20:], uint32(w.index))
	_, err := w.sock.Write(m[:])
	return err
}

// run turns notifications into events until the bearer is closed.
func (w *linkWatch) run(e *Eth) {
	buf := make([]byte, 64<<10)
	last := linkState{up: true, mtu: e.MTU(), mac: e.Addr().MAC}
	for fails := 0; ; {
		n, err := w.sock.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			// ENOBUFS: notifications were lost. The state as it is now makes
			// up for them.
			fails++
			backOff(fails)
			w.ask()
			continue
		}
		fails = 0
		for m := buf[:n]; len(m) >= unix.SizeofNlMsghdr; {
			l := int(binary.NativeEndian.Uint32(m))
			if l < unix.SizeofNlMsghdr || l > len(m) {
				break
			}
			state, ok := parseLink(m[:l], w.index, w.name, last)
			if ok && !w.report(e, last, state) {
				return
			}
			if ok {
				last = state
			}
			m = m[min((l+3)&^3, len(m)):]
		}
	}
}

// report sends the difference of two states as events. It returns false when
// the bearer is closed.
func (w *linkWatch) report(e *Eth, old, now linkState) bool {
	send := func(ev Event) bool {
		select {
		case e.events <- ev:
			return true
		case <-e.done:
			return false
		}
	}
	if now.gone {
		return old.gone || send(Event{Kind: Gone})
	}
	ok := true
	if now.mtu != old.mtu {
		e.mtu.Store(int64(now.mtu))
		ok = ok && send(Event{Kind: MTUChanged, MTU: now.mtu})
	}
	if now.mac != old.mac {
		e.setAddr(now.mac)
		ok = ok && send(Event{Kind: AddrChanged, Addr: e.Addr()})
	}
	switch {
	case old.up && !now.up:
		ok = ok && send(Event{Kind: LinkDown})
	case !old.up && now.up:
		ok = ok && send(Event{Kind: LinkUp})
	}
	return ok
}

// parseLink reads one netlink message about the device with the given index
// and name. ok is false when the message is about something else. What it does
// not mention is as in last.
func parseLink(m []byte, index int, name string, last linkState) (s linkState, ok bool) {
	ne := binary.NativeEndian
	if len(m) < unix.SizeofNlMsghdr+unix.SizeofIfInfomsg {
		return s, false
	}
	typ := ne.Uint16(m[4:])
	if typ != unix.RTM_NEWLINK && typ != unix.RTM_DELLINK {
		return s, false
	}
	info, attrs := m[unix.SizeofNlMsghdr:], m[unix.SizeofNlMsghdr+unix.SizeofIfInfomsg:]
	// Bridges report their ports in the same way with another family.
	if info[0] != unix.AF_UNSPEC || int(int32(ne.Uint32(info[4:]))) != index {
		return s, false
	}
	s = last
	if typ == unix.RTM_DELLINK {
		s.gone = true
		return s, true
	}
	// netif_carrier_ok and netif_oper_up, as tipc_l2_device_event asks.
	const all = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	s.up = ne.Uint32(info[8:])&all == all
	for len(attrs) >= unix.SizeofRtAttr {
		l := int(ne.Uint16(attrs))
		if l < unix.SizeofRtAttr || l > len(attrs) {
			break
		}
		v := attrs[unix.SizeofRtAttr:l]
		switch ne.Uint16(attrs[2:]) {
		case unix.IFLA_MTU:
			if len(v) == 4 {
				s.mtu = int(ne.Uint32(v))
			}
		case unix.IFLA_ADDRESS:
			if len(v) == 6 {
				copy(s.mac[:], v)
			}
		case unix.IFLA_IFNAME:
			if len(v) > 0 && string(v[:len(v)-1]) != name {
				s.gone = true
			}
		}
		attrs = attrs[min((l+3)&^3, len(attrs)):]
	}
	s.gone = s.gone || s.mtu < MinMTU
	return s, true
}
