package aem

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"midplane/internal/aem/worker"
)

func newExecutor(t *testing.T, cfg *Config) *Executor {
	t.Helper()
	ex, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ex.Close() })
	return ex
}

func newClass(t *testing.T, ex *Executor, name string, cfg ClassConfig) *Class {
	t.Helper()
	c, err := ex.Class(name, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bounded returns a context that ends long after any test has.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// occupy fills all workers of a class until the returned function is called.
func occupy(t *testing.T, c *Class) (release func()) {
	t.Helper()
	n := int(c.ex.workers.Load())
	began, gate := make(chan struct{}, n), make(chan struct{})
	for range n {
		if err := c.Go(func(*Ctx) { began <- struct{}{}; <-gate }); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		<-began
	}
	return func() { close(gate) }
}

func TestEveryTaskLearnsItsFate(t *testing.T) {
	ex := newExecutor(t, &Config{OnPanic: func(Panic) {}})
	all := []*Class{ex.Critical(), ex.Normal(), ex.Background(), newClass(t, ex, "inline", ClassConfig{Inline: true})}
	for _, c := range all {
		var ran atomic.Int64
		fate := make(chan Fate, 1)
		task := &Task{Run: func(x *Ctx) {
			if x.Class() != c || x.Waited() < 0 || x.Remaining() <= 0 {
				t.Errorf("%s: class %s, waited %v, remaining %v", c.Name(), x.Class().Name(), x.Waited(), x.Remaining())
			}
			ran.Add(1)
		}, Done: func(_ *Task, f Fate) { fate <- f }}
		for range 100 {
			if err := c.Submit(task); err != nil {
				t.Fatal(err)
			}
			if f := <-fate; f != Ran {
				t.Fatalf("%s: %v", c.Name(), f)
			}
		}
		if ran.Load() != 100 {
			t.Errorf("%s: ran %d times", c.Name(), ran.Load())
		}
		if err := c.Do(bounded(t), func(*Ctx) { panic("on purpose") }); FateOf(err) != Panicked {
			t.Errorf("%s: panic: %v", c.Name(), err)
		}
	}
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if s := c.Stats(); s.Accepted != 101 || s.Ran != 100 || s.Panicked != 1 || s.Total.Count != 101 {
			t.Errorf("%s: accepted %d, ran %d, panicked %d, counted %d", c.Name(), s.Accepted, s.Ran, s.Panicked, s.Total.Count)
		}
		if err := c.Go(func(*Ctx) {}); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: after Shutdown: %v", c.Name(), err)
		}
	}
}

// A handler that leaves by runtime.Goexit takes its goroutine with it, and a lowered one its thread; others take over.
func TestGoexit(t *testing.T) {
	ex := newExecutor(t, &Config{OnPanic: func(p Panic) {
		if p.Value != nil || !strings.Contains(p.Stack, "TestGoexit") {
			t.Errorf("value %v, stack %s", p.Value, p.Stack)
		}
	}})
	for _, c := range []*Class{ex.Normal(), ex.Background()} {
		for range 3 * int(ex.workers.Load()) {
			if err := c.Do(bounded(t), func(*Ctx) { runtime.Goexit() }); FateOf(err) != Panicked {
				t.Fatalf("%s: %v", c.Name(), err)
			}
		}
		if err := c.Do(bounded(t), func(*Ctx) {}); err != nil {
			t.Errorf("%s: %v", c.Name(), err)
		}
	}
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Error(err)
	}
}

func TestOverload(t *testing.T) {
	ex := newExecutor(t, nil)
	for name, policy := range map[string]Policy{"reject": Reject, "oldest": ShedOldest, "newest": NewestFirst} {
		c := newClass(t, ex, name, ClassConfig{Level: Normal, Queue: 3, Policy: policy, Deadline: NoDeadline})
		release := occupy(t, c)
		fates := make([]chan Fate, 5)
		errs := make([]error, 5)
		for i := range fates {
			fates[i] = make(chan Fate, 1)
			errs[i] = c.Submit(&Task{Run: func(*Ctx) {}, Done: func(_ *Task, f Fate) { fates[i] <- f }})
		}
		for i := range fates {
			rejected := policy == Reject && i >= 3
			shed := policy != Reject && i < 2
			if got := FateOf(errs[i]) == Rejected; got != rejected {
				t.Errorf("%s: task %d: %v", name, i, errs[i])
			}
			if shed {
				if f := <-fates[i]; f != Shed {
					t.Errorf("%s: task %d is %v", name, i, f)
				}
			}
		}
		release()
		for i := range fates {
			if errs[i] == nil && (policy == Reject || i >= 2) {
				if f := <-fates[i]; f != Ran {
					t.Errorf("%s: task %d is %v", name, i, f)
				}
			}
		}
	}
}

// Strict between levels, the earliest deadline first within one.
func TestOrder(t *testing.T) {
	ex := newExecutor(t, &Config{Workers: 1})
	crit := newClass(t, ex, "c", ClassConfig{Level: Critical})
	norm := newClass(t, ex, "n", ClassConfig{Level: Normal})
	release := occupy(t, norm)
	var mu sync.Mutex
	var order []string
	var all sync.WaitGroup
	submit := func(c *Class, what string, d time.Duration) {
		all.Add(1)
		err := c.Submit(&Task{Deadline: d, Run: func(*Ctx) {
			mu.Lock()
			order = append(order, what)
			mu.Unlock()
		}, Done: func(*Task, Fate) { all.Done() }})
		if err != nil {
			t.Fatal(err)
		}
	}
	submit(norm, "n3", 30*time.Minute)
	submit(norm, "n1", 10*time.Minute)
	submit(norm, "n2", 20*time.Minute)
	submit(crit, "c2", 60*time.Minute)
	submit(crit, "c1", 50*time.Minute)
	submit(norm, "n4", NoDeadline)
	release()
	all.Wait()
	if got := strings.Join(order, " "); got != "c1 c2 n1 n2 n3 n4" {
		t.Errorf("order %s", got)
	}
}

// What waits learns that its deadline has passed although no worker is ever free.
func TestExpires(t *testing.T) {
	ex := newExecutor(t, nil)
	for _, c := range []*Class{ex.Normal(), ex.Background()} {
		release := occupy(t, c)
		fate := make(chan Fate, 1)
		if err := c.Submit(&Task{Deadline: time.Millisecond, Run: func(*Ctx) { t.Error("it ran") }, Done: func(_ *Task, f Fate) { fate <- f }}); err != nil {
			t.Fatal(err)
		}
		if f := <-fate; f != Expired {
			t.Errorf("%s: %v", c.Name(), f)
		}
		release()
	}
}

func TestCancel(t *testing.T) {
	ex := newExecutor(t, nil)
	c := ex.Normal()
	release := occupy(t, c)
	fate := make(chan Fate, 1)
	task := &Task{Run: func(*Ctx) {}, Done: func(_ *Task, f Fate) { fate <- f }}
	if task.Cancel() {
		t.Error("what was not submitted was taken back")
	}
	if err := c.Submit(task); err != nil {
		t.Fatal(err)
	}
	if err := c.Submit(task); !errors.Is(err, ErrBusy) {
		t.Errorf("submitted twice: %v", err)
	}
	if !task.Cancel() || <-fate != Canceled || task.Cancel() {
		t.Error("Cancel")
	}
	ctx, cancel := context.WithCancel(bounded(t))
	done := make(chan error)
	go func() { done <- c.Do(ctx, func(*Ctx) { t.Error("it ran") }) }()
	for c.Stats().Waiting == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Do: %v", err)
	}
	release()
}

// Done may submit the task again: a steady flow without anything new.
func TestResubmitFromDone(t *testing.T) {
	ex := newExecutor(t, nil)
	for _, c := range []*Class{ex.Normal(), ex.Background()} {
		n := 0
		end := make(chan struct{})
		task := &Task{Run: func(*Ctx) { n++ }}
		task.Done = func(x *Task, f Fate) {
			if n == 1000 {
				close(end)
				return
			}
			if err := c.Submit(x); err != nil {
				t.Error(err)
				close(end)
			}
		}
		if err := c.Submit(task); err != nil {
			t.Fatal(err)
		}
		<-end
	}
}

func TestMinInterval(t *testing.T) {
	ex := newExecutor(t, nil)
	const interval = 20 * time.Millisecond
	for _, refuse := range []bool{false, true} {
		var mu sync.Mutex
		var at []time.Time
		var all sync.WaitGroup
		src := &Arrivals{MinInterval: interval, Refuse: refuse}
		rejected := 0
		begin := time.Now()
		for range 4 {
			task := &Task{Source: src, Deadline: NoDeadline, Run: func(*Ctx) {
				mu.Lock()
				at = append(at, time.Now())
				mu.Unlock()
			}, Done: func(*Task, Fate) { all.Done() }}
			all.Add(1)
			if err := ex.Normal().Submit(task); FateOf(err) == Rejected {
				rejected++
				all.Done()
			} else if err != nil {
				t.Fatal(err)
			}
		}
		all.Wait()
		// Handlers may tell late when they began, so the last is measured from before the first was submitted.
		if !refuse && (len(at) != 4 || at[3].Sub(begin) < 3*interval) {
			t.Errorf("%d began within %v", len(at), time.Since(begin))
		}
		if refuse && len(at)+rejected != 4 {
			t.Errorf("%d began, %d rejected", len(at), rejected)
		}
	}
	inline := newClass(t, ex, "inline", ClassConfig{Inline: true})
	src := &Arrivals{MinInterval: time.Hour}
	task := &Task{Source: src, Run: func(*Ctx) {}}
	if err := inline.Submit(task); err != nil {
		t.Error(err)
	}
	if err := inline.Submit(task); FateOf(err) != Rejected || inline.Stats().TooSoon != 1 {
		t.Errorf("inline, too early: %v", err)
	}
}

func TestStall(t *testing.T) {
	stalls := make(chan Stall, 16)
	ex := newExecutor(t, &Config{OnStall: func(s Stall) { stalls <- s }})
	for _, c := range []*Class{
		newClass(t, ex, "lowered", ClassConfig{Level: Normal, Nice: 19, Budget: time.Millisecond}),
		newClass(t, ex, "plain", ClassConfig{Level: Normal, Budget: time.Millisecond}),
		newClass(t, ex, "inline", ClassConfig{Inline: true, Budget: time.Millisecond}),
	} {
		var found atomic.Bool
		end := make(chan struct{})
		go func() {
			defer close(end)
			if err := c.Do(context.Background(), func(*Ctx) { spinUntil(&found) }); err != nil {
				t.Error(err)
			}
		}()
		s := <-stalls
		found.Store(true)
		<-end
		if s.Class != c.Name() || !strings.Contains(s.Handler, "TestStall") || !strings.Contains(s.Stack, "spinUntil") || s.Running < time.Millisecond {
			t.Errorf("%s: class %s, handler %q, running %v, stack %s", c.Name(), s.Class, s.Handler, s.Running, s.Stack)
		}
	}
	if n := ex.Stats().Stalls; n < 3 {
		t.Errorf("%d stalls were counted", n)
	}
}

//go:noinline
func spinUntil(b *atomic.Bool) {
	for !b.Load() {
	}
}

// Handlers that never end do not keep a class from working: as many workers more take their place.
func TestEndlessHandlers(t *testing.T) {
	ex := newExecutor(t, &Config{Workers: 2, OnStall: func(Stall) {}})
	c := newClass(t, ex, "lowered", ClassConfig{Level: Normal, Nice: 19, Budget: time.Millisecond, Deadline: NoDeadline})
	release := occupy(t, c)
	defer release()
	if err := c.Do(bounded(t), func(*Ctx) {}); err != nil {
		t.Error(err)
	}
}

func TestShutdownDrains(t *testing.T) {
	ex := newExecutor(t, nil)
	c := ex.Background()
	release := occupy(t, c)
	fate := make(chan Fate, 1)
	if err := c.Submit(&Task{Run: func(*Ctx) {}, Done: func(_ *Task, f Fate) { fate <- f }}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := ex.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if f := <-fate; f != Drained {
		t.Errorf("what waited is %v", f)
	}
	release()
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.Running != 0 || s.Drained != 1 || int64(s.Ran) != ex.workers.Load() {
		t.Errorf("running %d, drained %d, ran %d", s.Running, s.Drained, s.Ran)
	}
}

// A full executor that is shut down at any moment loses no task: every one that was accepted learns its fate.
func TestNoFateIsLost(t *testing.T) {
	for range 20 {
		ex := newExecutor(t, nil)
		classes := []*Class{ex.Critical(), ex.Normal(), ex.Background(),
			newClass(t, ex, "shedding", ClassConfig{Level: Normal, Queue: 4, Policy: NewestFirst, Nice: 19, Deadline: 3 * time.Millisecond})}
		var accepted, told atomic.Int64
		var submitters sync.WaitGroup
		for i := range 4 {
			submitters.Go(func() {
				for n := 0; ; n++ {
					err := classes[(i+n)%len(classes)].Submit(&Task{Run: func(*Ctx) {}, Done: func(*Task, Fate) { told.Add(1) }})
					if errors.Is(err, ErrClosed) {
						return
					}
					if err == nil {
						accepted.Add(1)
					}
				}
			})
		}
		for accepted.Load() < 1000 {
			runtime.Gosched()
		}
		if err := ex.Shutdown(bounded(t)); err != nil {
			t.Fatal(err)
		}
		submitters.Wait()
		if accepted.Load() != told.Load() {
			t.Fatalf("%d accepted, %d learnt their fate", accepted.Load(), told.Load())
		}
	}
}

func TestTakeProcs(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	before := runtime.GOMAXPROCS(0)
	ex := newExecutor(t, &Config{TakeProcs: true, Workers: 3, Loops: 2})
	if _, err := New(&Config{TakeProcs: true}); !errors.Is(err, worker.ErrProcsTaken) {
		t.Errorf("a second executor: %v", err)
	}
	if err := ex.Background().Do(bounded(t), func(*Ctx) {}); err != nil {
		t.Fatal(err)
	}
	if n := runtime.GOMAXPROCS(0); n != max(3+2+2, before) {
		t.Errorf("GOMAXPROCS is %d with 3 workers, 2 loops and two spare ones", n)
	}
	if s := ex.Stats(); !s.TookProcs || s.GOMAXPROCS != runtime.GOMAXPROCS(0) {
		t.Errorf("stats say %d, %v", s.GOMAXPROCS, s.TookProcs)
	}
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("GOMAXPROCS is %d after Shutdown, was %d", n, before)
	}
}

func TestHeapBudget(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	ex := newExecutor(t, &Config{HeapBudget: 256 << 20})
	if _, err := New(&Config{HeapBudget: 256 << 20}); !errors.Is(err, worker.ErrHeapTaken) {
		t.Errorf("a second executor: %v", err)
	}
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if n := debug.SetGCPercent(100); n != 100 {
		t.Errorf("GOGC is %d after Shutdown", n)
	}
	debug.SetGCPercent(99)
	t.Setenv("GOMAXPROCS", "")
	if _, err := New(&Config{TakeProcs: true, HeapBudget: 256 << 20}); !errors.Is(err, worker.ErrHeapTaken) {
		t.Errorf("taken from the program: %v", err)
	}
	if p, err := worker.TakeProcs(); err != nil {
		t.Errorf("New that refuses keeps GOMAXPROCS: %v", err)
	} else {
		p.Release()
	}
}

// While lowered handlers run the runtime is made to poll, and not when none do. Nothing is left of it after Shutdown.
func TestPacemaker(t *testing.T) {
	if !worker.CanSleep {
		t.Skip("threads of this system do not sleep by themselves")
	}
	t.Run("keeps its P", pacemakerBeats)
	t.Run("gives its P up", func(t *testing.T) {
		t.Setenv("GODEBUG", "asyncpreemptoff=1")
		pacemakerBeats(t)
	})
}

func pacemakerBeats(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	before := runtime.NumGoroutine()
	ex := newExecutor(t, &Config{TakeProcs: true})
	p := ex.pace
	eventually(t, "it to sleep when nothing runs", p.asleep.Load)
	if err := ex.Normal().Do(bounded(t), func(*Ctx) {}); err != nil || !p.asleep.Load() || p.beats.Load() != 0 {
		t.Errorf("it beats for workers that are not lowered (%v)", err)
	}
	if err := ex.Background().Do(bounded(t), func(*Ctx) {
		from := p.beats.Load()
		eventually(t, "beats", func() bool { return p.beats.Load() > from+3 })
	}); err != nil {
		t.Error(err)
	}
	if err := ex.Background().Do(bounded(t), func(*Ctx) { runtime.Goexit() }); FateOf(err) != Panicked {
		t.Error(err)
	}
	eventually(t, "it to sleep again", func() bool { return p.asleep.Load() && p.running.Load() == 0 })
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestConfigErrors(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Workers": {Workers: -1},
		"Loops":   {Loops: 5000},

		"HeapBudget":   {HeapBudget: 1 << 10},
		"HeapPrefault": {HeapPrefault: true},
	} {
		var e *ConfigError
		if _, err := New(&cfg); !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	ex := newExecutor(t, nil)
	for field, cfg := range map[string]ClassConfig{
		"Level": {Level: 3}, "Policy": {Policy: 3}, "Weight": {Weight: 1001}, "Queue": {Queue: -1}, "Target": {Target: -1},
		"Deadline": {Deadline: -2}, "Workers": {Workers: -1}, "Nice": {Nice: 20}, "Budget": {Budget: -1},
	} {
		var e *ConfigError
		if _, err := ex.Class("x", cfg); !errors.As(err, &e) || e.Field != field || !strings.Contains(err.Error(), "want") {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, name := range []string{"", "normal"} {
		if _, err := ex.Class(name, ClassConfig{}); err == nil {
			t.Errorf("a class was made with the name %q", name)
		}
	}
	if err := ex.Normal().Submit(&Task{}); !errors.Is(err, ErrNoRun) {
		t.Error(err)
	}
	if ex.Lookup("normal") != ex.Normal() || ex.Lookup("x") != nil {
		t.Error("Lookup")
	}
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	ex := newExecutor(t, nil)
	for _, c := range []*Class{ex.Critical(), ex.Background(), newClass(t, ex, "inline", ClassConfig{Inline: true}),
		newClass(t, ex, "one", ClassConfig{Queue: 1, Policy: ShedOldest, Level: Normal})} {
		fate := make(chan Fate, 8)
		tasks := make([]Task, 8)
		for i := range tasks {
			tasks[i] = Task{Run: func(*Ctx) {}, Done: func(_ *Task, f Fate) { fate <- f }}
		}
		if n := testing.AllocsPerRun(200, func() {
			want := 0
			for i := range tasks {
				if c.Submit(&tasks[i]) == nil {
					want++
				}
			}
			for range want {
				<-fate
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations for %d tasks", c.Name(), n, len(tasks))
		}
	}
}

func BenchmarkSubmitToRun(b *testing.B) {
	ex, err := New(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer ex.Close()
	inline, _ := ex.Class("inline", ClassConfig{Inline: true})
	for _, c := range []*Class{inline, ex.Critical(), ex.Background()} {
		b.Run(c.Name(), func(b *testing.B) {
			done := make(chan struct{}, 1)
			t := &Task{Run: func(*Ctx) {}, Done: func(*Task, Fate) { done <- struct{}{} }}
			for b.Loop() {
				c.Submit(t)
				<-done
			}
			b.ReportMetric(float64(c.Stats().Wait.P50), "ns-to-run-p50")
		})
	}
}
