package mrt

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The builders below write what the parser reads, from the text of the RFCs.

func rec(typ, sub uint16, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1700000000)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, sub)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func peerTable(peers ...peer) []byte {
	b := []byte{192, 0, 2, 255, 0, 4, 'v', 'i', 'e', 'w'}
	b = binary.BigEndian.AppendUint16(b, uint16(len(peers)))
	for _, p := range peers {
		kind := byte(0)
		if p.addr.Is6() {
			kind |= 1
		}
		if p.as > 65535 {
			kind |= 2
		}
		b = append(b, kind, 1, 2, 3, 4)
		b = append(b, p.addr.AsSlice()...)
		if p.as > 65535 {
			b = binary.BigEndian.AppendUint32(b, p.as)
		} else {
			b = binary.BigEndian.AppendUint16(b, uint16(p.as))
		}
	}
	return rec(typeTableDumpV2, peerIndexTable, b)
}

func nlri(p netip.Prefix) []byte {
	return append([]byte{byte(p.Bits())}, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
}

func attr(typ byte, v []byte) []byte {
	if len(v) > 255 {
		return append([]byte{0x40 | flagExtended, typ, byte(len(v) >> 8), byte(len(v))}, v...)
	}
	return append([]byte{0x40, typ, byte(len(v))}, v...)
}

func attrs(hop string, more ...[]byte) []byte {
	b := attr(1, []byte{0})                                    // ORIGIN
	b = append(b, attr(2, []byte{2, 1, 0, 0, 0xfd, 0xe8})...)  // AS_PATH
	b = append(b, attr(8, bytes.Repeat([]byte{1, 2}, 200))...) // COMMUNITY, with an extended length
	if a, err := netip.ParseAddr(hop); err == nil && a.Is4() {
		b = append(b, attr(attrNextHop, a.AsSlice())...)
	} else if err == nil {
		b = append(b, attr(attrMPReach, append([]byte{16}, a.AsSlice()...))...)
	}
	for _, m := range more {
		b = append(b, m...)
	}
	return b
}

type path struct {
	peer  uint16
	id    uint32
	attrs []byte
}

func rib(sub uint16, prefix string, paths ...path) []byte {
	b := append([]byte{0, 0, 0, 9}, nlri(netip.MustParsePrefix(prefix))...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(paths)))
	for _, p := range paths {
		b = binary.BigEndian.AppendUint16(b, p.peer)
		b = binary.BigEndian.AppendUint32(b, 1600000000)
		if sub == ribIPv4UnicastAP || sub == ribIPv6UnicastAP {
			b = binary.BigEndian.AppendUint32(b, p.id)
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(p.attrs)))
		b = append(b, p.attrs...)
	}
	return rec(typeTableDumpV2, sub, b)
}

func bgp4mp(sub uint16, peer string, as uint32, rest []byte) []byte {
	var b []byte
	for range 2 {
		if sub == messageAS4 || sub == messageAS4AP || sub == stateChangeAS4 {
			b = binary.BigEndian.AppendUint32(b, as)
		} else {
			b = binary.BigEndian.AppendUint16(b, uint16(as))
		}
	}
	a := netip.MustParseAddr(peer)
	b = append(b, 0, 0, 0, afiIPv4)
	if a.Is6() {
		b[len(b)-1] = afiIPv6
	}
	b = append(append(b, a.AsSlice()...), a.AsSlice()...)
	return rec(typeBGP4MP, sub, append(b, rest...))
}

func update(withdrawn, attrs, nlri []byte) []byte {
	b := bytes.Repeat([]byte{0xff}, 16)
	b = append(b, 0, 0, 2)
	b = binary.BigEndian.AppendUint16(b, uint16(len(withdrawn)))
	b = append(b, withdrawn...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(attrs)))
	b = append(b, attrs...)
	b = append(b, nlri...)
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)))
	return b
}

func mpReach(afi uint16, hop []byte, prefixes ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, afi)
	b = append(b, safiUnicast, byte(len(hop)))
	b = append(append(b, hop...), 0)
	return attr(attrMPReach, append(b, bytes.Join(prefixes, nil)...))
}

func mpUnreach(afi uint16, prefixes ...[]byte) []byte {
	return attr(attrMPUnreach, append([]byte{byte(afi >> 8), byte(afi), safiUnicast}, bytes.Join(prefixes, nil)...))
}

// all reads to the end and copies what Next returns.
func all(t testing.TB, r *Reader) ([]Entry, error) {
	t.Helper()
	var l []Entry
	for {
		e, err := r.Next()
		if err == io.EOF {
			return l, nil
		}
		if err != nil {
			return l, err
		}
		c := *e
		c.Hops = append([]Hop(nil), e.Hops...)
		l = append(l, c)
	}
}

func open(t testing.TB, b []byte, opt Options) *Reader {
	t.Helper()
	r, err := NewReader(bytes.NewReader(b), opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func diff(want, got []Entry) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty())
}

func hops(gateways ...string) []Hop {
	var l []Hop
	for _, g := range gateways {
		l = append(l, Hop{Gateway: netip.MustParseAddr(g)})
	}
	return l
}

var (
	pfx  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)
