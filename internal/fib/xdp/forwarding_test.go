//go:build linux && amd64

package xdp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"midplane/fib"
	"midplane/internal/lab"
)

// follow runs Follow until the test ends.
func (r *router) follow(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Follow(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
}

// Two customers with the same addresses behind one router, whose kernel forwards nothing: each pair of hosts meets each
// other only, and neighbours that are missing at first are resolved and forwarded to.
func TestIntegrationOverlappingFIBs(t *testing.T) {
	e := newFarEnds(t, 4, Config{})
	e.forwarding(t, false)
	for link, n := range []int{1, 2, 1, 2} { // 0 and 1 are of FIB 10, 2 and 3 of FIB 20
		e.address(link, n)
	}
	var ports []Port
	for i, l := range e.links {
		ports = append(ports, Port{Device: l, FIB: uint32(10 + i/2*10)})
	}
	e.ports(t, ports...)
	for i, l := range e.links {
		e.route(t, fib.ID(10+i/2*10), fmt.Sprintf("10.%d.0.0/24", i%2+1), via("", l))
		e.route(t, fib.ID(10+i/2*10), fmt.Sprintf("fd00:%d::/64", i%2+1), via("", l))
	}
	e.follow(t)
	for _, v := range []struct{ client, server string }{{"10.1.0.2:4000", "10.2.0.2:80"}, {"[fd00:1::2]:4000", "[fd00:2::2]:80"}} {
		for i, name := range []string{"ten", "twenty"} {
			go answer(udp(t, e.hosts[2*i+1], v.server), name)
		}
		a, b := udp(t, e.hosts[0], v.client), udp(t, e.hosts[2], v.client)
		for range 3 {
			if got := exchange(t, a, v.server); got != "ten" {
				t.Errorf("the customer of FIB 10 met %q at %s", got, v.server)
			}
			if got := exchange(t, b, v.server); got != "twenty" {
				t.Errorf("the customer of FIB 20 met %q at %s", got, v.server)
			}
		}
	}
	for _, id := range []uint32{10, 20} {
		s := e.counters(t, id)
		if s.Packets[Forwarded] < 12 || s.Packets[NoNeighbour] == 0 {
			t.Errorf("FIB %d: %d forwarded, %d without a neighbour", id, s.Packets[Forwarded], s.Packets[NoNeighbour])
		}
	}
	l, err := e.Neighbours()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[NeighbourKey]bool{}
	for _, n := range l {
		seen[n.NeighbourKey] = true
	}
	for i, l := range e.links {
		if k := (NeighbourKey{uint32(10 + i/2*10), l, netip.MustParseAddr(fmt.Sprintf("10.%d.0.2", i%2+1))}); !seen[k] {
			t.Errorf("no neighbour %v", k)
		}
	}
	if total := e.counters(t, 0); total.Packets[NoPort] != 0 {
		t.Errorf("%d packets without a port", total.Packets[NoPort])
	}
}

// The kernel does what the program cannot: ICMP for TTL and size, and a change of the MTU is seen by the next packet.
func TestIntegrationKernelHelps(t *testing.T) {
	e := newFarEnds(t, 2, Config{})
	e.forwarding(t, true)
	e.address(0, 1)
	e.address(1, 2)
	e.ports(t, Port{Device: e.links[0], FIB: 10}, Port{Device: e.links[1], FIB: 10})
	for i, l := range e.links {
		e.route(t, 10, fmt.Sprintf("10.%d.0.0/24", i+1), via("", l))
		e.route(t, 10, fmt.Sprintf("fd00:%d::/64", i+1), via("", l))
	}
	e.follow(t)
	go answer(udp(t, e.hosts[1], "10.2.0.2:80"), "v4")
	go answer(udp(t, e.hosts[1], "[fd00:2::2]:80"), "v6")
	a4, a6 := udp(t, e.hosts[0], "10.1.0.2:4000"), udp(t, e.hosts[0], "[fd00:1::2]:4000")
	exchange(t, a4, "10.2.0.2:80")
	exchange(t, a6, "[fd00:2::2]:80")

	for name, c := range map[string]struct {
		frame packet
		icmp  string // the counter of /proc/net/snmp and snmp6 in the router
	}{
		"TTL":       {packet{src: "10.1.0.2", dst: "10.2.0.2", ttl: 1}, "OutTimeExcds"},
		"hop limit": {packet{src: "fd00:1::2", dst: "fd00:2::2", ttl: 1}, "Icmp6OutTimeExcds"},
		"MTU":       {packet{src: "10.1.0.2", dst: "10.2.0.2", fragment: 0x4000, length: 1400}, "OutDestUnreachs"},
		"IPv6 MTU":  {packet{src: "fd00:1::2", dst: "fd00:2::2", length: 1400}, "Icmp6OutPktTooBigs"},
	} {
		big := c.frame.length > 0
		why := TTL
		if big {
			why = TooBig
		}
		c.frame.dmac = e.macs[0]
		send := func() {
			if err := e.hosts[0].Do(func() error { return sendFrame("eth0", c.frame.bytes()) }); err != nil {
				t.Fatal(err)
			}
		}
		if big {
			// The link takes it; then the MTU falls, and the next packet does not go there any more.
			if _, ok := lab.Until(lab.Patience, func() bool { // Follow hears of the neighbour in its own time
				action, _ := e.run(t, c.frame.bytes(), e.links[0])
				return action == redirect
			}); !ok {
				t.Errorf("%s: not forwarded before the change: counters %v", name, e.counters(t, 10))
			}
			e.IP("link", "set", "p1", "mtu", "1300")
			if err := e.SetDevice(Device{Index: e.links[1], MTU: 1300, MAC: e.macs[1], Up: true}); err != nil {
				t.Fatal(err)
			}
			if action, _ := e.run(t, c.frame.bytes(), e.links[0]); action != pass {
				t.Errorf("%s: the next packet after the change: action %d", name, action)
			}
		}
		before, counted := e.counters(t, 10).Packets[why], e.snmp(t, c.icmp)
		_, ok := lab.Until(lab.Patience, func() bool { // ICMP is rate-limited
			send()
			return e.snmp(t, c.icmp) > counted
		})
		if !ok {
			t.Errorf("%s: the kernel sends no ICMP error", name)
		}
		if e.counters(t, 10).Packets[why] == before {
			t.Errorf("%s: not counted as %v", name, why)
		}
		if big {
			e.IP("link", "set", "p1", "mtu", "1500")
			if _, ok := lab.Until(lab.Patience, func() bool { // by Follow
				action, _ := e.run(t, c.frame.bytes(), e.links[0])
				return action == redirect
			}); !ok {
				t.Errorf("%s: not forwarded after the MTU is as before", name)
			}
		}
	}
}

// snmp reads a counter of the router's kernel.
func (r *router) snmp(t testing.TB, name string) (n uint64) {
	t.Helper()
	r.in(t, func() error {
		v4, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		lines := strings.Split(string(v4), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			heads, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j, h := range heads {
				if h == name && heads[0] == "Icmp:" {
					_, err = fmt.Sscan(values[j], &n)
					return err
				}
			}
		}
		v6, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(v6)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == name {
				_, err = fmt.Sscan(f[1], &n)
				return err
			}
		}
		return fmt.Errorf("no counter %s", name)
	})
	return n
}

// What the kernel knows of links and neighbours is in the program's maps at once.
func TestIntegrationFollow(t *testing.T) {
	e := newFarEnds(t, 2, Config{})
	e.forwarding(t, false)
	e.address(0, 1)
	e.address(1, 2)
	e.ports(t, Port{Device: e.links[0], FIB: 10}, Port{Device: e.links[1], FIB: 10})
	e.route(t, 10, "10.2.0.0/24", via("", e.links[1]))
	e.route(t, 10, "10.3.0.0/24", via("10.2.0.77", e.links[1]))
	e.follow(t)
	frame := packet{dmac: e.macs[0], src: "10.1.0.2", dst: "10.3.0.1"}.bytes()
	goes := func(mac [6]byte) func() bool {
		return func() bool {
			action, out := e.run(t, frame, e.links[0])
			if mac == ([6]byte{}) {
				return action == pass
			}
			return action == redirect && [6]byte(out[:6]) == mac
		}
	}
	expect := func(what string, mac [6]byte) {
		t.Helper()
		if _, ok := lab.Until(lab.Patience, goes(mac)); !ok {
			t.Errorf("%s is not seen", what)
		}
	}
	expect("no neighbour", [6]byte{})
	neigh := func(args ...string) { e.IP(append([]string{"neigh"}, args...)...) }
	neigh("replace", "10.2.0.77", "lladdr", "02:00:00:00:00:0a", "dev", "p1", "nud", "reachable")
	expect("a new neighbour", macA)
	neigh("replace", "10.2.0.77", "lladdr", "02:00:00:00:00:0b", "dev", "p1", "nud", "reachable")
	expect("another MAC address", macB)
	neigh("del", "10.2.0.77", "dev", "p1")
	expect("the neighbour's end", [6]byte{})
	neigh("replace", "10.2.0.77", "lladdr", "02:00:00:00:00:0a", "dev", "p1", "nud", "permanent")
	expect("a permanent neighbour", macA)
	e.IP("link", "set", "p1", "down")
	expect("a link that is down", [6]byte{})
	e.IP("link", "set", "p1", "up")
	neigh("replace", "10.2.0.77", "lladdr", "02:00:00:00:00:0a", "dev", "p1", "nud", "permanent")
	expect("a link that is up again", macA)
	e.IP("link", "set", "p0", "address", "02:00:00:00:00:77")
	expect("another address of its own", [6]byte{}) // the frame is for another host now
	frame = packet{dmac: [6]byte{2, 0, 0, 0, 0, 0x77}, src: "10.1.0.2", dst: "10.3.0.1"}.bytes()
	expect("frames to the new address", macA)

	// A change by the API is in the map before the call returns, and an older event does not undo it.
	for i := range 200 {
		mac := [6]byte{2, 0, 0, 1, 0, byte(i)}
		k := NeighbourKey{10, e.links[1], netip.MustParseAddr("10.2.0.77")}
		neigh("replace", "10.2.0.77", "lladdr", fmt.Sprintf("02:00:00:01:00:%02x", i), "dev", "p1", "nud", "permanent")
		if err := e.SetNeighbour(Neighbour{k, mac}); err != nil {
			t.Fatal(err)
		}
		if !goes(mac)() {
			t.Fatalf("change %d is not seen by the next packet", i)
		}
	}

	// Events that were lost are made up for.
	var junk []Neighbour
	for i := range 20 {
		junk = append(junk, Neighbour{NeighbourKey{10, e.links[1], netip.AddrFrom4([4]byte{10, 2, 0, byte(100 + i)})}, macB})
		if err := e.SetNeighbour(junk[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.DeleteNeighbour(NeighbourKey{10, e.links[1], netip.MustParseAddr("10.2.0.77")}); err != nil {
		t.Fatal(err)
	}
	if !goes([6]byte{})() {
		t.Error("a neighbour that was deleted is still sent to")
	}
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	if !goes([6]byte{2, 0, 0, 1, 0, 199})() {
		t.Error("resynchronisation does not bring a neighbour back")
	}
	if l, err := e.Neighbours(); err != nil || len(l) != 1 {
		t.Errorf("after resynchronisation: %v, %v", l, err)
	}
}

// A neighbour that packets are forwarded to is confirmed by the kernel when it goes stale, though the kernel sees none of
// the packets; and when it does not answer any more, nothing is sent to it.
func TestIntegrationStaleNeighbours(t *testing.T) {
	e := newFarEnds(t, 2, Config{})
	e.forwarding(t, false)
	e.address(0, 1)
	e.address(1, 2)
	e.in(t, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/neigh/p1/delay_first_probe_time", []byte("1"), 0)
	})
	e.ports(t, Port{Device: e.links[0], FIB: 10}, Port{Device: e.links[1], FIB: 10})
	e.route(t, 10, "10.2.0.0/24", via("", e.links[1]))
	e.follow(t)
	state := func(addr string) string {
		f := strings.Fields(e.IP("neigh", "show", addr, "dev", "p1"))
		if len(f) == 0 {
			return "none"
		}
		return f[len(f)-1]
	}
	stale := func(addr, mac string) { e.IP("neigh", "replace", addr, "lladdr", mac, "dev", "p1", "nud", "stale") }
	use := func(addr string) bool {
		action, _ := e.run(t, packet{dmac: e.macs[0], src: "10.1.0.2", dst: addr}.bytes(), e.links[0])
		return action == redirect
	}
	there, gone, idle := "10.2.0.2", "10.2.0.50", "10.2.0.51"
	for addr, mac := range map[string]string{there: e.mac(t, 1), gone: "02:00:00:00:00:50", idle: "02:00:00:00:00:51"} {
		e.IP("neigh", "replace", addr, "lladdr", mac, "dev", "p1", "nud", "reachable")
	}
	if _, ok := lab.Until(lab.Patience, func() bool { l, _ := e.Neighbours(); return len(l) >= 3 }); !ok {
		t.Fatal("neighbours are not known")
	}
	for _, addr := range []string{there, gone} {
		if !use(addr) {
			t.Fatalf("%s is not forwarded to", addr)
		}
		stale(addr, map[string]string{there: e.mac(t, 1), gone: "02:00:00:00:00:50"}[addr])
	}
	stale(idle, "02:00:00:00:00:51")
	if _, ok := lab.Until(lab.Patience, func() bool { return state(there) == "REACHABLE" }); !ok {
		t.Errorf("a neighbour in use is %s", state(there))
	}
	if _, ok := lab.Until(lab.Patience, func() bool { return !use(gone) }); !ok {
		t.Errorf("packets are still sent to a neighbour that is %s", state(gone))
	}
	if s := state(idle); s != "STALE" {
		t.Errorf("a neighbour that is not used is %s", s)
	}
	if !use(idle) || !use(there) {
		t.Error("not forwarded to neighbours that are known")
	}
}

// User space hears of a missing neighbour once in a while, whatever comes in.
func TestIntegrationMissesAreLimited(t *testing.T) {
	r := newTestRouter(t) // nobody reads the ring
	one := packet{dmac: r.macs[0], src: "198.51.100.1", dst: "10.3.0.1"}.bytes()
	for range 100 {
		r.run(t, one, r.links[0])
	}
	lost := func() uint64 { return r.counters(t, 0).Packets[MissLost] }
	if n := lost(); n != 0 {
		t.Errorf("one neighbour filled the ring: %d lost", n)
	}
	r.in(t, func() error {
		for i := range 5000 {
			if _, _, err := r.give(packet{dmac: r.macs[0], src: "198.51.100.1", dst: fmt.Sprintf("10.2.%d.%d", i>>8, i&255)}.bytes(), r.links[0]); err != nil {
				return err
			}
		}
		return nil
	})
	// A record has 24 octets and a header of 8.
	if n := lost(); n < 5000-65536/32 || n > 5000-65536/32+16 {
		t.Errorf("%d of 5000 lost by a ring of %d", n, 65536/32)
	}
	s := r.counters(t, 10)
	if s.Packets[NoNeighbour] != 5099 { // 10.2.0.7 is known
		t.Errorf("%d without a neighbour", s.Packets[NoNeighbour])
	}
}

func sendFrame(device string, frame []byte) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return syscall.Sendto(fd, frame, 0, &syscall.SockaddrLinklayer{Ifindex: i.Index})
}
