package wheel

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"midplane/internal/mono"

	"pgregory.net/rapid"
)

const tick = time.Duration(1) << TickShift

// slow is what a wheel does, by looking at every timer.
type slow struct {
	at  map[*Timer]mono.Time
	key map[*Timer]int64 // the tick in whose turn it is handed out
}

func newSlow() *slow { return &slow{map[*Timer]mono.Time{}, map[*Timer]int64{}} }

func (s *slow) set(x *Timer, at, now mono.Time) {
	s.at[x], s.key[x] = at, max(tickOf(at), int64(now)>>TickShift)
}

func (s *slow) stop(x *Timer) (was bool) {
	_, was = s.at[x]
	delete(s.at, x)
	return was
}

func (s *slow) due(now mono.Time) (n int) {
	for _, at := range s.at {
		if tickOf(at) <= int64(now)>>TickShift {
			n++
		}
	}
	return n
}

func TestLikeReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := mono.Time(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "origin"))
		w, ref := New(now), newSlow()
		timers := make([]Timer, rapid.IntRange(1, 60).Draw(t, "timers"))
		pick := func(t *rapid.T) *Timer { return &timers[rapid.IntRange(0, len(timers)-1).Draw(t, "timer")] }
		distance := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(-2, 1<<rapid.IntRange(1, 61).Draw(t, "scale")).Draw(t, "distance"))
		})
		set := func(t *rapid.T) {
			x, at := pick(t), now.Add(distance.Draw(t, "in"))
			w.Set(x, at)
			ref.set(x, at, now)
		}
		stop := func(t *rapid.T) {
			x := pick(t)
			want := ref.stop(x)
			if got := w.Stop(x); got != want {
				t.Fatalf("Stop says %v", got)
			}
		}
		// drain takes what is due, and what handlers set for a time that has come.
		drain := func(t *rapid.T) {
			w.Advance(now)
			last := int64(-1 << 62)
			for left := 1000; ; left-- {
				x := w.Expired()
				if x == nil {
					break
				}
				at, ok := ref.at[x]
				switch {
				case !ok:
					t.Fatalf("a timer expired at %v that is not set", now)
				case at > now || x.IsSet() || x.At() != at:
					t.Fatalf("a timer for %v, of %v, set %v, expired at %v", at, x.At(), x.IsSet(), now)
				case ref.key[x] < last:
					t.Fatalf("a timer of tick %d expired after one of tick %d", ref.key[x], last)
				}
				last = ref.key[x]
				ref.stop(x)
				if left > 0 && rapid.IntRange(0, 3).Draw(t, "in the handler") == 0 {
					set(t)
					stop(t)
				}
			}
			if n := ref.due(now); n > 0 {
				t.Fatalf("%d timers are due at %v and did not expire", n, now)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":  set,
			"stop": stop,
			"set again": func(t *rapid.T) {
				x := pick(t)
				if old, ok := ref.at[x]; ok {
					at := old.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Second)).Draw(t, "by")))
					w.Set(x, at)
					ref.set(x, at, now)
				}
			},
			"copy": func(t *rapid.T) { // of one that is not set: both are timers
				x, y := pick(t), pick(t)
				if !x.IsSet() && !y.IsSet() {
					*y = *x
				}
			},
			"advance": func(t *rapid.T) {
				now = now.Add(max(0, distance.Draw(t, "by")) / 4)
				drain(t)
			},
			"to the deadline": func(t *rapid.T) {
				d := w.Deadline()
				if len(ref.at) == 0 {
					if d != mono.Never {
						t.Fatalf("deadline %v without timers", d)
					}
					return
				}
				if d < now-mono.Time(tick) {
					t.Fatalf("deadline %v has passed at %v", d, now)
				}
				if d < mono.Never/2 {
					now = max(now, d)
				}
				drain(t)
			},
			"": func(t *rapid.T) {
				if w.Len() != len(ref.at) {
					t.Fatalf("%d timers, want %d", w.Len(), len(ref.at))
				}
				d := w.Deadline()
				for x, at := range ref.at {
					if !x.IsSet() || x.At() != at {
						t.Fatalf("a timer is set %v for %v, want %v", x.IsSet(), x.At(), at)
					}
					if first := mono.Time(tickOf(at) << TickShift); at < mono.Never-1<<TickShift && d > max(first, now) {
						t.Fatalf("deadline %v is after a timer at %v", d, first)
					}
				}
				intact(t, w)
			},
		})
	})
}

type failer interface {
	Fatalf(format string, args ...any)
}

// intact checks what the wheel keeps twice, and that every place is free, or has its entry.
func intact(t failer, w *Wheel) {
	entries := map[entry]int{}
	full := 0
	count := func(c *chunk, from, to int) {
		for _, e := range c.entry[from:to] {
			entries[e]++
		}
	}
	for i := range w.slot {
		s := &w.slot[i]
		n, chunks := 0, 0
		for c := s.head; c != nil; c = c.next {
			from, to := 0, chunkLen
			if c == s.head {
				from = int(s.from)
			}
			if c == s.tail {
				to = int(s.to)
			} else {
				full++
			}
			count(c, from, to)
			n += to - from
			chunks++
		}
		if n != s.len() || chunks != int(s.chunks) || (chunks > 0) != (w.filled[i/64]>>(i%64)&1 != 0) || (chunks == 0) != (s.tail == nil) {
			t.Fatalf("slot %d has %d entries in %d chunks, counted as %d in %d", i, n, chunks, s.len(), s.chunks)
		}
	}
	if full != w.full {
		t.Fatalf("%d full chunks, counted as %d", full, w.full)
	}
	if w.now.chunk != nil {
		count(w.now.chunk, w.now.from, w.now.to)
	}
	free := map[uint32]bool{}
	for i := w.free; i != 0; i = w.pages[i/pageLen].entry[i%pageLen] >> 1 {
		if free[i] {
			t.Fatalf("place %d is free twice", i)
		}
		free[i] = true
	}
	live := 0
	for i := uint32(1); i < w.used; i++ {
		x, e := w.pages[i/pageLen].timer[i%pageLen], w.pages[i/pageLen].entry[i%pageLen]
		switch {
		case free[i] && (x != nil || e%2 != 0):
			t.Fatalf("place %d is free and has timer %p, entry %d", i, x, e)
		case !free[i] && entries[entry{e, i}] == 0:
			t.Fatalf("place %d has no entry %d", i, e)
		case x != nil && (x.ref>>1 != i || !x.IsSet()):
			t.Fatalf("place %d has a timer of place %d, set %v", i, x.ref>>1, x.IsSet())
		}
		if x != nil {
			live++
		}
	}
	if live != w.live {
		t.Fatalf("%d timers in the table, counted as %d", live, w.live)
	}
}

// A program that sets, moves and stops timers for ever makes the wheel no larger than three times what it has set at most.
func TestEntriesAreBounded(t *testing.T) {
	const most = 5000
	for name, do := range map[string]func(w *Wheel, x *Timer, r *rand.Rand, i int){
		"set and stop": func(w *Wheel, x *Timer, r *rand.Rand, i int) {
			if !w.Stop(x) {
				w.Set(x, mono.Time(r.Int64N(int64(time.Hour))))
			}
		},
		"ever earlier": func(w *Wheel, x *Timer, r *rand.Rand, i int) {
			w.Set(x, mono.Time(time.Hour*1000)-mono.Time(i)*mono.Time(tick))
		},
		"new timers": func(w *Wheel, x *Timer, r *rand.Rand, i int) {
			w.Stop(x)
			*x = Timer{}
			w.Set(x, mono.Time(r.Int64N(int64(time.Minute))))
		},
		"one slot": func(w *Wheel, x *Timer, r *rand.Rand, i int) {
			w.Stop(x)
			*x = Timer{}
			w.Set(x, mono.Time(time.Hour))
		},
		"due": func(w *Wheel, x *Timer, r *rand.Rand, i int) {
			w.Stop(x)
			*x = Timer{}
			w.Set(x, 0)
		},
	} {
		for _, n := range []int{1, 100, most} {
			r := rand.New(rand.NewPCG(1, 2))
			timers := make([]Timer, n)
			w := New(0)
			worst := 0
			for i := range 400_000 {
				do(w, &timers[r.IntN(n)], r, i)
				worst = max(worst, w.full*chunkLen)
			}
			intact(t, w)
			if limit := 3*n + 2*slack; worst > limit {
				t.Errorf("%s: %d entries in full chunks with %d timers; want %d at most", name, worst, n, limit)
			}
			if limit := 3*n + 2*slack + (dueSlot+1)*chunkLen; int(w.used) > limit {
				t.Errorf("%s: %d places for %d timers", name, w.used, n)
			}
		}
	}
}

// What stopped timers leave goes without any more being set, a little at each tick.
func TestSweepsWhileTimePasses(t *testing.T) {
	const n = 1 << 18
	timers := make([]Timer, n)
	w := New(0)
	for i := range timers {
		w.Set(&timers[i], mono.Time(time.Hour))
	}
	for i := range timers {
		w.Stop(&timers[i])
	}
	turns := 0
	for ; w.Deadline() != mono.Never; turns++ {
		w.Advance(w.Deadline())
		if w.Expired() != nil {
			t.Fatal("a stopped timer expired")
		}
	}
	intact(t, w)
	if w.full*chunkLen > slack {
		t.Errorf("%d chunks are left", w.full)
	}
	if most := n/(sweepsPerTick*chunkLen) + 2; turns > most {
		t.Errorf("it took %d ticks, want %d at most", turns, most)
	}
}

// A timer that was stopped may be set in another wheel, and a wheel does not stop the timer of another.
func TestTwoWheels(t *testing.T) {
	a, b := New(0), New(0)
	var x, y Timer
	a.Set(&x, mono.Time(time.Second))
	b.Set(&y, mono.Time(time.Second))
	if b.Stop(&x) || a.Stop(&y) || !x.IsSet() || !y.IsSet() {
		t.Fatal("a wheel stopped a timer of another")
	}
	a.Stop(&x)
	b.Set(&x, mono.Time(2*time.Second))
	for _, w := range []*Wheel{a, b} {
		w.Advance(mono.Time(3 * time.Second))
	}
	if a.Expired() != nil || b.Expired() != &y || b.Expired() != &x || b.Expired() != nil {
		t.Error("timers did not expire where they were set")
	}
}

// Ticks in the wheel are modulo 2^31: timers that are further away than that come when they are due.
func TestFarAway(t *testing.T) {
	w := New(0)
	const n = 100
	timers := make([]Timer, n)
	for i := range timers {
		w.Set(&timers[i], mono.Time(i+1)*mono.Time(9*24*time.Hour)) // to 2 years
	}
	now := mono.Time(0)
	for i := range timers {
		x := w.Expired()
		for ; x == nil; x = w.Expired() {
			now = w.Deadline()
			w.Advance(now)
		}
		if x != &timers[i] || now.Sub(x.At()) > tick {
			t.Fatalf("timer for %v came at %v", x.At(), now)
		}
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
		if most := levels * (2 + int(far/(12*24*time.Hour))); n > most {
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

// What a timer takes: itself, a pointer and a tick in the table, and an entry.
func TestMemory(t *testing.T) {
	const n, span = 1 << 20, 10 * time.Minute
	if size := unsafe.Sizeof(Timer{}); size != 16 {
		t.Errorf("a timer has %d octets", size)
	}
	r := rand.New(rand.NewPCG(1, 2))
	timers := make([]Timer, n)
	w := New(0)
	for i := range timers {
		w.Set(&timers[i], mono.Time(r.Int64N(int64(span))))
	}
	chunks := w.full
	for i := range w.slot {
		chunks += int(min(w.slot[i].chunks, 1))
	}
	for c := w.spare; c != nil; c = c.next {
		chunks++
	}
	size := uintptr(len(w.pages))*unsafe.Sizeof(page{}) + uintptr(cap(w.pages))*8 + uintptr(chunks)*unsafe.Sizeof(chunk{}) + unsafe.Sizeof(*w)
	if each := float64(size) / n; each > 22 {
		t.Errorf("%.1f octets a timer beside the timer itself, want 22 at most", each)
	}
	if size := unsafe.Sizeof(*w); size > 52<<10 {
		t.Errorf("a wheel without timers takes %d octets", size)
	}
}

func TestNoAllocation(t *testing.T) {
	w := New(0)
	timers := make([]Timer, 1000)
	var x, y Timer
	now := mono.Time(0)
	for range 10 { // to a steady state
		for i := range timers {
			w.Set(&timers[i], now.Add(time.Duration(i)*time.Millisecond))
		}
		for i := range timers {
			w.Stop(&timers[i])
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		w.Set(&x, now.Add(time.Second))
		w.Set(&x, now.Add(2*time.Second))
		w.Set(&x, now.Add(time.Second/2))
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
