package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// testLinks are devices d1, d2, …, which can go.
type testLinks struct {
	gone  map[string]bool
	addrs map[string][]netip.Prefix
}

func (l *testLinks) Index(_ fib.ID, device string) (uint32, bool) {
	var n uint32
	if _, err := fmt.Sscanf(device, "d%d", &n); err != nil || l.gone[device] {
		return 0, false
	}
	return n, true
}
func (l *testLinks) Name(_ fib.ID, index uint32) string           { return fmt.Sprint("d", index) }
func (l *testLinks) Addrs(_ fib.ID, device string) []netip.Prefix { return l.addrs[device] }
func (l *testLinks) Tags(fib.ID, string) (uint32, uint16, uint16) { return 0, 0, 0 }

// testFeeds gives the test the sources.
type testFeeds struct {
	target func(uint32) (*Source, error)
}

func (f *testFeeds) Check(spec.Feed) error { return nil }
func (f *testFeeds) Start(_ spec.Feed, target func(uint32) (*Source, error)) (Feed, error) {
	f.target = target
	return f, nil
}
func (f *testFeeds) Info() spec.FeedInfo { return spec.FeedInfo{State: "synced"} }
func (f *testFeeds) Resync() error       { return nil }
func (f *testFeeds) Close() error        { return nil }
func (f *testFeeds) Withdraw()           {}

func newService(t testing.TB, o Options) *Service {
	t.Helper()
	if o.Links == nil {
		o.Links = &testLinks{}
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// content is what a table has, in words.
func content(s *Service, which string) map[string]string {
	m := map[string]string{}
	_ = s.Routes(context.Background(), spec.RouteQuery{FIB: which}, func(r spec.RouteInfo) bool {
		w := r.Proto + " " + r.Type
		for _, h := range r.Hops {
			w += fmt.Sprintf(" %s*%d", h.Dev, h.Weight)
		}
		m[r.Dst.String()] = w
		return true
	})
	return m
}

// Static routes hide those of the source, whatever comes first and goes first; nothing is lost and nothing stays.
func TestStaticHidesSource(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		feeds := &testFeeds{}
		links := &testLinks{gone: map[string]bool{}}
		s := newService(t, Options{Feeds: feeds, Links: links})
		must(t, s.Apply(t.Context(), spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 1, Name: "blue"}}))
		must(t, s.Apply(t.Context(), spec.Op{Do: spec.FeedAdd, Feed: &spec.Feed{Name: "f", Kind: "test", FIB: "blue"}}))
		src, err := feeds.target(1)
		must(t, err)
		static, source := map[netip.Prefix]string{}, map[netip.Prefix]string{}
		draw := func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(6)), 0, 0}), 16)
		}
		hop := func() (fib.NextHopID, string) { // of the source: single, or a group
			one := func(d int) fib.NextHopID {
				id, err := s.Set().Intern(fib.NextHop{Type: fib.Unicast, Device: uint32(d)})
				must(t, err)
				return id
			}
			d := 1 + r.IntN(4)
			if r.IntN(3) > 0 {
				return one(d), fmt.Sprintf("test unicast d%d*1", d)
			}
			g, err := s.Set().InternGroup([]fib.Member{{NextHop: one(d), Weight: 2}, {NextHop: one(d + 4), Weight: 1}})
			must(t, err)
			return g, fmt.Sprintf("test unicast d%d*2 d%d*1", d, d+4)
		}
		for step := range 300 {
			p := draw()
			switch r.IntN(9) {
			case 0, 1:
				d := 1 + r.IntN(4)
				op := spec.Op{Do: spec.RouteReplace, FIB: "blue", Route: &spec.Route{Dst: p, Hops: []spec.Hop{{Dev: fmt.Sprint("d", d)}}}}
				err := s.Apply(t.Context(), op)
				if links.gone[fmt.Sprint("d", d)] {
					if err == nil {
						t.Fatal("a route to a device that is not there")
					}
					break
				}
				must(t, err)
				static[p] = fmt.Sprintf("static unicast d%d*1", d)
			case 2, 3:
				err := s.Apply(t.Context(), spec.Op{Do: spec.RouteDel, FIB: "blue", Route: &spec.Route{Dst: p}})
				if (err == nil) != (static[p] != "") {
					t.Fatalf("delete: %v", err)
				}
				delete(static, p)
			case 4, 5:
				id, words := hop()
				_, replaced, err := src.Insert(p, id)
				must(t, err)
				if replaced != (source[p] != "") {
					t.Fatalf("seed %d step %d: replaced %v", seed, step, replaced)
				}
				source[p] = words
			case 6:
				_, deleted, err := src.Delete(p)
				must(t, err)
				if deleted != (source[p] != "") {
					t.Fatalf("seed %d step %d: deleted %v", seed, step, deleted)
				}
				delete(source, p)
			case 7:
				if r.IntN(4) > 0 {
					break
				}
				source = map[netip.Prefix]string{}
				var l []fib.Route
				for range r.IntN(6) {
					p := draw()
					id, words := hop()
					l = append(l, fib.Route{Prefix: p, NextHop: id})
					source[p] = words
				}
				must(t, src.Replace(slices.Values(l)))
			case 8: // a device goes, or comes back
				d := fmt.Sprint("d", 1+r.IntN(4))
				links.gone[d] = !links.gone[d]
				s.LinksChanged()
			}
			want := map[string]string{}
			for p, w := range source {
				want[p.String()] = w
			}
			for p, w := range static {
				if !links.gone[w[len("static unicast "):len(w)-2]] {
					want[p.String()] = w
				}
			}
			if d := cmp.Diff(want, content(s, "blue")); d != "" {
				t.Fatalf("seed %d step %d (-want +got):\n%s", seed, step, d)
			}
			got := map[netip.Prefix]bool{}
			for r := range src.All() {
				got[r.Prefix] = true
			}
			if len(got) != len(source) {
				t.Fatalf("seed %d step %d: the source sees %v of its %v", seed, step, got, source)
			}
		}
		must(t, src.Replace(func(func(fib.Route) bool) {}))
		if len(s.ways.holds) != 0 {
			t.Errorf("seed %d: held: %v", seed, s.ways.holds)
		}
	}
}

// What a batch did before it failed is taken back, whatever it was.
func TestBatchIsAllOrNothing(t *testing.T) {
	s := newService(t, Options{Dir: t.TempDir(), Feeds: &testFeeds{}})
	op := func(do spec.Verb, f string, r spec.Route) spec.Op { return spec.Op{Do: do, FIB: f, Route: &r} }
	dev := func(n int) []spec.Hop { return []spec.Hop{{Dev: fmt.Sprint("d", n)}} }
	must(t, s.Apply(t.Context(),
		spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 1, Name: "blue"}},
		spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 2, Name: "red"}},
		spec.Op{Do: spec.NextHopAdd, NextHop: &spec.NextHop{ID: 5, Hop: &spec.Hop{Dev: "d5"}}},
		spec.Op{Do: spec.NextHopAdd, NextHop: &spec.NextHop{ID: 6, Hop: &spec.Hop{Dev: "d6"}}},
		op(spec.RouteAdd, "blue", spec.Route{Dst: pfx("10.0.0.0/8"), Hops: dev(1)}),
		op(spec.RouteAdd, "blue", spec.Route{Dst: pfx("10.1.0.0/16"), NHID: 5}),
		spec.Op{Do: spec.PortAdd, FIB: "blue", Port: &spec.Port{Dev: "d1", Addrs: []netip.Prefix{pfx("192.0.2.1/24")}}},
		spec.Op{Do: spec.NeighAdd, FIB: "blue", Neigh: &spec.Neigh{Dst: netip.MustParseAddr("192.0.2.9"), Dev: "d1", LLAddr: "02:00:00:00:00:01"}},
	))
	look := func() any {
		neighs, err := s.Neighs("", "")
		must(t, err)
		fibs := s.FIBs()
		for i := range fibs {
			fibs[i].Generation = 0
		}
		return []any{content(s, "blue"), content(s, "red"), s.NextHops(), s.Ports(), neighs, fibs}
	}
	before := look()
	fail := op(spec.RouteDel, "blue", spec.Route{Dst: pfx("99.0.0.0/8")})
	for i, ops := range [][]spec.Op{
		{op(spec.RouteAdd, "blue", spec.Route{Dst: pfx("10.2.0.0/16"), Hops: dev(2)})},
		{op(spec.RouteReplace, "blue", spec.Route{Dst: pfx("10.0.0.0/8"), Type: spec.Blackhole})},
		{op(spec.RouteDel, "blue", spec.Route{Dst: pfx("10.0.0.0/8")}), op(spec.RouteAdd, "blue", spec.Route{Dst: pfx("10.0.0.0/8"), Hops: dev(3)})},
		{op(spec.RouteDel, "blue", spec.Route{Dst: pfx("10.1.0.0/16")}), {Do: spec.NextHopDel, NextHop: &spec.NextHop{ID: 5}}},
		{{Do: spec.NextHopReplace, NextHop: &spec.NextHop{ID: 5, Hop: &spec.Hop{Dev: "d9"}, Down: true}}},
		{{Do: spec.NextHopDel, NextHop: &spec.NextHop{ID: 6}}},
		{{Do: spec.NextHopAdd, NextHop: &spec.NextHop{ID: 7, Group: []spec.GroupMember{{ID: 5}, {ID: 6, Weight: 3}}}}},
		{{Do: spec.FIBDel, FIB: "red"}},
		{{Do: spec.FIBAdd, NewFIB: &spec.FIB{Name: "green"}}, op(spec.RouteAdd, "green", spec.Route{Dst: pfx("10.0.0.0/8"), Hops: dev(1)})},
		{{Do: spec.PortDel, Port: &spec.Port{Dev: "d1"}}, {Do: spec.FIBDel, FIB: "blue"}, {Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 3, Name: "new"}}},
		{{Do: spec.PortAdd, FIB: "red", Port: &spec.Port{Dev: "d2", Addrs: []netip.Prefix{pfx("192.0.2.1/24")}}}},
		{{Do: spec.NeighDel, FIB: "blue", Neigh: &spec.Neigh{Dst: netip.MustParseAddr("192.0.2.9"), Dev: "d1"}}},
		{{Do: spec.FeedAdd, Feed: &spec.Feed{Name: "f", Kind: "test", FIB: "red"}}},
	} {
		f := fail
		if slices.ContainsFunc(ops, func(o spec.Op) bool { return o.Do == spec.FIBDel && o.FIB == "blue" }) {
			f.FIB = "red"
		}
		err := s.Apply(t.Context(), append(slices.Clone(ops), f)...)
		var be *BatchError
		if !errors.As(err, &be) || be.Index != len(ops) || !errors.Is(err, fib.ErrNotFound) {
			t.Errorf("batch %d: %v", i, err)
		}
		if d := cmp.Diff(before, look(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("batch %d left (-want +got):\n%s", i, d)
		}
	}
}

// The state directory brings everything back, before and behind a compaction; what is gone stays gone.
func TestStateComesBack(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	want := map[string]map[string]string{}
	for life := range 6 {
		s := newService(t, Options{Dir: dir, NoSync: true})
		for f, routes := range want {
			if d := cmp.Diff(routes, content(s, f)); d != "" {
				t.Fatalf("life %d, fib %s (-want +got):\n%s", life, f, d)
			}
		}
		if len(s.FIBs()) != len(want) {
			t.Fatalf("life %d: %d FIBs, want %d", life, len(s.FIBs()), len(want))
		}
		for range 200 {
			f := fmt.Sprint("f", r.IntN(5))
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(9)), 0, 0}), 16)
			switch r.IntN(12) {
			case 0:
				if s.Apply(t.Context(), spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{Name: f}}) == nil {
					want[f] = map[string]string{}
				}
			case 1:
				if s.Apply(t.Context(), spec.Op{Do: spec.FIBDel, FIB: f}) == nil {
					delete(want, f)
				}
			case 2:
				i, n := 0, r.IntN(4)
				replace := r.IntN(2) == 0
				loaded := map[string]string{}
				_, err := s.Load(t.Context(), f, replace, "test", func() (spec.Route, bool, error) {
					if i++; i > n {
						return spec.Route{}, true, nil
					}
					p := netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(r.IntN(9)), 0, 0}), 16)
					loaded[p.String()] = "file blackhole"
					return spec.Route{Dst: p, Type: spec.Blackhole}, false, nil
				})
				if err != nil {
					break
				}
				if replace {
					maps.DeleteFunc(want[f], func(_, w string) bool { return w == "file blackhole" })
				}
				maps.Copy(want[f], loaded)
			case 3, 4, 5:
				if s.Apply(t.Context(), spec.Op{Do: spec.RouteDel, FIB: f, Route: &spec.Route{Dst: p}}) == nil {
					delete(want[f], p.String())
				}
			default:
				if s.Apply(t.Context(), spec.Op{Do: spec.RouteReplace, FIB: f, Route: &spec.Route{Dst: p, Hops: []spec.Hop{{Dev: "d3"}}}}) == nil {
					want[f][p.String()] = "static unicast d3*1"
				}
			}
		}
		if life == 3 {
			s.mu.Lock()
			must(t, s.compact())
			s.mu.Unlock()
		}
		must(t, s.Close())
	}
}

// The journal does not grow for ever.
func TestJournalIsBounded(t *testing.T) {
	s := newService(t, Options{Dir: t.TempDir(), NoSync: true})
	must(t, s.Apply(t.Context(), spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 1}}))
	ops := make([]spec.Op, 0, 2000)
	for i := range 1000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		ops = append(ops, spec.Op{Do: spec.RouteAdd, FIB: "1", Route: &spec.Route{Dst: p, Type: spec.Blackhole}}, spec.Op{Do: spec.RouteDel, FIB: "1", Route: &spec.Route{Dst: p}})
	}
	for range 30 {
		must(t, s.Apply(t.Context(), slices.Clone(ops)...))
		if base, size := s.store.Sizes(); size > 2*minJournal || base > minJournal {
			t.Fatalf("snapshot %d, journal %d octets", base, size)
		}
	}
	if s.counts.snapshots.Load() == 0 {
		t.Error("no compaction: the test shows nothing")
	}
}

// The addresses of ports are routes: they hide the source's, give way to those that users want, and go with the port.
func TestConnectedRoutes(t *testing.T) {
	links := &testLinks{gone: map[string]bool{}, addrs: map[string][]netip.Prefix{"d2": {pfx("198.51.100.1/24"), pfx("fe80::1/64"), pfx("2001:db8::1/64")}}}
	s := newService(t, Options{Links: links})
	must(t, s.Apply(t.Context(), spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 1, Name: "blue"}},
		spec.Op{Do: spec.PortAdd, FIB: "blue", Port: &spec.Port{Dev: "d1", Addrs: []netip.Prefix{pfx("192.0.2.1/24")}}},
		spec.Op{Do: spec.PortAdd, FIB: "blue", Port: &spec.Port{Dev: "d2"}}))
	all := map[string]string{
		"192.0.2.0/24": "kernel unicast d1*1", "192.0.2.1/32": "kernel local d1*1", "198.51.100.0/24": "kernel unicast d2*1", "198.51.100.1/32": "kernel local d2*1",
		"2001:db8::/64": "kernel unicast d2*1", "2001:db8::1/128": "kernel local d2*1",
	}
	check := func(what string) {
		t.Helper()
		if d := cmp.Diff(all, content(s, "blue")); d != "" {
			t.Fatalf("%s (-want +got):\n%s", what, d)
		}
	}
	check("at first")
	route := spec.Op{Do: spec.RouteAdd, FIB: "blue", Route: &spec.Route{Dst: pfx("192.0.2.0/24"), Type: spec.Blackhole}}
	must(t, s.Apply(t.Context(), route))
	all["192.0.2.0/24"] = "static blackhole"
	check("with a static route")
	must(t, s.Apply(t.Context(), spec.Op{Do: spec.RouteDel, FIB: "blue", Route: &spec.Route{Dst: pfx("192.0.2.0/24")}}))
	all["192.0.2.0/24"] = "kernel unicast d1*1"
	check("without it")
	if err := s.Apply(t.Context(), spec.Op{Do: spec.RouteDel, FIB: "blue", Route: &spec.Route{Dst: pfx("192.0.2.0/24")}}); !errors.Is(err, fib.ErrNotFound) {
		t.Errorf("removing an address's route: %v", err)
	}
	links.addrs["d2"] = links.addrs["d2"][2:]
	s.LinksChanged()
	delete(all, "198.51.100.0/24")
	delete(all, "198.51.100.1/32")
	check("after an address went")
	must(t, s.Apply(t.Context(), spec.Op{Do: spec.PortDel, Port: &spec.Port{Dev: "d2"}}))
	delete(all, "2001:db8::/64")
	delete(all, "2001:db8::1/128")
	check("after a port went")
	if n, err := s.Flush(t.Context(), spec.RouteQuery{FIB: "blue"}); n != 0 || err != nil {
		t.Errorf("flush: %d, %v", n, err)
	}
}

// What the configuration says comes first, is not kept, and cannot be changed at run time.
func TestConfigWins(t *testing.T) {
	dir := t.TempDir()
	s := newService(t, Options{Dir: dir})
	must(t, s.Apply(t.Context(), spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 1, Name: "blue"}},
		spec.Op{Do: spec.RouteAdd, FIB: "blue", Route: &spec.Route{Dst: pfx("10.0.0.0/8"), Hops: []spec.Hop{{Dev: "d1"}}}}))
	must(t, s.Close())
	config := []spec.Op{
		{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 1, Name: "blue"}},
		{Do: spec.RouteAdd, FIB: "blue", Route: &spec.Route{Dst: pfx("10.0.0.0/8"), Type: spec.Blackhole}},
	}
	s = newService(t, Options{Dir: dir, Config: config})
	if d := cmp.Diff(map[string]string{"10.0.0.0/8": "static blackhole"}, content(s, "blue")); d != "" {
		t.Error(d)
	}
	var ce *ConfigError
	for _, op := range []spec.Op{{Do: spec.FIBDel, FIB: "blue"}, {Do: spec.RouteDel, FIB: "1", Route: &spec.Route{Dst: pfx("10.0.0.0/8")}},
		{Do: spec.RouteReplace, FIB: "1", Route: &spec.Route{Dst: pfx("10.0.0.0/8"), Type: spec.Prohibit}}} {
		if err := s.Apply(t.Context(), op); !errors.As(err, &ce) {
			t.Errorf("%s: %v", op.Do, err)
		}
	}
	must(t, s.Close())
}

func FuzzTableFile(f *testing.F) {
	f.Add([]byte("w\x02{}4\x08\x0a\x00\x00\x00\x00"))
	f.Add([]byte("w\x12{\"type\":\"blackhole\"}"))
	f.Add([]byte("6\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ways := 0
		_ = readEntries(b, &ways, func(r spec.Route, p netip.Prefix, way int) error {
			if p.IsValid() && (way < 0 || way >= ways) {
				t.Errorf("way %d of %d", way, ways)
			}
			return nil
		})
	})
}
