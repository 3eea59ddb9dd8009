package mrt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// headerLen is the common header: time, type, subtype, length (RFC 6396 section 2).
const headerLen = 12

// Types and subtypes (RFC 6396 section 4, RFC 8050 section 3).
const (
	typeTableDumpV2 = 13
	typeBGP4MP      = 16
	typeBGP4MPET    = 17

	peerIndexTable   = 1
	ribIPv4Unicast   = 2
	ribIPv6Unicast   = 4
	ribIPv4UnicastAP = 8
	ribIPv6UnicastAP = 10

	stateChange    = 0
	message        = 1
	messageAS4     = 4
	stateChangeAS4 = 5
	messageAP      = 8
	messageAS4AP   = 9
)

type peer struct {
	addr netip.Addr
	as   uint32
}

var errShort = errors.New("ends early")

// record reads one MRT record into pending.
func (r *Reader) record() error {
	var h [headerLen]byte
	switch _, err := io.ReadFull(r.br, h[:]); err {
	case nil:
	case io.EOF:
		return io.EOF
	default:
		r.stats.Records++
		return r.fail(true, fmt.Errorf("header: %w", err))
	}
	r.stats.Records++
	r.time = binary.BigEndian.Uint32(h[:])
	typ, sub, n := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:]), binary.BigEndian.Uint32(h[8:])
	if n > MaxRecord {
		return r.fail(true, fmt.Errorf("length %d: want at most %d", n, MaxRecord))
	}
	if err := r.body(int(n)); err != nil {
		return r.fail(true, fmt.Errorf("type %d, %d octets: %w", typ, n, err))
	}
	r.offset += headerLen + int64(n)
	b := r.buf
	var err error
	switch typ {
	case typeTableDumpV2:
		err = r.tableDump(sub, b)
	case typeBGP4MPET:
		if len(b) < 4 { // microseconds
			return r.fail(false, errShort)
		}
		err = r.bgp4mp(sub, b[4:])
	case typeBGP4MP:
		err = r.bgp4mp(sub, b)
	default:
		r.stats.Skipped++
	}
	if err != nil {
		return r.fail(false, fmt.Errorf("type %d subtype %d: %w", typ, sub, err))
	}
	return nil
}

// body reads n octets into buf, which grows with what is there and not with what is announced.
func (r *Reader) body(n int) error {
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		have, step := len(r.buf), min(n-len(r.buf), 64<<10)
		if cap(r.buf) < have+step {
			r.buf = append(r.buf[:cap(r.buf)], make([]byte, max(step, cap(r.buf)/2))...)
		}
		r.buf = r.buf[:have+step]
		if _, err := io.ReadFull(r.br, r.buf[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (r *Reader) tableDump(sub uint16, b []byte) error {
	switch sub {
	case peerIndexTable:
		return r.peerIndex(b)
	case ribIPv4Unicast:
		return r.rib(b, false, false)
	case ribIPv6Unicast:
		return r.rib(b, true, false)
	case ribIPv4UnicastAP:
		return r.rib(b, false, true)
	case ribIPv6UnicastAP:
		return r.rib(b, true, true)
	}
	r.stats.Skipped++
	return nil
}

// peerIndex reads PEER_INDEX_TABLE (RFC 6396 section 4.3.1). The record of a file replaces that of the file before it,
// when several were joined.
func (r *Reader) peerIndex(b []byte) error {
	if len(b) < 6 {
		return fmt.Errorf("peer index table: %w", errShort)
	}
	b = b[4:] // the collector
	name := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+name+2 {
		return fmt.Errorf("view name: %w", errShort)
	}
	b = b[2+name:]
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	r.peers = r.peers[:0]
	for i := range n {
		if len(b) < 1 {
			return fmt.Errorf("peer %d of %d: %w", i, n, errShort)
		}
		alen, aslen := 4, 2
		if b[0]&1 != 0 {
			alen = 16
		}
		if b[0]&2 != 0 {
			aslen = 4
		}
		if len(b) < 5+alen+aslen {
			return fmt.Errorf("peer %d of %d: %w", i, n, errShort)
		}
		a, _ := netip.AddrFromSlice(b[5 : 5+alen])
		r.peers = append(r.peers, peer{a.Unmap(), number(b[5+alen : 5+alen+aslen])})
		b = b[5+alen+aslen:]
	}
	if len(b) != 0 {
		return fmt.Errorf("peer index table: %d octets after the last peer", len(b))
	}
	return nil
}

// number reads an AS number of 2 or 4 octets.
func number(b []byte) uint32 {
	if len(b) == 2 {
		return uint32(binary.BigEndian.Uint16(b))
	}
	return binary.BigEndian.Uint32(b)
}

// rib reads a RIB record (RFC 6396 section 4.3.2, RFC 8050 section 4.1).
func (r *Reader) rib(b []byte, v6, addPath bool) error {
	if len(b) < 4 {
		return fmt.Errorf("sequence number: %w", errShort)
	}
	p, b, err := prefix(b[4:], v6)
	if err != nil {
		return err
	}
	if len(b) < 2 {
		return fmt.Errorf("entry count: %w", errShort)
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	fixed := 8 // peer index, time, attribute length
	if addPath {
		fixed = 12
	}
	for i := range n {
		if len(b) < fixed {
			return fmt.Errorf("%v: entry %d of %d: %w", p, i, n, errShort)
		}
		index, when := int(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint32(b[2:])
		var id uint32
		if addPath {
			id = binary.BigEndian.Uint32(b[6:])
		}
		alen := int(binary.BigEndian.Uint16(b[fixed-2:]))
		b = b[fixed:]
		if len(b) < alen {
			return fmt.Errorf("%v: entry %d of %d: attributes of %d octets: %w", p, i, n, alen, errShort)
		}
		if index >= len(r.peers) {
			return fmt.Errorf("%v: entry %d of %d: peer index %d: want below %d, the size of the peer index table", p, i, n, index, len(r.peers))
		}
		var at attributes
		if err := at.parse(b[:alen], true); err != nil {
			return fmt.Errorf("%v: entry %d of %d: %w", p, i, n, err)
		}
		b = b[alen:]
		pr := r.peers[index]
		if (r.opt.Peer.IsValid() && pr.addr != r.opt.Peer) || (r.opt.Paths == First && len(r.pending) > 0) {
			r.stats.Others++
			continue
		}
		hop := at.hop(v6)
		if !hop.IsValid() {
			r.stats.NoHop++
			continue
		}
		e := Entry{Prefix: p, Peer: pr.addr, PeerAS: pr.as, PathID: id, Time: when}
		r.add(e, hop)
	}
	if len(b) != 0 {
		return fmt.Errorf("%v: %d octets after the last entry", p, len(b))
	}
	return nil
}

// add queues an entry with one next hop.
func (r *Reader) add(e Entry, hop netip.Addr) {
	if len(r.hops) == cap(r.hops) { // a new array; entries queued already keep theirs
		r.hops = make([]Hop, 0, max(64, 2*cap(r.hops)))
	}
	r.hops = append(r.hops, Hop{Gateway: hop})
	e.Hops = r.hops[len(r.hops)-1 : len(r.hops) : len(r.hops)]
	r.pending = append(r.pending, e)
}

// prefix reads a prefix of NLRI: its length, and as many octets as it takes. Bits beyond the length are of no meaning
// (RFC 4271 section 4.3).
func prefix(b []byte, v6 bool) (netip.Prefix, []byte, error) {
	var a [16]byte
	most := 32
	if v6 {
		most = 128
	}
	if len(b) < 1 {
		return netip.Prefix{}, b, fmt.Errorf("prefix: %w", errShort)
	}
	bits := int(b[0])
	if bits > most {
		return netip.Prefix{}, b, fmt.Errorf("prefix length %d: want at most %d", bits, most)
	}
	n := (bits + 7) / 8
	if len(b) < 1+n {
		return netip.Prefix{}, b, fmt.Errorf("prefix of %d bits: %w", bits, errShort)
	}
	copy(a[:], b[1:1+n])
	addr := netip.AddrFrom16(a)
	if !v6 {
		addr = netip.AddrFrom4([4]byte(a[:4]))
	}
	p, err := addr.Prefix(bits)
	if err == nil && v6 && p.Addr().Is4In6() {
		err = fmt.Errorf("prefix %v: want no IPv4 in IPv6", p)
	}
	return p, b[1+n:], err
}
