package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/kernel/neigh"
	"midplane/internal/lab"
)

func TestIntegrationRulesInside(t *testing.T) { testInside(t, Rules) }

func TestIntegrationNetnsInside(t *testing.T) { testInside(t, Netns) }

func TestGuestVRFInside(t *testing.T) {
	requireGuest(t)
	testInside(t, VRF)
}

// testInside tries what goes on in FIBs of a back end: that they are apart, their routes, their neighbours.
func testInside(t *testing.T, b Backend) {
	s := newSite(t, 3)
	fibs := two(b)
	fibs[0].Forward = true
	fibs[0].Ports = append(fibs[0].Ports, Port{Device: "p2", Addresses: prefixes("192.0.2.1/24", "2001:db8:7::1/64"), NoDAD: true})
	fibs[1].Ports[0].Addresses = append(fibs[1].Ports[0].Addresses, prefixes("203.0.113.1/24")...)
	s.apply(t, fibs...)
	t.Run("apart", func(t *testing.T) { testApart(t, s) })
	t.Run("routes", func(t *testing.T) { testRoutes(t, s, fibs[0]) })
	t.Run("neighbours", func(t *testing.T) { testNeighbours(t, s) })
	t.Run("watch", func(t *testing.T) { testWatch(t, s, fibs) })
}

func testApart(t *testing.T, s *site) {
	s.hosts[2].IP("addr", "flush", "dev", "eth0")
	s.hosts[2].IP("addr", "add", "192.0.2.2/24", "dev", "eth0")
	s.hosts[2].IP("route", "add", "default", "via", "192.0.2.1")
	s.hosts[2].IP("addr", "add", "2001:db8:7::2/64", "dev", "eth0", "nodad")
	s.hosts[2].IP("route", "add", "default", "via", "2001:db8:7::1")
	for _, h := range s.hosts[:2] {
		h.IP("route", "add", "default", "via", "2001:db8::1")
	}
	// Forwarding inside FIB 10, between its two ports.
	for _, to := range []string{"192.0.2.2", "2001:db8:7::2"} {
		if err := s.ping(0, to); err != nil {
			t.Errorf("through FIB 10: %v", err)
		}
	}
	// FIB 20 has neither that network nor the address of FIB 10's other port, and FIB 10 has not FIB 20's.
	for _, c := range []struct {
		host int
		to   string
	}{{1, "192.0.2.2"}, {1, "192.0.2.1"}, {1, "2001:db8:7::2"}, {1, "2001:db8:7::1"}, {0, "203.0.113.1"}} {
		if err := s.silent(c.host, c.to); err == nil {
			t.Errorf("host %d reaches %s, in the other FIB", c.host, c.to)
		}
	}
	// A host of FIB 20 may have an address that is the box's own in FIB 10.
	s.hosts[1].IP("addr", "add", "192.0.2.1/32", "dev", "eth0")
	s.hosts[1].IP("route", "add", "203.0.113.0/24", "dev", "eth0", "src", "192.0.2.1")
	if _, err := s.k.SyncRoutes(t.Context(), 20, slices.Values([]Route{{Prefix: prefixes("192.0.2.1/32")[0], Type: fib.Unicast, Hops: []RouteHop{{Device: s.index(t, 20, "p1")}}}})); err != nil {
		t.Fatal(err)
	}
	if err := s.ping(1, "203.0.113.1"); err != nil {
		t.Errorf("from an address that is the box's in the other FIB: %v", err)
	}
	if _, err := s.k.SyncRoutes(t.Context(), 20, slices.Values([]Route(nil))); err != nil {
		t.Fatal(err)
	}
}

// index is the interface index of a port, inside its FIB.
func (s *site) index(t *testing.T, id fib.ID, device string) uint32 {
	t.Helper()
	var index uint32
	err := s.k.visit(id, func(sp *space, f FIB) (err error) {
		index, err = s.k.index(sp, f, device)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func (s *site) kernelRoutes(t *testing.T, f FIB) string {
	t.Helper()
	if f.Backend == Netns {
		ns := s.inside(f)
		return ipOut(t, "-n", ns, "route", "show", "proto", "74") + ipOut(t, "-n", ns, "-6", "route", "show", "proto", "74")
	}
	table := fmt.Sprint(f.ID)
	return s.box.IP("route", "show", "table", table, "proto", "74") + s.box.IP("-6", "route", "show", "table", table, "proto", "74")
}

func ipOut(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run("ip", args...)
	if err != nil {
		t.Fatalf("ip %v: %v\n%s", args, err, out)
	}
	return out
}

func testRoutes(t *testing.T, s *site, f FIB) {
	p0, p2 := s.index(t, 10, "p0"), s.index(t, 10, "p2")
	gw, gw6 := netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8::2")
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	list := []Route{
		{Prefix: p("0.0.0.0/0"), Type: fib.Unicast, Hops: []RouteHop{{Gateway: gw, Device: p0}}},
		{Prefix: p("::/0"), Type: fib.Unicast, Hops: []RouteHop{{Gateway: gw6, Device: p0}}},
		{Prefix: p("10.0.0.0/8"), Type: fib.Unicast, Hops: []RouteHop{{Gateway: gw, Device: p0, Weight: 3}, {Gateway: netip.MustParseAddr("192.0.2.9"), Device: p2, Weight: 1}}},
		{Prefix: p("10.1.0.0/16"), Type: fib.Blackhole},
		{Prefix: p("10.2.0.0/16"), Type: fib.Unreachable},
		{Prefix: p("10.3.0.0/16"), Type: fib.Prohibit},
		{Prefix: p("10.4.0.1/32"), Type: fib.Local},
		{Prefix: p("10.5.0.0/16"), Type: fib.Unicast, Hops: []RouteHop{{Device: p2}}},
		{Prefix: p("10.6.0.0/16"), Type: fib.Unicast, Hops: []RouteHop{{Gateway: gw6, Device: p0}}},
		{Prefix: p("10.7.0.0/16"), Type: fib.Unicast, Hops: []RouteHop{{Gateway: netip.MustParseAddr("172.31.0.1"), Device: p0}}}, // not on the link
		{Prefix: p("2001:db8:1::/48"), Type: fib.Unicast, Hops: []RouteHop{{Gateway: gw6, Device: p0}, {Gateway: netip.MustParseAddr("fe80::9"), Device: p2}}},
		{Prefix: p("2001:db8:2::/48"), Type: fib.Blackhole},
		{Prefix: p("2001:db8:3::/48"), Type: fib.Unicast, Hops: []RouteHop{{Device: p0}, {Device: p2}}},
	}
	for i := range 200 {
		list = append(list, Route{Prefix: p(fmt.Sprintf("172.16.%d.0/24", i)), Type: fib.Unicast, Hops: []RouteHop{{Gateway: gw, Device: p0}}})
	}
	sync := func(l []Route, want SyncReport) {
		t.Helper()
		r, err := s.k.SyncRoutes(t.Context(), 10, slices.Values(l))
		if err != nil || r != want {
			t.Fatalf("%+v (%v), %v; want %+v\n%s", r, r.SkippedErr, err, want, s.kernelRoutes(t, f))
		}
	}
	n := len(list)
	sync(list, SyncReport{Added: n})
	sync(list, SyncReport{Kept: n})
	if out := s.kernelRoutes(t, f); strings.Count(out, "172.16.") != 200 || !strings.Contains(out, "blackhole 10.1.0.0/16") || !strings.Contains(out, "via inet6 2001:db8::2") {
		t.Errorf("in the kernel: %s", out)
	}
	// What is nobody's route of ours stays.
	if f.Backend != Netns {
		s.box.IP("route", "add", "10.9.0.0/16", "dev", "p0", "table", "10", "proto", "static")
	}
	list[0].Hops[0] = RouteHop{Gateway: netip.MustParseAddr("192.0.2.9"), Device: p2}
	list[3] = Route{Prefix: list[3].Prefix, Type: fib.Unicast, Hops: []RouteHop{{Device: p0}}}
	list[10].Hops = list[10].Hops[:1]
	sync(list[:n-50], SyncReport{Replaced: 3, Deleted: 50, Kept: n - 53})
	if err := s.k.UpdateRoutes(t.Context(), 10, list[n-50:], []netip.Prefix{list[3].Prefix, p("10.250.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	sync(slices.Delete(slices.Clone(list), 3, 4), SyncReport{Kept: n - 1})
	// A way into another FIB exists with VRF devices only.
	r, err := s.k.SyncRoutes(t.Context(), 10, slices.Values([]Route{{Prefix: p("203.0.113.0/24"), Type: fib.Lookup, Table: 20}}))
	if err != nil || f.Backend == VRF != (r.Added == 1) || f.Backend != VRF && !errors.Is(r.SkippedErr, errors.ErrUnsupported) {
		t.Errorf("into FIB 20: %+v, %v", r, err)
	}
	if f.Backend == VRF {
		if err := s.silent(0, "203.0.113.1"); err == nil {
			t.Error("FIB 20 answers, though it has no way back") // 198.51.100.2 is another host there
		}
	}
	sync(nil, SyncReport{Deleted: r.Added})
	if f.Backend != Netns && !strings.Contains(s.box.IP("route", "show", "table", "10"), "10.9.0.0/16") {
		t.Error("another's route is gone")
	}
	var bad *fib.FieldError
	if err := s.k.UpdateRoutes(t.Context(), 10, nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}); !errors.As(err, &bad) {
		t.Error(err)
	}
	if _, err := s.k.SyncRoutes(t.Context(), 30, slices.Values([]Route(nil))); !errors.Is(err, fib.ErrNotFound) {
		t.Error(err)
	}
}

func testNeighbours(t *testing.T, s *site) {
	ip, mac := netip.MustParseAddr("198.51.100.77"), MAC{2, 0, 0, 0, 0, 7}
	if err := s.k.AddNeighbour(10, "p0", ip, mac, true); err != nil {
		t.Fatal(err)
	}
	if err := s.k.AddNeighbour(10, "p0", ip, mac, true); !errors.Is(err, fib.ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if err := s.k.SetNeighbour(10, "p0", netip.MustParseAddr("2001:db8::77"), mac, false); err != nil {
		t.Error(err)
	}
	find := func(id fib.ID, ip netip.Addr) (n Neighbour) {
		t.Helper()
		l, err := s.k.Neighbours(id, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l {
			if e.IP == ip {
				n = e
			}
		}
		return n
	}
	if n := find(10, ip); n.MAC != mac || n.State != neigh.Permanent || n.FIB != 10 || n.Device != s.index(t, 10, "p0") {
		t.Errorf("got %+v", n)
	}
	if n := find(20, ip); n.State != 0 {
		t.Errorf("in the other FIB: %+v", n)
	}
	// Whoever has it resolved anyway does not take its MAC from it.
	if err := s.k.Resolve(NeighKey{FIB: 10, Device: s.index(t, 10, "p0"), IP: ip}); err != nil {
		t.Error(err)
	}
	if n := find(10, ip); n.MAC != mac || n.State != neigh.Permanent {
		t.Errorf("after Resolve: %+v", n)
	}
	if n, err := s.k.FlushNeighbours(10, "p0", false); err != nil || n == 0 || find(10, ip).State == 0 {
		t.Errorf("flush: %d, %v", n, err)
	}
	if err := s.k.DeleteNeighbour(10, "p0", ip); err != nil || find(10, ip).State != 0 {
		t.Error(err, find(10, ip))
	}
	if err := s.k.DeleteNeighbour(10, "p0", ip); !errors.Is(err, fib.ErrNotFound) {
		t.Error(err)
	}
	var bad *fib.FieldError
	if err := s.k.SetNeighbour(10, "p1", ip, mac, false); !errors.As(err, &bad) || bad.Field != "device" {
		t.Error(err)
	}
	if err := s.k.SetNeighbour(10, "p0", netip.MustParseAddr("224.0.0.1"), mac, false); !errors.As(err, &bad) || bad.Field != "address" {
		t.Error(err)
	}
	if err := s.k.SetNeighbour(10, "p0", ip, MAC{1}, false); !errors.As(err, &bad) || bad.Field != "mac" {
		t.Error(err)
	}
}

// seen is what a watcher was told.
type seen struct {
	mu     sync.Mutex
	synced int
	m      map[NeighKey]Neighbour
}

func (s *seen) event(e NeighEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Type {
	case neigh.Set:
		s.m[e.Entry.Key] = e.Entry
	case neigh.Gone:
		delete(s.m, e.Entry.Key)
	case neigh.Synced:
		s.synced++
	}
}

func (s *seen) until(t *testing.T, what string, f func() bool) {
	t.Helper()
	_, ok := lab.Until(lab.Patience, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return f()
	})
	if !ok {
		t.Errorf("not seen: %s: %v", what, s.m)
	}
}

func testWatch(t *testing.T, s *site, fibs []FIB) {
	w := &seen{m: map[NeighKey]Neighbour{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.k.WatchNeighbours(ctx, w.event) }()
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	}()
	w.until(t, "all that there are", func() bool { return w.synced == 1 })
	// Both customers' hosts have one address; each FIB finds its own.
	for i, to := range []string{"198.51.100.2", "198.51.100.2", "2001:db8::2", "2001:db8::2"} {
		id := fib.ID(10 + i%2*10)
		device := port(i % 2)
		key := NeighKey{FIB: uint32(id), Device: s.index(t, id, device), IP: netip.MustParseAddr(to)}
		if err := s.k.DeleteNeighbour(id, device, key.IP); err != nil && !errors.Is(err, fib.ErrNotFound) {
			t.Fatal(err)
		}
		w.until(t, "it goes", func() bool { return !w.m[key].State.Usable() })
		if err := s.k.Resolve(key); err != nil {
			t.Fatal(err)
		}
		w.until(t, "it is found", func() bool { e := w.m[key]; return e.State.Usable() && e.MAC == MAC{2, 0, 0, 0, 0xbb, byte(i % 2)} })
	}
	missing := NeighKey{FIB: 10, Device: s.index(t, 10, "p0"), IP: netip.MustParseAddr("198.51.100.250")}
	if err := s.k.Resolve(missing); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the question", func() bool { _, ok := w.m[missing]; return ok && !w.m[missing].State.Usable() })
	s.apply(t, fibs[0])
	w.until(t, "FIB 20's neighbours are gone", func() bool {
		for k := range w.m {
			if k.FIB == 20 {
				return false
			}
		}
		return len(w.m) > 0
	})
}
