package rtnl

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	addr = netip.MustParseAddr
	pfx  = netip.MustParsePrefix
)

// equal compares, an empty slice as one that is not there.
func equal(t *testing.T, got, want any) {
	t.Helper()
	empty := cmp.FilterValues(func(a, b any) bool {
		x, y := reflect.ValueOf(a), reflect.ValueOf(b)
		return x.IsValid() && y.IsValid() && x.Kind() == reflect.Slice && y.Kind() == reflect.Slice && x.Len() == 0 && y.Len() == 0
	}, cmp.Comparer(func(a, b any) bool { return true }))
	if d := cmp.Diff(want, got, empty, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("not the same (-want +got):\n%s", d)
	}
}

var routes = map[string]Route{
	"ipv4 via":        {Dst: pfx("192.0.2.0/24"), Table: 254, Priority: 20, Protocol: ProtoStatic, Type: RouteUnicast, Paths: []Path{{Gateway: addr("10.0.0.1"), Device: 3, Weight: 1}}},
	"ipv4 default":    {Dst: pfx("0.0.0.0/0"), Table: 70000, Type: RouteUnicast, Paths: []Path{{Gateway: addr("10.0.0.1"), Device: 3, Weight: 1}}},
	"ipv6 default":    {Dst: pfx("::/0"), Table: 1 << 31, Priority: 1024, Type: RouteUnicast, Paths: []Path{{Gateway: addr("fe80::1"), Device: 3, Weight: 1}}},
	"ipv4 via ipv6":   {Dst: pfx("192.0.2.1/32"), Table: 10, Type: RouteUnicast, Paths: []Path{{Gateway: addr("2001:db8::1"), Device: 3, Weight: 1}}},
	"ipv6 via ipv4":   {Dst: pfx("2001:db8::/127"), Table: 10, Type: RouteUnicast, Paths: []Path{{Gateway: addr("10.0.0.1"), Device: 3, Weight: 1}}},
	"on the link":     {Dst: pfx("192.0.2.0/25"), Table: 254, Scope: ScopeLink, Type: RouteUnicast, PrefSrc: addr("192.0.2.9"), Paths: []Path{{Device: 3, Weight: 1}}},
	"blackhole":       {Dst: pfx("2001:db8::/32"), Table: 254, Type: RouteBlackhole},
	"next-hop object": {Dst: pfx("198.51.100.0/24"), Table: 254, Type: RouteUnicast, NextHop: 1 << 31, Flags: RouteOffload | RouteTrap},
	"multipath": {Dst: pfx("198.51.100.0/24"), Table: 254, Type: RouteUnicast, Flags: RouteOffloadFailed, TOS: 8, Metrics: []byte{8, 0, 2, 0, 1, 2, 3, 4}, Paths: []Path{
		{Gateway: addr("10.0.0.1"), Device: 3, Weight: 256}, {Gateway: addr("2001:db8::1"), Device: 4, Weight: 1, Flags: PathOnLink}, {Device: 5, Weight: 2, EncapType: 1, Encap: []byte{1, 2, 3}}}},
	"one weighted path": {Dst: pfx("198.51.100.0/24"), Table: 254, Type: RouteUnicast, Paths: []Path{{Gateway: addr("10.0.0.1"), Device: 3, Weight: 7}}},
	"from":              {Dst: pfx("2001:db8::/32"), Src: pfx("2001:db8:1::/48"), Table: 254, Type: RouteUnreachable, Paths: []Path{{Device: 1, Weight: 1, Flags: PathLinkDown}}, Flags: RouteLinkDown},
	"encapsulated":      {Dst: pfx("192.0.2.0/24"), Table: 254, Type: RouteUnicast, Paths: []Path{{Gateway: addr("10.0.0.1"), Device: 3, Weight: 1, EncapType: 5, Encap: []byte{1, 2, 3, 4, 5}}}},
}

var hops = map[string]NextHop{
	"ipv4":      {ID: 7, Family: FamilyIPv4, Protocol: ProtoZebra, Flags: uint32(PathOnLink), Gateway: addr("10.0.0.1"), Device: 3},
	"ipv6":      {ID: 1<<32 - 1, Family: FamilyIPv6, Scope: ScopeLink, Gateway: addr("2001:db8::1"), Device: 3, EncapType: 1, Encap: []byte{1, 2, 3, 4}},
	"device":    {ID: 8, Family: FamilyIPv4, Device: 3},
	"blackhole": {ID: 9, Family: FamilyIPv6, Blackhole: true},
	"fdb":       {ID: 9, Family: FamilyIPv6, Gateway: addr("2001:db8::1"), FDB: true},
	"group":     {ID: 10, Group: []Member{{7, 1}, {8, 256}, {9, 257}, {11, 1 << 16}}, GroupType: 1},
}

func TestRoundTrip(t *testing.T) {
	var d Decoder
	var all []byte
	for name, want := range routes {
		t.Run(name, func(t *testing.T) {
			b, err := AppendRoute(nil, Header{Type: NewRoute, Flags: FlagCreate | FlagReplace, Seq: 5, PID: 6}, &want)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
			m, rest, err := d.Next(b)
			if err != nil || len(rest) != 0 {
				t.Fatalf("%v, %d octets are left", err, len(rest))
			}
			equal(t, *m.Route, want)
			equal(t, m.Header, Header{uint32(len(b)), NewRoute, FlagCreate | FlagReplace, 5, 6})
		})
	}
	for name, want := range hops {
		t.Run("next hop "+name, func(t *testing.T) {
			b, err := AppendNextHop(nil, Header{Type: NewNextHop}, &want)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
			m, rest, err := d.Next(b)
			if err != nil || len(rest) != 0 {
				t.Fatalf("%v, %d octets are left", err, len(rest))
			}
			equal(t, *m.NextHop, want)
		})
	}
	n := 0
	for ; len(all) > 0; n++ { // one after the other, as in a datagram
		_, rest, err := d.Next(all)
		if err != nil {
			t.Fatal(err)
		}
		all = rest
	}
	equal(t, n, len(routes)+len(hops))
	equal(t, d.Counters, Counters{Routes: uint64(2 * len(routes)), NextHops: uint64(2 * len(hops))})
}

func TestAcks(t *testing.T) {
	var d Decoder
	req := Header{Len: 60, Type: NewRoute, Flags: FlagRequest | FlagAck, Seq: 9, PID: 10}
	m, _, err := d.Next(AppendAck(nil, req, 0, ""))
	if err != nil || m.Ack.Err() != nil {
		t.Fatal(err, m.Ack)
	}
	equal(t, m.Ack.Request, req)
	m, _, err = d.Next(AppendAck(nil, req, syscall.EEXIST, "not again"))
	if err != nil {
		t.Fatal(err)
	}
	if e := m.Ack.Err(); !errors.Is(e, syscall.EEXIST) || !strings.HasSuffix(e.Error(), ": not again") {
		t.Error(e)
	}
	m, _, err = d.Next(AppendDone(nil, 9, 10, syscall.EINTR))
	if err != nil || m.Seq != 9 || m.Type != TypeDone || !errors.Is(m.Ack.Err(), syscall.EINTR) {
		t.Error(err, m)
	}
	done := AppendDone(nil, 9, 10, 0)
	done = done[:16]
	order.PutUint32(done, 16)
	if m, _, err = d.Next(done); err != nil || m.Ack.Err() != nil {
		t.Error(err, m)
	}
}

// A message that is cut at any length, with the header telling so, is refused or is a message with less in it; one cut
// without the header telling so is refused for its framing. Nothing panics, and what follows is read.
func TestCut(t *testing.T) {
	var whole [][]byte
	for _, r := range routes {
		b, _ := AppendRoute(nil, Header{Type: NewRoute}, &r)
		whole = append(whole, b)
	}
	for _, h := range hops {
		b, _ := AppendNextHop(nil, Header{Type: NewNextHop}, &h)
		whole = append(whole, b)
	}
	whole = append(whole, AppendAck(nil, Header{Len: 16}, syscall.EPERM, "why"))
	for _, b := range whole {
		for n := 1; n < len(b); n++ {
			var d Decoder
			if _, rest, err := d.Next(b[:n]); err == nil || rest != nil || d.Counters.Refused[BadFraming] != 1 {
				t.Fatalf("%x cut to %d octets: %v", b, n, err)
			}
			if n < headerSize {
				continue
			}
			cut := bytes.Clone(b[:n])
			order.PutUint32(cut, uint32(n))
			next := append(append(cut, 0, 0, 0)[:align(n)], AppendDone(nil, 77, 0, 0)...)
			_, rest, err := d.Next(next)
			if m, _, err := d.Next(rest); err != nil || m.Seq != 77 {
				t.Fatalf("%x cut to %d octets: what follows is lost: %v", b, n, err)
			}
			if err != nil && err.(*Error).Reason == BadFraming {
				t.Fatalf("%x cut to %d octets: %v", b, n, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	route := func(family, dst, src byte, attrs ...[]byte) []byte {
		b, at := begin(nil, Header{Type: NewRoute})
		b = append(b, family, dst, src, 0, 254, 4, 0, 1, 0, 0, 0, 0)
		return end(append(b, bytes.Join(attrs, nil)...), at)
	}
	hop := func(family byte, attrs ...[]byte) []byte {
		b, at := begin(nil, Header{Type: NewNextHop})
		b = append(b, family, 0, 0, 0, 0, 0, 0, 0)
		return end(append(b, bytes.Join(attrs, nil)...), at)
	}
	a := func(typ int, v ...byte) []byte { return appendAttr(nil, typ, v) }
	length := func(b []byte, n uint32) []byte { order.PutUint32(b, n); return b }
	attrLength := func(b []byte, n uint16) []byte { order.PutUint16(b, n); return b }
	errno := func(n int32) []byte {
		b, at := begin(nil, Header{Type: TypeError})
		return end(append(order.AppendUint32(b, uint32(n)), make([]byte, 16)...), at)
	}
	v4 := []byte{10, 0, 0, 1}
	for name, c := range map[string]struct {
		b      []byte
		reason Reason
	}{
		"length 0":                 {length(route(2, 0, 0), 0), BadFraming},
		"length 15":                {length(route(2, 0, 0), 15), BadFraming},
		"length beyond":            {length(route(2, 0, 0), 29), BadFraming},
		"length 4 GB":              {length(route(2, 0, 0), 1<<32-1), BadFraming},
		"length 2 GB":              {length(route(2, 0, 0), 1<<31), BadFraming},
		"family 0":                 {route(0, 0, 0), BadFamily},
		"family MPLS":              {route(28, 20, 0), BadFamily},
		"33 bits":                  {route(2, 33, 0, a(rtaDst, v4...)), BadPrefix},
		"129 bits":                 {route(10, 129, 0), BadPrefix},
		"129 bits of source":       {route(10, 0, 129), BadPrefix},
		"no address":               {route(2, 24, 0), BadPrefix},
		"no source":                {route(10, 0, 64), BadPrefix},
		"5 octets":                 {route(2, 24, 0, a(rtaDst, 1, 2, 3, 4, 5)), BadSize},
		"IPv6 address in IPv4":     {route(2, 24, 0, a(rtaDst, make([]byte, 16)...)), BadSize},
		"IPv4 gateway in IPv6":     {route(10, 0, 0, a(rtaGateway, v4...)), BadSize},
		"table of 8 octets":        {route(2, 0, 0, a(rtaTable, make([]byte, 8)...)), BadSize},
		"empty device":             {route(2, 0, 0, a(rtaOIF)), BadSize},
		"via without family":       {route(2, 0, 0, a(rtaVia, 1)), BadSize},
		"via MPLS":                 {route(2, 0, 0, a(rtaVia, 28, 0, 1, 2, 3, 4)), BadFamily},
		"via family 266":           {route(2, 0, 0, a(rtaVia, 10, 1, 1, 2, 3, 4)), BadFamily},
		"attribute length 3":       {route(2, 0, 0, attrLength(a(rtaOIF, v4...), 3)), BadAttribute},
		"attribute beyond":         {route(2, 0, 0, attrLength(a(rtaOIF, v4...), 9)), BadAttribute},
		"octets after":             {route(2, 0, 0, a(rtaOIF, v4...), []byte{0, 0}), BadAttribute},
		"path length 0":            {route(2, 0, 0, a(rtaMultipath, make([]byte, 8)...)), BadAttribute},
		"path length 7":            {route(2, 0, 0, a(rtaMultipath, 7, 0, 0, 0, 1, 0, 0, 0)), BadAttribute},
		"path beyond":              {route(2, 0, 0, a(rtaMultipath, 9, 0, 0, 0, 1, 0, 0, 0)), BadAttribute},
		"part of a path":           {route(2, 0, 0, a(rtaMultipath, 8, 0, 0, 0)), BadAttribute},
		"attribute beyond path":    {route(2, 0, 0, a(rtaMultipath, append([]byte{16, 0, 0, 0, 1, 0, 0, 0}, attrLength(a(rtaGateway, v4...), 12)...)...)), BadAttribute},
		"gateway of 3 in a path":   {route(2, 0, 0, a(rtaMultipath, append([]byte{16, 0, 0, 0, 1, 0, 0, 0}, a(rtaGateway, 1, 2, 3)...)...)), BadSize},
		"257 paths":                {route(2, 0, 0, a(rtaMultipath, bytes.Repeat([]byte{8, 0, 0, 0, 1, 0, 0, 0}, 257)...)), TooMany},
		"no id":                    {hop(2), BadValue},
		"id 0":                     {hop(2, a(nhaID, 0, 0, 0, 0)), BadValue},
		"gateway without a family": {hop(0, a(nhaID, 1, 0, 0, 0), a(nhaGateway, v4...)), BadFamily},
		"empty group":              {hop(0, a(nhaID, 1, 0, 0, 0), a(nhaGroup)), BadSize},
		"group of 9 octets":        {hop(0, a(nhaID, 1, 0, 0, 0), a(nhaGroup, 1, 0, 0, 0, 0, 0, 0, 0, 0)), BadSize},
		"member 0":                 {hop(0, a(nhaID, 1, 0, 0, 0), a(nhaGroup, make([]byte, 8)...)), BadValue},
		"257 members":              {hop(0, a(nhaID, 1, 0, 0, 0), a(nhaGroup, bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 257)...)), TooMany},
		"errno 1":                  {errno(1), BadValue},
		"errno -4096":              {errno(-4096), BadValue},
		"request too short":        {errno(-1), BadSize},
	} {
		t.Run(name, func(t *testing.T) {
			var d Decoder
			m, _, err := d.Next(c.b)
			var e *Error
			if !errors.As(err, &e) || e.Reason != c.reason || m.Route != nil || m.NextHop != nil || m.Ack != nil {
				t.Fatalf("%v, %+v; want %v", err, m, c.reason)
			}
			var want Counters
			want.Refused[c.reason] = 1
			equal(t, d.Counters, want)
		})
	}
	for name, r := range map[string]Route{"no prefix": {}, "weight": {Dst: pfx("::/0"), Paths: []Path{{Weight: 257}}}, "paths": {Dst: pfx("::/0"), Paths: make([]Path, 257)},
		"encapsulations": {Dst: pfx("::/0"), Paths: []Path{{Encap: make([]byte, 40000)}, {Encap: make([]byte, 40000)}}}} {
		if b, err := AppendRoute([]byte{1}, Header{}, &r); err == nil || len(b) != 1 {
			t.Errorf("%s: %v, %d octets", name, err, len(b))
		}
	}
	for name, n := range map[string]NextHop{"id": {}, "family": {ID: 1, Family: FamilyIPv6, Gateway: addr("10.0.0.1")}, "weight": {ID: 1, Group: []Member{{1, 1<<16 + 1}}}, "members": {ID: 1, Group: make([]Member, 257)}} {
		if b, err := AppendNextHop([]byte{1}, Header{}, &n); err == nil || len(b) != 1 {
			t.Errorf("%s: %v, %d octets", name, err, len(b))
		}
	}
}

func TestDecodingRoutesDoesNotAllocate(t *testing.T) {
	var b []byte
	for _, r := range routes {
		b, _ = AppendRoute(b, Header{Type: NewRoute}, &r)
	}
	var d Decoder
	if n := testing.AllocsPerRun(100, func() {
		for rest := b; len(rest) > 0; {
			var err error
			if _, rest, err = d.Next(rest); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecodeRoute(b *testing.B) {
	r := routes["ipv4 via"]
	m, _ := AppendRoute(nil, Header{Type: NewRoute}, &r)
	var d Decoder
	for b.Loop() {
		if _, _, err := d.Next(m); err != nil {
			b.Fatal(err)
		}
	}
}
