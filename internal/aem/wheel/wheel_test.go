package wheel

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"midplane/internal/mono"

	"pgregory.net/rapid"
)

const tick = time.Duration(1) << TickShift

// slow is what a wheel does, by looking at every timer.
type slow map[*Timer]mono.Time

func (s slow) expired(now mono.Time) (due []*Timer) {
	for t, at := range s {
		if tickOf(at) <= int64(now)>>TickShift {
			due = append(due, t)
			delete(s, t)
		}
	}
	return due
}

func sortTimers(l []*Timer) {
	slices.SortFunc(l, func(a, b *Timer) int { return a.Owner.(int) - b.Owner.(int) })
}

func TestLikeReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := mono.Time(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "origin"))
		w, ref := New(now), slow{}
		timers := make([]Timer, rapid.IntRange(1, 60).Draw(t, "timers"))
		for i := range timers {
			timers[i].Owner = i
		}
		distance := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(-2, 1<<rapid.IntRange(1, 56).Draw(t, "scale")).Draw(t, "distance"))
		})
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				x := &timers[rapid.IntRange(0, len(timers)-1).Draw(t, "timer")]
				at := now.Add(distance.Draw(t, "in"))
				w.Set(x, at)
				ref[x] = at
			},
			"set again": func(t *rapid.T) {
				x := &timers[rapid.IntRange(0, len(timers)-1).Draw(t, "timer")]
				if old, ok := ref[x]; ok {
					at := old.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Second)).Draw(t, "by")))
					w.Set(x, at)
					ref[x] = at
				}
			},
			"stop": func(t *rapid.T) {
				x := &timers[rapid.IntRange(0, len(timers)-1).Draw(t, "timer")]
				_, want := ref[x]
				if got := w.Stop(x); got != want {
					t.Fatalf("Stop says %v", got)
				}
				delete(ref, x)
			},
			"advance": func(t *rapid.T) {
				now = now.Add(max(0, distance.Draw(t, "by")))
				w.Advance(now)
				check(t, w, ref, now)
			},
			"to the deadline": func(t *rapid.T) {
				d := w.Deadline()
				if len(ref) == 0 {
					if d != mono.Never {
						t.Fatalf("deadline %v without timers", d)
					}
					return
				}
				if d < now-mono.Time(tick) {
					t.Fatalf("deadline %v has passed at %v", d, now)
				}
				now = max(now, d)
				w.Advance(now)
				check(t, w, ref, now)
			},
			"": func(t *rapid.T) {
				if w.Len() != len(ref) {
					t.Fatalf("%d timers, want %d", w.Len(), len(ref))
				}
				d := w.Deadline()
				for x, at := range ref {
					if !x.IsSet() || x.At() != at {
						t.Fatalf("timer %d is set %v for %v, want %v", x.Owner, x.IsSet(), x.At(), at)
					}
					if first := mono.Time(tickOf(at) << TickShift); at < mono.Never-1<<TickShift && d > max(first, now) {
						t.Fatalf("deadline %v is after timer %d at %v", d, x.Owner, first)
					}
				}
			},
		})
	})
}

func check(t *rapid.T, w *Wheel, ref slow, now mono.Time) {
	var got []*Timer
	for x := w.Expired(); x != nil; x = w.Expired() {
		if x.IsSet() || x.At() > now {
			t.Fatalf("timer %d, due at %v, set %v, expired at %v", x.Owner, x.At(), x.IsSet(), now)
		}
		got = append(got, x)
	}
	want := ref.expired(now)
	sortTimers(got)
	sortTimers(want)
	if !slices.Equal(got, want) {
		t.Fatalf("at %v expired %d timers, want %d", now, len(got), len(want))
	}
}

// Waiting for a timer takes few wake-ups, however far away it is.
func TestFewWakeUps(t *testing.T) {
	for _, far := range []time.Duration{time.Millisecond, time.Second, time.Hour, 365 * 24 * time.Hour} {
		var x Timer
		w := New(0)
		w.Set(&x, mono.Time(far))
		n := 0
		for now := mono.Time(0); w.Expired() == nil; n++ {
			now = max(now, w.Deadline())
			w.Advance(now)
		}
		if n > 2*levels {
			t.Errorf("a timer in %v takes %d wake-ups", far, n)
		}
	}
}

// A million timers over a minute: no tick moves more than a little beyond its share.
func TestNoBurst(t *testing.T) {
	const n, span = 1_000_000, time.Minute
	r := rand.New(rand.NewPCG(1, 2))
	timers := make([]Timer, n)
	w := New(0)
	for i := range timers {
		w.Set(&timers[i], mono.Time(r.Int64N(int64(span))))
	}
	perTick := int(n / (span / tick))
	worst, fired, late := 0, 0, time.Duration(0)
	for now := mono.Time(0); w.Len() > 0; now = now.Add(tick) {
		before := w.moved
		w.Advance(now)
		for x := w.Expired(); x != nil; x = w.Expired() {
			fired++
			late = max(late, now.Sub(x.At()))
		}
		worst = max(worst, w.moved-before)
	}
	if fired != n {
		t.Errorf("%d timers fired", fired)
	}
	if late > tick {
		t.Errorf("%v late", late)
	}
	if most := 2*perTick + levels*quota; worst > most {
		t.Errorf("one tick moved %d timers, with %d a tick in the mean; want %d at most", worst, perTick, most)
	}
}

func TestNoAllocation(t *testing.T) {
	w := New(0)
	var x, y Timer
	now := mono.Time(0)
	if n := testing.AllocsPerRun(1000, func() {
		w.Set(&x, now.Add(time.Second))
		w.Set(&x, now.Add(2*time.Second))
		w.Set(&y, now.Add(time.Millisecond))
		now = now.Add(3 * time.Millisecond)
		w.Advance(now)
		if w.Expired() != &y {
			t.Fatal("not due")
		}
		w.Stop(&x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The arrays of a million timers are not walked in order of memory in any of these.
func benchmark(b *testing.B, op func(w *Wheel, t *Timer, i int)) {
	const n = 1 << 20
	r := rand.New(rand.NewPCG(1, 2))
	timers := make([]Timer, n)
	w := New(0)
	for i := range timers {
		w.Set(&timers[i], mono.Time(r.Int64N(int64(time.Minute))))
	}
	for i := 0; b.Loop(); i++ {
		op(w, &timers[i%n], i)
	}
}

func BenchmarkSetLater(b *testing.B) {
	benchmark(b, func(w *Wheel, t *Timer, i int) { w.Set(t, t.at+1000) })
}

func BenchmarkSetAnywhere(b *testing.B) {
	benchmark(b, func(w *Wheel, t *Timer, i int) { w.Set(t, mono.Time(i%60000)*mono.Time(time.Millisecond)) })
}

func BenchmarkStopSet(b *testing.B) {
	benchmark(b, func(w *Wheel, t *Timer, i int) { w.Stop(t); w.Set(t, t.at) })
}
