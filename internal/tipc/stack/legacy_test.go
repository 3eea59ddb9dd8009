package stack_test

import (
	"testing"
	"time"

	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// Nodes with <Z.C.N> addresses need no trial, find each other within the bearer's domain only, and prefer what is bound
// at home.
func TestLegacyAddresses(t *testing.T) {
	zcn := func(z, c, n uint32) uint32 { return z<<24 | c<<12 | n }
	w := newWorld(t, 1)
	w.addrs = []uint32{0, zcn(1, 1, 1), zcn(1, 1, 2), zcn(1, 2, 3)}
	w.domain = zcn(1, 1, 0)
	a, b, c := w.add(1), w.add(2), w.add(3)
	if a.addr() != zcn(1, 1, 1) {
		t.Fatalf("address %x before any trial could end", a.addr())
	}
	w.run(5 * time.Second)
	if !a.up(b) || !b.up(a) || a.up(c) || c.up(a) || b.up(c) {
		t.Errorf("contacts: %v %v %v %v", a.up(b), b.up(a), a.up(c), c.up(a))
	}
	home, away := a.bound(socket.RDM, rangeOf(500, 1, 1)), b.bound(socket.RDM, rangeOf(500, 1, 1))
	w.run(100 * time.Millisecond)
	s := a.socket(socket.RDM)
	for range 10 {
		if _, err := s.Send(w.now, []byte("x"), service(500, 1)); err != nil {
			t.Fatal(err)
		}
		a.flush()
	}
	w.run(10 * time.Millisecond)
	if home.RecvQueueDepth() != 10 || away.RecvQueueDepth() != 0 {
		t.Errorf("%d messages at home, %d away", home.RecvQueueDepth(), away.RecvQueueDepth())
	}
	if id, _ := a.s.Nodes().NodeID(b.addr()); id != b.s.ID() || id == (wire.NodeID{}) {
		t.Errorf("identity %x, its own %x", id, b.s.ID())
	}
}
