package bgp

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

const patience = 5 * time.Minute

// until waits until f is true. Nothing tells the test when BGP is done.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// freePort returns a TCP port that is free on the loopback.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run runs a speaker on the bench's FIB until stop is called.
func (b *bench) run(c Config) (s *Speaker, stop func()) {
	b.t.Helper()
	c.Set, c.FIB, c.ASN, c.RouterID, c.Listen = b.set, b.table.ID(), 65000, addr("127.0.0.1"), []netip.Addr{addr("127.0.0.1")}
	s, err := New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-end; err != context.Canceled {
				b.t.Errorf("speaker: %v", err)
			}
		}
	}
	b.t.Cleanup(stop)
	return s, stop
}

func numbered(n int) []netip.Prefix {
	l := make([]netip.Prefix, n)
	for i := range l {
		if i%5 == 4 {
			l[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, byte(i >> 16), byte(i >> 8), byte(i)}), 64)
		} else {
			l[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(i>>16), byte(i >> 8), byte(i), 0}), 24)
		}
	}
	return l
}

// exact says whether the FIB has these prefixes with these next hops, beside the two links.
func (b *bench) exact(prefixes []netip.Prefix, four, six string) bool {
	v4, v6 := b.table.Len()
	if v4+v6 != len(prefixes)+2 {
		return false
	}
	for _, p := range prefixes {
		id, ok := b.table.Get(p)
		if !ok {
			return false
		}
		want := four
		if p.Addr().Is6() {
			want = six
		}
		if i, ok := b.set.NextHop(id); !ok || i.NextHop.Gateway != addr(want) || i.NextHop.Device != 7 {
			return false
		}
	}
	return true
}

func (b *bench) links() {
	b.t.Helper()
	b.static("192.0.2.0/24", "", 7)
	b.static("2001:db8::/64", "", 7)
}

// TestSpeaker takes 50,000 prefixes from a peer, some withdrawn and changed, loses the peer and gets it back.
func TestSpeaker(t *testing.T) {
	n := 50000
	if testing.Short() {
		n = 5000
	}
	b := newBench(t)
	b.links()
	port := freePort(t)
	s, stop := b.run(Config{Port: port, Peers: []Peer{{Address: addr("127.0.0.2"), ASN: 65001, Passive: true, Retry: time.Second, Hold: 90 * time.Second}}})
	p := newPeer(t, 65001, "127.0.0.2", port, 0)
	all := numbered(n)
	announce := func(p *peer, l []netip.Prefix) {
		p.announce("2001:db8::1", slices.DeleteFunc(slices.Clone(l), func(x netip.Prefix) bool { return x.Addr().Is4() })...)
		p.announce("192.0.2.1", slices.DeleteFunc(slices.Clone(l), func(x netip.Prefix) bool { return x.Addr().Is6() })...)
	}
	until(t, "established", func() bool { return s.Status().Peers[0].State == "ESTABLISHED" })
	start := time.Now()
	announce(p, all)
	until(t, "all prefixes", func() bool { return b.exact(all, "192.0.2.1", "2001:db8::1") })
	t.Logf("%d prefixes in %v, %.0f/s from the peer's API to the FIB", n, time.Since(start).Round(time.Millisecond), float64(n)/time.Since(start).Seconds())

	four := all[:0:0]
	for _, x := range all[:1000] {
		if x.Addr().Is4() {
			four = append(four, x)
		}
	}
	p.withdraw("192.0.2.1", four...)
	rest := append(all[:0:0], all[1000:]...)
	for _, x := range all[:1000] {
		if x.Addr().Is6() {
			rest = append(rest, x)
		}
	}
	until(t, "withdrawn", func() bool { return b.exact(rest, "192.0.2.1", "2001:db8::1") })
	p.announce("192.0.2.99", four...)
	until(t, "announced with another next hop", func() bool {
		id, ok := b.table.Get(four[len(four)-1])
		i, _ := b.set.NextHop(id)
		return ok && i.NextHop.Gateway == addr("192.0.2.99") && s.Status().Prefixes == n
	})

	// The link is lost and comes back: nothing of BGP changes.
	b.gone("192.0.2.0/24")
	until(t, "unresolved", func() bool { v4, v6 := b.table.Len(); return v4 == 0 && v6 > 1 && s.Status().Unresolved > 0 })
	b.static("192.0.2.0/24", "", 7)
	until(t, "resolved again", func() bool { v4, v6 := b.table.Len(); return v4+v6 == n+2 && s.Status().Unresolved == 0 })

	// The peer is lost, without graceful restart, and comes back as another process would.
	p.kill()
	until(t, "all gone with the peer", func() bool { v4, v6 := b.table.Len(); return v4+v6 == 2 })
	p = newPeer(t, 65001, "127.0.0.2", port, 0)
	announce(p, all)
	until(t, "all back", func() bool { return b.exact(all, "192.0.2.1", "2001:db8::1") })
	stop()
	if v4, v6 := b.table.Len(); v4+v6 != 2 {
		t.Errorf("%d routes stay after the end", v4+v6-2)
	}
	if c := s.Status(); c.Invalid != 0 || c.Refused != 0 {
		t.Errorf("%+v", c)
	}
}
