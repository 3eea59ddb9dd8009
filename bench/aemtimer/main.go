// Command aemtimer measures the timers of aem beside time.AfterFunc: a million of them set, moved, stopped, and fired at 500,000 a
// second. Both run in each round, one after the other, over the same times in the same order; what is printed are medians of the
// rounds, and of the ratios within the rounds. Processor time is the process's. See docs/performance.md.
//
//	cd bench && go run ./aemtimer [-rounds 5] [-quick]
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"midplane/bench/internal/stat"
	"midplane/internal/aem/worker"
)

var (
	rounds = flag.Int("rounds", 5, "rounds; medians are reported")
	quick  = flag.Bool("quick", false, "a tenth of the timers, fewer rounds: to see that it runs, not for numbers")
)

// measured is one round of one contender. Costs are processor time for one timer, in ns.
type measured struct {
	costs          map[string]float64
	octets         float64
	worst          time.Duration // that the timers of aem take in one go after all were moved
	p50, p99, most time.Duration // lateness
}

const perSecond = 500_000

// warm is how much memory the process has from the beginning and keeps. New memory of the kernel's has a price of its own (on some virtual
// machines 14 us a page), which is not that of timers; so has giving it back, which the runtime else does while timers are to fire.
const warm = 1 << 30

// The operations, in the order in which they are done.
const (
	set     = "set"
	later   = "reset, later"
	back    = "reset, back to the time before"
	earlier = "reset, earlier than ever"
	again   = "reset, ever earlier, 8 times"
	stop    = "stop"
	fire    = "fire"
	soon    = "reset, to 0.9 s from now"

	// What is left to be done when the timers run.
	deferred     = "reset, earlier than ever, what it costs afterwards"
	soonDeferred = "reset, to 0.9 s from now, what it costs afterwards"
)

func main() {
	flag.Parse()
	n := 1_000_000
	if *quick {
		n, *rounds = n/10, min(*rounds, 2)
	}
	if _, err := worker.TakeHeap(warm, true); err != nil {
		fmt.Fprintln(os.Stderr, "aemtimer:", err)
		os.Exit(1)
	}
	orders := []string{"in order of creation", "in random order"}
	std, own := make([][]measured, 2), make([][]measured, 2)
	var stdFire, ownFire []measured
	for range *rounds {
		for k := range orders {
			p := makePlan(n, k == 1)
			std[k] = append(std[k], standard(p))
			own[k] = append(own[k], wheel(p))
		}
		near := makeShots(n)
		stdFire = append(stdFire, fireStandard(near))
		ownFire = append(ownFire, fireWheel(near))
	}
	fmt.Printf("%s, %d processors; %d timers; %d rounds; ns of processor time for one timer\n\n", runtime.Version(), runtime.NumCPU(), n, *rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\ttime.AfterFunc\taem\tratio\tgoal")
	row := func(a, b []measured, what, suffix string, f func(measured) float64) {
		r := stat.Ratio(stat.Column(a, f), stat.Column(b, func(m measured) float64 { return max(f(m), 1e-9) }))
		fmt.Fprintf(w, "%s%s\t%.1f\t%.1f\t%.1f\t%s\n", what, suffix, stat.MedianOf(a, f), stat.MedianOf(b, f), r, verdict(r >= 5, "at least 5 times"))
	}
	for k, order := range orders {
		for _, what := range []string{set, later, back, earlier, again, soon, stop} {
			row(std[k], own[k], what, ", "+order, func(m measured) float64 { return m.costs[what] })
		}
	}
	for k, order := range orders {
		f := func(m measured) float64 { return m.costs[deferred] }
		fmt.Fprintf(w, "%s, %s\t%.1f\t%.1f\n", deferred, order, stat.MedianOf(std[k], f), stat.MedianOf(own[k], f))
		longest := func(m measured) float64 { return m.worst.Seconds() * 1000 }
		fmt.Fprintf(w, "longest Run after that, ms, %s\t\t%.2f\n", order, stat.MedianOf(own[k], longest))
		fmt.Fprintf(w, "%s, %s\tas above\t%.1f\n", soonDeferred, order, stat.MedianOf(own[k], func(m measured) float64 { return m.costs[soonDeferred] }))
	}
	row(stdFire, ownFire, fire, fmt.Sprintf(", at %d a second", perSecond), func(m measured) float64 { return m.costs[fire] })
	octets := func(m measured) float64 { return m.octets }
	fmt.Fprintf(w, "memory, octets\t%.1f\t%.1f\t%.1f\n", stat.MedianOf(std[0], octets), stat.MedianOf(own[0], octets), stat.MedianOf(std[0], octets)/stat.MedianOf(own[0], octets))
	for _, l := range []struct {
		what string
		f    func(measured) time.Duration
	}{
		{"lateness p50, ms", func(m measured) time.Duration { return m.p50 }},
		{"lateness p99, ms", func(m measured) time.Duration { return m.p99 }},
		{"latest, ms", func(m measured) time.Duration { return m.most }},
	} {
		f := func(m measured) float64 { return l.f(m).Seconds() * 1000 }
		a, b := stat.MedianOf(stdFire, f), stat.MedianOf(ownFire, f)
		goal := ""
		if l.what == "lateness p99, ms" {
			goal = verdict(b <= 5, "at most 5 ms")
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.1f\t%s\n", l.what, a, b, a/b, goal)
	}
	w.Flush()
}

func verdict(ok bool, want string) string {
	if ok {
		return "PASS " + want
	}
	return "MISS " + want
}

// plan is what both contenders do: how far away each timer is set, moved and so on, and in which order they are taken.
type plan struct {
	far     []time.Duration // of the timers in order of creation
	order   []int
	ordered []time.Duration // of the timers in that order
}

func makePlan(n int, random bool) *plan {
	r := rand.New(rand.NewPCG(1, 2))
	p := &plan{}
	for i := range n {
		p.order = append(p.order, i)
		p.far = append(p.far, time.Minute+time.Duration(r.Int64N(int64(time.Minute))))
	}
	if random {
		r.Shuffle(n, func(i, j int) { p.order[i], p.order[j] = p.order[j], p.order[i] })
	}
	for _, i := range p.order {
		p.ordered = append(p.ordered, p.far[i])
	}
	return p
}
