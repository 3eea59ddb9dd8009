package stack_test

import (
	"testing"
	"time"
)

// Three nodes meet, and honest traffic runs without any attack. If this fails, the hostile tests say nothing.
func TestInnocentTraffic(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1), w.add(2)
	w.add(3)
	w.meet()
	n := newInnocent(a, b)
	n.run(2 * time.Second)
	n.finish()
	t.Logf("%d steps, %v octets, %d datagrams, %d broadcasts", w.steps, n.sent, n.nrdm, n.nmc)
}
