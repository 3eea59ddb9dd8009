package aem

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// setProcessors lets executors that a test makes from now on see so many processors.
func setProcessors(t *testing.T, f func() int) {
	was := processors
	processors = f
	t.Cleanup(func() { processors = was }) // after the executors have ended
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// The number of workers follows that of processors up and down, for pools that run and for those that come later, and
// GOMAXPROCS with it.
func TestWorkersFollowProcessors(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	var have, running atomic.Int64
	have.Store(2)
	setProcessors(t, func() int { return int(have.Load()) })
	before := runtime.GOMAXPROCS(0)
	ex := newExecutor(t, &Config{TakeProcs: true})
	cfg := ClassConfig{Level: Normal, Deadline: NoDeadline, Budget: time.Hour}
	wide := newClass(t, ex, "wide", cfg)
	cfg.Level, cfg.Workers = Critical, 3
	narrow := newClass(t, ex, "narrow", cfg)
	gate := make(chan struct{})
	defer func() { close(gate) }()
	block := func(c *Class, n int) {
		for range n {
			if err := c.Go(func(*Ctx) {
				running.Add(1)
				<-gate
				running.Add(-1)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	runs := func(want int64) {
		t.Helper()
		eventually(t, "workers", func() bool { return running.Load() == want })
		for range 20 { // no more follow
			time.Sleep(time.Millisecond)
			if n := running.Load(); n != want {
				t.Fatalf("%d tasks run at once, want %d", n, want)
			}
		}
	}
	follow := func(n, pools int) {
		t.Helper()
		have.Store(int64(n))
		eventually(t, "the executor to look", func() bool { return ex.Stats().Workers == n })
		want := max(n*pools+1+spareProcs, runtime.NumCPU())
		eventually(t, "GOMAXPROCS", func() bool { return runtime.GOMAXPROCS(0) == want })
	}
	block(wide, 10)
	runs(2)
	follow(6, 1)
	runs(6)
	follow(1, 1)
	for range 4 { // what runs goes on, and no other takes its place
		gate <- struct{}{}
	}
	runs(2)
	block(narrow, 10) // goes before, and has a bound that is above what there was at first
	gate <- struct{}{}
	gate <- struct{}{}
	runs(1)
	follow(6, 1)
	runs(6)
	if s := narrow.Stats(); s.Running != 3 {
		t.Errorf("%d tasks of a class that may have 3 run", s.Running)
	}
	if err := ex.Background().Do(bounded(t), func(*Ctx) {}); err != nil {
		t.Fatal(err)
	}
	follow(6, 2)
	follow(2, 2)
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("GOMAXPROCS is %d after Close, was %d", n, before)
	}
}

func TestConfiguredWorkersStay(t *testing.T) {
	setProcessors(t, func() int {
		t.Error("the executor looked")
		return 1
	})
	ex := newExecutor(t, &Config{Workers: 3})
	if err := ex.Normal().Do(bounded(t), func(*Ctx) {}); err != nil {
		t.Fatal(err)
	}
	if s := ex.Stats(); s.Workers != 3 {
		t.Errorf("%d workers", s.Workers)
	}
}
