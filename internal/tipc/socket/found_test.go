package socket

import (
	"testing"
	"time"

	"midplane/internal/mono"
)

// With the contact to a node ends the waiting for its multicasts, so that those of its next life are not held behind.
// Found by internal/sim.
func TestHeldMulticastEndsWithContact(t *testing.T) {
	w := newWorld(t, 1, 2)
	r := w.nodes[2].bound(RDM, 500, 1)
	send := func(node, port uint32, data string, syn bool) { w.nodes[2].multicast(node, port, data, syn, 0) }
	send(1, 7, "one", true)
	send(1, 7, "two", true)
	send(3, 7, "other", true)
	w.expectErr(r, ErrWouldBlock)
	w.nodes[2].NodeDown(w.now, 1)
	w.expectErr(r, ErrWouldBlock)
	w.run(patience)
	w.expect(r, "other")
	w.expectErr(r, ErrWouldBlock)
	if w.nodes[2].Deadline() != mono.Never || !r.defq.Empty() {
		t.Error("something is still held")
	}
}

// A multicast is held as long as what was sent before it, another way, may still come: a link that loses much takes
// many seconds. Found by internal/sim.
func TestHeldMulticastWaitsForSlowLinks(t *testing.T) {
	w := newWorld(t, 1, 2)
	r := w.nodes[2].bound(RDM, 500, 1)
	send := func(data string, syn bool) { w.nodes[2].multicast(1, 7, data, syn, 0) }
	send("two", true)
	w.run(15 * time.Second)
	w.expectErr(r, ErrWouldBlock)
	send("one", false)
	w.expect(r, "one")
	w.expect(r, "two")
}
