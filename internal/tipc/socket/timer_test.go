package socket

import (
	"testing"

	"pgregory.net/rapid"

	"midplane/internal/mono"
)

// The heap of timers agrees with looking at all of them.
func TestTimerHeap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, 1)
		n := w.nodes[1]
		var socks []*Sock
		for range 12 {
			socks = append(socks, n.create(RDM))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				s := rapid.SampledFrom(socks).Draw(rt, "socket")
				at := mono.Time(rapid.Int64Range(0, 20).Draw(rt, "at"))
				if at == 0 {
					at = mono.Never
				}
				*rapid.SampledFrom([]*mono.Time{&s.timer, &s.connEnd, &s.lingerEnd, &s.heldEnd}).Draw(rt, "timer") = at
				s.arm()
			},
			"": func(rt *rapid.T) {
				want := mono.Never
				armed := 0
				for _, s := range socks {
					first := s.timer.Min(s.connEnd).Min(s.lingerEnd).Min(s.heldEnd)
					want = want.Min(first)
					if first != mono.Never {
						armed++
					}
					if (first != mono.Never) != (s.heapIdx >= 0) || s.heapIdx >= 0 && n.timers[s.heapIdx] != s {
						rt.Fatal("index")
					}
				}
				if n.Deadline() != want || len(n.timers) != armed {
					rt.Fatalf("deadline %v, want %v; %d timers of %d", n.Deadline(), want, len(n.timers), armed)
				}
			},
		})
		// They come in order, and all of them.
		last := mono.Time(0)
		for n.Deadline() != mono.Never {
			if n.Deadline() < last {
				rt.Fatal("order")
			}
			last = n.Deadline()
			for _, s := range n.timers {
				if s.before(n.timers[0]) {
					rt.Fatal("order of equal timers")
				}
			}
			n.Tick(last)
		}
	})
}
