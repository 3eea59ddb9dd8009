//go:build linux

package mirror

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/diff"
	"midplane/internal/fib/diff/source"
	"midplane/internal/lab"
)

func sourceOf(set *fib.Set, t *fib.Table) diff.Source { return source.Routes(set, t.All()) }

// TestIntegrationRandomOperations changes a kernel's tables at random in bursts, with every kind of route, and links
// that go down and up, and compares route by route after each burst.
func TestIntegrationRandomOperations(t *testing.T) {
	k := newKernel(t)
	rng := rand.New(rand.NewPCG(7, 7))
	k.batch(operations(rng, 300)) // some is there before
	k.mirror(Config{})
	k.exact()
	resyncs := k.m.Status().Resyncs
	for round := range 12 {
		commands := operations(rng, 400)
		k.batch(commands)
		if t.Failed() {
			t.Log(commands)
		}
		k.exact()
		if n := k.routes(100) + k.routes(200); n < 20 {
			t.Fatalf("only %d routes: what does this show?", n)
		}
		switch round % 4 {
		case 1:
			k.batch("link set b1 down\n")
			k.exact()
		case 2:
			k.batch("link set b0 down\n") // the kernel says nothing of the IPv4 routes that go
			k.exact()
			k.batch("link set b0 up\nlink set b1 up\naddr add 2001:db8:2::1/64 dev b0 nodad\n")
			k.exact()
		case 3:
			k.batch("addr del 10.0.2.1/24 dev b0\naddr add 10.0.2.1/24 dev b0\n")
			k.exact()
		}
	}
	s := k.m.Status()
	t.Logf("%+v", s)
	if s.Resyncs == resyncs || s.Overflows != 0 || s.Proofs == 0 || s.Mismatches != 0 {
		t.Errorf("%+v", s)
	}
}

// TestIntegrationMetrics goes through the cases one by one, so that a failure says which.
func TestIntegrationMetrics(t *testing.T) {
	k := newKernel(t)
	k.mirror(Config{})
	for _, c := range []struct{ do, prefix, want string }{
		{"route add 172.16.0.0/24 table 100 metric 20 via 10.0.1.2", "172.16.0.0/24", "via 10.0.1.2 dev d"},
		{"route add 172.16.0.0/24 table 100 metric 10 via 10.0.2.2", "172.16.0.0/24", "via 10.0.2.2 dev d"},
		{"route add 172.16.0.0/24 table 100 metric 30 via 10.0.2.3", "172.16.0.0/24", "via 10.0.2.2 dev d"},
		{"route append 172.16.0.0/24 table 100 metric 10 via 10.0.2.9", "172.16.0.0/24", "via 10.0.2.2 dev d"},
		{"route prepend 172.16.0.0/24 table 100 metric 10 via 10.0.2.8", "172.16.0.0/24", "via 10.0.2.8 dev d"},
		{"route replace 172.16.0.0/24 table 100 metric 10 via 10.0.2.7", "172.16.0.0/24", "via 10.0.2.7 dev d"},
		{"route del 172.16.0.0/24 table 100 metric 10 via 10.0.2.7", "172.16.0.0/24", "via 10.0.2.2 dev d"},
		{"route del 172.16.0.0/24 table 100 metric 10", "172.16.0.0/24", "via 10.0.2.9 dev d"},
		{"route del 172.16.0.0/24 table 100 metric 10", "172.16.0.0/24", "via 10.0.1.2 dev d"},
		{"route del 172.16.0.0/24 table 100 metric 20", "172.16.0.0/24", "via 10.0.2.3 dev d"},
		{"route del 172.16.0.0/24 table 100", "172.16.0.0/24", ""},
		{"route add 172.16.1.0/24 table 100 nexthop via 10.0.1.2 weight 2 nexthop via 10.0.2.2 weight 4", "172.16.1.0/24", "via 10.0.1.2 dev d weight 1, via 10.0.2.2 dev d weight 2"},
		{"route replace 172.16.1.0/24 table 100 via inet6 2001:db8:1::2 dev a0", "172.16.1.0/24", "via 2001:db8:1::2 dev d"},
		{"route add 2001:db8:f::/48 table 100 via 2001:db8:1::2", "2001:db8:f::/48", "via 2001:db8:1::2 dev d"},
		{"route append 2001:db8:f::/48 table 100 via 2001:db8:2::2", "2001:db8:f::/48", "via 2001:db8:1::2 dev d weight 1, via 2001:db8:2::2 dev d weight 1"},
		{"route append 2001:db8:f::/48 table 100 via 2001:db8:2::3", "2001:db8:f::/48", "via 2001:db8:1::2 dev d weight 1, via 2001:db8:2::2 dev d weight 1, via 2001:db8:2::3 dev d weight 1"},
		{"route del 2001:db8:f::/48 table 100 via 2001:db8:2::2", "2001:db8:f::/48", "via 2001:db8:1::2 dev d weight 1, via 2001:db8:2::3 dev d weight 1"},
		{"route replace 2001:db8:f::/48 table 100 via 2001:db8:2::4", "2001:db8:f::/48", "via 2001:db8:2::4 dev d"},
		{"route del 2001:db8:f::/48 table 100", "2001:db8:f::/48", ""},
		{"route add 2001:db8:e::/48 table 100 metric 5 dev a0", "2001:db8:e::/48", "dev d"},
		{"route append 2001:db8:e::/48 table 100 metric 5 via 2001:db8:2::4", "2001:db8:e::/48", "dev d"},
		{"route add blackhole 172.16.2.0/24 table 100", "172.16.2.0/24", "blackhole"},
		{"route add prohibit 172.16.3.0/24 table 100", "172.16.3.0/24", "prohibit"},
		{"route add throw 172.16.4.0/24 table 100", "172.16.4.0/24", "unreachable"},
		{"route add unreachable 2001:db8:d::/48 table 100", "2001:db8:d::/48", "unreachable"},
		{"route add local 172.16.5.1 dev lo table 100", "172.16.5.1/32", "local dev d"},
		{"nexthop add id 7 via 10.0.1.2 dev a0\nnexthop add id 8 via 10.0.2.2 dev b0\nnexthop add id 9 group 7/8\nroute add 172.16.6.0/24 table 100 nhid 9", "172.16.6.0/24",
			"via 10.0.1.2 dev d weight 1, via 10.0.2.2 dev d weight 1"},
		{"nexthop replace id 8 via 10.0.2.3 dev b0", "172.16.6.0/24", "via 10.0.1.2 dev d weight 1, via 10.0.2.3 dev d weight 1"},
		{"nexthop replace id 9 group 7,3/8", "172.16.6.0/24", "via 10.0.1.2 dev d weight 3, via 10.0.2.3 dev d weight 1"},
		{"nexthop del id 8", "172.16.6.0/24", "via 10.0.1.2 dev d"},
		{"nexthop del id 7", "172.16.6.0/24", ""},
		{"route add 172.16.7.0/24 table 100 via 10.0.2.2 metric 1\nroute add 172.16.7.0/24 table 100 via 10.0.1.2 metric 2", "172.16.7.0/24", "via 10.0.2.2 dev d"},
		{"link set b0 down", "172.16.7.0/24", "via 10.0.1.2 dev d"},
		{"route add 172.16.8.0/24 table 100 tos 0x10 via 10.0.1.2", "172.16.8.0/24", ""},
	} {
		k.batch(c.do + "\n")
		k.exact()
		if got := k.get(c.prefix); got != c.want {
			t.Errorf("%s:\n%s leads %q, want %q", c.do, c.prefix, got, c.want)
		}
	}
	if _, ok := lab.Until(lab.Patience, func() bool { return k.m.Status().Rejected > 0 }); !ok {
		t.Errorf("the route with a TOS was not counted: %+v", k.m.Status())
	}
}

func many(n int, what string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "route %s 10.%d.%d.%d/32 table 100 via 10.0.1.2\n", what, 64+i>>16, i>>8&255, i&255)
	}
	return b.String()
}

// TestIntegrationOverflow adds and removes tens of thousands of routes while nobody reads a socket with next to no
// buffer. What the kernel drops is found again.
func TestIntegrationOverflow(t *testing.T) {
	const n = 30000
	k := newKernel(t)
	pause := make(chan struct{})
	m, err := New(Config{Set: k.set, Namespace: k.path(), Tables: map[uint32]fib.ID{100: 100, 200: 200}, ReadBuffer: 4096})
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan chan struct{}, 1)
	gate <- nil
	m.paused = func() {
		c := <-gate
		gate <- c
		if c != nil {
			<-c
		}
	}
	k.run(m)
	k.exact()
	set := func(c chan struct{}) { <-gate; gate <- c }
	set(pause)
	k.batch(many(n, "add"))
	if got := k.routes(100); got == n {
		t.Fatal("all are there although nobody read: the test shows nothing")
	}
	set(nil)
	close(pause)
	k.exact()
	if got := k.routes(100); got != n {
		t.Errorf("%d routes, want %d", got, n)
	}
	first := m.Status()
	pause = make(chan struct{})
	set(pause)
	k.batch(many(n, "del"))
	set(nil)
	close(pause)
	k.exact()
	if got := k.routes(100); got != 0 {
		t.Errorf("%d routes stay", got)
	}
	s := m.Status()
	if first.Overflows == 0 || s.Proofs == 0 || s.Mismatches != 0 || s.Overflows == first.Overflows || s.Swept == 0 {
		t.Errorf("nothing was lost: %+v", s)
	}
	t.Logf("%+v", s)
}

// TestIntegrationKeepAndAdopt ends a mirror, changes routes, and begins another one on the same FIBs.
func TestIntegrationKeepAndAdopt(t *testing.T) {
	k := newKernel(t)
	k.batch(many(1000, "add"))
	stop := k.mirror(Config{Keep: true})
	k.exact()
	stop()
	if k.routes(100) != 1000 {
		t.Fatalf("%d routes are kept", k.routes(100))
	}
	k.batch(many(500, "del"))
	stop = k.mirror(Config{Adopt: true})
	k.exact()
	if k.routes(100) != 500 || k.m.Status().Swept != 500 {
		t.Errorf("%d routes, %+v", k.routes(100), k.m.Status())
	}
	stop()
	if k.routes(100) != 0 {
		t.Errorf("%d routes stay after the end", k.routes(100))
	}
	for _, h := range k.set.NextHops() {
		t.Errorf("next hop %v stays", h)
	}
}
