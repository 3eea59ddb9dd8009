package wheel

import (
	"math/rand/v2"
	"testing"
	"time"

	"midplane/internal/mono"
)

// Timers that move to earlier times by the hundred thousand fire in their tick, while batches are under way, and when time jumps.
func TestMovedTimersAreOnTime(t *testing.T) {
	const n = 1 << 19 // more pages than a batch has ticks
	for name, jump := range map[string]int64{"each tick": 1, "jumps": 3000} {
		r := rand.New(rand.NewPCG(1, 2))
		w := New(0)
		ids, at := make([]ID, n), make([]mono.Time, n)
		for i := range ids {
			at[i] = mono.Time(time.Minute)
			ids[i] = w.Set(at[i], i)
		}
		now, fired := int64(0), 0
		for step := 0; w.Len() > 0; step++ {
			if step%100 == 0 { // while a batch waits, is under way, and was followed by another
				for range n / 2 {
					i := r.IntN(n)
					earlier := mono.Time(now+jump+r.Int64N(3*farAway)) << TickShift
					if step%300 == 0 {
						earlier = mono.Time(now+jump+farAway) << TickShift // as soon as is far
					}
					if earlier < at[i] && w.Reset(ids[i], earlier) {
						at[i] = earlier
					}
				}
			}
			now += 1 + r.Int64N(jump)
			w.Advance(mono.Time(now << TickShift))
			for _, owner, ok := w.Expired(); ok; _, owner, ok = w.Expired() {
				if tick := tickOf(at[owner.(int)]); tick != w.tick {
					t.Fatalf("%s: a timer of tick %d fired in tick %d", name, tick, w.tick)
				}
				fired++
			}
			if step%100 == 50 {
				intact(t, w)
			}
		}
		if fired != n {
			t.Errorf("%s: %d timers of %d fired", name, fired, n)
		}
	}
}

// What moves is looked at little by little: no tick has more than twice its share, and one of those that came at once.
func TestMovesAreSpread(t *testing.T) {
	const n = 1 << 18
	w := New(0)
	ids := make([]ID, n)
	for i := range ids {
		ids[i] = w.Set(mono.Time(time.Hour), nil)
	}
	for i, x := range ids {
		w.Reset(x, mono.Time(time.Minute)+mono.Time(i)) // in one slot: entries count as they come
	}
	entries := func() (n int) {
		for i := range w.slot {
			n += w.slot[i].len()
		}
		return n
	}
	worst, was := 0, entries()
	for now := range int64(farAway) {
		w.Advance(mono.Time(now << TickShift))
		w.Expired()
		is := entries()
		worst, was = max(worst, is-was), is
	}
	if was < 2*n {
		t.Errorf("%d entries of %d are there", was-n, n)
	}
	if most := 2*n/spread + pageLen; worst > most {
		t.Errorf("one tick looked at %d records, want %d at most", worst, most)
	}
}

// Whatever is done, and how often, the wheel keeps no more entries than three times what is set, a few marks aside, and no more
// records than that: a mark is a bit, however often its timer moves; a batch ends; and of entries that come twice one is swept.
func TestMovesAreBounded(t *testing.T) {
	const n = 10_000
	hour := mono.Time(time.Hour)
	for name, do := range map[string]func(w *Wheel, x ID, now mono.Time, r *rand.Rand) ID{
		"near and back": func(w *Wheel, x ID, now mono.Time, r *rand.Rand) ID {
			w.Reset(x, now.Add(2*tick))
			w.Deadline()
			w.Reset(x, hour)
			return x
		},
		"far and back": func(w *Wheel, x ID, now mono.Time, r *rand.Rand) ID {
			if at, _ := w.At(x); at == hour {
				w.Reset(x, now.Add(2*time.Second))
			} else {
				w.Reset(x, hour)
			}
			return x
		},
		"all": func(w *Wheel, x ID, now mono.Time, r *rand.Rand) ID {
			switch r.IntN(4) {
			case 0:
				w.Stop(x)
			case 1:
				w.Reset(x, now.Add(2*tick))
			default:
				w.Reset(x, now.Add(time.Duration(r.Int64N(int64(time.Minute)))))
			}
			if !w.IsSet(x) {
				x = w.Set(hour, nil)
			}
			return x
		},
	} {
		for _, passes := range []bool{true, false} { // time
			r := rand.New(rand.NewPCG(1, 2))
			w := New(0)
			ids := make([]ID, n)
			for i := range ids {
				ids[i] = w.Set(hour, nil)
			}
			now, worst := mono.Time(0), 0
			for range 50_000 {
				for range 10 {
					i := r.IntN(n)
					ids[i] = do(w, ids[i], now, r)
				}
				worst = max(worst, w.full*chunkLen)
				if passes {
					now = now.Add(tick)
				}
				w.Advance(now)
				for _, _, ok := w.Expired(); ok; _, _, ok = w.Expired() {
				}
			}
			intact(t, w)
			bounded(t, w, name, n, worst)
		}
	}
}

// A loop that does nothing else wakes once for a timer that moved.
func TestFewWakeUpsForMoves(t *testing.T) {
	wakeUps := func(moves ...time.Duration) (n int) {
		w := New(0)
		x := w.Set(mono.Time(time.Hour), nil)
		for _, to := range moves {
			w.Reset(x, mono.Time(to))
		}
		for now := mono.Time(0); w.Len() > 0; n++ {
			w.Expired()
			now = max(now, w.Deadline())
			w.Advance(now)
			if late := now.Sub(mono.Time(moves[len(moves)-1])); w.Len() > 0 && late > tick {
				t.Fatalf("the wheel sleeps until %v after a timer", late)
			}
		}
		return n
	}
	for _, to := range []time.Duration{time.Second, 2 * time.Second, time.Minute} {
		if n := wakeUps(to+time.Minute, to+time.Second, to); n > levels+2 {
			t.Errorf("a timer moved to %v takes %d wake-ups", to, n)
		}
	}
}
