// Command aemtimer measures the timers of aem beside time.AfterFunc: a million of them set, moved, stopped, and fired at 500,000 a
// second. Both run in each round, one after the other; what is printed are medians of the rounds, and of the ratios within the
// rounds. Processor time is the process's. See docs/performance.md.
//
//	cd bench && go run ./aemtimer [-rounds 5] [-quick]
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"midplane/aem"
	"midplane/bench/internal/stat"
	"midplane/internal/aem/hist"
)

var (
	rounds = flag.Int("rounds", 5, "rounds; medians are reported")
	quick  = flag.Bool("quick", false, "a tenth of the timers, fewer rounds: to see that it runs, not for numbers")
)

// measured is one round of one contender. Costs are processor time for one timer.
type measured struct {
	set, reset, earlier, stop, fire float64 // ns
	octets                          float64
	p50, p99, most                  time.Duration // lateness
}

const perSecond = 500_000

func main() {
	flag.Parse()
	n := 1_000_000
	if *quick {
		n, *rounds = n/10, min(*rounds, 2)
	}
	var std, own []measured
	for range *rounds {
		std = append(std, standard(n))
		own = append(own, wheel(n))
	}
	fmt.Printf("%s, %d processors; %d timers, fired at %d a second; %d rounds\n\n", runtime.Version(), runtime.NumCPU(), n, perSecond, *rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\ttime.AfterFunc\taem\tratio\tgoal")
	for _, row := range []struct {
		what string
		f    func(measured) float64
		unit string
		goal float64 // the ratio that is wanted at least
	}{
		{"set", func(m measured) float64 { return m.set }, "ns", 5},
		{"reset, later", func(m measured) float64 { return m.reset }, "ns", 5},
		{"reset, earlier", func(m measured) float64 { return m.earlier }, "ns", 5},
		// time.AfterFunc's Stop only marks; others take the timer out of the heap later.
		{"stop", func(m measured) float64 { return m.stop }, "ns", 5},
		{"fire", func(m measured) float64 { return m.fire }, "ns", 5},
		{"memory", func(m measured) float64 { return m.octets }, "octets", 0},
	} {
		r := ratios(std, own, row.f)
		goal := ""
		if row.goal > 0 {
			goal = verdict(r >= row.goal, fmt.Sprintf("at least %g times", row.goal))
		}
		fmt.Fprintf(w, "%s\t%.1f %s\t%.1f %s\t%.1f\t%s\n", row.what, stat.MedianOf(std, row.f), row.unit, stat.MedianOf(own, row.f), row.unit, r, goal)
	}
	late := func(m measured) float64 { return m.p99.Seconds() * 1000 }
	fmt.Fprintf(w, "lateness p50\t%.2f ms\t%.2f ms\n", stat.MedianOf(std, func(m measured) float64 { return m.p50.Seconds() * 1000 }), stat.MedianOf(own, func(m measured) float64 { return m.p50.Seconds() * 1000 }))
	fmt.Fprintf(w, "lateness p99\t%.2f ms\t%.2f ms\t%.1f\t%s\n", stat.MedianOf(std, late), stat.MedianOf(own, late), ratios(std, own, late), verdict(stat.MedianOf(own, late) <= 5, "at most 5 ms"))
	fmt.Fprintf(w, "longest\t%.2f ms\t%.2f ms\n", stat.MedianOf(std, func(m measured) float64 { return m.most.Seconds() * 1000 }), stat.MedianOf(own, func(m measured) float64 { return m.most.Seconds() * 1000 }))
	w.Flush()
}

func verdict(ok bool, want string) string {
	if ok {
		return "PASS " + want
	}
	return "MISS " + want
}

func ratios(a, b []measured, f func(measured) float64) float64 {
	return stat.Ratio(stat.Column(a, f), stat.Column(b, func(m measured) float64 { return max(f(m), 1e-9) }))
}

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

func heap() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// times draws when timers are due, after a moment in which they are set.
func times(n int) (far, near []time.Duration, span time.Duration) {
	r := rand.New(rand.NewPCG(1, 2))
	span = time.Duration(float64(n) / perSecond * float64(time.Second))
	for range n {
		far = append(far, time.Minute+time.Duration(r.Int64N(int64(time.Minute))))
		near = append(near, time.Duration(r.Int64N(int64(span))))
	}
	return far, near, span
}

func standard(n int) (m measured) {
	far, near, _ := times(n)
	timers := make([]*time.Timer, n)
	before := heap()
	nothing := func() {}
	m.set = cost(n, func() {
		for i, d := range far {
			timers[i] = time.AfterFunc(d, nothing)
		}
	})
	m.octets = (heap() - before) / float64(n)
	m.reset = cost(n, func() {
		for i, t := range timers {
			t.Reset(far[i] + time.Minute)
		}
	})
	m.earlier = cost(n, func() {
		for i, t := range timers {
			t.Reset(far[i])
		}
	})
	m.stop = cost(n, func() {
		for _, t := range timers {
			t.Stop()
		}
	})
	clear(timers)
	var late atomicHist
	var left atomic.Int64
	left.Store(int64(n))
	done := make(chan struct{})
	start := time.Now().Add(2 * time.Second)
	for _, d := range near {
		at := start.Add(d)
		time.AfterFunc(time.Until(at), func() {
			late.add(time.Since(at))
			if left.Add(-1) == 0 {
				close(done)
			}
		})
	}
	time.Sleep(time.Until(start))
	m.fire = cost(n, func() { <-done })
	h := late.hist()
	m.p50, m.p99, m.most = h.Quantile(0.5), h.Quantile(0.99), h.Most
	return m
}

func wheel(n int) (m measured) {
	far, near, _ := times(n)
	timers := make([]aem.Timer, n)
	ts := aem.NewTimers()
	before := heap()
	m.set = cost(n, func() {
		for i := range timers {
			ts.Set(&timers[i], far[i])
		}
	})
	m.octets = (heap()-before)/float64(n) + float64(n*sizeofTimer)/float64(n)
	m.reset = cost(n, func() {
		for i := range timers {
			ts.Set(&timers[i], far[i]+time.Minute)
		}
	})
	m.earlier = cost(n, func() {
		for i := range timers {
			ts.Set(&timers[i], far[i])
		}
	})
	m.stop = cost(n, func() {
		for i := range timers {
			ts.Stop(&timers[i])
		}
	})
	ts = aem.NewTimers()
	var late hist.Hist
	left := n
	start := time.Now().Add(2 * time.Second)
	fire := func(t *aem.Timer) {
		late.Add(time.Since(t.Arg().(time.Time)))
		left--
	}
	for i := range timers {
		timers[i] = aem.Timer{Fire: fire}
		timers[i].SetArg(start.Add(near[i]))
	}
	ts.Update()
	lead := time.Until(start)
	for i := range timers {
		ts.Set(&timers[i], lead+near[i])
	}
	loop := func(until func() bool) {
		for !until() {
			if d := ts.Wait(); d > 0 {
				time.Sleep(d)
			}
			ts.Run()
		}
	}
	loop(func() bool { return time.Now().After(start.Add(-5 * time.Millisecond)) })
	m.fire = cost(n, func() { loop(func() bool { return left == 0 }) })
	m.p50, m.p99, m.most = late.Quantile(0.5), late.Quantile(0.99), late.Most
	return m
}
