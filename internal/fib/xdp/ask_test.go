//go:build linux && amd64

package xdp

import (
	"net/netip"
	"strings"
	"testing"

	"midplane/internal/lab"
)

// A neighbour that somebody entered for good stays so in the kernel when the program does not know it and asks for it, as
// when its map is full.
func TestIntegrationPermanentNeighbourStays(t *testing.T) {
	e := newFarEnds(t, 2, Config{})
	e.forwarding(t, false)
	e.address(0, 1)
	e.address(1, 2)
	e.ports(t, Port{Device: e.links[0], FIB: 10}, Port{Device: e.links[1], FIB: 10})
	e.route(t, 10, "10.3.0.0/24", via("10.2.0.77", e.links[1]))
	e.route(t, 10, "10.4.0.0/24", via("10.2.0.78", e.links[1]))
	e.follow(t)
	kernel := func(addr string) string { return e.IP("neigh", "show", addr, "dev", "p1") }
	to := func(dst string) func() bool {
		frame := packet{dmac: e.macs[0], src: "10.1.0.2", dst: dst}.bytes()
		return func() bool { action, _ := e.run(t, frame, e.links[0]); return action == redirect }
	}
	e.IP("neigh", "replace", "10.2.0.77", "lladdr", "02:00:00:00:00:0a", "dev", "p1", "nud", "permanent")
	if _, ok := lab.Until(lab.Patience, to("10.3.0.1")); !ok {
		t.Fatal("the neighbour is not known")
	}
	if err := e.DeleteNeighbour(NeighbourKey{FIB: 10, Device: e.links[1], Addr: netip.MustParseAddr("10.2.0.77")}); err != nil {
		t.Fatal(err)
	}
	if to("10.3.0.1")() {
		t.Fatal("the neighbour is still known")
	}
	// The one behind it in the queue is asked for.
	if _, ok := lab.Until(lab.Patience, func() bool { to("10.4.0.1")(); return kernel("10.2.0.78") != "" }); !ok {
		t.Fatal("a missing neighbour is not asked for")
	}
	if got := kernel("10.2.0.77"); !strings.Contains(got, "02:00:00:00:00:0a PERMANENT") {
		t.Errorf("the neighbour is %q", got)
	}
}
