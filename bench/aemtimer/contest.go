package main

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"midplane/aem"
)

// cpu returns the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost returns the processor time of one of n operations in ns.
func cost(n int, f func()) float64 {
	before := cpu()
	f()
	return float64(cpu()-before) / float64(n)
}

// heap returns what is in use. Stopped timers of the runtime live until it looks at them, so one collection is not enough.
func heap() float64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// repeats is how often the timers are moved to an earlier time again.
const repeats = 8

func standard(p *plan) measured {
	n := len(p.far)
	m := measured{costs: map[string]float64{}}
	created, timers := make([]*time.Timer, n), make([]*time.Timer, n)
	before := heap()
	nothing := func() {}
	m.costs[set] = cost(n, func() {
		for i, d := range p.far {
			created[i] = time.AfterFunc(d, nothing)
		}
	})
	m.octets = (heap() - before) / float64(n)
	for k, i := range p.order {
		timers[k] = created[i]
	}
	reset := func(by time.Duration) func() {
		return func() {
			for k, t := range timers {
				t.Reset(p.ordered[k] + by)
			}
		}
	}
	m.costs[later] = cost(n, reset(3*time.Minute))
	m.costs[back] = cost(n, reset(2*time.Minute))
	m.costs[earlier] = cost(n, reset(-time.Second))
	m.costs[deferred] = look(timers[0], p.ordered[0]) / float64(n)
	m.costs[again] = cost(n*repeats, func() {
		for k := range repeats {
			reset(-time.Duration(k+2) * time.Second)()
		}
	})
	look(timers[0], p.ordered[0])
	m.costs[soon] = cost(n, func() {
		for _, t := range timers {
			t.Reset(900 * time.Millisecond)
		}
	})
	m.costs[stop] = cost(n, func() {
		for _, t := range timers {
			t.Stop()
		}
	})
	return m
}

// look has one of the timers of a heap fire, which makes the runtime look at all that were moved: processor time in ns, less
// what it takes when none was moved.
func look(t *time.Timer, far time.Duration) float64 {
	var took [2]float64
	for k := range took {
		took[k] = cost(1, func() {
			t.Reset(time.Millisecond)
			time.Sleep(50 * time.Millisecond)
		})
		t.Reset(far)
		time.Sleep(time.Millisecond)
	}
	return took[0] - took[1]
}

// follow runs timers for a while, in which they look at all that were moved. It returns how long they took at most in one go.
func follow(ts *aem.Timers) (worst time.Duration) {
	for end := time.Now().Add(900 * time.Millisecond); time.Now().Before(end); {
		time.Sleep(ts.Wait())
		start := time.Now()
		ts.Run()
		worst = max(worst, time.Since(start))
	}
	return worst
}

func wheel(p *plan) measured {
	n := len(p.far)
	m := measured{costs: map[string]float64{}}
	created, timers := make([]aem.Timer, n), make([]aem.Timer, n)
	before := heap()
	var nothing aem.TimerHandler = aem.TimerFunc(func(aem.Timer) {})
	ts := aem.NewTimers()
	m.costs[set] = cost(n, func() {
		for i, d := range p.far {
			created[i] = ts.Set(d, nothing)
		}
	})
	m.octets = (heap() - before) / float64(n)
	for k, i := range p.order {
		timers[k] = created[i]
	}
	reset := func(by time.Duration) func() {
		return func() {
			for k, t := range timers {
				ts.Reset(t, p.ordered[k]+by)
			}
		}
	}
	m.costs[later] = cost(n, reset(3*time.Minute))
	m.costs[back] = cost(n, reset(2*time.Minute))
	ts.Run() // a loop does it all the time; else the next one would make up for all that
	m.costs[earlier] = cost(n, reset(-time.Second))
	m.costs[deferred] = cost(n, func() { m.worst = follow(ts) })
	m.costs[again] = cost(n*repeats, func() {
		for k := range repeats {
			reset(-time.Duration(k+2) * time.Second)()
		}
	})
	follow(ts)
	m.costs[soon] = cost(n, func() {
		for _, t := range timers {
			ts.Reset(t, 900*time.Millisecond)
		}
	})
	m.costs[soonDeferred] = cost(n, func() { ts.Wait() }) // looks at them
	m.costs[stop] = cost(n, func() {
		for _, t := range timers {
			ts.Stop(t)
		}
	})
	return m
}

// shot is a timer that is to fire.
type shot struct {
	at, late time.Duration
}

func makeShots(n int) []shot {
	r := rand.New(rand.NewPCG(3, 4))
	span := time.Duration(float64(n) / perSecond * float64(time.Second))
	shots := make([]shot, n)
	for i := range shots {
		shots[i].at = time.Duration(r.Int64N(int64(span)))
	}
	return shots
}

// lead is how long before the first shot all timers are set.
const lead = 2 * time.Second

func lateness(m *measured, shots []shot) {
	late := make([]time.Duration, len(shots))
	for i := range shots {
		late[i] = shots[i].late
	}
	slices.Sort(late)
	m.p50, m.p99, m.most = late[len(late)/2], late[len(late)*99/100], late[len(late)-1]
}

func fireStandard(shots []shot) measured {
	m := measured{costs: map[string]float64{}}
	runtime.GC()
	var left atomic.Int64
	left.Store(int64(len(shots)))
	done := make(chan struct{})
	start := time.Now().Add(lead)
	for i := range shots {
		s := &shots[i]
		time.AfterFunc(s.at+time.Until(start), func() {
			s.late = time.Since(start) - s.at
			if left.Add(-1) == 0 {
				close(done)
			}
		})
	}
	time.Sleep(time.Until(start))
	m.costs[fire] = cost(len(shots), func() { <-done })
	lateness(&m, shots)
	return m
}

// target counts the shots of aem, all of which fire in one goroutine.
type target struct {
	start time.Time
	left  int
}

type aimed struct {
	shot
	*target
}

// Expired is the handler of the timer.
func (s *aimed) Expired(aem.Timer) {
	s.late = time.Since(s.start) - s.at
	s.left--
}

func fireWheel(shots []shot) measured {
	m := measured{costs: map[string]float64{}}
	to := &target{left: len(shots)}
	all := make([]aimed, len(shots))
	runtime.GC()
	ts := aem.NewTimers()
	to.start = time.Now().Add(lead)
	for i := range all {
		s := &all[i]
		s.shot, s.target = shots[i], to
		ts.Update()
		ts.Set(s.at+time.Until(to.start), s)
	}
	loop := func(until func() bool) {
		for !until() {
			if d := ts.Wait(); d > 0 {
				time.Sleep(d)
			}
			ts.Run()
		}
	}
	loop(func() bool { return time.Now().After(to.start.Add(-5 * time.Millisecond)) })
	m.costs[fire] = cost(len(shots), func() { loop(func() bool { return to.left == 0 }) })
	for i := range all {
		shots[i].late = all[i].late
	}
	lateness(&m, shots)
	return m
}
