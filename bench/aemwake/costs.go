package main

import (
	"context"
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"midplane/aem"
)

// costs measures what the executor itself costs when it is idle.
func costs() error {
	ex, err := aem.New(nil)
	if err != nil {
		return err
	}
	defer ex.Close()
	inline, err := ex.Class("inline", aem.ClassConfig{Inline: true})
	if err != nil {
		return err
	}
	n, tries := 2000, *rounds
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "Submit to the handler, idle, us\tp50\tgoal")
	for _, row := range []struct {
		what string
		c    *aem.Class
		gap  time.Duration
		goal time.Duration
	}{
		{"inline class", inline, 0, 2 * time.Microsecond},
		{"worker of normal niceness, waited for", ex.Critical(), 0, 2 * time.Microsecond},
		{"worker of normal niceness, after 2 ms of nothing", ex.Critical(), 2 * time.Millisecond, 0},
		{"lowered worker on its thread, waited for", ex.Background(), 0, 0},
		{"lowered worker on its thread, after 2 ms of nothing", ex.Background(), 2 * time.Millisecond, 0},
	} {
		var p50 []time.Duration
		for range tries {
			p50 = append(p50, submitToRun(row.c, n, row.gap))
		}
		slices.Sort(p50)
		verdict := ""
		if row.goal > 0 {
			verdict = pass(p50[len(p50)/2] <= row.goal, fmt.Sprintf("at most %v", row.goal))
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s\n", row.what, float64(p50[len(p50)/2])/1e3, verdict)
	}
	var ns []float64
	for range tries {
		v, err := await(ex)
		if err != nil {
			return err
		}
		ns = append(ns, v)
	}
	slices.Sort(ns)
	fmt.Fprintf(w, "one Await with a deadline, ns\t%.0f\t%s\n", ns[len(ns)/2], pass(ns[len(ns)/2] <= 150, "at most 150 ns"))
	fmt.Fprintf(w, "of which a coroutine of the runtime's, there and back, ns\t%.0f\n", coroutine())
	w.Flush()
	return nil
}

// coroutine returns what it costs to resume one, on a locked thread, until it yields again: less is not to be had.
func coroutine() (ns float64) {
	result := make(chan float64)
	go func() {
		runtime.LockOSThread()
		next, stop := iter.Pull(func(yield func(int) bool) {
			for i := 0; yield(i); i++ {
			}
		})
		defer stop()
		const n = 1_000_000
		start := time.Now()
		for range n {
			next()
		}
		result <- float64(time.Since(start)) / n
	}()
	return <-result
}

// submitToRun returns the median time from Submit to the handler, one task at a time.
func submitToRun(c *aem.Class, n int, gap time.Duration) time.Duration {
	if gap > 0 {
		n /= 10
	}
	var began time.Time
	done := make(chan struct{}, 1)
	t := &aem.Task{Run: func(*aem.Ctx) { began = time.Now() }, Done: func(*aem.Task, aem.Fate) { done <- struct{}{} }}
	var all []time.Duration
	for range n {
		if gap > 0 {
			time.Sleep(gap)
		}
		at := time.Now()
		if c.Submit(t) != nil {
			continue
		}
		<-done
		all = append(all, began.Sub(at))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

var awaits int

// await returns what a wait costs that is completed by the loop: the routine is resumed, goes on, and waits again.
func await(ex *aem.Executor) (ns float64, err error) {
	awaits++
	c, err := ex.Class(fmt.Sprint("await ", awaits), aem.ClassConfig{Inline: true})
	if err != nil {
		return 0, err
	}
	result := make(chan float64)
	go func() {
		runtime.LockOSThread() // as a loop is
		ts := aem.NewTimers()
		rs := aem.NewRoutines(c, ts, nil)
		defer rs.Close()
		var w aem.Wait
		rs.Go(context.Background(), func(r *aem.Routine) error {
			for {
				w = r.Begin()
				if err := r.Await(time.Second); err != nil {
					return err
				}
			}
		}, nil)
		const n = 1_000_000
		start := time.Now()
		for range n {
			w.Complete(nil)
		}
		result <- float64(time.Since(start)) / n
	}()
	return <-result, nil
}
