package bgp

import (
	"net/netip"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/diff"
	"midplane/internal/fib/diff/source"
)

var (
	pfx  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)

// bench is a FIB with routes of others, and a core that writes to it.
type bench struct {
	t     *testing.T
	set   *fib.Set
	table *fib.Table
	c     *core
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, set: new(fib.Set)}
	t.Cleanup(func() { _ = b.set.Close() })
	var err error
	if b.table, err = b.set.Create(10, ""); err != nil {
		t.Fatal(err)
	}
	b.c = newCore(b.set, b.table, nil, false)
	return b
}

// static adds a route that is not BGP's: on a link when via is "".
func (b *bench) static(p, via string, dev uint32) {
	b.t.Helper()
	h := fib.NextHop{Type: fib.Unicast, Device: dev}
	if via != "" {
		h.Gateway = addr(via)
	}
	b.hop(p, h)
}

func (b *bench) hop(p string, h fib.NextHop) {
	b.t.Helper()
	id, err := b.set.Intern(h)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, _, err := b.table.Insert(pfx(p), id); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) gone(p string) {
	b.t.Helper()
	if _, ok, err := b.table.Delete(pfx(p)); !ok || err != nil {
		b.t.Fatal(ok, err)
	}
}

func (b *bench) update(p string, hops ...string) {
	var l []netip.Addr
	for _, h := range hops {
		l = append(l, addr(h))
	}
	b.c.update(pfx(p), l)
	b.c.sink.Commit()
}

// leads returns where a prefix leads, in words; "" when it is not there.
func leads(t *testing.T, set *fib.Set, table *fib.Table, p string) string {
	t.Helper()
	for r, err := range source.Routes(set, table.All()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Prefix == pfx(p) {
			return diff.Words(r.Hops, nil)
		}
	}
	return ""
}

func (b *bench) want(p, words string) {
	b.t.Helper()
	if got := leads(b.t, b.set, b.table, p); got != words {
		b.t.Errorf("%s leads %q, want %q", p, got, words)
	}
}

func TestResolution(t *testing.T) {
	b := newBench(t)
	b.static("192.0.2.0/24", "", 7)
	b.static("2001:db8::/64", "", 7)
	b.update("10.0.0.0/8", "192.0.2.1")
	b.want("10.0.0.0/8", "via 192.0.2.1 dev 7")
	b.update("2001:db8:f::/48", "2001:db8::1")
	b.want("2001:db8:f::/48", "via 2001:db8::1 dev 7")
	b.update("10.1.0.0/16", "2001:db8::1") // RFC 8950
	b.want("10.1.0.0/16", "via 2001:db8::1 dev 7")

	// Not there, until a route to it is; behind a gateway; gone again.
	b.update("10.2.0.0/16", "198.51.100.1")
	b.want("10.2.0.0/16", "")
	if n := b.c.counters(); n.Unresolved != 1 || n.Prefixes != 4 || n.NextHops != 3 {
		t.Errorf("%+v", n)
	}
	b.static("198.51.100.0/24", "192.0.2.9", 7)
	b.c.recheck()
	b.want("10.2.0.0/16", "via 192.0.2.9 dev 7")
	b.static("198.51.100.0/25", "", 8)
	b.c.recheck()
	b.want("10.2.0.0/16", "via 198.51.100.1 dev 8")
	b.gone("198.51.100.0/25")
	b.gone("198.51.100.0/24")
	b.c.recheck()
	b.want("10.2.0.0/16", "")
	b.c.recheck()
	b.static("198.51.100.0/24", "", 9)
	b.c.recheck()
	b.want("10.2.0.0/16", "via 198.51.100.1 dev 9")

	// Several: flows are shared among those that are there, also over a group.
	b.update("10.3.0.0/16", "192.0.2.1", "192.0.2.2", "203.0.113.1")
	b.want("10.3.0.0/16", "via 192.0.2.1 dev 7 weight 1, via 192.0.2.2 dev 7 weight 1")
	one, _ := b.set.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: 1})
	two, _ := b.set.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: 2, Gateway: addr("192.0.2.77")})
	g, err := b.set.AddGroup([]fib.Member{{NextHop: one, Weight: 3}, {NextHop: two, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.table.Insert(pfx("203.0.113.0/24"), g); err != nil {
		t.Fatal(err)
	}
	b.c.recheck()
	b.want("10.3.0.0/16", "via 192.0.2.1 dev 7 weight 1, via 192.0.2.2 dev 7 weight 1, via 192.0.2.77 dev 2 weight 1, via 203.0.113.1 dev 1 weight 3")
	b.gone("203.0.113.0/24")
	b.gone("192.0.2.0/24")
	b.c.recheck()
	b.want("10.3.0.0/16", "")
	b.want("10.0.0.0/8", "")
	b.want("10.2.0.0/16", "via 198.51.100.1 dev 9")

	// What drops is followed, what is ourselves is not.
	b.hop("192.0.2.1/32", fib.NextHop{Type: fib.Blackhole})
	b.hop("192.0.2.2/32", fib.NextHop{Type: fib.Local})
	b.update("10.4.0.0/16", "192.0.2.2")
	b.c.recheck()
	b.want("10.0.0.0/8", "blackhole")
	b.want("10.4.0.0/16", "")

	for _, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "2001:db8:f::/48", "172.16.0.0/12"} {
		b.update(p)
		b.want(p, "")
	}
	if n := b.c.counters(); n.Prefixes != 0 || n.NextHops != 0 || n.Unresolved != 0 || n.Withdrawn != 6 || n.Refused != 0 {
		t.Errorf("%+v", n)
	}
}

// TestRecursion resolves next hops through other routes of BGP, and never through themselves.
func TestRecursion(t *testing.T) {
	b := newBench(t)
	b.static("192.0.2.0/24", "", 7)
	b.update("198.51.100.0/24", "192.0.2.1")
	b.update("10.0.0.0/8", "198.51.100.1")
	b.want("10.0.0.0/8", "via 192.0.2.1 dev 7")
	b.update("198.51.100.0/24", "192.0.2.2")
	b.c.recheck()
	b.want("10.0.0.0/8", "via 192.0.2.2 dev 7")
	b.update("198.51.100.0/24")
	b.c.recheck()
	b.want("10.0.0.0/8", "")

	// A route that holds its own next hop does not keep itself up when the link is gone.
	b.update("192.0.0.0/16", "192.0.2.5")
	b.want("192.0.0.0/16", "via 192.0.2.5 dev 7")
	b.gone("192.0.2.0/24")
	b.c.recheck()
	b.want("192.0.0.0/16", "")

	// Two that lead to each other lead nowhere.
	b.static("172.16.0.0/24", "", 3)
	b.update("172.17.0.0/24", "172.16.0.1")
	b.update("172.16.0.0/25", "172.17.0.1")
	b.c.recheck()
	b.gone("172.16.0.0/24")
	for range 3 {
		b.c.recheck()
	}
	b.want("172.17.0.0/24", "")
	b.want("172.16.0.0/25", "")

	// A default route resolves only where that is wanted.
	b.static("0.0.0.0/0", "172.31.0.1", 4)
	b.c.recheck()
	b.want("172.17.0.0/24", "")
	b.c.viaDefault = true
	b.c.recheck()
	b.want("192.0.0.0/16", "via 172.31.0.1 dev 4")
	b.c.recheck()
	b.want("192.0.0.0/16", "via 172.31.0.1 dev 4")
}

// TestChainIsBounded makes a chain of routes, each of which is reached by the next.
func TestChainIsBounded(t *testing.T) {
	b := newBench(t)
	b.static("10.0.0.0/24", "", 1)
	for i := 1; i <= 2*maxDepth; i++ {
		b.update(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24).String(), netip.AddrFrom4([4]byte{10, 0, byte(i - 1), 1}).String())
	}
	in, _ := b.table.Len()
	if in != 1+maxDepth {
		t.Errorf("%d routes, want %d", in, 1+maxDepth)
	}
}

func TestConfigErrors(t *testing.T) {
	set := new(fib.Set)
	defer set.Close()
	if _, err := set.Create(10, ""); err != nil {
		t.Fatal(err)
	}
	good := func() Config {
		return Config{Set: set, FIB: 10, ASN: 65000, RouterID: addr("192.0.2.1"), Port: -1, Peers: []Peer{{Address: addr("192.0.2.2"), ASN: 65001}}}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(*Config){
		"set":         func(c *Config) { c.Set = nil },
		"fib":         func(c *Config) { c.FIB = 11 },
		"asn":         func(c *Config) { c.ASN = 0 },
		"routerid":    func(c *Config) { c.RouterID = addr("::1") },
		"port":        func(c *Config) { c.Port = 65536 },
		"device":      func(c *Config) { c.Device = "0123456789abcdef" },
		"listen":      func(c *Config) { c.Listen = []netip.Addr{{}} },
		"maxpaths":    func(c *Config) { c.MaxPaths = 257 },
		"restart":     func(c *Config) { c.Restart = maxRestart + 1 },
		"deferral":    func(c *Config) { c.Deferral = -1 },
		"peers":       func(c *Config) { c.Peers = nil },
		"passive":     func(c *Config) { c.Peers[0].Passive = true },
		"peer":        func(c *Config) { c.Peers = append(c.Peers, c.Peers[0]) },
		"peer asn":    func(c *Config) { c.Peers[0].ASN = 0 },
		"peer port":   func(c *Config) { c.Peers[0].Port = -1 },
		"hold":        func(c *Config) { c.Peers[0].Hold = 1 },
		"retry":       func(c *Config) { c.Peers[0].Retry = 1 },
		"peer device": func(c *Config) { c.Peers[0].Device = "0123456789abcdef" },
		"password":    func(c *Config) { c.Peers[0].Password = string(make([]byte, 81)) },
	} {
		c := good()
		spoil(&c)
		_, err := New(c)
		if e, ok := err.(*fib.FieldError); !ok || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
