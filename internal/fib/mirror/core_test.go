package mirror

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/diff"
	"midplane/internal/fib/diff/source"
	"midplane/internal/fib/rtnl"
)

// script feeds a core with messages that the test writes.
type script struct {
	t     testing.TB
	set   *fib.Set
	table *fib.Table
	c     *core
}

func newScript(t testing.TB) *script {
	set, err := fib.New(&fib.Config{Size: 1 << 20, MaxFIBs: 16, MaxNextHops: 1024})
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, set: set}
	t.Cleanup(func() { _ = s.set.Close() })
	if s.table, err = s.set.Create(7, ""); err != nil {
		t.Fatal(err)
	}
	s.c = newCore(s.set, map[uint32]fib.ID{100: 7}, nil, 0)
	return s
}

func payload(t testing.TB, r *rtnl.Route) []byte {
	t.Helper()
	b, err := rtnl.AppendRoute(nil, rtnl.Header{Type: rtnl.NewRoute}, r)
	if err != nil {
		t.Fatal(err)
	}
	_, p, _, err := rtnl.Next(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func unicast(prefix string, metric uint32, gateways ...string) *rtnl.Route {
	r := &rtnl.Route{Dst: netip.MustParsePrefix(prefix), Table: 100, Priority: metric, Type: rtnl.RouteUnicast}
	for _, g := range gateways {
		p := rtnl.Path{Device: 3, Weight: 1}
		if g != "" {
			p.Gateway = netip.MustParseAddr(g)
		}
		r.Paths = append(r.Paths, p)
	}
	return r
}

func (s *script) say(typ, flags uint16, r *rtnl.Route) (dump bool) {
	s.t.Helper()
	dump = s.c.notified(typ, flags, payload(s.t, r))
	s.c.sink.Commit()
	return dump
}

func (s *script) want(prefix, words string) {
	s.t.Helper()
	got := ""
	for r := range source.Routes(s.set, s.table.All()) {
		if r.Prefix == netip.MustParsePrefix(prefix) {
			got = diff.Words(r.Hops, nil)
		}
	}
	if got != words {
		s.t.Errorf("%s leads %q, want %q", prefix, got, words)
	}
}

const (
	added    = rtnl.FlagCreate | rtnl.FlagExcl
	appended = rtnl.FlagCreate | rtnl.FlagAppend
	put      = rtnl.FlagCreate // before the others
	replaced = rtnl.FlagReplace
)

func TestNotifications(t *testing.T) {
	s := newScript(t)
	const p, q = "10.0.0.0/8", "2001:db8::/32"
	via := func(g string) string { return "via " + g + " dev 3" }
	for i, c := range []struct {
		typ, flags uint16
		r          *rtnl.Route
		prefix     string
		want       string
		dump       bool
	}{
		{rtnl.NewRoute, added, unicast(p, 20, "192.0.2.1"), p, via("192.0.2.1"), false},
		{rtnl.NewRoute, added, unicast(p, 10, "192.0.2.2"), p, via("192.0.2.2"), false},
		{rtnl.NewRoute, appended, unicast(p, 10, "192.0.2.3"), p, via("192.0.2.2"), false},
		{rtnl.NewRoute, put, unicast(p, 10, "192.0.2.4"), p, via("192.0.2.4"), false},
		{rtnl.NewRoute, replaced, unicast(p, 10, "192.0.2.5"), p, via("192.0.2.5"), false},
		{rtnl.DelRoute, 0, unicast(p, 10, "192.0.2.5"), p, via("192.0.2.2"), false},
		{rtnl.DelRoute, 0, unicast(p, 10, "192.0.2.2"), p, via("192.0.2.3"), false},
		{rtnl.DelRoute, 0, unicast(p, 10, "192.0.2.3"), p, via("192.0.2.1"), false},
		{rtnl.DelRoute, 0, unicast(p, 99, "192.0.2.3"), p, via("192.0.2.1"), false},
		{rtnl.DelRoute, 0, unicast(p, 20, "192.0.2.1"), p, "", false},
		{rtnl.NewRoute, put, unicast(q, 1024, "2001:db8::1"), q, via("2001:db8::1"), false},
		{rtnl.NewRoute, appended, unicast(q, 1024, "2001:db8::1", "2001:db8::2"), q, via("2001:db8::1") + " weight 1, " + via("2001:db8::2") + " weight 1", false},
		{rtnl.DelRoute, 0, unicast(q, 1024, "2001:db8::1"), q, via("2001:db8::2"), false},
		{rtnl.NewRoute, put, unicast(q, 1024, ""), q, via("2001:db8::2"), false},           // beside it
		{rtnl.DelRoute, 0, unicast(q, 1024, "2001:db8::2"), q, "dev 3", false},             // it is next
		{rtnl.NewRoute, put, unicast(q, 1024, "2001:db8::9"), q, via("2001:db8::9"), true}, // which of both counts the kernel knows
		{rtnl.NewRoute, replaced, unicast(q, 1024, "2001:db8::7"), q, via("2001:db8::7"), false},
		{rtnl.NewRoute, added, &rtnl.Route{Dst: netip.MustParsePrefix(p), Table: 100, Type: rtnl.RouteThrow}, p, "unreachable", false},
		{rtnl.NewRoute, added, &rtnl.Route{Dst: netip.MustParsePrefix(p), Table: 101, Type: rtnl.RouteBlackhole}, p, "unreachable", false},
	} {
		if dump := s.say(c.typ, c.flags, c.r); dump != c.dump {
			t.Errorf("%d: a dump is due: %v", i, dump)
		}
		s.want(c.prefix, c.want)
	}
	if n := s.c.n; n.Messages != 19 || n.Ignored != 1 || n.Rejected != 0 {
		t.Errorf("%+v", n)
	}
}

// TestDead takes routes whose next hops are dead for none, and asks for a dump.
func TestDead(t *testing.T) {
	s := newScript(t)
	const p = "10.0.0.0/8"
	s.say(rtnl.NewRoute, added, unicast(p, 10, "192.0.2.1"))
	dead := unicast(p, 10, "192.0.2.2")
	dead.Paths[0].Flags = rtnl.PathDead
	if !s.say(rtnl.NewRoute, replaced, dead) || s.c.n.Dead != 1 {
		t.Error("no dump is due")
	}
	s.want(p, "")
	half := unicast(p, 10, "192.0.2.3", "192.0.2.4")
	half.Paths[0].Flags = rtnl.PathDead
	s.say(rtnl.NewRoute, added, half)
	s.want(p, "via 192.0.2.4 dev 3")
	tos := unicast("11.0.0.0/8", 10, "192.0.2.1")
	tos.TOS = 16
	s.say(rtnl.NewRoute, added, tos)
	s.want("11.0.0.0/8", "")
	if s.c.n.Rejected != 1 {
		t.Errorf("%+v", s.c.n)
	}
}

// TestSweep loses notifications and dumps.
func TestSweep(t *testing.T) {
	s := newScript(t)
	for _, p := range []string{"10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"} {
		s.say(rtnl.NewRoute, added, unicast(p, 10, "192.0.2.1"))
	}
	s.say(rtnl.NewRoute, appended, unicast("12.0.0.0/8", 10, "192.0.2.2"))
	s.c.mark()
	s.c.dumped(rtnl.NewRoute, payload(t, unicast("11.0.0.0/8", 10, "192.0.2.9")))
	s.c.dumped(rtnl.NewRoute, payload(t, unicast("12.0.0.0/8", 10, "192.0.2.3")))
	s.c.dumped(rtnl.NewRoute, payload(t, unicast("12.0.0.0/8", 10, "192.0.2.4")))
	s.want("10.0.0.0/8", "via 192.0.2.1 dev 3") // it goes on forwarding meanwhile
	s.c.sweep()
	if s.c.prove() || s.c.n.Proofs != 1 {
		t.Errorf("three routes, and not as many in the books: %+v", s.c.sink.Counters())
	}
	s.want("10.0.0.0/8", "")
	s.want("11.0.0.0/8", "via 192.0.2.9 dev 3")
	s.want("12.0.0.0/8", "via 192.0.2.3 dev 3")
	s.say(rtnl.DelRoute, 0, unicast("12.0.0.0/8", 10, "192.0.2.3"))
	s.want("12.0.0.0/8", "via 192.0.2.4 dev 3")
	// A route that was lost to the books is found, and asked about once.
	s.c.mark()
	s.c.sweep()
	s.c.routes = 1
	if !s.c.prove() || s.c.prove() || s.c.n.Mismatches != 2 {
		t.Errorf("%+v", s.c.n)
	}
	if n := s.c.n; n.Swept != 3 || n.Resyncs != 2 || n.Dumped != 3 {
		t.Errorf("%+v", n)
	}
}

func link(index, flags uint32) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	return b
}

func TestLinks(t *testing.T) {
	s := newScript(t)
	for i, c := range []struct {
		typ  uint16
		b    []byte
		dump bool
	}{
		{newLink, link(1, 0x10043), true}, // not known how it was
		{newLink, link(1, 0x10043), false},
		{newLink, link(1, 0x11043), false}, // multicast
		{newLink, link(1, 0x1003), true},   // no carrier
		{newLink, link(1, 0x1002), true},
		{delLink, link(1, 0x1002), true},
		{newLink, append([]byte{afBridge}, link(1, 1)[1:]...), false},
		{newLink, link(1, 0)[:15], false},
		{delAddr, []byte{rtnl.FamilyIPv4}, true},
		{delAddr, []byte{rtnl.FamilyIPv6}, false},
		{delAddr, nil, false},
		{20, nil, false},
	} {
		if dump := s.c.notified(c.typ, 0, c.b); dump != c.dump {
			t.Errorf("%d: a dump is due: %v", i, dump)
		}
	}
	if s.c.n.Rejected != 1 || s.c.n.Links != 5 {
		t.Errorf("%+v", s.c.n)
	}
	for i := range uint32(maxLinks + 10) {
		s.c.notified(newLink, 0, link(i+1, 1))
	}
	if len(s.c.links) != maxLinks {
		t.Errorf("%d links are remembered", len(s.c.links))
	}
}

func TestConfigErrors(t *testing.T) {
	set := new(fib.Set)
	defer set.Close()
	if _, err := set.Create(7, ""); err != nil {
		t.Fatal(err)
	}
	for field, c := range map[string]Config{
		"set":        {Tables: map[uint32]fib.ID{1: 7}},
		"fib":        {Set: set, Tables: map[uint32]fib.ID{1: 8}},
		"readbuffer": {Set: set, Tables: map[uint32]fib.ID{1: 7}, ReadBuffer: -1},
		"queue":      {Set: set, Tables: map[uint32]fib.ID{1: 7}, Queue: -1},
		"alternates": {Set: set, Tables: map[uint32]fib.ID{1: 7}, Alternates: -1},
	} {
		_, err := New(c)
		if e, ok := err.(*fib.FieldError); !ok || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, tables := range []map[uint32]fib.ID{nil, {0: 7}, {1: 7, 2: 7}} {
		_, err := New(Config{Set: set, Tables: tables})
		if e, ok := err.(*fib.FieldError); !ok || e.Field != "tables" {
			t.Errorf("%v: %v", tables, err)
		}
	}
}

// FuzzMessages feeds any messages, as notifications and as a dump. The books agree with the FIB, and a dump of nothing
// leaves nothing.
func FuzzMessages(f *testing.F) {
	var seed []byte
	for _, r := range []*rtnl.Route{unicast("10.0.0.0/8", 1, "192.0.2.1"), unicast("2001:db8::/32", 2, "2001:db8::1", "2001:db8::2")} {
		seed, _ = rtnl.AppendRoute(seed, rtnl.Header{Type: rtnl.NewRoute, Flags: added}, r)
		seed, _ = rtnl.AppendRoute(seed, rtnl.Header{Type: rtnl.DelRoute}, r)
	}
	seed, _ = rtnl.AppendNextHop(seed, rtnl.Header{Type: rtnl.NewNextHop}, &rtnl.NextHop{ID: 1, Device: 2})
	seed, _ = rtnl.AppendNextHop(seed, rtnl.Header{Type: rtnl.NewNextHop}, &rtnl.NextHop{ID: 2, Group: []rtnl.Member{{ID: 1, Weight: 1}}})
	seed, _ = rtnl.AppendRoute(seed, rtnl.Header{Type: rtnl.NewRoute}, &rtnl.Route{Dst: netip.MustParsePrefix("::/0"), Table: 100, NextHop: 2, Type: rtnl.RouteUnicast})
	f.Add(seed, 2)
	f.Fuzz(func(t *testing.T, b []byte, dumpAt int) {
		s := newScript(t)
		for i := 0; len(b) > 0; i++ {
			h, p, rest, err := rtnl.Next(b)
			if err != nil {
				break
			}
			b = rest
			if i == dumpAt {
				s.c.mark()
			}
			if dumpAt >= 0 && i > dumpAt && i < dumpAt+4 {
				s.c.dumped(h.Type, p)
			} else {
				s.c.notified(h.Type, h.Flags, p)
			}
			s.c.sink.Commit()
		}
		s.c.sweep()
		v4, v6 := s.table.Len()
		if n := s.c.sink.Counters().Routes; n < 0 || int64(v4+v6) > n {
			t.Fatalf("%d routes in the FIB, %d in the books", v4+v6, n)
		}
		s.c.mark()
		s.c.sweep()
		if v4, v6 := s.table.Len(); v4+v6 != 0 {
			t.Fatalf("%d routes stay", v4+v6)
		}
	})
}
