package mrt

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Attribute types (RFC 4271 section 5, RFC 4760).
const (
	attrNextHop   = 3
	attrMPReach   = 14
	attrMPUnreach = 15

	flagExtended = 0x10 // the length has two octets
)

const (
	afiIPv4     = 1
	afiIPv6     = 2
	safiUnicast = 1
)

// attributes are the path attributes that a FIB needs.
type attributes struct {
	nextHop netip.Addr // NEXT_HOP
	mpHop   netip.Addr // of MP_REACH_NLRI
	reach   []byte     // NLRI of MP_REACH_NLRI, of afi
	unreach []byte     // of MP_UNREACH_NLRI
	afiR    uint16     // 0: none, or not unicast
	afiU    uint16
}

// parse reads path attributes. In table dumps MP_REACH_NLRI is cut down to the next hop (RFC 6396 section 4.3.4); some
// collectors write all of it even so, which begins with a zero octet as no next hop's length does.
func (a *attributes) parse(b []byte, dump bool) error {
	for len(b) > 0 {
		if len(b) < 3 {
			return fmt.Errorf("attribute header: %w", errShort)
		}
		flags, typ := b[0], b[1]
		n, h := int(b[2]), 3
		if flags&flagExtended != 0 {
			if len(b) < 4 {
				return fmt.Errorf("attribute %d: length: %w", typ, errShort)
			}
			n, h = int(binary.BigEndian.Uint16(b[2:])), 4
		}
		if len(b) < h+n {
			return fmt.Errorf("attribute %d of %d octets: %w", typ, n, errShort)
		}
		v := b[h : h+n]
		b = b[h+n:]
		switch typ {
		case attrNextHop:
			if n != 4 {
				return fmt.Errorf("NEXT_HOP of %d octets: want 4", n)
			}
			a.nextHop = netip.AddrFrom4([4]byte(v))
		case attrMPReach:
			if err := a.mpReach(v, dump); err != nil {
				return fmt.Errorf("MP_REACH_NLRI: %w", err)
			}
		case attrMPUnreach:
			if dump {
				break
			}
			if n < 3 {
				return fmt.Errorf("MP_UNREACH_NLRI: %w", errShort)
			}
			if v[2] == safiUnicast {
				a.afiU, a.unreach = binary.BigEndian.Uint16(v), v[3:]
			}
		}
	}
	return nil
}

func (a *attributes) mpReach(v []byte, dump bool) error {
	whole := !dump || (len(v) > 0 && v[0] == 0)
	if whole {
		if len(v) < 5 {
			return errShort
		}
		if v[2] != safiUnicast { // its next hop may look different
			return nil
		}
		a.afiR = binary.BigEndian.Uint16(v)
		v = v[3:]
	}
	if len(v) < 1 || len(v) < 1+int(v[0]) {
		return fmt.Errorf("next hop: %w", errShort)
	}
	n, hop := int(v[0]), v[1:]
	switch n {
	case 4:
		a.mpHop = netip.AddrFrom4([4]byte(hop))
	case 16, 32: // global, and link-local after it (RFC 2545 section 3)
		a.mpHop = netip.AddrFrom16([16]byte(hop))
		if n == 32 && a.mpHop.IsUnspecified() {
			a.mpHop = netip.AddrFrom16([16]byte(hop[16:]))
		}
		a.mpHop = a.mpHop.Unmap()
	default:
		return fmt.Errorf("next hop of %d octets: want 4, 16 or 32", n)
	}
	v = hop[n:]
	if !whole {
		if len(v) != 0 {
			return fmt.Errorf("%d octets after the next hop", len(v))
		}
		return nil
	}
	if len(v) < 1 {
		return errShort
	}
	a.reach = v[1:] // after the reserved octet
	return nil
}

// hop returns the next hop for a family, the zero Addr if there is none that packets can be sent to.
func (a *attributes) hop(v6 bool) netip.Addr {
	h := a.mpHop
	if !v6 && a.nextHop.IsValid() {
		h = a.nextHop
	}
	if !h.IsValid() || h.IsUnspecified() || h.IsMulticast() {
		return netip.Addr{}
	}
	return h
}

// bgp4mp reads a record of an update stream (RFC 6396 section 4.4, RFC 8050 section 3).
func (r *Reader) bgp4mp(sub uint16, b []byte) error {
	as, addPath, state := 2, false, false
	switch sub {
	case message:
	case messageAS4:
		as = 4
	case messageAP:
		addPath = true
	case messageAS4AP:
		as, addPath = 4, true
	case stateChange:
		state = true
	case stateChangeAS4:
		as, state = 4, true
	default: // what the collector itself sent, and what is not known
		r.stats.Skipped++
		return nil
	}
	if len(b) < 2*as+4 {
		return errShort
	}
	e := Entry{PeerAS: number(b[:as]), Time: r.time}
	b = b[2*as+2:] // local AS and interface index are of no interest
	size := 4
	switch afi := binary.BigEndian.Uint16(b); afi {
	case afiIPv4:
	case afiIPv6:
		size = 16
	default:
		return fmt.Errorf("address family %d: want 1 or 2", afi)
	}
	b = b[2:]
	if len(b) < 2*size {
		return fmt.Errorf("addresses: %w", errShort)
	}
	e.Peer, _ = netip.AddrFromSlice(b[:size])
	e.Peer = e.Peer.Unmap()
	b = b[2*size:]
	if r.opt.Peer.IsValid() && e.Peer != r.opt.Peer {
		r.stats.Others++
		return nil
	}
	if state {
		if len(b) != 4 {
			return fmt.Errorf("states of %d octets: want 4", len(b))
		}
		const established = 6
		if before, now := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]); before == established && now != established {
			e.Kind = PeerDown
			r.pending = append(r.pending, e)
		}
		return nil
	}
	return r.message(e, b, addPath)
}

// message reads a BGP message (RFC 4271 section 4).
func (r *Reader) message(e Entry, b []byte, addPath bool) error {
	const bgpHeader, update = 19, 2
	if len(b) < bgpHeader {
		return fmt.Errorf("BGP header: %w", errShort)
	}
	if n := int(binary.BigEndian.Uint16(b[16:])); n != len(b) {
		return fmt.Errorf("BGP message length %d: want %d, what is left of the record", n, len(b))
	}
	if b[18] != update {
		r.stats.Skipped++
		return nil
	}
	withdrawn, b, err := counted(b[bgpHeader:], "withdrawn routes")
	if err != nil {
		return err
	}
	attrs, nlri, err := counted(b, "path attributes")
	if err != nil {
		return err
	}
	var at attributes
	if err := at.parse(attrs, false); err != nil {
		return err
	}
	// Withdrawals first: a prefix in both is announced (RFC 4271 section 4.3).
	if err := r.routes(e, Withdraw, withdrawn, afiIPv4, addPath, at); err != nil {
		return err
	}
	if err := r.routes(e, Withdraw, at.unreach, at.afiU, addPath, at); err != nil {
		return err
	}
	mp := at
	mp.nextHop = netip.Addr{}
	if err := r.routes(e, Announce, at.reach, at.afiR, addPath, mp); err != nil {
		return err
	}
	at.mpHop = netip.Addr{}
	return r.routes(e, Announce, nlri, afiIPv4, addPath, at)
}

// counted cuts off a field that begins with its length in two octets.
func counted(b []byte, what string) (field, rest []byte, err error) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return nil, nil, fmt.Errorf("%s: %w", what, errShort)
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:], nil
}

// routes queues an entry for each prefix of a list. Families other than IPv4 and IPv6 are passed over.
func (r *Reader) routes(e Entry, kind Kind, b []byte, afi uint16, addPath bool, at attributes) error {
	if afi != afiIPv4 && afi != afiIPv6 {
		return nil
	}
	hop := at.hop(afi == afiIPv6)
	for len(b) > 0 {
		e.Kind, e.PathID = kind, 0
		if addPath {
			if len(b) < 4 {
				return fmt.Errorf("path identifier: %w", errShort)
			}
			e.PathID = binary.BigEndian.Uint32(b)
			b = b[4:]
		}
		var err error
		if e.Prefix, b, err = prefix(b, afi == afiIPv6); err != nil {
			return err
		}
		switch {
		case kind == Withdraw:
			r.pending = append(r.pending, e)
		case !hop.IsValid(): // as good as withdrawn: there is a path, but none that can be used
			r.stats.NoHop++
			e.Kind = Withdraw
			r.pending = append(r.pending, e)
		default:
			r.add(e, hop)
		}
	}
	return nil
}
