package node

import (
	"math/rand/v2"
	"testing"

	"midplane/internal/mono"
)

// The heap against a plain search for the minimum.
func TestTimerHeap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var h timerHeap
	var all []*peer
	for range 5000 {
		switch n := len(all); {
		case n == 0 || r.IntN(3) == 0 && n < 60:
			p := &peer{timer: mono.Time(r.IntN(1000))}
			h.add(p)
			all = append(all, p)
		case r.IntN(3) == 0:
			i := r.IntN(n)
			h.remove(all[i])
			all = append(all[:i], all[i+1:]...)
		default:
			h.move(all[r.IntN(n)], mono.Time(r.IntN(1000)))
		}
		if len(h) != len(all) {
			t.Fatalf("%d on the heap, want %d", len(h), len(all))
		}
		for i, p := range h {
			if p.heapPos != i || p.timer < h[0].timer {
				t.Fatalf("element %d knows place %d, time %d, first %d", i, p.heapPos, p.timer, h[0].timer)
			}
		}
	}
}
