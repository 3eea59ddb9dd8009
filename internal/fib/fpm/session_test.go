package fpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"midplane/fib"
	"midplane/internal/fib/feed"
	"midplane/internal/fib/rtnl"
	"midplane/internal/mono"
)

const second = mono.Time(time.Second)

func frame(payload ...[]byte) []byte {
	all := slices.Concat(payload...)
	n := len(all) + headerSize
	return append([]byte{version, typeNetlink, byte(n >> 8), byte(n)}, all...)
}

func message(typ uint16, r *rtnl.Route) []byte {
	b, err := rtnl.AppendRoute(nil, rtnl.Header{Type: typ, Flags: rtnl.FlagCreate | rtnl.FlagReplace}, r)
	if err != nil {
		panic(err)
	}
	return b
}

func object(n *rtnl.NextHop) []byte {
	b, err := rtnl.AppendNextHop(nil, rtnl.Header{Type: rtnl.NewNextHop, Flags: rtnl.FlagCreate | rtnl.FlagRequest}, n)
	if err != nil {
		panic(err)
	}
	return b
}

// testRoute is a route to a prefix via 10.0.0.gw.
func testRoute(prefix string, gw byte) *rtnl.Route {
	return &rtnl.Route{Dst: netip.MustParsePrefix(prefix), Table: 254, Protocol: rtnl.ProtoZebra, Type: rtnl.RouteUnicast,
		Paths: []rtnl.Path{{Gateway: netip.AddrFrom4([4]byte{10, 0, 0, gw}), Device: 1, Weight: 1}}}
}

func add(prefix string, gw byte) []byte { return message(rtnl.NewRoute, testRoute(prefix, gw)) }

func del(prefix string) []byte {
	return message(rtnl.DelRoute, &rtnl.Route{Dst: netip.MustParsePrefix(prefix), Table: 254})
}

type bench struct {
	*testing.T
	set *fib.Set
	s   *Session
}

func newBench(t *testing.T, c Config) *bench {
	t.Helper()
	set, err := fib.New(&fib.Config{Size: 4 * fib.MinSize, MaxFIBs: 64, MaxNextHops: 256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	c.Feed.Create = true
	b := &bench{t, set, NewSession(set, c)}
	b.s.Connect(0)
	return b
}

func (b *bench) receive(now mono.Time, octets ...[]byte) {
	b.Helper()
	if err := b.s.Receive(now, slices.Concat(octets...)); err != nil {
		b.Fatal(err)
	}
}

// leads fails the test unless a prefix leads where it should; "" is nowhere.
func (b *bench) leads(prefix, want string) {
	b.Helper()
	got := ""
	if t, ok := b.set.Table(254); ok {
		if id, ok := t.Get(netip.MustParsePrefix(prefix)); ok {
			i, _ := b.set.NextHop(id)
			got = i.NextHop.String()
			if i.Members != nil {
				got = "group"
				for _, m := range i.Members {
					h, _ := b.set.NextHop(m.NextHop)
					got += fmt.Sprintf(", %v weight %d", h.NextHop, m.Weight)
				}
			}
		}
	}
	if got != want {
		b.Fatalf("%s leads to %q, want %q", prefix, got, want)
	}
}

// answers decodes what the Session sends, as zebra from 8.5 on does (fpm_read): one message a frame, requests only.
func (b *bench) answers() (all []rtnl.Route) {
	b.Helper()
	for out := b.s.Output(); len(out) > 0; {
		n := int(binary.BigEndian.Uint16(out[2:]))
		if out[0] != 1 || out[1] != 1 || n > len(out) {
			b.Fatalf("frame %x", out)
		}
		var d rtnl.Decoder
		m, rest, err := d.Next(out[headerSize:n])
		if err != nil || len(rest) != 0 || m.Type != rtnl.NewRoute || m.Flags&rtnl.FlagRequest == 0 {
			b.Fatalf("%v, %+v, %d octets after it", err, m, len(rest))
		}
		r := *m.Route
		r.Paths = slices.Clone(r.Paths)
		all = append(all, r)
		out = out[n:]
	}
	return all
}

func TestRoutesComeAndGo(t *testing.T) {
	b := newBench(t, Config{})
	b.receive(1, frame(add("192.0.2.0/24", 1)), frame(add("198.51.100.0/24", 2), add("203.0.113.0/24", 3)))
	b.leads("192.0.2.0/24", "via 10.0.0.1 dev 1")
	b.leads("198.51.100.0/24", "via 10.0.0.2 dev 1")
	b.leads("203.0.113.0/24", "via 10.0.0.3 dev 1")
	b.receive(1, frame(del("192.0.2.0/24"), add("192.0.2.0/24", 4)), frame(del("198.51.100.0/24")))
	b.leads("192.0.2.0/24", "via 10.0.0.4 dev 1")
	b.leads("198.51.100.0/24", "")
	b.receive(1, frame(del("192.0.2.0/24"), add("198.51.100.0/24", 5), del("203.0.113.0/24")))
	b.leads("192.0.2.0/24", "")
	b.leads("198.51.100.0/24", "via 10.0.0.5 dev 1")
	b.leads("203.0.113.0/24", "")
	if c := b.s.Counters(); c.Frames != 5 || c.Offloaded != 5 || c.Failed != 0 || c.Feed.Routes != 1 || c.Feed.Missing != 0 {
		t.Errorf("%+v", c)
	}
}

// A route that changes is deleted and added in one frame: the FIB is never without.
func TestChangeIsOneStep(t *testing.T) {
	b := newBench(t, Config{})
	b.receive(1, frame(add("192.0.2.0/24", 1)))
	tab, _ := b.set.Table(254)
	gen := tab.Generation()
	b.receive(1, frame(del("192.0.2.0/24"), add("192.0.2.0/24", 2)))
	b.leads("192.0.2.0/24", "via 10.0.0.2 dev 1")
	if n := tab.Generation() - gen; n != 1 {
		t.Errorf("%d changes", n)
	}
	if c := b.s.Counters(); c.Feed.Deleted != 0 || c.Feed.Replaced != 1 {
		t.Errorf("%+v", c.Feed)
	}
}

func TestNextHopGroups(t *testing.T) {
	b := newBench(t, Config{})
	hop := func(id uint32, gw byte) []byte {
		return object(&rtnl.NextHop{ID: id, Family: rtnl.FamilyIPv4, Gateway: netip.AddrFrom4([4]byte{10, 0, 0, gw}), Device: 1})
	}
	group := func(id uint32, m ...rtnl.Member) []byte { return object(&rtnl.NextHop{ID: id, Group: m}) }
	r := &rtnl.Route{Dst: netip.MustParsePrefix("192.0.2.0/24"), Table: 254, Type: rtnl.RouteUnicast, NextHop: 10}
	b.receive(1, frame(group(10, rtnl.Member{ID: 7, Weight: 1}, rtnl.Member{ID: 8, Weight: 3})), frame(hop(7, 7)), // zebra sends them in any order
		frame(message(rtnl.NewRoute, r)), frame(hop(8, 8)))
	b.leads("192.0.2.0/24", "group, via 10.0.0.7 dev 1 weight 1, via 10.0.0.8 dev 1 weight 3")
	tab, _ := b.set.Table(254)
	gen := tab.Generation()
	b.receive(1, frame(hop(8, 9)))
	b.leads("192.0.2.0/24", "group, via 10.0.0.7 dev 1 weight 1, via 10.0.0.9 dev 1 weight 3")
	b.receive(1, frame(group(10, rtnl.Member{ID: 8, Weight: 1})))
	b.leads("192.0.2.0/24", "group, via 10.0.0.9 dev 1 weight 1")
	if tab.Generation() != gen {
		t.Error("a change of the next hops changed the table")
	}
	gone, _ := rtnl.AppendNextHop(nil, rtnl.Header{Type: rtnl.DelNextHop}, &rtnl.NextHop{ID: 8})
	b.receive(1, frame(gone))
	b.leads("192.0.2.0/24", "")
}

// Each route is answered with what became of it.
func TestAnswers(t *testing.T) {
	b := newBench(t, Config{Feed: feed.Config{FIB: func(n uint32) fib.ID {
		if n == 254 {
			return 254
		}
		return 0
	}}})
	good, other, mpls := testRoute("192.0.2.0/24", 1), testRoute("198.51.100.0/24", 1), testRoute("203.0.113.0/24", 1)
	other.Table, mpls.Paths[0].EncapType = 77, 1
	bad := add("192.0.2.0/25", 1)
	bad[16] = 28 // of another family
	b.receive(1, frame(message(rtnl.NewRoute, good)), frame(message(rtnl.NewRoute, other)), frame(message(rtnl.NewRoute, mpls)), frame(del("10.0.0.0/8")))
	all := b.answers()
	if len(all) != 3 {
		t.Fatalf("%d answers", len(all))
	}
	for i, want := range []uint32{rtnl.RouteOffload, rtnl.RouteOffloadFailed, rtnl.RouteOffloadFailed} {
		if all[i].Flags != want || all[i].Dst != []*rtnl.Route{good, other, mpls}[i].Dst || all[i].Protocol != rtnl.ProtoZebra {
			t.Errorf("answer %+v, want flags %#x", all[i], want)
		}
	}
	b.receive(1, frame(bad))
	if out := b.s.Output(); len(out) != len(bad)+headerSize || out[headerSize+flagsOffset+3] != byte(rtnl.RouteOffloadFailed>>24) {
		t.Errorf("%x", out)
	}
	if c := b.s.Counters(); c.Offloaded != 1 || c.Failed != 3 || c.NotForFIBs != 1 || c.Feed.Refused != 1 || c.Netlink.Refused[rtnl.BadFamily] != 1 {
		t.Errorf("%+v", c)
	}
	// What cannot be had replaces nothing: the route of before is gone too.
	mpls.Dst = good.Dst
	b.receive(1, frame(del("192.0.2.0/24"), message(rtnl.NewRoute, mpls)))
	b.leads("192.0.2.0/24", "")
	silent := newBench(t, Config{Silent: true})
	silent.receive(1, frame(message(rtnl.NewRoute, good)))
	if out := silent.s.Output(); len(out) != 0 || silent.s.Counters().Offloaded != 1 {
		t.Errorf("%x", out)
	}
}

// A FIB that is full refuses, zebra is told, and nothing else is lost.
func TestFull(t *testing.T) {
	set, err := fib.New(&fib.Config{Size: fib.MinSize, MaxFIBs: 2, MaxNextHops: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	b := &bench{t, set, NewSession(set, Config{Feed: feed.Config{Create: true}})}
	b.s.Connect(0)
	for i := range byte(9) {
		b.receive(1, frame(add(fmt.Sprintf("10.%d.0.0/16", i), i+1)))
	}
	c := b.s.Counters()
	if c.Failed == 0 || c.Offloaded == 0 || c.Failed+c.Offloaded != 9 || c.Feed.Full != c.Failed || int(c.Feed.Routes) != int(c.Offloaded) {
		t.Fatalf("%+v", c)
	}
	for i := range byte(9) {
		b.receive(1, frame(del(fmt.Sprintf("10.%d.0.0/16", i))))
	}
	b.receive(1, frame(add("10.8.0.0/16", 9)))
	b.leads("10.8.0.0/16", "via 10.0.0.9 dev 1")
}

// A replay ends when nothing has come for a while, and what was not told in it goes then; until then it stays.
func TestResync(t *testing.T) {
	b := newBench(t, Config{Quiet: 5 * time.Second, Start: 20 * time.Second})
	b.receive(second, frame(add("192.0.2.0/24", 1)), frame(add("198.51.100.0/24", 2)), frame(add("203.0.113.0/24", 3)))
	if d := b.s.Deadline(); d != 6*second {
		t.Fatalf("deadline %v", d)
	}
	if err := b.s.Tick(6 * second); err != nil || b.s.Counters().Resyncs != 1 || b.s.Deadline() != mono.Never {
		t.Fatal(err, b.s.Counters())
	}
	b.s.Disconnect(7 * second)
	b.leads("192.0.2.0/24", "via 10.0.0.1 dev 1")
	b.s.Connect(10 * second)
	if d := b.s.Deadline(); d != 30*second {
		t.Fatalf("deadline %v: zebra was given no time to begin", d)
	}
	b.receive(20*second, frame(add("192.0.2.0/24", 1)))
	b.receive(24*second, frame(add("203.0.113.0/24", 4)))
	b.leads("198.51.100.0/24", "via 10.0.0.2 dev 1")
	if err := b.s.Tick(28 * second); err != nil || b.s.Counters().Resyncs != 1 {
		t.Fatal(err, "ended too early")
	}
	if err := b.s.Tick(29 * second); err != nil || b.s.Counters().Resyncs != 2 {
		t.Fatal(err, b.s.Counters())
	}
	b.leads("192.0.2.0/24", "via 10.0.0.1 dev 1")
	b.leads("198.51.100.0/24", "")
	b.leads("203.0.113.0/24", "via 10.0.0.4 dev 1")
	if c := b.s.Counters(); c.Feed.Swept != 1 || c.Feed.Refreshed != 2 {
		t.Errorf("%+v", c.Feed)
	}
}

// A replay among changes that never pause ends all the same.
func TestResyncAmongChurn(t *testing.T) {
	b := newBench(t, Config{Quiet: 5 * time.Second, Limit: time.Minute})
	b.receive(1, frame(add("192.0.2.0/24", 1)), frame(add("198.51.100.0/24", 2)))
	b.s.Disconnect(2)
	b.s.Connect(0)
	now := mono.Time(0)
	for ; now < 100*second && b.s.Counters().Resyncing; now += second {
		b.receive(now, frame(add("192.0.2.0/24", byte(1+now/second))))
		if err := b.s.Tick(now); err != nil {
			t.Fatal(err)
		}
	}
	if now < 60*second || now > 70*second {
		t.Errorf("ended after %d s", now/second)
	}
	b.leads("198.51.100.0/24", "")
}

func TestHold(t *testing.T) {
	b := newBench(t, Config{Hold: time.Minute})
	b.receive(1, frame(add("192.0.2.0/24", 1)))
	b.s.Disconnect(10 * second)
	if err := b.s.Tick(69 * second); err != nil || b.s.Deadline() != 70*second {
		t.Fatal(err, b.s.Deadline())
	}
	b.leads("192.0.2.0/24", "via 10.0.0.1 dev 1")
	if err := b.s.Tick(70 * second); err != nil || b.s.Deadline() != mono.Never {
		t.Fatal(err, b.s.Deadline())
	}
	b.leads("192.0.2.0/24", "")
}

// Wherever the stream is cut into pieces, the routes are the same.
func TestPieces(t *testing.T) {
	var stream []byte
	for i := range 50 {
		stream = append(stream, frame(add(fmt.Sprintf("10.%d.0.0/16", i), byte(1+i%7)), del(fmt.Sprintf("10.%d.0.0/16", i/3)))...)
	}
	whole := newBench(t, Config{})
	whole.receive(1, stream)
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		b := newBench(t, Config{})
		for rest := stream; len(rest) > 0; {
			n := min(1+rnd.IntN(1+int(seed)*10), len(rest))
			b.receive(1, rest[:n])
			rest = rest[n:]
		}
		c, want := b.s.Counters(), whole.s.Counters()
		if c.Frames != want.Frames || c.Feed.Routes != want.Feed.Routes || c.Offloaded != want.Offloaded {
			t.Fatalf("seed %d: %+v, want %+v", seed, c, want)
		}
		tab, _ := whole.set.Table(254)
		for r := range tab.All() {
			i, _ := whole.set.NextHop(r.NextHop)
			b.leads(r.Prefix.String(), i.NextHop.String())
		}
	}
}

// A stream that ends at any octet is waited for, and given up in time.
func TestCut(t *testing.T) {
	whole := frame(add("192.0.2.0/24", 1), del("198.51.100.0/24"))
	for n := range whole {
		b := newBench(t, Config{Partial: 10 * time.Second, Quiet: time.Second, Start: time.Second})
		b.receive(100*second, whole[:n])
		if n == 0 {
			continue
		}
		if d := b.s.Deadline(); d > 110*second {
			t.Fatalf("%d octets: deadline %v", n, d)
		}
		if err := b.s.Tick(109 * second); err != nil || b.s.Counters().Resyncs != 0 {
			t.Fatalf("%d octets: %v, %+v: a replay ended within a frame", n, err, b.s.Counters())
		}
		b.receive(109*second, nil)
		if err := b.s.Tick(110 * second); !errors.Is(err, ErrPartial) {
			t.Fatalf("%d octets: %v", n, err)
		}
		b.s.Disconnect(110 * second)
		if c := b.s.Counters(); c.BadPartial != 1 || c.Cut != 1 || c.Frames != 0 {
			t.Fatalf("%d octets: %+v", n, c)
		}
		b.s.Connect(111 * second)
		b.receive(112*second, whole)
		b.leads("192.0.2.0/24", "via 10.0.0.1 dev 1")
	}
}

func TestHostile(t *testing.T) {
	good := frame(add("192.0.2.0/24", 1))
	absurd := add("192.0.2.0/24", 9)
	binary.NativeEndian.PutUint32(absurd, 1<<31)
	for name, c := range map[string]struct {
		b    []byte
		err  error
		want func(Counters) bool
	}{
		"version 0":              {[]byte{0, 1, 0, 4}, ErrVersion, func(c Counters) bool { return c.BadVersion == 1 }},
		"version 2":              {[]byte{2, 1, 0, 4}, ErrVersion, func(c Counters) bool { return c.BadVersion == 1 }},
		"HTTP":                   {[]byte("GET / HTTP/1.1\r\n"), ErrVersion, func(c Counters) bool { return c.BadVersion == 1 }},
		"length 0":               {[]byte{1, 1, 0, 0}, ErrLength, func(c Counters) bool { return c.BadLength == 1 }},
		"length 3":               {[]byte{1, 1, 0, 3}, ErrLength, func(c Counters) bool { return c.BadLength == 1 }},
		"empty frame":            {[]byte{1, 1, 0, 4}, nil, func(c Counters) bool { return c.Frames == 2 }},
		"protobuf":               {[]byte{1, 2, 0, 8, 1, 2, 3, 4}, nil, func(c Counters) bool { return c.OtherTypes == 1 && c.LastFailure != "" }},
		"type 255":               {[]byte{1, 255, 0, 4}, nil, func(c Counters) bool { return c.OtherTypes == 1 }},
		"3 octets of netlink":    {frame([]byte{1, 2, 3}), nil, func(c Counters) bool { return c.Netlink.Refused[rtnl.BadFraming] == 1 }},
		"garbage":                {frame(slices.Repeat([]byte{0xff}, 65531)), nil, func(c Counters) bool { return c.Netlink.Refused[rtnl.BadFraming] == 1 }},
		"zeros":                  {frame(make([]byte, 65531)), nil, func(c Counters) bool { return c.Netlink.Refused[rtnl.BadFraming] == 1 }},
		"netlink length 2 GB":    {frame(absurd), nil, func(c Counters) bool { return c.Netlink.Refused[rtnl.BadFraming] == 1 }},
		"message beyond a frame": {frame(add("192.0.2.0/24", 9)[:40]), nil, func(c Counters) bool { return c.Netlink.Refused[rtnl.BadFraming] == 1 }},
		"IPv4 in IPv6":           {frame(message(rtnl.NewRoute, &rtnl.Route{Dst: netip.MustParsePrefix("::ffff:10.0.0.0/104"), Table: 254, Type: rtnl.RouteBlackhole})), nil, func(c Counters) bool { return c.Feed.Refused == 1 && c.Failed == 1 }},
		"table 0":                {frame(message(rtnl.NewRoute, &rtnl.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Type: rtnl.RouteBlackhole})), nil, func(c Counters) bool { return c.Feed.Refused == 1 && c.Failed == 1 }},
		"unicast to nowhere":     {frame(message(rtnl.NewRoute, &rtnl.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Table: 254, Type: rtnl.RouteUnicast})), nil, func(c Counters) bool { return c.Failed == 1 }},
		"group in itself":        {frame(object(&rtnl.NextHop{ID: 5, Group: []rtnl.Member{{ID: 5, Weight: 1}}})), nil, func(c Counters) bool { return c.Feed.Refused == 1 }},
		"group of groups": {frame(object(&rtnl.NextHop{ID: 5, Group: []rtnl.Member{{ID: 6, Weight: 1}}}), object(&rtnl.NextHop{ID: 7, Group: []rtnl.Member{{ID: 5, Weight: 1}}})), nil,
			func(c Counters) bool { return c.Feed.Refused == 1 }},
		"member that is a group": {frame(object(&rtnl.NextHop{ID: 5, Group: []rtnl.Member{{ID: 6, Weight: 1}}}), object(&rtnl.NextHop{ID: 6, Group: []rtnl.Member{{ID: 8, Weight: 1}}})), nil,
			func(c Counters) bool { return c.Feed.Refused == 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Config{})
			b.receive(1, good)
			if err := b.s.Receive(1, c.b); !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if !c.want(b.s.Counters()) {
				t.Errorf("%+v", b.s.Counters())
			}
			if c.err != nil {
				b.s.Disconnect(1)
				b.s.Connect(1)
			}
			b.leads("192.0.2.0/24", "via 10.0.0.1 dev 1") // what was there before is there
			b.receive(1, frame(add("198.51.100.0/24", 2)))
			b.leads("198.51.100.0/24", "via 10.0.0.2 dev 1") // and what follows
		})
	}
}

// What a peer can make a Session remember is bounded.
func TestBounds(t *testing.T) {
	b := newBench(t, Config{Feed: feed.Config{MaxObjects: 10, MaxFIBs: 3}})
	for i := range uint32(100) {
		b.receive(1, frame(object(&rtnl.NextHop{ID: 1 + i, Family: rtnl.FamilyIPv4, Device: 1})))
		r := testRoute("192.0.2.0/24", 1)
		r.Table = 1 + i
		b.receive(1, frame(message(rtnl.NewRoute, r)))
	}
	c := b.s.Counters()
	if c.Feed.Objects != 10 || c.Feed.Routes != 3 || c.Feed.Full != 90+97 || len(b.set.Tables()) != 3 {
		t.Errorf("%+v", c.Feed)
	}
	big := append([]byte{1, 1, 0xff, 0xff}, make([]byte, 65530)...) // one octet lacks
	b.receive(1, big)
	b.s.Output()
	if len(b.s.in) != 65534 || cap(b.s.in) > 1<<18 {
		t.Errorf("%d octets of %d are kept", len(b.s.in), cap(b.s.in))
	}
}

// FuzzReceive takes any octets in any pieces: it ends, keeps its books, and lets go of all in the end.
func FuzzReceive(f *testing.F) {
	f.Add(slices.Concat(frame(add("192.0.2.0/24", 1)), frame(del("192.0.2.0/24"), add("192.0.2.0/24", 2))), uint16(7))
	f.Add(frame(object(&rtnl.NextHop{ID: 5, Group: []rtnl.Member{{ID: 6, Weight: 1}, {ID: 7, Weight: 2}}}), object(&rtnl.NextHop{ID: 6, Family: 2, Device: 1}),
		message(rtnl.NewRoute, &rtnl.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Table: 254, Type: rtnl.RouteUnicast, NextHop: 5})), uint16(100))
	if real, err := os.ReadFile("../rtnl/testdata/frr-8.4.bin"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(real, uint16(60))
	}
	f.Add([]byte{1, 2, 0, 8, 0, 0, 0, 0, 2}, uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		set, err := fib.New(&fib.Config{Size: fib.MinSize, MaxFIBs: 8, MaxNextHops: 64})
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		s := NewSession(set, Config{Feed: feed.Config{Create: true, MaxFIBs: 4, MaxObjects: 16}})
		s.Connect(0)
		for len(b) > 0 {
			n := min(int(piece)+1, len(b))
			if err := s.Receive(1, b[:n]); err != nil {
				s.Disconnect(1)
				s.Connect(2)
			}
			b = b[n:]
			if out := s.Output(); len(out) > 2*65536 {
				t.Fatalf("%d octets to send", len(out))
			}
		}
		routes := 0
		for _, tab := range set.Tables() {
			v4, v6 := tab.Len()
			routes += v4 + v6
		}
		if c := s.Counters(); c.Feed.Routes != int64(routes) {
			t.Fatalf("%d routes in the tables, counters %+v", routes, c)
		}
		s.Flush()
		for id, h := range set.NextHops() {
			t.Fatalf("next hop %d is left: %v", id, h)
		}
	})
}
