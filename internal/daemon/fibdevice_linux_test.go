package daemon_test

import (
	"net/netip"
	"strings"
	"testing"

	"midplane/internal/api/fibapi"
	"midplane/internal/fib/service/spec"
	"midplane/internal/lab"
)

// A port's device goes, and another of its name comes: routes, neighbours, rules and the kernel's table follow, and the
// routes of a loaded file, which the kernel is told too, lead out of the new one. So it is when others change what is ours.
func TestIntegrationDeviceGoesAndComes(t *testing.T) {
	b := newBox(t, "--fib-backend", "rules")
	b.start()
	b.ready()
	defer b.kill()
	ctx := t.Context()
	if err := b.client.Apply(ctx,
		spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: 10, Name: "blue", Kernel: spec.KernelAll}},
		spec.Op{Do: spec.PortAdd, FIB: "blue", Port: &spec.Port{Dev: "p0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}}); err != nil {
		t.Fatal(err)
	}
	hop := []spec.Hop{{Gateway: netip.MustParseAddr("192.0.2.1"), Dev: "p0"}}
	if err := b.client.Apply(ctx,
		spec.Op{Do: spec.RouteAdd, FIB: "blue", Route: &spec.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Hops: hop}},
		spec.Op{Do: spec.NeighAdd, FIB: "blue", Neigh: &spec.Neigh{Dst: hop[0].Gateway, Dev: "p0", LLAddr: "02:00:00:00:00:01"}}); err != nil {
		t.Fatal(err)
	}
	done := false
	if _, err := b.client.Load(ctx, fibapi.LoadQuery{FIB: "blue"}, func() (spec.Route, bool, error) {
		last := done
		done = true
		return spec.Route{Dst: netip.MustParsePrefix("11.0.0.0/8"), Hops: hop}, last, nil
	}); err != nil {
		t.Fatal(err)
	}
	// What ip shows has all of these, or none.
	of := map[string]string{
		"rule show":                        "iif p0 lookup 10",
		"route show table 10 10.0.0.0/8":   "via 192.0.2.1 dev p0 proto 74",
		"route show table 10 11.0.0.0/8":   "via 192.0.2.1 dev p0 proto 74",
		"route show table 10 192.0.2.0/24": "dev p0 proto 73",
		"neigh show nud permanent":         "192.0.2.1 dev p0 lladdr 02:00:00:00:00:01",
	}
	shown := func() (n int) {
		for cmd, text := range of {
			if strings.Contains(b.ns.IP(strings.Fields(cmd)...), text) {
				n++
			}
		}
		return n
	}
	routes := func() (l []string) {
		_ = b.client.Routes(ctx, spec.RouteQuery{FIB: "blue", Hidden: true}, func(r spec.RouteInfo) bool {
			if len(r.Hops) == 1 {
				l = append(l, r.Dst.String()+" "+r.Hops[0].Dev+" "+r.State)
			}
			return true
		})
		return l
	}
	all := "10.0.0.0/8 p0 |11.0.0.0/8 p0 |192.0.2.0/24 p0 |192.0.2.2/32 p0 "
	for round := range 3 {
		if _, ok := lab.Until(lab.Patience, func() bool { return shown() == len(of) && strings.Join(routes(), "|") == all }); !ok {
			t.Fatalf("round %d: ip shows %d of %d; routes %q; log:\n%s", round, shown(), len(of), routes(), b.proc.Stderr.String())
		}
		b.ns.IP("link", "del", "p0")
		if _, ok := lab.Until(lab.Patience, func() bool { return shown() == 0 && strings.Join(routes(), "|") == "10.0.0.0/8 p0 pending" }); !ok {
			t.Fatalf("round %d, without the device: ip shows %d of %d; routes %q; log:\n%s", round, shown(), len(of), routes(), b.proc.Stderr.String())
		}
		if round == 1 { // the daemon need not have seen it
			b.kill()
		}
		b.ns.IP("link", "add", "p0", "type", "veth", "peer", "name", "q0")
		b.ns.IP("link", "set", "p0", "up")
		b.ns.IP("link", "set", "q0", "up")
		if round == 1 {
			b.start()
			b.ready()
		}
	}
	for _, harm := range [][]string{{"link", "set", "p0", "down"}, {"rule", "del", "iif", "p0"}, {"neigh", "del", "192.0.2.1", "dev", "p0"}, {"route", "del", "10.0.0.0/8", "table", "10"}} {
		if _, ok := lab.Until(lab.Patience, func() bool { return shown() == len(of) }); !ok {
			t.Fatalf("before %v: ip shows %d of %d; log:\n%s", harm, shown(), len(of), b.proc.Stderr.String())
		}
		b.ns.IP(harm...) // fails if there is nothing to harm; the daemon may have put it right already
		b.ns.IP("link", "set", "q0", "down")
		b.ns.IP("link", "set", "p0", "up")
		b.ns.IP("link", "set", "q0", "up")
	}
	if _, ok := lab.Until(lab.Patience, func() bool { return shown() == len(of) }); !ok {
		t.Fatalf("in the end: ip shows %d of %d; log:\n%s", shown(), len(of), b.proc.Stderr.String())
	}
}
