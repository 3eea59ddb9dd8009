package rtnl

import (
	"os"
	"testing"
)

// captured returns messages that were captured: kernel-6.18.bin is what Linux 6.18 answered to dumps of routes and next
// hops and to a request that it refused; frr-8.4.bin is what Debian's zebra and staticd 8.4.4 sent over FPM, in frames.
func captured(t testing.TB) (kernel []byte, frr [][]byte) {
	t.Helper()
	if order.Uint16([]byte{1, 0}) != 1 {
		t.Skip("captured on a machine of the other byte order")
	}
	kernel, err := os.ReadFile("testdata/kernel-6.18.bin")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/frr-8.4.bin")
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := int(b[2])<<8 | int(b[3])
		frr = append(frr, b[4:n])
		b = b[n:]
	}
	return kernel, frr
}

func TestRealMessages(t *testing.T) {
	kernel, frr := captured(t)
	routes, hops := map[string]Route{}, map[uint32]NextHop{}
	var last Ack
	read := func(d *Decoder, b []byte) {
		for len(b) > 0 {
			m, rest, err := d.Next(b)
			if err != nil {
				t.Fatal(err)
			}
			b = rest
			switch {
			case m.Route != nil:
				r := *m.Route
				r.Paths = append([]Path(nil), r.Paths...)
				routes[r.Dst.String()] = r
			case m.NextHop != nil:
				h := *m.NextHop
				h.Group = append([]Member(nil), h.Group...)
				hops[h.ID] = h
			case m.Ack != nil:
				last = *m.Ack
			}
		}
	}
	var d Decoder
	read(&d, kernel)
	equal(t, d.Counters, Counters{Routes: 42, NextHops: 7, Acks: 4})
	v4 := func(s string, weight uint16) Path { return Path{Gateway: addr(s), Device: 3, Weight: weight} }
	for _, want := range []Route{
		{Dst: pfx("10.22.0.0/16"), Table: 1000, Priority: 77, Protocol: ProtoBoot, Type: RouteUnicast, Paths: []Path{v4("fd00:ffff::9", 1)}},
		{Dst: pfx("10.20.0.0/16"), Table: 254, NextHop: 10, Protocol: ProtoBoot, Type: RouteUnicast, Paths: []Path{v4("10.255.0.2", 2), v4("10.255.0.3", 3)}},
		{Dst: pfx("10.21.0.0/16"), Table: 254, Protocol: ProtoBoot, Type: RouteUnicast, Paths: []Path{v4("10.255.0.2", 5), v4("10.255.0.3", 1)}},
		{Dst: pfx("10.23.0.0/16"), Table: 254, PrefSrc: addr("10.255.0.1"), Protocol: ProtoBoot, Type: RouteUnicast, Paths: []Path{v4("10.255.0.2", 1)}, Metrics: []byte{8, 0, 2, 0, 0x78, 5, 0, 0}},
		{Dst: pfx("2001:db8:5::/48"), Table: 254, Priority: 1024, Protocol: ProtoBoot, Type: RouteUnicast, Paths: []Path{v4("fd00:ffff::2", 1), v4("fd00:ffff::3", 7)}},
		{Dst: pfx("2001:db8:6::/48"), Table: 254, Priority: 1024, Protocol: ProtoBoot, Type: RouteProhibit, Paths: []Path{{Device: 1, Weight: 1}}},
	} {
		equal(t, routes[want.Dst.String()], want)
	}
	equal(t, hops[10], NextHop{ID: 10, Group: []Member{{7, 2}, {8, 3}}})
	equal(t, hops[9], NextHop{ID: 9, Family: FamilyIPv4, Blackhole: true})
	if err := last.Err(); err == nil || err.Error() != "netlink: network is unreachable: Nexthop has invalid gateway" || last.Request.Seq != 4 {
		t.Errorf("%v, %+v", err, last)
	}

	d = Decoder{}
	for _, f := range frr {
		read(&d, f)
	}
	equal(t, d.Counters, Counters{Routes: 6, NextHops: 11})
	equal(t, routes["10.2.0.0/16"], Route{Dst: pfx("10.2.0.0/16"), Table: 254, Priority: 20, NextHop: 18, Protocol: 196, Type: RouteUnicast})
	equal(t, routes["10.3.0.0/16"], Route{Dst: pfx("10.3.0.0/16"), Table: 254, Priority: 20, Protocol: 196, Type: RouteBlackhole})
	equal(t, hops[18], NextHop{ID: 18, Protocol: ProtoZebra, Group: []Member{{19, 1}, {20, 1}, {21, 1}}})
	equal(t, hops[23], NextHop{ID: 23, Family: FamilyIPv6, Protocol: ProtoZebra, Gateway: addr("fd00:ffff::2"), Device: 3})
}
