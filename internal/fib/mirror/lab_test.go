//go:build linux

package mirror

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/diff"
	"midplane/internal/lab"
)

// kernel is a namespace with four devices of two veth pairs, and the FIBs 100 and 200 for the tables of these numbers.
type kernel struct {
	*lab.Namespace
	t   *testing.T
	set *fib.Set
	m   *Mirror
}

func (k *kernel) path() string { return "/run/netns/" + k.Name() }

func newKernel(t *testing.T) *kernel {
	t.Helper()
	lab.RequireNamespaces(t)
	k := &kernel{Namespace: lab.NewNamespace(t), t: t, set: new(fib.Set)}
	k.batch(`link add a0 type veth peer name a1
link add b0 type veth peer name b1
addr add 10.0.1.1/24 dev a0
addr add 10.0.2.1/24 dev b0
addr add 2001:db8:1::1/64 dev a0 nodad
addr add 2001:db8:2::1/64 dev b0 nodad
link set a0 up
link set a1 up
link set b0 up
link set b1 up
`)
	for _, id := range []fib.ID{100, 200} {
		if _, err := k.set.Create(id, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = k.set.Close() })
	return k
}

// batch runs commands of ip(8) in one process. Those that fail, because there is nothing to delete or it is there
// already, are passed over.
func (k *kernel) batch(commands string) {
	k.t.Helper()
	p := k.Start("ip", "-force", "-batch", "-")
	if _, err := p.Stdin.Write([]byte(commands)); err != nil {
		k.t.Fatal(err)
	}
	_ = p.Stdin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 4*lab.Patience)
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		k.t.Fatal(err)
	}
}

// mirror runs a mirror until the returned function is called.
func (k *kernel) mirror(c Config) (stop func()) {
	k.t.Helper()
	c.Set, c.Namespace = k.set, k.path()
	if c.Tables == nil {
		c.Tables = map[uint32]fib.ID{100: 100, 200: 200}
	}
	m, err := New(c)
	if err != nil {
		k.t.Fatal(err)
	}
	return k.run(m)
}

func (k *kernel) run(m *Mirror) (stop func()) {
	k.m = m
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- m.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-end; err != context.Canceled {
			k.t.Errorf("mirror: %v", err)
		}
	}
	k.t.Cleanup(stop)
	return stop
}

// exact waits until the FIBs hold what the kernel has, route by route, and fails the test if they never do.
func (k *kernel) exact() {
	k.t.Helper()
	var last string
	_, ok := lab.Until(lab.Patience, func() bool {
		last = ""
		s := k.m.Status()
		if !s.Synced {
			last = fmt.Sprintf("not in step: %+v", s)
			return false
		}
		for _, n := range []uint32{100, 200} {
			show := func(d diff.Difference) {
				if len(last) < 2000 {
					last += fmt.Sprintf("table %d: %v\n", n, d)
				}
			}
			c, err := Verify(k.set, fib.ID(n), k.path(), n, show)
			if err != nil {
				last = err.Error()
			}
			if err != nil || !c.Equal() {
				return false
			}
		}
		return true
	})
	if !ok {
		k.t.Fatalf("never the same as the kernel (a: FIB, b: kernel):\n%s\n%+v", last, k.m.Status())
	}
}

func (k *kernel) routes(id fib.ID) int {
	t, _ := k.set.Table(id)
	a, b := t.Len()
	return a + b
}

// get returns where a prefix of FIB 100 leads, in words, with d for any device; "" when it is not there.
func (k *kernel) get(prefix string) string {
	k.t.Helper()
	t, _ := k.set.Table(100)
	var w string
	for d, err := range diff.Diff(sourceOf(k.set, t), none) {
		if err != nil {
			k.t.Fatal(err)
		}
		if d.Prefix.String() == prefix {
			w = diff.Words(d.A, func(uint32) string { return "d" })
		}
	}
	return w
}

func none(func(diff.Route, error) bool) {}

// operations writes random commands, of everything that changes routes, on few prefixes, so that they meet.
func operations(rng *rand.Rand, n int) string {
	var b strings.Builder
	gw4 := []string{"via 10.0.1.2 dev a0", "via 10.0.1.3 dev a0", "via 10.0.2.2 dev b0", "via 10.0.2.3 dev b0"}
	gw6 := []string{"via 2001:db8:1::2 dev a0", "via 2001:db8:1::3 dev a0", "via 2001:db8:2::2 dev b0", "via fe80::9 dev b0"}
	pick := func(l []string) string { return l[rng.IntN(len(l))] }
	for range n {
		six := rng.IntN(2) == 0
		table := []int{100, 200, 254}[rng.IntN(3)]
		metric := 10 * (1 + rng.IntN(3))
		gw, prefix := gw4, fmt.Sprintf("172.16.%d.0/%d", rng.IntN(8)*4, 22+rng.IntN(3))
		if six {
			gw, prefix = gw6, fmt.Sprintf("2001:db8:f%d::/%d", rng.IntN(8), 48+rng.IntN(3)*8)
		}
		switch rng.IntN(14) {
		case 0, 1:
			fmt.Fprintf(&b, "route add %s table %d metric %d %s\n", prefix, table, metric, pick(gw))
		case 2, 3:
			fmt.Fprintf(&b, "route replace %s table %d metric %d %s\n", prefix, table, metric, pick(gw))
		case 4:
			fmt.Fprintf(&b, "route append %s table %d metric %d %s\n", prefix, table, metric, pick(gw))
		case 5:
			if !six { // IPv6 has no order within a metric
				fmt.Fprintf(&b, "route prepend %s table %d metric %d %s\n", prefix, table, metric, pick(gw))
			}
		case 6:
			fmt.Fprintf(&b, "route del %s table %d\n", prefix, table)
		case 7:
			fmt.Fprintf(&b, "route del %s table %d metric %d %s\n", prefix, table, metric, pick(gw))
		case 8, 9:
			fmt.Fprintf(&b, "route replace %s table %d metric %d nexthop %s weight %d nexthop %s weight %d\n",
				prefix, table, metric, gw[rng.IntN(2)], 1+rng.IntN(4), gw[2+rng.IntN(2)], 1+rng.IntN(256))
		case 10:
			fmt.Fprintf(&b, "route replace %s %s table %d metric %d\n", pick([]string{"blackhole", "unreachable", "prohibit", "throw"}), prefix, table, metric+1)
		case 11:
			id := 1 + rng.IntN(4)
			if six {
				id += 10
			}
			fmt.Fprintf(&b, "route replace %s table %d metric %d nhid %d\n", prefix, table, metric+5, id+rng.IntN(2)*100)
		case 12:
			id := 1 + rng.IntN(4)
			if six {
				id += 10
			}
			if rng.IntN(6) == 0 {
				fmt.Fprintf(&b, "nexthop replace id %d blackhole\n", id)
			} else {
				fmt.Fprintf(&b, "nexthop replace id %d %s\n", id, pick(gw))
			}
		case 13:
			base := 0
			if six {
				base = 10
			}
			if rng.IntN(4) == 0 {
				fmt.Fprintf(&b, "nexthop del id %d\n", base+1+rng.IntN(4)+rng.IntN(2)*100)
			} else {
				fmt.Fprintf(&b, "nexthop replace id %d group %d,%d/%d,%d\n", base+101+rng.IntN(4), base+1, base+2, 1+rng.IntN(9), base+3+rng.IntN(2))
			}
		}
	}
	return b.String()
}
