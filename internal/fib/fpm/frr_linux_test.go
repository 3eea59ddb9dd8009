package fpm

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"midplane/fib"
	"midplane/internal/fib/rtnl"
	"midplane/internal/lab"
)

// box is a network namespace with a device v0 that gateways are behind, for zebra to run in.
type box struct {
	*lab.Namespace
	*lab.FRR
	t   *testing.T
	fd  int // rtnetlink socket in the namespace
	dev uint32
}

func newBox(t *testing.T) *box {
	t.Helper()
	lab.RequireNamespaces(t)
	ns := lab.NewNamespace(t)
	b := &box{Namespace: ns, FRR: lab.NewFRR(t, ns), t: t}
	b.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	b.IP("link", "set", "v0", "up")
	b.IP("link", "set", "v1", "up")
	b.IP("addr", "add", "10.255.0.1/24", "dev", "v0")
	b.IP("-6", "addr", "add", "fd00:ffff::1/64", "dev", "v0", "nodad")
	if err := b.Do(func() error {
		i, err := net.InterfaceByName("v0")
		if err != nil {
			return err
		}
		b.dev = uint32(i.Index)
		if b.fd, err = syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE); err != nil {
			return err
		}
		return syscall.Bind(b.fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK})
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(b.fd) })
	return b
}

// kernel sends messages to the namespace's kernel, in batches, and fails the test when one is refused.
func (b *box) kernel(each func(send func(h rtnl.Header, r *rtnl.Route))) {
	b.t.Helper()
	var buf []byte
	var seq uint32
	flush := func() {
		if len(buf) == 0 {
			return
		}
		if err := syscall.Sendto(b.fd, buf, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
			b.t.Fatal(err)
		}
		buf = buf[:0]
		var in [65536]byte
		for { // each message that failed is answered; the last one of a batch always
			n, _, err := syscall.Recvfrom(b.fd, in[:], 0)
			if err != nil {
				b.t.Fatal(err)
			}
			var d rtnl.Decoder
			for rest := in[:n]; len(rest) > 0; {
				var m rtnl.Message
				if m, rest, err = d.Next(rest); err != nil {
					b.t.Fatal(err)
				}
				if m.Ack == nil {
					continue
				}
				if err := m.Ack.Err(); err != nil {
					b.t.Fatalf("message %d of %d: %v", m.Ack.Request.Seq, seq, err)
				}
				if m.Ack.Request.Seq == seq {
					return
				}
			}
		}
	}
	count := 0
	each(func(h rtnl.Header, r *rtnl.Route) {
		seq++
		h.Flags |= rtnl.FlagRequest
		h.Seq = seq
		if count++; count%500 == 0 {
			h.Flags |= rtnl.FlagAck
		}
		var err error
		if buf, err = rtnl.AppendRoute(buf, h, r); err != nil {
			b.t.Fatal(err)
		}
		if count%500 == 0 {
			flush()
		}
	})
	if len(buf) > 0 { // the acknowledgement of the last is asked for by adding it to the last message's flags
		last := rtnl.Route{Dst: netip.MustParsePrefix("203.0.113.1/32"), Table: 99, Type: rtnl.RouteBlackhole, Protocol: rtnl.ProtoStatic}
		seq++
		buf, _ = rtnl.AppendRoute(buf, rtnl.Header{Type: rtnl.NewRoute, Flags: rtnl.FlagRequest | rtnl.FlagAck | rtnl.FlagCreate | rtnl.FlagReplace, Seq: seq}, &last)
		flush()
	}
}

// gateway is the i-th gateway behind v0, of the family of a prefix.
func gateway(p netip.Prefix, i int) netip.Addr {
	if p.Addr().Is4() {
		return netip.AddrFrom4([4]byte{10, 255, 0, byte(2 + i%200)})
	}
	a := netip.MustParseAddr("fd00:ffff::").As16()
	a[15] = byte(2 + i%200)
	return netip.AddrFrom16(a)
}

// routes is what the kernel has: prefixes and which gateway they lead to.
type routes map[netip.Prefix]int

func (b *box) route(p netip.Prefix, gw int) *rtnl.Route {
	return &rtnl.Route{Dst: p, Table: rtnl.TableMain, Priority: 20, Protocol: rtnl.ProtoStatic, Type: rtnl.RouteUnicast,
		Paths: []rtnl.Path{{Gateway: gateway(p, gw), Device: b.dev, Weight: 1}}}
}

func (b *box) add(all routes) {
	b.t.Helper()
	b.kernel(func(send func(rtnl.Header, *rtnl.Route)) {
		for p, gw := range all {
			send(rtnl.Header{Type: rtnl.NewRoute, Flags: rtnl.FlagCreate | rtnl.FlagReplace}, b.route(p, gw))
		}
	})
}

func (b *box) del(all routes) {
	b.t.Helper()
	b.kernel(func(send func(rtnl.Header, *rtnl.Route)) {
		for p, gw := range all {
			send(rtnl.Header{Type: rtnl.DelRoute}, b.route(p, gw))
		}
	})
}

// zebra starts zebra in the namespace, with FPM.
func (b *box) zebra(extra ...string) *lab.Proc {
	b.t.Helper()
	return b.FRR.Start("zebra", "fpm address 127.0.0.1 port "+strconv.Itoa(Port)+"\n", append([]string{"-M", "dplane_fpm_nl"}, extra...)...)
}

// vty asks zebra something.
func (b *box) vty(command string) string { b.t.Helper(); return b.Vty("zebra", command) }

// serving is a Server that runs in the namespace until stop.
type serving struct {
	*Server
	stop func()
}

func (b *box) serve(set *fib.Set, c Config) *serving {
	b.t.Helper()
	return b.serveSession(NewSession(set, c))
}

func (b *box) serveSession(session *Session) *serving {
	b.t.Helper()
	var l net.Listener
	if err := b.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(Port)))
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	v := NewServer(session)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Serve(ctx, l) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Error(err)
		}
	}
	b.t.Cleanup(stop)
	return &serving{v, stop}
}

// connected are how many routes the devices of a box bring.
const connected = 3

// exact waits until a FIB is as the kernel: the same prefixes, leading to the same gateways, and nothing else. A replay
// has no end that is told: a Server takes silence for it, and on a busy machine zebra may pause in the middle.
func (b *box) exact(set *fib.Set, want routes) {
	b.t.Helper()
	if _, ok := lab.Until(5*lab.Patience, func() bool {
		tab, ok := set.Table(fib.ID(rtnl.TableMain))
		if !ok {
			return false
		}
		v4, v6 := tab.Len()
		return v4+v6 >= len(want) && v4+v6 <= len(want)+connected && b.differences(set, want, func(string, ...any) {}) == 0
	}); ok {
		return
	}
	n := 0
	wrong := b.differences(set, want, func(format string, args ...any) {
		b.t.Helper()
		if n++; n <= 10 {
			b.t.Errorf(format, args...)
		}
	})
	b.t.Fatalf("%d differences", wrong)
}

// differences compares a FIB with what the kernel has, and returns how many differences it complained of.
func (b *box) differences(set *fib.Set, want routes, say func(format string, args ...any)) (wrong int) {
	b.t.Helper()
	tab, ok := set.Table(fib.ID(rtnl.TableMain))
	if !ok {
		b.t.Fatal("no FIB 254")
	}
	complain := func(format string, args ...any) {
		b.t.Helper()
		wrong++
		say(format, args...)
	}
	seen := 0
	hops := map[fib.NextHopID]fib.NextHopInfo{}
	for r := range tab.All() {
		h, ok := hops[r.NextHop]
		if !ok {
			if h, ok = set.NextHop(r.NextHop); !ok {
				complain("%s: next hop %d is not there", r.Prefix, r.NextHop)
			}
			hops[r.NextHop] = h
		}
		gw, ok := want[r.Prefix]
		switch expect := (fib.NextHop{Type: fib.Unicast, Gateway: gateway(r.Prefix, gw), Device: b.dev}); {
		case r.Prefix == netip.MustParsePrefix("10.255.0.0/24") || r.Prefix == netip.MustParsePrefix("fd00:ffff::/64") || r.Prefix == netip.MustParsePrefix("fe80::/64"):
			continue // the connected routes
		case !ok:
			complain("%s is in the FIB and not in the kernel", r.Prefix)
		case h.NextHop != expect || h.Members != nil:
			complain("%s leads to %v, want %v", r.Prefix, h, expect)
		}
		seen++
	}
	if seen != len(want) {
		complain("%d routes in the FIB, want %d", seen, len(want))
		for p := range want {
			if _, ok := tab.Get(p); !ok {
				complain("%s is not in the FIB", p)
			}
		}
	}
	return wrong
}

// realRoutes reads the prefixes of gaissmai/bart's test data from the module cache.
func realRoutes(t *testing.T, n int) routes {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gaissmai/bart").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "internal/tests/testdata/prefixes.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	want4 := n - n/6 // as many of IPv6 as a full table has beside it
	all := make(routes, n)
	count := [2]int{}
	for s := bufio.NewScanner(z); s.Scan(); {
		p, err := netip.ParsePrefix(s.Text())
		if err != nil {
			t.Fatal(err)
		}
		family, limit := 0, want4
		if p.Addr().Is6() {
			family, limit = 1, n/6
		}
		if count[family] < limit && p.Bits() > 0 {
			count[family]++
			all[p] = len(all)
		}
	}
	if len(all) != n {
		t.Fatalf("%d prefixes, want %d", len(all), n)
	}
	return all
}

// All of a full table comes over FPM from a real zebra, exactly; and again exactly after either side was killed, with
// what changed meanwhile.
func TestIntegrationFullTable(t *testing.T) {
	b := newBox(t)
	n := 900_000
	if s := os.Getenv("FPM_ROUTES"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	want := realRoutes(t, n)
	start := time.Now()
	b.add(want)
	t.Logf("%d routes into the kernel: %v", len(want), time.Since(start))
	set, err := fib.New(&fib.Config{Size: 512 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() }) // after the servers have ended
	var conf Config
	conf.Feed.Create = true
	s := b.serve(set, conf)
	z := b.zebra()
	s.replayed(t, z, 1, "first replay")
	b.exact(set, want)

	// Our side is killed, at once and again in the middle of the replay. Meanwhile the kernel's routes change.
	s.stop()
	b.change(want, 1)
	b.knows(want)
	for _, until := range []int64{int64(n) / 3, 0} {
		session := NewSession(set, conf)
		if err := session.Adopt(rtnl.TableMain); err != nil {
			t.Fatal(err)
		}
		s = b.serveSession(session)
		if until == 0 {
			break
		}
		if _, ok := lab.Until(5*lab.Patience, func() bool { c, _ := s.Counters(); return c.Offloaded > uint64(until) }); !ok {
			t.Fatal("no replay")
		}
		s.stop()
	}
	s.replayed(t, z, 1, "replay after our side was killed")
	b.exact(set, want)

	// zebra is killed.
	z.Kill()
	b.change(want, 2)
	z = b.zebra()
	s.replayed(t, z, 2, "replay after zebra was killed")
	b.exact(set, want)
	if c, _ := s.Counters(); c.Failed != 0 || c.NotForFIBs != 0 || c.Feed.Refused != 0 {
		t.Errorf("refused: %+v", c)
	}

	s.Flush()
	if tab, _ := set.Table(fib.ID(rtnl.TableMain)); tab != nil {
		if v4, v6 := tab.Len(); v4+v6 != 0 {
			t.Errorf("%d and %d routes are left after Flush", v4, v6)
		}
	}
	for id, h := range set.NextHops() {
		t.Errorf("next hop %d is left: %v", id, h)
	}
}

// change deletes, moves and adds some routes, in the kernel and in want.
func (b *box) change(want routes, round int) {
	b.t.Helper()
	gone, moved := routes{}, routes{}
	for p, gw := range want {
		switch {
		case len(gone) < 2000:
			gone[p] = gw
		case len(moved) < 2000:
			moved[p] = gw + 1
		}
	}
	for i := range 2000 {
		moved[netip.PrefixFrom(netip.AddrFrom4([4]byte{240, byte(round), byte(i >> 8), byte(i)}), 32)] = i
	}
	b.del(gone)
	b.add(moved)
	for p := range gone {
		delete(want, p)
	}
	for p, gw := range moved {
		want[p] = gw
	}
}

// knows waits until zebra has heard of the kernel's routes.
func (b *box) knows(want routes) {
	b.t.Helper()
	for p, gw := range want {
		if !p.Addr().Is4() {
			continue
		}
		if _, ok := lab.Until(5*lab.Patience, func() bool {
			return strings.Contains(b.vty("show ip route "+p.String()+" longer-prefixes"), gateway(p, gw).String())
		}); !ok {
			b.t.Fatalf("zebra does not know %s", p)
		}
		return
	}
}

// replayed waits for the n-th replay, and tells how fast it came.
func (s *serving) replayed(t *testing.T, z *lab.Proc, n uint64, what string) {
	t.Helper()
	before, _ := s.Counters()
	var begin, last time.Time
	seen := before.Offloaded
	if _, ok := lab.Until(5*lab.Patience, func() bool {
		c, _ := s.Counters()
		if c.Offloaded != seen {
			if last = time.Now(); begin.IsZero() {
				begin = last
			}
			seen = c.Offloaded
		}
		return c.Resyncs >= n && seen != before.Offloaded
	}); !ok {
		c, _ := s.Counters()
		t.Fatalf("%s: no end: %+v, %v\n%s", what, c, s.LastError(), z.Stdout.String())
	}
	c, _ := s.Counters()
	routes := seen - before.Offloaded
	t.Logf("%s: %d routes in %.2f s, %.0f routes/s; swept %d", what, routes, last.Sub(begin).Seconds(), float64(routes)/last.Sub(begin).Seconds(), c.Feed.Swept)
}
