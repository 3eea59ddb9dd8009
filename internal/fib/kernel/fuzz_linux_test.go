package kernel

import (
	"bytes"
	"net/netip"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/kernel/plan"
)

// FuzzDecode gives every decoder of messages from the kernel anything: it gets an error or something that can be written
// back, and nothing panics.
func FuzzDecode(f *testing.F) {
	rule, _ := encodeRule(plan.IPv4, plan.Rule{Priority: 1100, Table: 70000, Iif: "eth0", Mark: 7, Mask: 0xff, Protocol: 73, Suppress: plan.PortGroup})
	addr, _ := encodeAddress(3, "eth0", plan.Address{Prefix: netip.MustParsePrefix("192.0.2.1/24"), NoPrefixRoute: true})
	setup, _ := encodeSetup(plan.Route{Table: 70000, Prefix: netip.MustParsePrefix("2001:db8::/64"), Type: 1, Metric: 256}, 3)
	neighbour, _ := encodeNeighbour(3, netip.MustParseAddr("192.0.2.1"), &MAC{2}, 2, 0)
	t := &table{id: 10}
	multi, _ := t.encode(Route{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Type: fib.Unicast, Hops: []RouteHop{{Device: 3, Weight: 2, Gateway: netip.MustParseAddr("fe80::1")}, {Device: 4, Weight: 1}}}, true)
	for _, b := range [][]byte{rule, addr, setup, neighbour, multi, nil} {
		f.Add(b)
		for i := range b {
			f.Add(b[:i])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		if r, err := decodeRule(b); err == nil && !r.Other {
			if _, err := encodeRule(plan.IPv4, r); err != nil && len(r.Iif)+len(r.Oif) < 64 {
				t.Errorf("%+v: %v", r, err)
			}
		}
		if _, a, err := decodeAddress(b); err == nil && a.Prefix.IsValid() && !a.Peer.IsValid() {
			if _, err := encodeAddress(1, "eth0", a); err != nil && len(a.Label) < 64 {
				t.Errorf("%+v: %v", a, err)
			}
		}
		_, _ = decodeSetup(b, func(int) string { return "eth0" })
		_, _, _ = decodeNeighbour(b)
		_, _ = deletable(b)
		if r, err := decodeRoute(b); err == nil && len(r.Hops) > len(b) {
			t.Errorf("%d hops of %d octets", len(r.Hops), len(b))
		}
		if n, err := normal(b); err == nil && n != nil {
			again, err := normal(withDevice(n, 5))
			if err != nil || !bytes.Equal(again, n) {
				t.Errorf("normal is not: %x, %x, %v", n, again, err)
			}
			hasGateway(n)
		}
		if !bytes.Equal(in, b) {
			t.Error("the input was changed")
		}
	})
}

// FuzzRecord reads any file as a record.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"boot":"x","netns":1,"record":{"fibs":[{"id":10}]}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := &Kernel{config: Config{Dir: t.TempDir()}}
		_ = k.parseRecord("kernel.json", b)
	})
}
