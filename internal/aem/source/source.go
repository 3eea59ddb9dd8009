// Package source opens and reads the descriptors behind events: pidfd, inotify, fanotify, eventfd, pressure stall triggers
// and route netlink. What the kernel writes is read by functions that take octets and return values (this file);
// the rest is Linux's and elsewhere returns errors of errors.ErrUnsupported.
package source

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// ErrMalformed is the error of octets that are not what the kernel writes.
var ErrMalformed = errors.New("aem/source: malformed message")

// FileEvent is one of inotify's, struct inotify_event.
type FileEvent struct {
	Watch  int32
	Mask   uint32
	Cookie uint32
	Name   string
}

// NextFileEvent reads the first event of b and returns what is behind it.
func NextFileEvent(b []byte) (e FileEvent, rest []byte, err error) {
	const header = 16
	if len(b) < header {
		return e, nil, ErrMalformed
	}
	o := binary.NativeEndian
	n := o.Uint32(b[12:])
	if uint64(n) > uint64(len(b)-header) {
		return e, nil, ErrMalformed
	}
	e = FileEvent{Watch: int32(o.Uint32(b)), Mask: o.Uint32(b[4:]), Cookie: o.Uint32(b[8:])}
	e.Name = untilZero(b[header : header+n])
	return e, b[header+n:], nil
}

func untilZero(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// AccessEvent is one of fanotify's, struct fanotify_event_metadata.
type AccessEvent struct {
	Mask uint64
	FD   int32 // of the object, the reader's to close; -1 when events were lost
	PID  int32
}

// NextAccessEvent reads the first event of b and returns what is behind it.
func NextAccessEvent(b []byte) (e AccessEvent, rest []byte, err error) {
	const header, version = 24, 3
	if len(b) < header {
		return e, nil, ErrMalformed
	}
	o := binary.NativeEndian
	n := o.Uint32(b)
	if n < header || uint64(n) > uint64(len(b)) || b[4] != version {
		return e, nil, ErrMalformed
	}
	e = AccessEvent{Mask: o.Uint64(b[8:]), FD: int32(o.Uint32(b[16:])), PID: int32(o.Uint32(b[20:]))}
	return e, b[n:], nil
}

// Kind is what a message of route netlink is about.
type Kind uint8

// Kinds.
const (
	Other Kind = iota
	NewLink
	DelLink
	NewAddr
	DelAddr
	NewRoute
	DelRoute
)

// Of <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>.
const (
	rtmNewLink, rtmDelLink   = 16, 17
	rtmNewAddr, rtmDelAddr   = 20, 21
	rtmNewRoute, rtmDelRoute = 24, 25

	ifName, ifMTU, ifOper = 3, 4, 16

	addrAddress, addrLocal, addrLabel, addrFlags = 1, 2, 3, 8
)

// Message is one of route netlink.
type Message struct {
	Kind    Kind
	Payload []byte
}

// NextMessage reads the first message of a datagram and returns what is behind it.
func NextMessage(b []byte) (m Message, rest []byte, err error) {
	const header = 16
	if len(b) < header {
		return m, nil, ErrMalformed
	}
	n := binary.NativeEndian.Uint32(b)
	if n < header || uint64(n) > uint64(len(b)) {
		return m, nil, ErrMalformed
	}
	m.Payload = b[header:n]
	switch binary.NativeEndian.Uint16(b[4:]) {
	case rtmNewLink:
		m.Kind = NewLink
	case rtmDelLink:
		m.Kind = DelLink
	case rtmNewAddr:
		m.Kind = NewAddr
	case rtmDelAddr:
		m.Kind = DelAddr
	case rtmNewRoute:
		m.Kind = NewRoute
	case rtmDelRoute:
		m.Kind = DelRoute
	}
	return m, b[min(align(int(n)), len(b)):], nil
}

func align(n int) int { return (n + 3) &^ 3 }

// attrs calls f for each attribute.
func attrs(b []byte, f func(typ int, v []byte)) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return ErrMalformed
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return ErrMalformed
		}
		f(int(binary.NativeEndian.Uint16(b[2:])&0x3fff), b[4:n])
		b = b[min(align(n), len(b)):]
	}
	return nil
}

// Link is what a message says of a link.
type Link struct {
	Index int
	Name  string
	Flags uint32 // IFF_…
	MTU   int
	Oper  uint8 // operational state of RFC 2863, IF_OPER_…
}

// DecodeLink reads the payload of NewLink and DelLink.
func DecodeLink(b []byte) (l Link, err error) {
	const header = 16
	if len(b) < header {
		return l, ErrMalformed
	}
	l.Index, l.Flags = int(int32(binary.NativeEndian.Uint32(b[4:]))), binary.NativeEndian.Uint32(b[8:])
	return l, attrs(b[header:], func(typ int, v []byte) {
		switch {
		case typ == ifName:
			l.Name = untilZero(v)
		case typ == ifMTU && len(v) == 4:
			l.MTU = int(binary.NativeEndian.Uint32(v))
		case typ == ifOper && len(v) == 1:
			l.Oper = v[0]
		}
	})
}

// Addr is what a message says of an address.
type Addr struct {
	Index  int
	Prefix netip.Prefix
	Peer   netip.Addr // of a point-to-point link, else zero
	Label  string
	Flags  uint32 // IFA_F_…
}

// DecodeAddr reads the payload of NewAddr and DelAddr.
func DecodeAddr(b []byte) (a Addr, err error) {
	const header = 8
	if len(b) < header {
		return a, ErrMalformed
	}
	bits := int(b[1])
	a.Flags, a.Index = uint32(b[2]), int(binary.NativeEndian.Uint32(b[4:]))
	var address, local netip.Addr
	err = attrs(b[header:], func(typ int, v []byte) {
		switch {
		case typ == addrAddress:
			address, _ = netip.AddrFromSlice(v)
		case typ == addrLocal:
			local, _ = netip.AddrFromSlice(v)
		case typ == addrLabel:
			a.Label = untilZero(v)
		case typ == addrFlags && len(v) == 4:
			a.Flags = binary.NativeEndian.Uint32(v)
		}
	})
	if err != nil {
		return a, err
	}
	// IFA_LOCAL is the address and IFA_ADDRESS the far end of a point-to-point link; elsewhere both are the address, and
	// IPv6 has only the latter (net/ipv4/devinet.c:inet_fill_ifaddr).
	if !local.IsValid() {
		local = address
	} else if address != local {
		a.Peer = address
	}
	if !local.IsValid() || bits > local.BitLen() {
		return a, ErrMalformed
	}
	a.Prefix = netip.PrefixFrom(local, bits)
	return a, nil
}
