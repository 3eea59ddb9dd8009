//go:build linux && amd64

package xdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"midplane/fib"
	"midplane/internal/lab"
	"midplane/internal/sys"
)

func TestIntegrationBadConfig(t *testing.T) {
	lab.RequireNamespaces(t)
	var fe *FieldError
	for name, c := range map[string]Config{
		"small": {Image: MinImage / 2}, "large": {Image: MaxImage * 2}, "not a power of two": {Image: MinImage + 8},
		"ports": {Ports: 65537}, "neighbours": {Neighbours: -1}, "fibs": {FIBs: 1 << 20}, "mode": {Mode: 9}, "ask again": {AskAgain: time.Hour},
		"relative dir": {Dir: "pins"}, "unclean dir": {Dir: "/tmp/../tmp/pins"},
	} {
		if _, err := Open(c); !errors.As(err, &fe) || fe.Want == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Image: testImage}); !errors.As(err, &fe) {
		t.Errorf("a directory with files: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
}

func TestIntegrationBadPorts(t *testing.T) {
	r := newRouter(t, 2, Config{Ports: 3})
	r.table(t, 10)
	good := Port{Device: r.links[0], FIB: 10}
	r.ports(t, good)
	var fe *FieldError
	for name, l := range map[string][]Port{
		"no device":       {{FIB: 10}},
		"no FIB":          {{Device: r.links[0]}},
		"FIB not there":   {{Device: r.links[0], FIB: 77}},
		"VLAN 4095":       {{Device: 100, Link: r.links[0], Outer: 4095, FIB: 10}},
		"only 802.1ad":    {{Device: 100, Link: r.links[0], Outer: TagAD, FIB: 10}},
		"inner alone":     {{Device: 100, Link: r.links[0], Inner: 5, FIB: 10}},
		"tag on the link": {{Device: r.links[0], Outer: 5, FIB: 10}},
		"twice":           {good, good},
		"same tags":       {{Device: 100, Link: r.links[0], Outer: 5, FIB: 10}, {Device: 101, Link: r.links[0], Outer: 5, FIB: 10}},
		"too many":        {good, {Device: 100, Link: r.links[0], Outer: 5, FIB: 10}, {Device: 101, Link: r.links[0], Outer: 6, FIB: 10}, {Device: r.links[1], FIB: 10}},
	} {
		r.in(t, func() error {
			if err := r.SetPorts(l); !errors.As(err, &fe) || fe.Want == "" {
				t.Errorf("%s: %v", name, err)
			}
			return nil
		})
		if got := r.Ports(); len(got) != 1 || got[0].Device != good.Device {
			t.Fatalf("%s: ports are %v", name, got)
		}
	}
	for name, n := range map[string]Neighbour{
		"no FIB":     {NeighbourKey: NeighbourKey{Device: r.links[0], Addr: netip.MustParseAddr("192.0.2.1")}},
		"no device":  {NeighbourKey: NeighbourKey{FIB: 10, Addr: netip.MustParseAddr("192.0.2.1")}},
		"no address": {NeighbourKey: NeighbourKey{FIB: 10, Device: r.links[0]}},
		"zone":       {NeighbourKey: NeighbourKey{FIB: 10, Device: r.links[0], Addr: netip.MustParseAddr("fe80::1%2")}},
		"no port":    {NeighbourKey: NeighbourKey{FIB: 10, Device: r.links[1], Addr: netip.MustParseAddr("192.0.2.1")}},
		"other FIB":  {NeighbourKey: NeighbourKey{FIB: 11, Device: r.links[0], Addr: netip.MustParseAddr("192.0.2.1")}},
	} {
		if err := r.SetNeighbour(n); !errors.As(err, &fe) {
			t.Errorf("neighbour, %s: %v", name, err)
		}
	}
}

// Ports are declarative: the same again changes nothing, and none leaves nothing.
func TestIntegrationPorts(t *testing.T) {
	r := newRouter(t, 2, Config{})
	a, b := Port{Device: r.links[0], Link: r.links[0], FIB: 10}, Port{Device: r.links[1], Link: r.links[1], FIB: 20}
	r.ports(t, a, b)
	r.route(t, 10, "10.0.0.0/8", fib.NextHop{Type: fib.Blackhole})
	r.route(t, 20, "10.0.0.0/8", fib.NextHop{Type: fib.Local})
	frame := packet{dmac: r.macs[0], src: "198.51.100.1", dst: "10.1.2.3"}.bytes()
	attached := func() string {
		var l []string
		for line := range strings.Lines(r.IP("-o", "link", "show")) {
			if strings.Contains(line, "xdp") {
				l = append(l, strings.Fields(line)[1])
			}
		}
		return strings.Join(l, " ")
	}
	before, program := r.generation, attached()
	r.ports(t, a, b)
	if got := attached(); got != program || len(strings.Fields(got)) != 2 {
		t.Errorf("attached to %q, and before to %q", got, program)
	}
	_ = before
	if action, _ := r.run(t, frame, r.links[0]); action != drop {
		t.Errorf("FIB 10: action %d", action)
	}
	a.FIB = 20 // moved
	r.ports(t, a, b)
	if action, _ := r.run(t, frame, r.links[0]); action != pass {
		t.Errorf("FIB 20: action %d", action)
	}
	if s := r.counters(t, 20); s.Packets[Local] != 1 {
		t.Errorf("FIB 20 counted %v", s)
	}
	// The FIB goes, and its descriptor becomes another's: nothing of that is seen by the port.
	if err := r.set.Remove(20); err != nil {
		t.Fatal(err)
	}
	for id := fib.ID(200); id < 260; id++ {
		if _, err := r.set.Create(id, ""); err != nil {
			break
		}
		r.route(t, id, "10.0.0.0/8", fib.NextHop{Type: fib.Blackhole})
	}
	if action, _ := r.run(t, frame, r.links[0]); action != pass {
		t.Errorf("of a FIB that is gone: action %d", action)
	}
	if s := r.counters(t, 20); s.Packets[NoRoute] != 1 {
		t.Errorf("FIB 20 counted %v", s)
	}
	r.ports(t)
	if got := attached(); got != "" {
		t.Errorf("without ports attached to %q", got)
	}
	for name, m := range map[string]*ebpf.Map{"ports": r.objs.Ports, "neighbours": r.objs.Neighbours} {
		var k, v []byte
		if it := m.Iterate(); it.Next(&k, &v) {
			t.Errorf("map %s has entries", name)
		}
	}
}

func TestIntegrationModes(t *testing.T) {
	lab.RequireNamespaces(t)
	ns := lab.NewNamespace(t) // its loopback has no XDP in the driver
	for mode, ok := range map[Mode]bool{Native: false, Generic: true, Auto: true} {
		err := ns.Do(func() error {
			f, err := Open(Config{Image: testImage, Mode: mode})
			if err != nil {
				return err
			}
			defer f.Close()
			s, err := fib.New(&fib.Config{Memory: f.Memory(), MaxFIBs: 4, MaxNextHops: 64})
			if err != nil {
				return err
			}
			if _, err := s.Create(10, ""); err != nil {
				return err
			}
			return f.SetPorts([]Port{{Device: 1, FIB: 10}})
		})
		var u *sys.UnsupportedError
		if ok != (err == nil) || (!ok && !errors.As(err, &u)) {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

// A second program on a link is refused with a reason, and the first stays.
func TestIntegrationOccupied(t *testing.T) {
	r := newRouter(t, 1, Config{})
	r.ports(t, Port{Device: r.links[0], FIB: 10})
	r.in(t, func() error {
		f, err := Open(Config{Image: testImage})
		if err != nil {
			return err
		}
		defer f.Close()
		s, err := fib.New(&fib.Config{Memory: f.Memory(), MaxFIBs: 4, MaxNextHops: 64})
		if err != nil {
			return err
		}
		if _, err := s.Create(10, ""); err != nil {
			return err
		}
		if err := f.SetPorts([]Port{{Device: r.links[0], FIB: 10}}); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a link that is taken: %v", err)
		}
		return nil
	})
}

func TestIntegrationPinnedAndRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bpf", "midplane")
	r := newRouter(t, 2, Config{Dir: dir})
	t.Cleanup(func() {
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
	})
	r.ports(t, Port{Device: r.links[0], FIB: 10}, Port{Device: r.links[1], FIB: 10})
	r.route(t, 10, "10.0.0.0/8", via("192.0.2.9", r.links[1]))
	r.neighbour(t, 10, r.links[1], "192.0.2.9", macA)
	frame := packet{dmac: r.macs[0], src: "198.51.100.1", dst: "10.1.2.3"}.bytes()
	if action, _ := r.run(t, frame, r.links[0]); action != redirect {
		t.Fatalf("action %d", action)
	}
	ports := r.Ports()
	if err := r.Forwarder.Close(); err != nil {
		t.Fatal(err)
	}
	r.in(t, func() (err error) {
		_, err = Open(Config{Dir: dir, Image: 2 * testImage})
		if !errors.Is(err, ebpf.ErrMapIncompatible) {
			t.Errorf("another size: %v", err)
		}
		r.Forwarder, err = Open(Config{Dir: dir, Image: testImage})
		return err
	})
	if got := r.Ports(); fmt.Sprint(got) != fmt.Sprint(ports) {
		t.Errorf("ports %v, before %v", got, ports)
	}
	if l, err := r.Neighbours(); err != nil || len(l) != 1 || l[0].MAC != macA {
		t.Errorf("neighbours %v, %v", l, err)
	}
	if action, _ := r.run(t, frame, r.links[0]); action != redirect {
		t.Errorf("after taking over: action %d", action)
	}
	if s := r.counters(t, 10); s.Packets[Forwarded] != 2 {
		t.Errorf("counters %v", s)
	}
	if err := r.Forwarder.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing to do
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if out := r.IP("link", "show"); strings.Contains(out, "xdp") {
		t.Errorf("still attached:\n%s", out)
	}
}

// farEnds are two hosts behind a router, each on its own link: p0 - eth0 of the first, p1 - eth0 of the second.
type farEnds struct {
	*router
	hosts []*lab.Namespace
}

// newFarEnds gives the router and host number i on link i the addresses 10.i.0.1 and .2, and fd00:i::1 and ::2.
func newFarEnds(t testing.TB, links int, cfg Config) *farEnds {
	e := &farEnds{router: newRouter(t, links, cfg)}
	passes, err := ebpf.NewProgram(passProgram())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { passes.Close() })
	for i := range links {
		h := lab.NewNamespace(t)
		e.hosts = append(e.hosts, h)
		e.IP("link", "set", fmt.Sprintf("q%d", i), "netns", h.Name(), "name", "eth0")
		h.IP("link", "set", "eth0", "up")
		e.running(t, fmt.Sprintf("p%d", i))
		if err := h.Do(func() error { return errors.Join(attachTo(t, passes, "eth0"), checksumsInSoftware("eth0")) }); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func (e *farEnds) address(link, net int) {
	e.IP("addr", "add", fmt.Sprintf("10.%d.0.1/24", net), "dev", fmt.Sprintf("p%d", link))
	e.IP("addr", "add", fmt.Sprintf("fd00:%d::1/64", net), "dev", fmt.Sprintf("p%d", link), "nodad")
	e.IP("addr", "add", "fe80::1/64", "dev", fmt.Sprintf("p%d", link), "nodad") // without one the kernel asks for no neighbour
	h := e.hosts[link]
	h.IP("addr", "add", fmt.Sprintf("10.%d.0.2/24", net), "dev", "eth0")
	h.IP("addr", "add", fmt.Sprintf("fd00:%d::2/64", net), "dev", "eth0", "nodad")
	h.IP("route", "add", "default", "via", fmt.Sprintf("10.%d.0.1", net))
	h.IP("-6", "route", "add", "default", "via", fmt.Sprintf("fd00:%d::1", net))
}

// udp opens a socket in a namespace.
func udp(t testing.TB, ns *lab.Namespace, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends until an answer comes, and returns it.
func exchange(t testing.TB, c *net.UDPConn, to string) string {
	t.Helper()
	var answer string
	buf := make([]byte, 64)
	_, ok := lab.Until(lab.Patience, func() bool {
		// The kernel may have told of an earlier packet that it had no route; that is not about this one.
		_, _ = c.WriteToUDPAddrPort([]byte("hello"), netip.MustParseAddrPort(to))
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, _, err := c.ReadFromUDPAddrPort(buf)
		answer = string(buf[:n])
		return err == nil
	})
	if !ok {
		t.Fatalf("no answer from %s", to)
	}
	return answer
}

// answer replies to all packets with a name.
func answer(c *net.UDPConn, name string) {
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort([]byte(name), from)
	}
}

// The daemon ends and comes back, with the same image and with a fresh one, and not one packet is lost.
func TestIntegrationRestartLosesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bpf")
	e := newFarEnds(t, 2, Config{Dir: dir})
	t.Cleanup(func() {
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
	})
	e.address(0, 1)
	e.address(1, 2)
	routes := func() {
		e.route(t, 10, "10.1.0.0/24", via("", e.links[0]))
		e.route(t, 10, "10.2.0.0/24", via("", e.links[1]))
	}
	ports := []Port{{Device: e.links[0], FIB: 10}, {Device: e.links[1], FIB: 10}}
	e.ports(t, ports...)
	routes()
	e.IP("neigh", "replace", "10.2.0.2", "lladdr", e.mac(t, 1), "dev", "p1", "nud", "permanent")
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	// The kernel of the router does not forward: what arrives was forwarded by the program.
	e.forwarding(t, false)
	sink := udp(t, e.hosts[1], "10.2.0.2:4000")
	_ = sink.SetReadBuffer(8 << 20)
	var sent, got atomic.Uint64
	go func() {
		buf := make([]byte, 64)
		for {
			if _, err := sink.Read(buf); err != nil {
				return
			}
			got.Add(1)
		}
	}()
	src := udp(t, e.hosts[0], "10.1.0.2:4000")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			for range 4 {
				if _, err := src.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort("10.2.0.2:4000")); err != nil {
					done <- err
					return
				}
				sent.Add(1)
			}
			for sent.Load()-got.Load() > 1000 && len(stop) == 0 { // what waits in a socket's buffer is bounded
				select {
				case <-stop:
					done <- nil
					return
				case <-time.After(time.Millisecond):
				}
			}
		}
	}()
	moves := func() {
		t.Helper()
		from := got.Load()
		if _, ok := lab.Until(lab.Patience, func() bool { return got.Load() > from+500 }); !ok {
			t.Fatal("nothing arrives")
		}
	}
	moves()
	for i := range 6 {
		fresh := i%2 == 1
		if err := e.Forwarder.Close(); err != nil {
			t.Fatal(err)
		}
		moves() // while there is no daemon
		e.in(t, func() (err error) {
			e.Forwarder, err = Open(Config{Dir: dir, Image: testImage, Fresh: fresh})
			return err
		})
		if fresh {
			var err error
			if e.set, err = fib.New(&fib.Config{Memory: e.Memory(), MaxFIBs: 32, MaxNextHops: 1000}); err != nil {
				t.Fatal(err)
			}
			e.table(t, 5) // so that FIB 10 is elsewhere
			e.table(t, 10)
			moves() // by the old image, while the new one is built
			routes()
			e.ports(t, ports...)
		} else {
			set, err := fib.Adopt(e.Memory())
			if err != nil {
				t.Fatal(err)
			}
			e.set = set
			e.route(t, 10, fmt.Sprintf("10.99.%d.0/24", i), fib.NextHop{Type: fib.Blackhole})
			e.ports(t, ports...)
		}
		moves()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lab.Until(lab.Patience, func() bool { return got.Load() == sent.Load() })
	if got.Load() != sent.Load() {
		t.Errorf("%d of %d arrived", got.Load(), sent.Load())
	}
	if s := e.counters(t, 10); s.Packets[Forwarded] != sent.Load() {
		t.Errorf("%d counted of %d", s.Packets[Forwarded], sent.Load())
	}
}

func (e *farEnds) mac(t testing.TB, host int) string {
	t.Helper()
	var mac string
	if err := e.hosts[host].Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = i.HardwareAddr.String()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return mac
}

// forwarding turns the kernel's forwarding on or off in the router.
func (e *farEnds) forwarding(t testing.TB, on bool) {
	t.Helper()
	v := []byte("0")
	if on {
		v = []byte("1")
	}
	e.in(t, func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", v, 0), os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", v, 0))
	})
}
