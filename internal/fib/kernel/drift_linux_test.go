package kernel

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"midplane/internal/lab"
)

// Whoever watches devices and applies again keeps FIBs as they shall be: a port that is taken away and comes back, an address
// that is removed, a rule that is deleted; and when nothing changes, nothing is called.
func TestIntegrationDrift(t *testing.T) {
	s := newSite(t, 2)
	fibs := two(Rules)
	s.apply(t, fibs...)
	var calls, idle atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.k.WatchDevices(ctx, func() {
			calls.Add(1)
			if r, err := s.k.Apply(ctx, fibs); err == nil && len(r.Operations) == 0 {
				idle.Add(1)
			}
		})
	}()
	// The subscription is there when a change is seen.
	if _, ok := lab.Until(lab.Patience, func() bool {
		s.box.IP("link", "set", "lo", "alias", "x")
		s.box.IP("link", "set", "lo", "alias", "")
		return calls.Load() > 0
	}); !ok {
		t.Fatal("no call")
	}
	there := func(what string, args ...string) {
		t.Helper()
		if _, ok := lab.Until(lab.Patience, func() bool { return strings.Contains(s.box.IP(args...), what) }); !ok {
			t.Errorf("%s is not back: %s", what, s.box.IP(args...))
		}
	}
	s.box.IP("addr", "del", "198.51.100.1/24", "dev", "p0")
	there("198.51.100.1/24", "addr", "show", "dev", "p0")
	there("local 198.51.100.1", "route", "show", "table", "10")
	s.box.IP("rule", "del", "iif", "p1", "table", "20")
	there("iif p1 lookup 20", "rule")
	s.box.IP("link", "del", "p0")
	h := s.hosts[0]
	s.box.IP("link", "add", "p0", "address", "02:00:00:00:aa:00", "type", "veth", "peer", "name", "eth0", "netns", h.Name())
	h.IP("link", "set", "eth0", "up")
	h.IP("addr", "add", "198.51.100.2/24", "dev", "eth0")
	there("local 198.51.100.1", "route", "show", "table", "10")
	if _, ok := lab.Until(lab.Patience, func() bool { return s.ping(0, "198.51.100.1") == nil }); !ok {
		t.Error("the new port does not answer")
	}
	// A link-local address comes when it comes; its route is in the FIB.
	ll := ""
	if _, ok := lab.Until(lab.Patience, func() bool {
		for f := range strings.FieldsSeq(s.box.IP("-6", "addr", "show", "dev", "p0", "scope", "link")) {
			if p, err := netip.ParsePrefix(f); err == nil {
				ll = p.Addr().String()
			}
		}
		return ll != ""
	}); !ok {
		t.Fatal("no address of the link")
	}
	there("local "+ll, "-6", "route", "show", "table", "10")
	last := int64(-1)
	if _, ok := lab.Until(lab.Patience, func() bool { now := calls.Load(); quiet := now == last; last = now; return quiet }); !ok || idle.Load() == 0 {
		t.Errorf("it does not come to rest: %d calls", calls.Load())
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
