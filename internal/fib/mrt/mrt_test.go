package mrt

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

var testPeers = []peer{{addr("192.0.2.1"), 64500}, {addr("2001:db8::2"), 4200000000}, {addr("192.0.2.3"), 64503}}

const bzText = "425a6839314159265359753a2c6f000007598000104001f420202001002000212a0662810340d0a8d83c20b50d92e1df2f8bb9229c28483a9d163780"

func dump() []byte {
	full := append([]byte{0, 2, 1}, append(append([]byte{16}, addr("2001:db8::77").AsSlice()...), 0, 32, 0x20, 1, 0xd, 0xb8)...)
	both := append(append([]byte{32}, addr("2001:db8::aa").AsSlice()...), addr("fe80::aa").AsSlice()...)
	return bytes.Join([][]byte{
		peerTable(testPeers...),
		rib(ribIPv4Unicast, "0.0.0.0/0", path{0, 0, attrs("192.0.2.1")}),
		rib(ribIPv4Unicast, "198.51.100.0/24", path{0, 0, attrs("")}, path{2, 0, attrs("192.0.2.33")}, path{1, 0, attrs("192.0.2.22")}),
		rec(11, 3, []byte("OSPF is of no interest")),
		rib(ribIPv4Unicast, "203.0.113.0/25", path{1, 0, attrs("2001:db8::2")}), // RFC 8950
		rib(ribIPv4UnicastAP, "203.0.113.128/32", path{0, 7, attrs("192.0.2.1")}, path{0, 8, attrs("192.0.2.9")}),
		rib(ribIPv6Unicast, "2001:db8::/32", path{1, 0, attrs("", attr(attrMPReach, both))}),
		rib(ribIPv6UnicastAP, "2001:db8:1::/49", path{1, 3, attrs("", attr(attrMPReach, full))}),
		rib(3, "198.51.100.0/24", path{0, 0, nil}), // multicast
	}, nil)
}

func dumpAll() []Entry {
	const t = 1600000000
	e := func(p, hop string, peer int, id uint32) Entry {
		return Entry{Prefix: pfx(p), Hops: hops(hop), Peer: testPeers[peer].addr, PeerAS: testPeers[peer].as, PathID: id, Time: t}
	}
	return []Entry{
		e("0.0.0.0/0", "192.0.2.1", 0, 0),
		e("198.51.100.0/24", "192.0.2.33", 2, 0), e("198.51.100.0/24", "192.0.2.22", 1, 0),
		e("203.0.113.0/25", "2001:db8::2", 1, 0),
		e("203.0.113.128/32", "192.0.2.1", 0, 7), e("203.0.113.128/32", "192.0.2.9", 0, 8),
		e("2001:db8::/32", "2001:db8::aa", 1, 0),
		e("2001:db8:1::/49", "2001:db8::77", 1, 3),
	}
}

func TestTableDump(t *testing.T) {
	r := open(t, dump(), Options{Paths: All})
	got, err := all(t, r)
	if d := diff(dumpAll(), got); err != nil || d != "" {
		t.Fatal(err, d)
	}
	if s := r.Stats(); s.Records != 9 || s.Skipped != 2 || s.NoHop != 1 || s.Entries != 8 || s.Peers != 3 || s.Octets != int64(len(dump())) {
		t.Errorf("%+v", s)
	}

	var first []Entry
	for _, e := range dumpAll() {
		if len(first) == 0 || first[len(first)-1].Prefix != e.Prefix {
			first = append(first, e)
		}
	}
	if got, err = all(t, open(t, dump(), Options{})); err != nil || diff(first, got) != "" {
		t.Errorf("first path: %v%s", err, diff(first, got))
	}
	one := slices.DeleteFunc(dumpAll(), func(e Entry) bool { return e.Peer != testPeers[1].addr })
	if got, err = all(t, open(t, dump(), Options{Peer: testPeers[1].addr})); err != nil || diff(one, got) != "" {
		t.Errorf("one peer: %v%s", err, diff(one, got))
	}
}

func TestCompressed(t *testing.T) {
	var z bytes.Buffer
	for _, part := range [][]byte{dump()[:100], dump()[100:]} { // members follow each other, as after `cat a.gz b.gz`
		w := gzip.NewWriter(&z)
		_, _ = w.Write(part)
		_ = w.Close()
	}
	// printf '192.0.2.0/24 via 192.0.2.1\n' | bzip2 | xxd -p
	bz, err := hex.DecodeString(bzText)
	if err != nil {
		t.Fatal(err)
	}
	var told []int64
	r, err := NewReader(iotest.OneByteReader(&z), Options{Paths: All, Progress: func(n int64) { told = append(told, n) }})
	if err != nil || r.Format() != "gzip MRT" {
		t.Fatal(r.Format(), err)
	}
	size := int64(z.Len()) + r.Stats().Octets
	got, err := all(t, r)
	if d := diff(dumpAll(), got); err != nil || d != "" {
		t.Fatal(err, d)
	}
	if len(told) == 0 || told[len(told)-1] != size {
		t.Errorf("progress: %v, of %d", told, size)
	}
	r = open(t, bz, Options{})
	got, err = all(t, r)
	if d := diff([]Entry{{Prefix: pfx("192.0.2.0/24"), Hops: hops("192.0.2.1")}}, got); err != nil || d != "" || r.Format() != "bzip2 text" {
		t.Fatal(err, d)
	}
	for _, magic := range []string{"\xfd7zXZ\x00", "\x28\xb5\x2f\xfd\x00\x00"} {
		if _, err := NewReader(strings.NewReader(magic), Options{}); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", magic, err)
		}
	}
	if _, err := NewReader(strings.NewReader("\x1f\x8b rubbish"), Options{}); err == nil {
		t.Error("rubbish for gzip")
	}
	if _, err := NewReader(iotest.ErrReader(io.ErrNoProgress), Options{}); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

func TestUpdates(t *testing.T) {
	p4, q4, p6, q6 := pfx("198.51.100.0/24"), pfx("10.0.0.0/8"), pfx("2001:db8::/32"), pfx("::/0")
	id := func(n byte, b []byte) []byte { return append([]byte{0, 0, 0, n}, b...) }
	hop6 := addr("2001:db8::9").AsSlice()
	stream := bytes.Join([][]byte{
		bgp4mp(messageAS4, "192.0.2.1", 64500, update(nlri(q4), attrs("192.0.2.7"), nlri(p4))),
		bgp4mp(message, "2001:db8::2", 64501, update(nil, append(mpReach(2, hop6, nlri(p6), nlri(q6)), mpUnreach(2, nlri(p6))...), nil)),
		bgp4mp(messageAS4AP, "192.0.2.1", 64500, update(id(5, nlri(q4)), attrs("192.0.2.7"), append(id(6, nlri(p4)), id(7, nlri(p4))...))),
		bgp4mp(messageAP, "192.0.2.1", 64500, update(nil, mpReach(1, hop6, id(8, nlri(p4))), nil)),
		bgp4mp(messageAS4, "192.0.2.1", 64500, update(nil, attrs(""), nlri(p4))),                // no next hop: withdrawn
		bgp4mp(messageAS4, "192.0.2.1", 64500, append(bytes.Repeat([]byte{255}, 16), 0, 19, 4)), // KEEPALIVE
		bgp4mp(messageAS4, "192.0.2.1", 64500, update(nil, nil, nil)),                           // End-of-RIB
		bgp4mp(6, "192.0.2.1", 64500, nil), // sent by the collector
		bgp4mp(stateChange, "192.0.2.1", 64500, []byte{0, 5, 0, 6}),
		bgp4mp(stateChangeAS4, "192.0.2.1", 64500, []byte{0, 6, 0, 1}),
	}, nil)
	et := bgp4mp(messageAS4, "192.0.2.3", 64503, update(nlri(q4), nil, nil))
	et = rec(typeBGP4MPET, messageAS4, append([]byte{0, 0, 0, 1}, et[headerLen:]...))
	stream = append(stream, et...)
	r := open(t, stream, Options{})
	got, err := all(t, r)
	one := Entry{Peer: addr("192.0.2.1"), PeerAS: 64500, Time: 1700000000}
	two := Entry{Peer: addr("2001:db8::2"), PeerAS: 64501, Time: 1700000000}
	with := func(e Entry, k Kind, p netip.Prefix, id uint32, h ...string) Entry {
		e.Kind, e.Prefix, e.PathID, e.Hops = k, p, id, hops(h...)
		return e
	}
	three := Entry{Peer: addr("192.0.2.3"), PeerAS: 64503, Time: 1700000000}
	want := []Entry{
		with(one, Withdraw, q4, 0), with(one, Announce, p4, 0, "192.0.2.7"),
		with(two, Withdraw, p6, 0), with(two, Announce, p6, 0, "2001:db8::9"), with(two, Announce, q6, 0, "2001:db8::9"),
		with(one, Withdraw, q4, 5), with(one, Announce, p4, 6, "192.0.2.7"), with(one, Announce, p4, 7, "192.0.2.7"),
		with(one, Announce, p4, 8, "2001:db8::9"),
		with(one, Withdraw, p4, 0),
		with(one, PeerDown, netip.Prefix{}, 0),
		with(three, Withdraw, q4, 0),
	}
	if d := diff(want, got); err != nil || d != "" {
		t.Fatal(err, d)
	}
	if s := r.Stats(); s.Skipped != 2 || s.NoHop != 1 {
		t.Errorf("%+v", s)
	}
	got, err = all(t, open(t, stream, Options{Peer: addr("192.0.2.3")}))
	if d := diff(want[len(want)-1:], got); err != nil || d != "" {
		t.Fatal(err, d)
	}
}

// TestTruncated cuts a dump and a stream at every length: what is complete is read, and then there is an error that
// says where, unless the cut is between records.
func TestTruncated(t *testing.T) {
	whole := append(dump(), bgp4mp(messageAS4, "192.0.2.1", 64500, update(nil, attrs("192.0.2.7"), nlri(pfx("10.0.0.0/8"))))...)
	ends := map[int]bool{0: true}
	for at := 0; at < len(whole); {
		at += headerLen + int(number(whole[at+8:at+12]))
		ends[at] = true
	}
	for n := range len(whole) {
		r := open(t, whole[:n], Options{Paths: All})
		_, err := all(t, r)
		var re *RecordError
		switch {
		case ends[n] && err != nil:
			t.Fatalf("%d octets: %v", n, err)
		case !ends[n] && !errors.As(err, &re):
			t.Fatalf("%d octets: %v", n, err)
		case !ends[n] && (re.Offset > int64(n) || (n > 5 && !ends[int(re.Offset)])):
			t.Fatalf("%d octets: %v: no record begins there", n, err)
		}
		if _, again := r.Next(); again == nil {
			t.Fatalf("%d octets: goes on after %v", n, err)
		}
	}
}

// TestInnerTruncation cuts each record at every length and corrects the record's own length, so that every field is
// the one that is missing.
func TestInnerTruncation(t *testing.T) {
	start := peerTable(testPeers...)
	full := rib(ribIPv4UnicastAP, "203.0.113.128/32", path{0, 7, attrs("192.0.2.1")}, path{0, 8, attrs("2001:db8::1")})
	up := bgp4mp(messageAS4, "192.0.2.1", 64500, update(nlri(pfx("10.0.0.0/8")), append(attrs("192.0.2.7"), mpReach(2, addr("2001:db8::1").AsSlice(), nlri(pfx("::/0")))...), nlri(pfx("11.0.0.0/8"))))
	state := bgp4mp(stateChange, "192.0.2.1", 64500, []byte{0, 6, 0, 1})
	for _, whole := range [][]byte{peerTable(testPeers...), full, up, state} {
		typ, sub := uint16(whole[5]), uint16(whole[7])
		for n := headerLen; n < len(whole); n++ {
			r := open(t, slices.Concat(start, rec(typ, sub, whole[headerLen:n]), start), Options{Paths: All})
			_, err := all(t, r)
			var re *RecordError
			if !errors.As(err, &re) || re.Fatal || re.Record != 2 || re.Offset != int64(len(start)) {
				t.Fatalf("type %d subtype %d, %d octets of body: %v", typ, sub, n-headerLen, err)
			}
			if _, err := r.Next(); err != io.EOF { // the next record is read
				t.Fatalf("after it: %v", err)
			}
		}
	}
}

func TestHostile(t *testing.T) {
	start := peerTable(testPeers...)
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"length of 4 GiB":  {[]byte{0, 0, 0, 0, 0, 13, 0, 2, 255, 255, 255, 255}, "length 4294967295: want at most 16777216"},
		"length of 16 MiB": {[]byte{0, 0, 0, 0, 0, 13, 0, 2, 1, 0, 0, 0}, "unexpected EOF"},
		"peer index":       {slices.Concat(start, rib(ribIPv4Unicast, "10.0.0.0/8", path{3, 0, attrs("192.0.2.1")})), "record 2 at octet 71: type 13 subtype 2: 10.0.0.0/8: entry 0 of 1: peer index 3: want below 3"},
		"prefix of 33":     {rec(13, 2, []byte{0, 0, 0, 0, 33, 1, 2, 3, 4, 5, 0, 0}), "prefix length 33: want at most 32"},
		"prefix of 129":    {rec(13, 4, append([]byte{0, 0, 0, 0, 129}, make([]byte, 20)...)), "prefix length 129: want at most 128"},
		"IPv4 in IPv6":     {rec(13, 4, append([]byte{0, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255}, 0, 0)), "want no IPv4 in IPv6"},
		"65535 entries":    {slices.Concat(start, rec(13, 2, []byte{0, 0, 0, 0, 0, 255, 255})), "entry 0 of 65535: ends early"},
		"next hop of 5":    {slices.Concat(start, rib(ribIPv4Unicast, "10.0.0.0/8", path{0, 0, attr(3, make([]byte, 5))})), "NEXT_HOP of 5 octets: want 4"},
		"MP next hop of 9": {slices.Concat(start, rib(ribIPv6Unicast, "::/0", path{0, 0, attr(14, append([]byte{9}, make([]byte, 9)...))})), "next hop of 9 octets: want 4, 16 or 32"},
		"after entries":    {slices.Concat(start, rec(13, 2, []byte{0, 0, 0, 0, 0, 0, 0, 1})), "1 octets after the last entry"},
		"AFI 3":            {rec(16, 4, append([]byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3}, make([]byte, 64)...)), "address family 3: want 1 or 2"},
	} {
		_, err := all(t, open(t, c.b, Options{}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestAnnouncedLengthTakesNoMemory reads many files that announce a record of the largest size and have none.
func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	b := []byte{0, 0, 0, 0, 0, 13, 0, 2, 1, 0, 0, 0, 1, 2, 3}
	res := testing.Benchmark(func(b2 *testing.B) {
		b2.ReportAllocs()
		for range b2.N {
			_, _ = all(t, open(t, b, Options{}))
		}
	})
	if res.AllocedBytesPerOp() > 1<<20 {
		t.Errorf("%d octets for a file of %d", res.AllocedBytesPerOp(), len(b))
	}
}
