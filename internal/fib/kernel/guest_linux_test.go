package kernel

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"midplane/internal/lab"
)

// inGuest is set in the environment of the tests that TestIntegrationGuest runs in a guest, whose kernel has VRF and VLAN
// devices.
const inGuest = "MIDPLANE_FIB_GUEST"

// guestPatience bounds the tests in the guest: it is one slow processor.
const guestPatience = 15 * time.Minute

func TestIntegrationGuest(t *testing.T) {
	lab.Require(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := lab.NewNetwork(t).Guest(lab.GuestConfig{Name: "vrf", Memory: "320M"})
	ctx, cancel := context.WithTimeout(t.Context(), guestPatience)
	defer cancel()
	r, err := g.Run(ctx, fmt.Sprintf("cd /tmp && %s=1 TMPDIR=/run CI= exec %s -test.v -test.run '^TestGuest' -test.timeout %s", inGuest, binary, guestPatience))
	if err != nil {
		t.Fatalf("%v\n%s%s", err, r.Stdout, r.Stderr)
	}
	t.Logf("%s%s", r.Stdout, r.Stderr)
	for _, test := range []string{"TestGuestVRF", "TestGuestVRFInside", "TestGuestVLAN", "TestGuestCrash"} {
		if !strings.Contains(r.Stdout, "--- PASS: "+test+" ") {
			t.Errorf("%s did not pass", test)
		}
	}
	if r.Code != 0 {
		t.Errorf("exit %d", r.Code)
	}
}

func requireGuest(t *testing.T) {
	t.Helper()
	if os.Getenv(inGuest) == "" {
		t.Skip("TestIntegrationGuest runs it, in a guest")
	}
}

func TestGuestVRF(t *testing.T) {
	requireGuest(t)
	testPingAndRemove(t, VRF)
}

func TestGuestVLAN(t *testing.T) {
	requireGuest(t)
	for _, b := range []Backend{VRF, Rules} {
		t.Run(string(b), func(t *testing.T) { testVLAN(t, b) })
	}
}

// testVLAN has two FIBs on one cable, each with a VLAN of it and the same addresses.
func testVLAN(t *testing.T, b Backend) {
	s := newSite(t, 1)
	h := s.hosts[0]
	fibs := two(b)
	for i, id := range []int{100, 200} {
		fibs[i].Ports = []Port{{Parent: "p0", VLAN: id, Addresses: prefixes("192.0.2.1/24", "2001:db8:1::1/64"), NoDAD: true}}
		h.IP("link", "add", fmt.Sprintf("v%d", id), "link", "eth0", "type", "vlan", "id", fmt.Sprint(id))
	}
	before := settled(t, s.box.Name())
	s.apply(t, fibs...)
	for _, id := range []int{100, 200} {
		v := fmt.Sprintf("v%d", id)
		h.IP("link", "set", v, "up")
		h.IP("addr", "add", "192.0.2.2/24", "dev", v)
		h.IP("addr", "add", "2001:db8:1::2/64", "dev", v, "nodad")
		for _, to := range []string{"192.0.2.1", "2001:db8:1::1"} {
			if err := s.ping(0, to); err != nil {
				t.Errorf("VLAN %d: ping %s: %v", id, to, err)
			}
		}
		h.IP("link", "set", v, "down")
		h.IP("addr", "flush", "dev", v)
	}
	if _, err := s.k.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	asBefore(t, before, settled(t, s.box.Name()))
}
