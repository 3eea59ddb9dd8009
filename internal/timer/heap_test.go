package timer

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"midplane/internal/mono"
)

type owner struct {
	timer Timer[owner]
	at    mono.Time
	age   int
}

// The heap against a list that is sorted again after each step.
func TestHeap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var h Heap[owner]
		var want []*owner
		owners := make([]*owner, 20)
		for i := range owners {
			owners[i] = &owner{at: mono.Never}
		}
		age := 0
		set := func(o *owner, at mono.Time) {
			if at == o.at {
				return
			}
			age++
			o.at, o.age = at, age
			want = slices.DeleteFunc(want, func(x *owner) bool { return x == o })
			if at != mono.Never {
				want = append(want, o)
			}
			slices.SortFunc(want, func(a, b *owner) int {
				return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.age, b.age))
			})
		}
		anOwner := rapid.SampledFrom(owners)
		anyTime := rapid.Custom(func(rt *rapid.T) mono.Time {
			// Few times, so that many are equal.
			if at := rapid.Int64Range(-3, 8).Draw(rt, "at"); at < 8 {
				return mono.Time(at)
			}
			return mono.Never
		})
		for _, o := range owners {
			at := anyTime.Draw(rt, "at")
			h.Set(&o.timer, o, at)
			set(o, at)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				o, at := anOwner.Draw(rt, "owner"), anyTime.Draw(rt, "at")
				h.Set(&o.timer, o, at)
				set(o, at)
			},
			"stop": func(rt *rapid.T) {
				o := anOwner.Draw(rt, "owner")
				h.Stop(&o.timer)
				set(o, mono.Never)
			},
			"serve": func(rt *rapid.T) {
				if len(want) == 0 {
					rt.Skip()
				}
				o := h.Due(mono.Never)
				if o != want[0] {
					rt.Fatalf("first is of %v and age %d, want %v and %d", o.at, o.age, want[0].at, want[0].age)
				}
				h.Stop(&o.timer)
				set(o, mono.Never)
			},
			"": func(rt *rapid.T) {
				next, due := mono.Never, (*owner)(nil)
				now := mono.Time(rapid.Int64Range(-4, 9).Draw(rt, "now"))
				if len(want) > 0 {
					if next = want[0].at; next <= now {
						due = want[0]
					}
				}
				if h.Len() != len(want) || h.Next() != next || h.Due(now) != due {
					rt.Fatalf("%d timers, next %v (the right one: %v); want %d, %v", h.Len(), h.Next(), h.Due(now) == due, len(want), next)
				}
				for _, o := range owners {
					if o.timer.Running() != (o.at != mono.Never) {
						rt.Fatalf("a timer for %v says that it runs: %v", o.at, o.timer.Running())
					}
				}
			},
		})
		for _, o := range want {
			if h.Due(o.at) != o {
				rt.Fatal("not in order at the end")
			}
			h.Stop(&o.timer)
		}
		if h.Len() != 0 {
			rt.Fatalf("%d timers left", h.Len())
		}
	})
}

// A heap that has had its size does not allocate, and keeps no owner alive that has left it.
func TestHeapMemory(t *testing.T) {
	var h Heap[owner]
	owners := make([]owner, 100)
	cycle := func() {
		for i := range owners {
			h.Set(&owners[i].timer, &owners[i], mono.Time(i*37%100))
		}
		for i := range owners {
			h.Set(&owners[i].timer, &owners[i], mono.Time(i*41%100))
		}
		for h.Len() > 0 {
			h.Stop(&h.Due(mono.Never).timer)
		}
	}
	cycle()
	if n := testing.AllocsPerRun(100, cycle); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i, s := range h.slots[:cap(h.slots)] {
		if s.t != nil {
			t.Errorf("slot %d still points to a timer", i)
		}
	}
	for i := range owners {
		if owners[i].timer.owner != nil {
			t.Errorf("timer %d still points to its owner", i)
		}
	}
}

func BenchmarkHeap(b *testing.B) {
	for _, n := range []int{16, 4096} {
		var h Heap[owner]
		owners := make([]owner, n)
		r := rand.New(rand.NewPCG(1, 2))
		for i := range owners {
			h.Set(&owners[i].timer, &owners[i], mono.Time(r.IntN(1<<30)))
		}
		b.Run("SetAny/"+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				o := &owners[i&(n-1)]
				h.Set(&o.timer, o, mono.Time(r.IntN(1<<30)))
			}
		})
		b.Run("PutOffFirst/"+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o := h.Due(mono.Never)
				h.Set(&o.timer, o, h.Next()+mono.Time(1<<29+r.IntN(1<<10)))
			}
		})
	}
}
