package socket

import (
	"testing"

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
	w.run(maxHold)
	w.expect(r, "other")
	w.expectErr(r, ErrWouldBlock)
	if w.nodes[2].Deadline() != mono.Never || !r.defq.Empty() {
		t.Error("something is still held")
	}
}
