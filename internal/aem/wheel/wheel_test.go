package wheel

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"midplane/internal/mono"

	"pgregory.net/rapid"
)

const tick = time.Duration(1) << TickShift

// slow is what a wheel does, by looking at every timer.
type slow struct {
	at  map[ID]mono.Time
	key map[ID]int64 // the tick in whose turn it is handed out
}

func (s *slow) set(x ID, at, now mono.Time) {
	s.at[x], s.key[x] = at, max(tickOf(at), int64(now)>>TickShift)
}

func (s *slow) stop(x ID) (was bool) {
	_, was = s.at[x]
	delete(s.at, x)
	delete(s.key, x)
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
		w, ref := New(now), &slow{map[ID]mono.Time{}, map[ID]int64{}}
		ids := []ID{{}} // all that there ever were
		most := rapid.IntRange(1, 60).Draw(t, "timers")
		distance := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(-2, 1<<rapid.IntRange(1, 61).Draw(t, "scale")).Draw(t, "distance"))
		})
		// pick returns an ID, mostly one of the last few.
		pick := func(t *rapid.T) ID {
			from := 0
			if rapid.IntRange(0, 3).Draw(t, "any") > 0 {
				from = max(0, len(ids)-most)
			}
			return ids[rapid.IntRange(from, len(ids)-1).Draw(t, "timer")]
		}
		set := func(t *rapid.T) {
			if len(ref.at) >= most {
				return
			}
			at := now.Add(distance.Draw(t, "in"))
			x := w.Set(at, len(ids))
			for _, y := range ids {
				if x == y {
					t.Fatalf("ID %v comes twice", x)
				}
			}
			ids = append(ids, x)
			ref.set(x, at, now)
		}
		reset := func(t *rapid.T, x ID, at mono.Time) {
			_, want := ref.at[x]
			if got := w.Reset(x, at); got != want {
				t.Fatalf("Reset says %v", got)
			}
			if want {
				ref.set(x, at, now)
			}
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
			for left := 200; ; left-- {
				x, owner, ok := w.Expired()
				if !ok {
					break
				}
				at, ok := ref.at[x]
				switch {
				case !ok:
					t.Fatalf("a timer expired at %v that is not set", now)
				case at > now || w.IsSet(x) || ids[owner.(int)] != x:
					t.Fatalf("a timer for %v, set %v, of %v, expired at %v", at, w.IsSet(x), owner, now)
				case ref.key[x] < last:
					t.Fatalf("a timer of tick %d expired after one of tick %d", ref.key[x], last)
				}
				last = ref.key[x]
				ref.stop(x)
				if left > 0 && rapid.IntRange(0, 3).Draw(t, "in the handler") == 0 {
					reset(t, x, now) // of no effect
					set(t)
					reset(t, pick(t), now.Add(distance.Draw(t, "in")))
					stop(t)
				}
			}
			if n := ref.due(now); n > 0 {
				t.Fatalf("%d timers are due at %v and did not expire", n, now)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":   set,
			"stop":  stop,
			"reset": func(t *rapid.T) { reset(t, pick(t), now.Add(distance.Draw(t, "in"))) },
			"reset by little": func(t *rapid.T) {
				x := pick(t)
				reset(t, x, ref.at[x].Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Second)).Draw(t, "by"))))
			},
			"reset to earlier and far": func(t *rapid.T) {
				x := pick(t)
				if far := ref.at[x].Sub(now) - (farAway-10)*tick; far > 0 {
					reset(t, x, ref.at[x].Add(-time.Duration(rapid.Int64Range(0, int64(far)).Draw(t, "by"))))
				}
			},
			"advance by the share of a batch": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(spread*tick)).Draw(t, "by")))
				drain(t)
			},
			"stop and set": func(t *rapid.T) {
				stop(t)
				set(t)
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
				for _, x := range ids {
					at, ok := w.At(x)
					if want, set := ref.at[x]; ok != set || at != want || w.IsSet(x) != set {
						t.Fatalf("timer %v is set %v for %v, want %v", x, ok, at, want)
					}
				}
				for _, at := range ref.at {
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
	for i := w.free; i != 0; i = uint32(w.record(i).at) {
		if free[i] {
			t.Fatalf("record %d is free twice", i)
		}
		free[i] = true
	}
	live := 0
	for i := uint32(1); i < w.used; i++ {
		r := w.record(i)
		gone := free[i] || r.gen == lastGen && r.entry == 0
		switch {
		case gone && (r.gen%2 != 0 || r.entry != 0 || r.owner != nil):
			t.Fatalf("record %d is free and has generation %d, entry %d, owner %v", i, r.gen, r.entry, r.owner)
		case !gone && entries[entry{r.entry, i}] == 0:
			t.Fatalf("record %d has no entry %d", i, r.entry)
		}
		if p := &w.pages[i/pageLen]; r.gen%2 != 0 && (p.near.marks|p.far.marks)>>(i/markLen%64)&1 == 0 && !r.covered(w.tick+max(0, min(tickOf(r.at)-w.tick, horizon))) {
			t.Fatalf("timer %d for %v has entry %d, and no mark", i, r.at, r.entry)
		}
		live += int(r.gen & 1)
	}
	var listed [2]int
	list := func(which int, first uint32, of func(*leaf) *moved) (n int) {
		for k := first; k != 0; k = of(&w.pages[k-1]).next {
			if n++; of(&w.pages[k-1]).marks == 0 || n > len(w.pages) {
				t.Fatalf("page %d is in a list without marks, or twice", k-1)
			}
		}
		listed[which] += n
		return n
	}
	near, far := func(p *leaf) *moved { return &p.near }, func(p *leaf) *moved { return &p.far }
	list(0, w.near.first, near)
	if pages, left := list(1, w.far.first, far), 0; w.far.left > 0 {
		if left = list(1, w.far.batch, far); pages != w.far.pages || left != w.far.left {
			t.Fatalf("%d and %d pages of far moves, counted as %d and %d", pages, left, w.far.pages, w.far.left)
		}
	}
	for i := range w.pages {
		listed[0] -= min(1, bits.OnesCount64(w.pages[i].near.marks))
		listed[1] -= min(1, bits.OnesCount64(w.pages[i].far.marks))
	}
	if listed != [2]int{} {
		t.Fatalf("%d pages more than those with marks are in lists", listed)
	}
	if live != w.live {
		t.Fatalf("%d timers in the table, counted as %d", live, w.live)
	}
}

// A program that sets, moves and stops timers for ever makes the wheel no larger than three times what it has set at most.
func TestEntriesAreBounded(t *testing.T) {
	const most = 5000
	for name, do := range map[string]func(w *Wheel, x *ID, r *rand.Rand, i int){
		"set and stop": func(w *Wheel, x *ID, r *rand.Rand, i int) {
			w.Stop(*x)
			*x = w.Set(mono.Time(r.Int64N(int64(time.Hour))), nil)
		},
		"ever earlier": func(w *Wheel, x *ID, r *rand.Rand, i int) {
			if at := mono.Time(time.Hour*1000) - mono.Time(i)*mono.Time(tick); !w.Reset(*x, at) {
				*x = w.Set(at, nil)
			}
		},
		"one slot": func(w *Wheel, x *ID, r *rand.Rand, i int) {
			if !w.Stop(*x) {
				*x = w.Set(mono.Time(time.Hour), nil)
			}
		},
		"due": func(w *Wheel, x *ID, r *rand.Rand, i int) {
			if !w.Stop(*x) {
				*x = w.Set(0, nil)
			}
		},
	} {
		for _, n := range []int{1, 100, most} {
			r := rand.New(rand.NewPCG(1, 2))
			timers := make([]ID, n)
			w := New(0)
			worst := 0
			for i := range 400_000 {
				do(w, &timers[r.IntN(n)], r, i)
				worst = max(worst, w.full*chunkLen)
			}
			intact(t, w)
			bounded(t, w, name, n, worst)
		}
	}
}

// bounded checks what a wheel keeps for n timers: worst entries in full chunks at a time, and records.
func bounded(t *testing.T, w *Wheel, name string, n, worst int) {
	t.Helper()
	if limit := 3*n + 2*slack; worst > limit {
		t.Errorf("%s: %d entries in full chunks with %d timers; want %d at most", name, worst, n, limit)
	}
	if limit := 4*n + 3*slack + (dueSlot+1)*chunkLen; int(w.used) > limit {
		t.Errorf("%s: %d records for %d timers", name, w.used, n)
	}
}

// What stopped timers leave goes without any more being set, a little at each tick.
func TestSweepsWhileTimePasses(t *testing.T) {
	const n = 1 << 18
	timers := make([]ID, n)
	w := New(0)
	for i := range timers {
		timers[i] = w.Set(mono.Time(time.Hour), nil)
	}
	for _, x := range timers {
		w.Stop(x)
	}
	turns := 0
	for ; w.Deadline() != mono.Never; turns++ {
		w.Advance(w.Deadline())
		if _, _, ok := w.Expired(); ok {
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

// An ID does not come again when the generations of its record are used up.
func TestGenerationsEnd(t *testing.T) {
	w := New(0)
	x := w.Set(mono.Time(time.Second), 1)
	w.Stop(x)
	w.record(1).gen = lastGen - 2 // as after 2^31 timers
	seen := map[ID]bool{x: true}
	for i := range 10 {
		now := mono.Time(i+1) * mono.Time(time.Minute)
		x := w.Set(now, i)
		if seen[x] || !w.IsSet(x) {
			t.Fatalf("ID %v comes twice, or is not set", x)
		}
		seen[x] = true
		if i%2 == 0 {
			w.Stop(x)
		}
		w.Advance(now.Add(tick))
		for _, owner, ok := w.Expired(); ok; _, owner, ok = w.Expired() {
			if owner != i || i%2 == 0 {
				t.Fatalf("timer %v expired in place of %d", owner, i)
			}
		}
		intact(t, w)
	}
	if w.used != 3 {
		t.Errorf("%d records were used, want one that is given up, and another", w.used-1)
	}
}

// Ticks in the wheel are modulo 2^31: timers that are further away than that come when they are due.
func TestFarAway(t *testing.T) {
	w := New(0)
	const n, apart = 100, 9 * 24 * time.Hour // to 2 years
	for i := range n {
		w.Set(mono.Time(i+1)*mono.Time(apart), i)
	}
	now := mono.Time(0)
	for i := range n {
		_, owner, ok := w.Expired()
		for ; !ok; _, owner, ok = w.Expired() {
			now = w.Deadline()
			w.Advance(now)
		}
		if at := mono.Time(i+1) * mono.Time(apart); owner != i || now.Sub(at) > tick || now < at {
			t.Fatalf("timer %v came at %v in place of %d at %v", owner, now, i, at)
		}
	}
}

// Waiting for a timer takes few wake-ups, however far away it is.
func TestFewWakeUps(t *testing.T) {
	for _, far := range []time.Duration{time.Millisecond, time.Second, time.Hour, 365 * 24 * time.Hour} {
		w := New(0)
		w.Set(mono.Time(far), nil)
		n := 0
		for now := mono.Time(0); w.Len() > 0; n++ {
			w.Expired()
			now = max(now, w.Deadline())
			w.Advance(now)
		}
		if most := levels * (2 + int(far/(6*24*time.Hour))); n > most {
			t.Errorf("a timer in %v takes %d wake-ups", far, n)
		}
	}
}

// A million timers over a minute: no tick moves more than a little beyond its share.
func TestNoBurst(t *testing.T) {
	const n, span = 1_000_000, time.Minute
	r := rand.New(rand.NewPCG(1, 2))
	at := make([]mono.Time, n)
	w := New(0)
	for i := range at {
		at[i] = mono.Time(r.Int64N(int64(span)))
		w.Set(at[i], &at[i])
	}
	perTick := int(n / (span / tick))
	worst, fired, late := 0, 0, time.Duration(0)
	for now := mono.Time(0); w.Len() > 0; now = now.Add(tick) {
		before := w.moved
		w.Advance(now)
		for _, x, ok := w.Expired(); ok; _, x, ok = w.Expired() {
			fired++
			late = max(late, now.Sub(*x.(*mono.Time)))
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

// A timer takes a record of 32 octets and an entry of 8.
func TestMemory(t *testing.T) {
	const n, span = 1 << 20, 10 * time.Minute
	r := rand.New(rand.NewPCG(1, 2))
	w := New(0)
	for range n {
		w.Set(mono.Time(r.Int64N(int64(span))), nil)
	}
	chunks := w.full
	for i := range w.slot {
		chunks += int(min(w.slot[i].chunks, 1))
	}
	for c := w.spare; c != nil; c = c.next {
		chunks++
	}
	size := uintptr(len(w.pages))*unsafe.Sizeof(page{}) + uintptr(cap(w.pages))*unsafe.Sizeof(leaf{}) + uintptr(chunks)*unsafe.Sizeof(chunk{}) + unsafe.Sizeof(*w)
	if each := float64(size) / n; each > 42 {
		t.Errorf("%.1f octets a timer, want 42 at most", each)
	}
	if size := unsafe.Sizeof(*w); size > 52<<10 {
		t.Errorf("a wheel without timers takes %d octets", size)
	}
}

func TestNoAllocation(t *testing.T) {
	w := New(0)
	now := mono.Time(0)
	for range 10 { // to a steady state
		for i := range 1000 {
			w.Stop(w.Set(now.Add(time.Duration(i)*time.Millisecond), nil))
		}
	}
	var owner any = t
	if n := testing.AllocsPerRun(1000, func() {
		x := w.Set(now.Add(time.Second), owner)
		w.Reset(x, now.Add(2*time.Second))
		w.Reset(x, now.Add(time.Second/2))
		y := w.Set(now.Add(time.Millisecond), owner)
		now = now.Add(3 * time.Millisecond)
		w.Advance(now)
		if id, _, _ := w.Expired(); id != y {
			t.Fatal("not due")
		}
		w.Stop(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchmark(b *testing.B, op func(w *Wheel, x *ID, i int)) {
	const n = 1 << 20
	r := rand.New(rand.NewPCG(1, 2))
	timers := make([]ID, n)
	w := New(0)
	for i := range timers {
		timers[i] = w.Set(mono.Time(time.Minute)+mono.Time(r.Int64N(int64(time.Minute))), nil)
	}
	for i := 0; b.Loop(); i++ {
		op(w, &timers[i%n], i)
	}
}

func BenchmarkResetLater(b *testing.B) {
	benchmark(b, func(w *Wheel, x *ID, i int) { w.Reset(*x, mono.Time(time.Hour)+mono.Time(i)) })
}

func BenchmarkResetAnywhere(b *testing.B) {
	benchmark(b, func(w *Wheel, x *ID, i int) { w.Reset(*x, mono.Time(i%60000)*mono.Time(time.Millisecond)) })
}

func BenchmarkStopSet(b *testing.B) {
	benchmark(b, func(w *Wheel, x *ID, i int) { w.Stop(*x); *x = w.Set(mono.Time(time.Minute)+mono.Time(i), nil) })
}

// TestOwners: whatever an owner is, it comes back as it was.
func TestOwners(t *testing.T) {
	type empty struct{}
	var none *int
	f := func() {}
	owners := []any{nil, none, empty{}, &empty{}, 7, 1 << 40, "text", "", [3]int{1, 2, 3}, true, map[int]int(nil), (chan int)(nil), (func())(nil), f, new(int), []int{1}}
	w := New(0)
	ids := map[ID]int{}
	for i, o := range owners {
		ids[w.Set(mono.Time(5<<TickShift), o)] = i
	}
	w.Advance(mono.Time(6 << TickShift))
	n := 0
	for ; ; n++ {
		id, o, ok := w.Expired()
		if !ok {
			break
		}
		if want := owners[ids[id]]; reflect.TypeOf(o) != reflect.TypeOf(want) || fmt.Sprint(o) != fmt.Sprint(want) {
			t.Errorf("owner is %v, want %v", o, want)
		}
	}
	if n != len(owners) {
		t.Errorf("%d timers were due, want %d", n, len(owners))
	}
}

// TestResetToLongAgo: ticks that are further away than half of their range do not compare.
func TestResetToLongAgo(t *testing.T) {
	for days := 1; days < 60; days++ {
		now := mono.Time(time.Hour * 24 * 100)
		w := New(now)
		x := w.Set(now.Add(time.Hour), nil)
		w.Reset(x, now.Add(-time.Duration(days)*24*time.Hour))
		if id, _, ok := w.Expired(); !ok || id != x {
			t.Errorf("a timer for %d days ago is not due", days)
		}
	}
}
