package aemtool

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"midplane/aem"
	"midplane/internal/aem/hist"
	"midplane/internal/aem/loop"
)

// Bench shows on this machine what the executor does for light work under overload, beside goroutines.
type Bench struct {
	For  time.Duration // length of each run
	Load float64       // heavy work offered, as a share of what the processors can do
	JSON bool
	Out  io.Writer
}

const (
	heavyWork  = 2 * time.Millisecond
	heavyLimit = 50 * time.Millisecond // deadline of heavy work
	lightEvery = 2 * time.Millisecond
)

// outcome of one run.
type outcome struct {
	mu    sync.Mutex
	light hist.Hist
	good  atomic.Int64 // heavy tasks that ended in time
	asked int64
}

func (o *outcome) answered(at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.light.Add(time.Since(at))
}

// benchmark is what Bench prints, in JSON with these keys; durations in ns.
type benchmark struct {
	Processors int           `json:"processors"`
	Go         string        `json:"go"`
	Load       float64       `json:"load"`
	For        time.Duration `json:"for_ns"`
	Backends   []backend     `json:"backends"`
	Runs       []benchRun    `json:"runs"`
}

type backend struct {
	Name    string `json:"name"`
	Works   bool   `json:"works"`
	Because string `json:"because,omitempty"` // it does not
}

type benchRun struct {
	Runner string        `json:"runner"`
	P50    time.Duration `json:"light_p50_ns"`
	P99    time.Duration `json:"light_p99_ns"`
	P999   time.Duration `json:"light_p999_ns"`
	Most   time.Duration `json:"light_max_ns"`
	InTime float64       `json:"heavy_in_time"` // share of what the processors could do
}

// Run prints a table, or JSON.
func (b *Bench) Run(ctx context.Context) error {
	r := benchmark{Processors: runtime.NumCPU(), Go: runtime.Version(), Load: b.Load, For: b.For}
	for _, name := range loop.Backends {
		k := backend{Name: name, Works: true}
		if err := loop.Probe(name); err != nil {
			k.Works, k.Because = false, err.Error()
		}
		r.Backends = append(r.Backends, k)
	}
	if !b.JSON {
		r.printMachine(b.Out)
	}
	spin := calibrate()
	for _, x := range []struct {
		name string
		run  func(context.Context, *outcome, func()) error
	}{{"goroutines", b.goroutines}, {"aem", b.executor}} {
		var o outcome
		if err := x.run(ctx, &o, spin); err != nil {
			return err
		}
		h := &o.light
		r.Runs = append(r.Runs, benchRun{
			Runner: x.name, P50: h.Quantile(0.5), P99: h.Quantile(0.99), P999: h.Quantile(0.999), Most: h.Most,
			InTime: float64(o.good.Load()) / (float64(o.asked) / max(b.Load, 1)),
		})
	}
	if b.JSON {
		return json.NewEncoder(b.Out).Encode(r)
	}
	r.printRuns(b.Out)
	return nil
}

func (r *benchmark) printMachine(out io.Writer) {
	fmt.Fprintf(out, "%d processors, %s; light work every %v beside %.1f times the heavy work that they can do, %v each\n\n", r.Processors, r.Go, lightEvery, r.Load, heavyWork)
	for _, k := range r.Backends {
		if k.Works {
			k.Because = "works here"
		}
		fmt.Fprintf(out, "back end %s: %s\n", k.Name, k.Because)
	}
}

func (r *benchmark) printRuns(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nrunner\tlight p50\tp99\tp99.9\tmax\theavy in time\t")
	for _, x := range r.Runs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.0f %%\t\n", x.Runner, short(x.P50), short(x.P99), short(x.P999), short(x.Most), 100*x.InTime)
	}
	w.Flush()
	fmt.Fprintf(out, "\nlight: from its time to its end. heavy in time: ended within %v, of what the processors could do.\n", heavyLimit)
}

// calibrate makes a function that takes heavyWork of processor time.
func calibrate() func() {
	work := func(n int) (x uint64) {
		x = 1
		for range n {
			x = x*6364136223846793005 + 1442695040888963407
		}
		return x
	}
	best := time.Duration(1<<63 - 1)
	const n = 1_000_000
	for range 20 {
		began := time.Now()
		sink.Add(work(n))
		best = min(best, time.Since(began))
	}
	count := int(float64(n) * float64(heavyWork) / float64(best))
	return func() { sink.Add(work(count)) }
}

var sink atomic.Uint64

// offer calls light and heavy at their times, all of those that lie within the run.
func (b *Bench) offer(ctx context.Context, o *outcome, light, heavy func(at time.Time)) error {
	gap := time.Duration(float64(heavyWork) / b.Load / float64(runtime.NumCPU()))
	began := time.Now()
	end := began.Add(b.For)
	nextLight, nextHeavy := began, began
	t := time.NewTimer(0)
	defer t.Stop()
	for nextHeavy.Before(end) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		now := time.Now()
		if now.After(end) {
			now = end
		}
		for ; !nextHeavy.After(now) && nextHeavy.Before(end); nextHeavy = nextHeavy.Add(gap) {
			o.asked++
			heavy(nextHeavy)
		}
		for ; !nextLight.After(now) && nextLight.Before(end); nextLight = nextLight.Add(lightEvery) {
			light(nextLight)
		}
		t.Reset(time.Until(nextHeavy))
	}
	return nil
}

func (b *Bench) goroutines(ctx context.Context, o *outcome, spin func()) error {
	var wg sync.WaitGroup
	err := b.offer(ctx, o, func(at time.Time) {
		wg.Go(func() { o.answered(at) })
	}, func(at time.Time) {
		wg.Go(func() {
			spin()
			if time.Since(at) <= heavyLimit {
				o.good.Add(1)
			}
		})
	})
	wg.Wait()
	return err
}

func (b *Bench) executor(ctx context.Context, o *outcome, spin func()) error {
	ex, err := aem.New(&aem.Config{TakeProcs: true})
	if err != nil {
		return err
	}
	defer ex.Close()
	class, err := ex.Class("heavy", aem.ClassConfig{Level: aem.Normal, Nice: 19, Policy: aem.NewestFirst, Deadline: heavyLimit})
	if err != nil {
		return err
	}
	err = b.offer(ctx, o, func(at time.Time) {
		if ex.Critical().Go(func(*aem.Ctx) { o.answered(at) }) != nil {
			o.answered(at.Add(-time.Hour)) // it was refused: as late as can be
		}
	}, func(at time.Time) {
		_ = class.Go(func(*aem.Ctx) {
			spin()
			if time.Since(at) <= heavyLimit {
				o.good.Add(1)
			}
		})
	})
	if err != nil {
		return err
	}
	return ex.Shutdown(ctx) // what was accepted ends, or its deadline comes
}
