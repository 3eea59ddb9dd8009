//go:build linux && amd64

package xdp

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/flowhash"
)

var (
	macA = [6]byte{2, 0, 0, 0, 0, 0xa}
	macB = [6]byte{2, 0, 0, 0, 0, 0xb}
)

// newTestRouter has FIB 10 on p0 and p1 with a route of every kind, and FIB 20 on p2.
func newTestRouter(t testing.TB) *router {
	r := newRouter(t, 3, Config{})
	for id, other := range map[fib.ID]fib.ID{10: 20, 20: 10} {
		r.table(t, id)
		r.table(t, other)
	}
	r.ports(t, Port{Device: r.links[0], FIB: 10}, Port{Device: r.links[1], FIB: 10}, Port{Device: r.links[2], FIB: 20})
	r.route(t, 10, "10.1.0.0/16", via("192.0.2.9", r.links[1]))
	r.route(t, 10, "10.2.0.0/16", via("", r.links[1])) // on the link
	r.route(t, 10, "10.3.0.0/16", via("192.0.2.99", r.links[1]))
	r.route(t, 10, "10.4.0.0/16", via("2001:db8:9::9", r.links[1])) // RFC 8950
	r.route(t, 10, "10.5.0.0/16", via("192.0.2.9", 4711))
	r.route(t, 10, "10.20.0.0/16", fib.NextHop{Type: fib.Lookup, Table: 20})
	r.route(t, 10, "10.21.0.0/16", fib.NextHop{Type: fib.Lookup, Table: 30})
	r.route(t, 20, "10.20.1.0/24", via("192.0.2.9", r.links[2]))
	r.route(t, 10, "2001:db8:1::/48", via("2001:db8:9::9", r.links[1]))
	r.route(t, 10, "2001:db8:2::/48", via("", r.links[1]))
	for i, k := range []fib.Type{fib.Local, fib.Blackhole, fib.Unreachable, fib.Prohibit} {
		r.route(t, 10, fmt.Sprintf("10.%d.0.0/16", 30+i), fib.NextHop{Type: k})
		r.route(t, 10, fmt.Sprintf("2001:db8:%d::/48", 30+i), fib.NextHop{Type: k})
	}
	r.neighbour(t, 10, r.links[1], "192.0.2.9", macA)
	r.neighbour(t, 10, r.links[1], "10.2.0.7", macB)
	r.neighbour(t, 10, r.links[1], "2001:db8:9::9", macA)
	r.neighbour(t, 10, r.links[1], "2001:db8:2::7", macB)
	r.neighbour(t, 20, r.links[2], "192.0.2.9", macB)
	return r
}

func TestIntegrationEveryReason(t *testing.T) {
	r := newTestRouter(t)
	down, err := r.set.AddNextHop(via("192.0.2.9", r.links[1]))
	if err != nil {
		t.Fatal(err)
	}
	r.insert(t, 10, "10.6.0.0/16", down)
	if err := r.set.SetDown(down, true); err != nil {
		t.Fatal(err)
	}
	// A chain of FIBs 101 to 110; the route in 101 looks up in 102, and so on; from FIB 10 it is one too long to 107.
	for id := fib.ID(101); id < 110; id++ {
		r.table(t, id+1)
		r.route(t, id, "10.7.0.0/16", fib.NextHop{Type: fib.Lookup, Table: id + 1})
	}
	r.route(t, 110, "10.7.0.0/16", fib.NextHop{Type: fib.Blackhole})
	r.route(t, 10, "10.7.0.0/17", fib.NextHop{Type: fib.Lookup, Table: 103})   // 103 … 110: nine FIBs in all
	r.route(t, 10, "10.7.128.0/17", fib.NextHop{Type: fib.Lookup, Table: 104}) // eight

	v4 := func(dst string) packet { return packet{dmac: r.macs[0], src: "198.51.100.1", dst: dst} }
	v6 := func(dst string) packet { return packet{dmac: r.macs[0], src: "2001:db8:99::1", dst: dst} }
	edit := func(p packet, f func(*packet)) packet { f(&p); return p }
	none := uint32(0)
	for _, c := range []struct {
		name   string
		p      packet
		why    Reason
		fib    uint32
		dmac   [6]byte // when forwarded
		link   int     // by which it goes out
		source int     // by which it comes in
	}{
		{"by a gateway", v4("10.1.2.3"), Forwarded, 10, macA, 1, 0},
		{"on the link", v4("10.2.0.7"), Forwarded, 10, macB, 1, 0},
		{"by an IPv6 gateway", v4("10.4.0.1"), Forwarded, 10, macA, 1, 0},
		{"IPv6 by a gateway", v6("2001:db8:1::5"), Forwarded, 10, macA, 1, 0},
		{"IPv6 on the link", v6("2001:db8:2::7"), Forwarded, 10, macB, 1, 0},
		{"leak", v4("10.20.1.1"), Forwarded, 10, macB, 2, 0},
		{"largest TTL", edit(v4("10.1.2.3"), func(p *packet) { p.ttl = 255 }), Forwarded, 10, macA, 1, 0},
		{"smallest TTL", edit(v4("10.1.2.3"), func(p *packet) { p.ttl = 2 }), Forwarded, 10, macA, 1, 0},
		{"fragment", edit(v4("10.1.2.3"), func(p *packet) { p.fragment = 0x2010 }), Forwarded, 10, macA, 1, 0},
		{"as large as may be", edit(v4("10.1.2.3"), func(p *packet) { p.length = 1500 - 28 }), Forwarded, 10, macA, 1, 0},
		{"IPv6 as large as may be", edit(v6("2001:db8:1::5"), func(p *packet) { p.length = 1500 - 48 }), Forwarded, 10, macA, 1, 0},
		{"padded", edit(v4("10.1.2.3"), func(p *packet) { p.length, p.total = 20, -20 }), Forwarded, 10, macA, 1, 0},
		{"ICMP", edit(v4("10.1.2.3"), func(p *packet) { p.proto = 1 }), Forwarded, 10, macA, 1, 0},
		{"class E", edit(v4("10.1.2.3"), func(p *packet) { p.src = "240.0.0.1" }), Forwarded, 10, macA, 1, 0},

		{"TTL 1", edit(v4("10.1.2.3"), func(p *packet) { p.ttl = 1 }), TTL, 10, macA, 0, 0},
		{"IPv6 hop limit 1", edit(v6("2001:db8:1::5"), func(p *packet) { p.ttl = 1 }), TTL, 10, macA, 0, 0},
		{"TTL 1, local", edit(v4("10.30.0.1"), func(p *packet) { p.ttl = 1 }), Local, 10, macA, 0, 0},
		{"too big", edit(v4("10.1.2.3"), func(p *packet) { p.length = 1500 - 27 }), TooBig, 10, macA, 0, 0},
		{"IPv6 too big", edit(v6("2001:db8:1::5"), func(p *packet) { p.length = 1500 - 47 }), TooBig, 10, macA, 0, 0},
		{"options", edit(v4("10.1.2.3"), func(p *packet) { p.options = []byte{1, 1, 1, 0} }), Options, 10, macA, 0, 0},
		{"most options", edit(v4("10.1.2.3"), func(p *packet) { p.options = make([]byte, 40) }), Options, 10, macA, 0, 0},
		{"hop-by-hop options", edit(v6("2001:db8:1::5"), func(p *packet) { p.hopByHop = true }), Options, 10, macA, 0, 0},
		{"version", edit(v4("10.1.2.3"), func(p *packet) { p.version = 6 }), Malformed, 10, macA, 0, 0},
		{"IPv6 version", edit(v6("2001:db8:1::5"), func(p *packet) { p.version = 4 }), Malformed, 10, macA, 0, 0},
		{"checksum", edit(v4("10.1.2.3"), func(p *packet) { p.badSum = 1 }), Malformed, 10, macA, 0, 0},
		{"length too long", edit(v4("10.1.2.3"), func(p *packet) { p.total = 1 }), Malformed, 10, macA, 0, 0},
		{"length shorter than the header", edit(v4("10.1.2.3"), func(p *packet) { p.total = -9 }), Malformed, 10, macA, 0, 0},
		{"IPv6 length too long", edit(v6("2001:db8:1::5"), func(p *packet) { p.total = 1 }), Malformed, 10, macA, 0, 0},
		{"local", v4("10.30.0.1"), Local, 10, macA, 0, 0},
		{"blackhole", v4("10.31.0.1"), Blackhole, 10, macA, 0, 0},
		{"unreachable", v4("10.32.0.1"), Unreachable, 10, macA, 0, 0},
		{"prohibit", v4("10.33.0.1"), Prohibit, 10, macA, 0, 0},
		{"IPv6 local", v6("2001:db8:30::1"), Local, 10, macA, 0, 0},
		{"IPv6 blackhole", v6("2001:db8:31::1"), Blackhole, 10, macA, 0, 0},
		{"IPv6 unreachable", v6("2001:db8:32::1"), Unreachable, 10, macA, 0, 0},
		{"IPv6 prohibit", v6("2001:db8:33::1"), Prohibit, 10, macA, 0, 0},
		{"no route", v4("172.16.0.1"), NoRoute, 10, macA, 0, 0},
		{"IPv6 no route", v6("2001:db8:ffff::1"), NoRoute, 10, macA, 0, 0},
		{"no route where it leaks to", v4("10.20.2.1"), NoRoute, 10, macA, 0, 0},
		{"leak to no FIB", v4("10.21.0.1"), NoRoute, 10, macA, 0, 0},
		{"nothing leaks by itself", edit(v4("10.1.2.3"), func(p *packet) { p.dmac = r.macs[2] }), NoRoute, 20, macA, 0, 2},
		{"down", v4("10.6.0.1"), Down, 10, macA, 0, 0},
		{"no neighbour", v4("10.3.0.1"), NoNeighbour, 10, macA, 0, 0},
		{"no neighbour on the link", v4("10.2.0.8"), NoNeighbour, 10, macA, 0, 0},
		{"no such device", v4("10.5.0.1"), NoNeighbour, 10, macA, 0, 0},
		{"nine FIBs", v4("10.7.0.1"), Depth, 10, macA, 0, 0},
		{"eight FIBs", v4("10.7.128.1"), Blackhole, 10, macA, 0, 0},
		{"multicast", v4("224.0.0.5"), Address, 10, macA, 0, 0},
		{"broadcast", v4("255.255.255.255"), Address, 10, macA, 0, 0},
		{"loopback", v4("127.0.0.1"), Address, 10, macA, 0, 0},
		{"this network", v4("0.0.0.1"), Address, 10, macA, 0, 0},
		{"from multicast", edit(v4("10.1.2.3"), func(p *packet) { p.src = "224.0.0.5" }), Address, 10, macA, 0, 0},
		{"from loopback", edit(v4("10.1.2.3"), func(p *packet) { p.src = "127.0.0.1" }), Address, 10, macA, 0, 0},
		{"from nowhere", edit(v4("10.1.2.3"), func(p *packet) { p.src = "0.0.0.0" }), Address, 10, macA, 0, 0},
		{"from broadcast", edit(v4("10.1.2.3"), func(p *packet) { p.src = "255.255.255.255" }), Address, 10, macA, 0, 0},
		{"IPv6 multicast", v6("ff02::1"), Address, 10, macA, 0, 0},
		{"IPv6 link-local", v6("fe80::1"), Address, 10, macA, 0, 0},
		{"IPv6 loopback", v6("::1"), Address, 10, macA, 0, 0},
		{"IPv6 mapped", v6("::ffff:10.1.2.3"), Address, 10, macA, 0, 0},
		{"IPv6 from link-local", edit(v6("2001:db8:1::5"), func(p *packet) { p.src = "fe80::1" }), Address, 10, macA, 0, 0},
		{"IPv6 from nowhere", edit(v6("2001:db8:1::5"), func(p *packet) { p.src = "::" }), Address, 10, macA, 0, 0},
		{"another host", edit(v4("10.1.2.3"), func(p *packet) { p.dmac[5]++ }), OtherHost, 10, macA, 0, 0},
		{"to all hosts", edit(v4("10.1.2.3"), func(p *packet) { p.dmac = [6]byte{255, 255, 255, 255, 255, 255} }), OtherHost, 10, macA, 0, 0},
		{"ARP", edit(v4("10.1.2.3"), func(p *packet) { p.ether = 0x806 }), EtherType, 10, macA, 0, 0},
		{"VLAN without a port", edit(v4("10.1.2.3"), func(p *packet) { p.tags = []uint32{0x81000007} }), NoPort, none, macA, 0, 0},
		{"priority tag", edit(v4("10.1.2.3"), func(p *packet) { p.tags = []uint32{0x8100e000} }), Forwarded, 10, macA, 1, 0},
		{"three tags", edit(v4("10.1.2.3"), func(p *packet) { p.tags = []uint32{0x88a80000, 0x81000000, 0x81000000} }), NoPort, none, macA, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := c.p.bytes()
			for _, again := range []bool{false, true} { // what is remembered is the same as what is found
				before := r.counters(t, c.fib)
				action, out := r.run(t, frame, r.links[c.source])
				after := r.counters(t, c.fib)
				for why := range after.Packets {
					if want := before.Packets[why] + b2u(Reason(why) == c.why); after.Packets[why] != want && Reason(why) != MissLost {
						t.Errorf("again %v: %s counted %d, not %d", again, Reason(why), after.Packets[why], want)
					}
				}
				switch c.why {
				case Forwarded:
					want := bytes.Clone(c.p.forwarded(c.dmac, r.macs[c.link], nil))
					if action != redirect || !bytes.Equal(out, want) {
						t.Errorf("again %v: action %d\n got %x\nwant %x", again, action, out, want)
					}
					if got := after.Octets - before.Octets; got != uint64(len(frame)) {
						t.Errorf("%d octets counted of %d", got, len(frame))
					}
				case Blackhole:
					if action != drop {
						t.Errorf("action %d", action)
					}
				default:
					if action != pass || !bytes.Equal(out, frame) {
						t.Errorf("again %v: action %d, the kernel does not get the frame as it was:\n got %x\nwant %x", again, action, out, frame)
					}
				}
			}
		})
	}
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// forwarded is the frame as it must leave.
func (p packet) forwarded(dmac, smac [6]byte, tags []uint32) []byte {
	p.dmac, p.smac, p.tags = dmac, smac, tags
	if p.ttl == 0 {
		p.ttl = 64
	}
	p.ttl--
	return p.bytes()
}

func TestIntegrationTruncated(t *testing.T) {
	r := newTestRouter(t)
	for name, p := range map[string]packet{
		"IPv4":      {dmac: r.macs[0], src: "198.51.100.1", dst: "10.1.2.3", length: 3},
		"IPv6":      {dmac: r.macs[0], src: "2001:db8:99::1", dst: "2001:db8:1::5", length: 3},
		"two tags":  {dmac: r.macs[0], src: "198.51.100.1", dst: "10.1.2.3", tags: []uint32{0x81000000, 0x81000000}},
		"IPv6, tag": {dmac: r.macs[0], src: "2001:db8:99::1", dst: "2001:db8:1::5", tags: []uint32{0x81000000}},
	} {
		frame := p.bytes()
		for n := 14; n <= len(frame); n++ { // the kernel takes none shorter than an Ethernet header
			action, out := r.run(t, frame[:n], r.links[0])
			switch {
			case n == len(frame):
				if action != redirect {
					t.Errorf("%s, whole: action %d", name, action)
				}
			case action != pass || !bytes.Equal(out, frame[:n]):
				t.Errorf("%s, %d octets of %d: action %d", name, n, len(frame), action)
			}
		}
	}
	s := r.counters(t, 10)
	if s.Packets[Forwarded] != 4 || s.Packets[Malformed] == 0 {
		t.Errorf("%d forwarded, %d malformed", s.Packets[Forwarded], s.Packets[Malformed])
	}
}

func TestIntegrationTags(t *testing.T) {
	r := newRouter(t, 2, Config{})
	const in, out, tpid = 1000, 2000, 0x81000000
	kinds := map[string][]uint32{
		"none": nil, "one": {0x81000000 | 7}, "one of 802.1ad": {0x88a80000 | 7}, "two": {0x88a80000 | 7, 0x81000000 | 9}, "two of 802.1Q": {0x81000000 | 7, 0x81000000 | 9},
	}
	tag := func(tags []uint32, i int) Tag {
		if i >= len(tags) {
			return 0
		}
		v := Tag(tags[i] & 0xfff)
		if tags[i]>>16 == 0x88a8 {
			v |= TagAD
		}
		return v
	}
	var ports []Port
	type end struct {
		device uint32
		tags   []uint32
	}
	var ins, outs []end
	for i, name := range []string{"none", "one", "one of 802.1ad", "two", "two of 802.1Q"} {
		tags := kinds[name]
		a, b := end{in + uint32(i), tags}, end{out + uint32(i), tags}
		if tags == nil {
			a.device, b.device = r.links[0], r.links[1]
		}
		ins, outs = append(ins, a), append(outs, b)
		ports = append(ports, Port{Device: a.device, Link: r.links[0], Outer: tag(tags, 0), Inner: tag(tags, 1), FIB: 10 + uint32(i)})
		ports = append(ports, Port{Device: b.device, Link: r.links[1], Outer: tag(tags, 0), Inner: tag(tags, 1), FIB: 100})
	}
	r.ports(t, ports...)
	// VLANs without a device of the kernel are down until they are said to be up.
	for i, p := range ports {
		if err := r.SetDevice(Device{Index: p.Device, MTU: 1500, MAC: [6]byte{2, 0, 0, 1, 0, byte(i)}, Up: true}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range outs {
		for j := range ins {
			r.route(t, fib.ID(10+j), fmt.Sprintf("10.%d.0.0/16", i), fib.NextHop{Type: fib.Lookup, Table: 100})
		}
		r.route(t, 100, fmt.Sprintf("10.%d.0.0/16", i), via(fmt.Sprintf("192.0.2.%d", i), outs[i].device))
		r.neighbour(t, 100, outs[i].device, fmt.Sprintf("192.0.2.%d", i), [6]byte{2, 0, 0, 2, 0, byte(i)})
	}
	for j, a := range ins {
		for i, b := range outs {
			for _, p := range []packet{
				{src: "198.51.100.1", dst: fmt.Sprintf("10.%d.0.1", i), length: 20},
			} {
				p.dmac, p.tags = [6]byte{2, 0, 0, 1, 0, byte(2 * j)}, nil
				for _, tag := range a.tags {
					p.tags = append(p.tags, tag|0xa000) // some priority
				}
				action, got := r.run(t, p.bytes(), r.links[0])
				want := p.forwarded([6]byte{2, 0, 0, 2, 0, byte(i)}, [6]byte{2, 0, 0, 1, 0, byte(2*i + 1)}, b.tags)
				if action != redirect || !bytes.Equal(got, want) {
					t.Errorf("%x to %x: action %d\n got %x\nwant %x", a.tags, b.tags, action, got, want)
				}
			}
		}
		if s := r.counters(t, 10+uint32(j)); s.Packets[Forwarded] != uint64(len(outs)) {
			t.Errorf("FIB %d counted %d", 10+j, s.Packets[Forwarded])
		}
	}
}

// Every header that a packet with a right checksum can have gets the checksum that a whole computation gives.
func TestIntegrationChecksum(t *testing.T) {
	r := newTestRouter(t)
	r.in(t, func() error {
		for i := range 20000 {
			p := packet{
				dmac: r.macs[0], src: netip.AddrFrom4([4]byte{198, byte(i >> 8), byte(i), byte(i * 7)}).String(), dst: "10.1.2.3",
				ttl: byte(2 + i%254), proto: byte(i * 13), fragment: uint16(i*5) & 0x7fff, length: i % 5,
			}
			action, out, err := r.give(p.bytes(), r.links[0])
			if err != nil {
				return err
			}
			if want := p.forwarded(macA, r.macs[1], nil); action != redirect || !bytes.Equal(out, want) {
				return fmt.Errorf("%+v: action %d\n got %x\nwant %x", p, action, out, want)
			}
		}
		return nil
	})
}

// The program and the library choose the same member of a group for each flow.
func TestIntegrationGroups(t *testing.T) {
	r := newRouter(t, 2, Config{Seed: 42})
	r.ports(t, Port{Device: r.links[0], FIB: 10}, Port{Device: r.links[1], FIB: 10})
	var members []fib.Member
	const n = 5
	macs := map[[6]byte]int{}
	for i := range n {
		addr := fmt.Sprintf("192.0.2.%d", 10+i)
		id, err := r.set.AddNextHop(via(addr, r.links[1]))
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, fib.Member{NextHop: id, Weight: uint16(i + 1)})
		mac := [6]byte{2, 0, 0, 3, 0, byte(i)}
		macs[mac] = i
		r.neighbour(t, 10, r.links[1], addr, mac)
	}
	g, err := r.set.AddGroup(members)
	if err != nil {
		t.Fatal(err)
	}
	r.insert(t, 10, "10.0.0.0/8", g)
	r.insert(t, 10, "2001:db8::/32", g)
	f := r.table(t, 10)
	try := func(out int) {
		t.Helper()
		var count [n]int
		r.in(t, func() error {
			for i := range 6000 {
				p := packet{dmac: r.macs[0], src: "198.51.100.1", dst: fmt.Sprintf("10.1.%d.%d", i>>8&255, i&255), sport: uint16(i), dport: 443, proto: flowhash.TCP}
				switch i % 4 {
				case 1:
					p.src, p.dst = "2001:db8:99::1", fmt.Sprintf("2001:db8::%x", i)
				case 2:
					p.fragment = 0x2000
				case 3:
					p.proto = 1
				}
				action, frame, err := r.give(p.bytes(), r.links[0])
				if err != nil {
					return err
				}
				if action != redirect {
					return fmt.Errorf("%+v: action %d", p, action)
				}
				member := macs[[6]byte(frame[:6])]
				want := r.set.Resolve(f, netip.MustParseAddr(p.dst), flowhash.Hash(42, p.flow()))
				if got := members[member].NextHop; got != want.ID {
					return fmt.Errorf("%+v: next hop %d, the library says %d", p, got, want.ID)
				}
				count[member]++
			}
			return nil
		})
		for i, c := range count {
			if i == out {
				if c != 0 {
					t.Errorf("member %d is down and got %d", i, c)
				}
			} else if c < 6000*(i+1)/15/2 {
				t.Errorf("member %d of weight %d got %d of 6000", i, i+1, c)
			}
		}
	}
	try(-1)
	if err := r.set.SetDown(members[4].NextHop, true); err != nil {
		t.Fatal(err)
	}
	try(4)
	for _, m := range members {
		if err := r.set.SetDown(m.NextHop, true); err != nil {
			t.Fatal(err)
		}
	}
	if action, _ := r.run(t, packet{dmac: r.macs[0], src: "198.51.100.1", dst: "10.1.2.3"}.bytes(), r.links[0]); action != pass {
		t.Errorf("all are down: action %d", action)
	}
	if s := r.counters(t, 10); s.Packets[Down] != 1 {
		t.Errorf("down counted %d", s.Packets[Down])
	}
}

// Where the kernel has no route for them, packets without a neighbour are dropped, if configured so.
func TestIntegrationMissDrops(t *testing.T) {
	r := newRouter(t, 2, Config{MissDrops: true})
	r.ports(t, Port{Device: r.links[0], FIB: 10}, Port{Device: r.links[1], FIB: 10})
	r.route(t, 10, "10.0.0.0/8", via("192.0.2.9", r.links[1]))
	frame := packet{dmac: r.macs[0], src: "198.51.100.1", dst: "10.1.2.3"}.bytes()
	if action, _ := r.run(t, frame, r.links[0]); action != drop {
		t.Errorf("action %d", action)
	}
	if s := r.counters(t, 10); s.Packets[NoNeighbour] != 1 {
		t.Errorf("counted %v", s)
	}
	r.neighbour(t, 10, r.links[1], "192.0.2.9", macA)
	if action, _ := r.run(t, frame, r.links[0]); action != redirect {
		t.Errorf("with a neighbour: action %d", action)
	}
}
