package aem_test

import (
	"errors"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"midplane/aem"
)

// manual is a source of values that a test makes, as another package would write one.
type manual[T any] struct {
	mu      sync.Mutex
	sink    *aem.Sink[T]
	starts  int
	stops   int
	failing error
}

func (m *manual[T]) Start(to *aem.Sink[T]) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing != nil {
		return m.failing
	}
	m.sink = to
	m.starts++
	return nil
}

func (m *manual[T]) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stops++
}

func (m *manual[T]) emit(v T) error {
	m.mu.Lock()
	k := m.sink
	m.mu.Unlock()
	return k.Emit(v)
}

func (m *manual[T]) counts() (starts, stops int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts, m.stops
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func register[T any](t testing.TB, l *aem.Loop, src aem.Source[T], f func(*aem.Ctx, T), cfg aem.EventConfig) *aem.Event {
	t.Helper()
	if cfg.Deadline == 0 { // a machine that is busy with other things shall not decide a test
		cfg.Deadline = aem.NoDeadline
	}
	e, err := aem.Register(l, src, f, cfg)
	must(t, err)
	return e
}

// onLoop runs f in a handler on the loop, and waits for it. The class is inline.
func onLoop(t testing.TB, l *aem.Loop, inline *aem.Class, f func()) {
	t.Helper()
	ch, done := make(chan int), make(chan struct{})
	e := register(t, l, aem.Chan(ch), func(*aem.Ctx, int) {
		defer close(done)
		f()
	}, aem.EventConfig{Class: inline})
	must(t, e.Start())
	ch <- 1
	<-done
}

func classOf(t testing.TB, l *aem.Loop, name string, cfg aem.ClassConfig) *aem.Class {
	t.Helper()
	c, err := l.Executor().Class(name, cfg)
	must(t, err)
	return c
}

func recv[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(bound):
		t.Fatal("nothing happened")
	}
	return v
}

// Registered is disabled; Start, Stop and Shutdown do what they say, again and again.
func TestEventStates(t *testing.T) {
	l := newLoop(t, "stdnet")
	src := &manual[int]{}
	got := make(chan int, 10)
	e := register(t, l, src, func(_ *aem.Ctx, v int) { got <- v }, aem.EventConfig{})
	if n, _ := src.counts(); n != 0 || e.State() != aem.Registered {
		t.Fatalf("started %d times, state %v", n, e.State())
	}
	for round := range 3 {
		must(t, e.Start())
		must(t, e.Start()) // no change
		must(t, src.emit(round))
		if v := recv(t, got); v != round {
			t.Fatalf("got %d", v)
		}
		must(t, e.Stop())
		must(t, e.Stop())
		if err := src.emit(99); !errors.Is(err, aem.ErrStopped) {
			t.Fatalf("emitting while stopped: %v", err)
		}
	}
	must(t, e.Shutdown())
	must(t, e.Shutdown())
	for _, err := range []error{e.Start(), e.Stop()} {
		if !errors.Is(err, aem.ErrDown) {
			t.Fatal(err)
		}
	}
	if a, b := src.counts(); a != 3 || b != 3 {
		t.Fatalf("%d starts, %d stops", a, b)
	}
	s := e.Stats()
	if s.Happened != 3 || s.Fates[aem.Ran] != 3 || s.Pending != 0 || s.State != aem.Down {
		t.Fatalf("%+v", s)
	}
}

func TestOneShot(t *testing.T) {
	l := newLoop(t, "stdnet")
	src := &manual[int]{}
	got := make(chan int, 10)
	e := register(t, l, src, func(_ *aem.Ctx, v int) { got <- v }, aem.EventConfig{OneShot: true})
	for round := 1; round <= 3; round++ {
		must(t, e.Start())
		must(t, src.emit(round))
		if err := src.emit(99); !errors.Is(err, aem.ErrStopped) {
			t.Fatal(err)
		}
		if recv(t, got) != round || e.State() != aem.Registered {
			t.Fatal(e.State())
		}
		settle(t, "the source to stop", func() bool { _, n := src.counts(); return n == round })
	}
}

func TestGroup(t *testing.T) {
	l := newLoop(t, "stdnet")
	var sources [4]manual[int]
	var g aem.Group
	for i := range sources {
		g.Add(register(t, l, &sources[i], func(*aem.Ctx, int) {}, aem.EventConfig{}))
	}
	g.Add(g.Events()[0]) // again: no change
	must(t, g.Start())
	for _, e := range g.Events() {
		if e.State() != aem.Started {
			t.Fatal(e.State())
		}
	}
	must(t, g.Stop())
	// All or none.
	sources[2].failing = errors.New("no")
	if err := g.Start(); err == nil {
		t.Fatal("started")
	}
	for _, e := range g.Events() {
		if e.State() != aem.Registered {
			t.Fatalf("%s is %v", e.Name(), e.State())
		}
	}
	sources[2].failing = nil
	must(t, l.All().Start())
	must(t, l.All().Shutdown())
	if n := len(l.All().Events()); n != 0 {
		t.Fatalf("%d events are left", n)
	}
}

// The class and the deadline of an event change while it runs.
func TestPriorityAndDeadlineChange(t *testing.T) {
	l := newLoop(t, "stdnet")
	src := &manual[int]{}
	got := make(chan *aem.Class, 1)
	left := make(chan time.Duration, 1)
	e := register(t, l, src, func(c *aem.Ctx, _ int) { left <- c.Remaining(); got <- c.Class() }, aem.EventConfig{Class: l.Executor().Normal()})
	must(t, e.Start())
	for _, p := range []aem.Level{aem.Critical, aem.Background, aem.Normal} {
		must(t, e.SetPriority(p))
		must(t, e.SetDeadline(time.Hour))
		must(t, src.emit(0))
		if d := recv(t, left); d < 50*time.Minute {
			t.Errorf("remaining %v", d)
		}
		if c := recv(t, got); c.Name() != p.String() {
			t.Errorf("ran in %s, want %v", c.Name(), p)
		}
	}
	inline := classOf(t, l, "inline", aem.ClassConfig{Inline: true})
	must(t, e.SetClass(inline))
	must(t, src.emit(0))
	recv(t, left)
	if c := recv(t, got); c != inline {
		t.Errorf("ran in %s", c.Name())
	}
	if e.SetPriority(9) == nil || e.SetClass(nil) == nil || e.SetDeadline(-5) == nil {
		t.Error("a mistake was taken")
	}
}

// What comes before its time is refused and counted; Pending bounds what is open; the fate is told of each.
func TestBoundsAndFates(t *testing.T) {
	l := newLoop(t, "stdnet")
	src := &manual[int]{}
	var fates [8]atomic.Int64
	hold := make(chan struct{})
	e := register(t, l, src, func(*aem.Ctx, int) { <-hold }, aem.EventConfig{Class: l.Executor().Normal(), Pending: 4, Deadline: aem.NoDeadline, OnFate: func(f aem.Fate) { fates[f].Add(1) }})
	must(t, e.Start())
	taken := 0
	for range 10 {
		if err := src.emit(1); err == nil {
			taken++
		} else if !errors.Is(err, aem.ErrPending) {
			t.Fatal(err)
		}
	}
	close(hold)
	settle(t, "the handlers", func() bool { return fates[aem.Ran].Load() == int64(taken) })
	if taken != 4 || fates[aem.Rejected].Load() != 6 {
		t.Fatalf("%d taken, %d refused", taken, fates[aem.Rejected].Load())
	}
	paced := &manual[int]{}
	ran := make(chan int, 10)
	p := register(t, l, paced, func(_ *aem.Ctx, v int) { ran <- v }, aem.EventConfig{Class: l.Executor().Normal(), MinInterval: time.Hour, Refuse: true})
	must(t, p.Start())
	must(t, paced.emit(1))
	recv(t, ran)
	var fe *aem.FateError
	if err := paced.emit(2); !errors.As(err, &fe) || fe.Fate != aem.Rejected {
		t.Fatalf("too early: %v", err)
	}
	if err := p.SetPriority(aem.Critical); err == nil {
		t.Fatal("a paced event changed its class")
	}
}

// Shutdown takes back what waits, and waits for what runs.
func TestShutdownCancels(t *testing.T) {
	l := newLoop(t, "stdnet")
	c := classOf(t, l, "one", aem.ClassConfig{Level: aem.Normal, Workers: 1, Deadline: aem.NoDeadline})
	src := &manual[int]{}
	began, hold := make(chan struct{}, 10), make(chan struct{})
	e := register(t, l, src, func(*aem.Ctx, int) { began <- struct{}{}; <-hold }, aem.EventConfig{Class: c})
	must(t, e.Start())
	for range 5 {
		must(t, src.emit(0))
	}
	recv(t, began)
	done := make(chan error, 1)
	go func() { done <- e.Shutdown() }()
	settle(t, "cancelation", func() bool { return e.Stats().Fates[aem.Canceled] == 4 })
	select {
	case <-done:
		t.Fatal("Shutdown did not wait for the handler")
	default:
	}
	close(hold)
	must(t, recv(t, done))
	if s := e.Stats(); s.Fates[aem.Ran] != 1 || s.Pending != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestHooks(t *testing.T) {
	l := newLoop(t, "stdnet")
	src := &manual[string]{}
	var order []string
	done := make(chan struct{}, 2)
	e := register(t, l, src, func(c *aem.Ctx, v string) {
		order = append(order, v)
		if c.Event() == nil || c.Event().Name() != "hooked" {
			t.Error("no event in the context")
		}
		if v == "panic" {
			panic(v)
		}
	}, aem.EventConfig{
		Name:   "hooked",
		Before: func(*aem.Ctx) { order = append(order, "before") },
		After:  func(*aem.Ctx) { order = append(order, "after"); done <- struct{}{} },
	})
	must(t, e.Start())
	must(t, src.emit("handler"))
	recv(t, done)
	settle(t, "the end", func() bool { return e.Stats().Pending == 0 })
	must(t, src.emit("panic"))
	recv(t, done)
	settle(t, "the end", func() bool { return e.Stats().Pending == 0 })
	want := []string{"before", "handler", "after", "before", "panic", "after"}
	for i := range want {
		if i >= len(order) || order[i] != want[i] {
			t.Fatalf("order %v, want %v", order, want)
		}
	}
	if s := e.Stats(); s.Fates[aem.Panicked] != 1 || s.Fates[aem.Ran] != 1 {
		t.Fatalf("%+v", s)
	}
}

// KeepAlive starts a source again that ends by itself, also when starting fails at first; without it the event stops.
func TestKeepAlive(t *testing.T) {
	l := newLoop(t, "stdnet")
	src := &manual[int]{}
	var errs atomic.Int64
	got := make(chan int, 1)
	e := register(t, l, src, func(_ *aem.Ctx, v int) { got <- v }, aem.EventConfig{KeepAlive: true, OnError: func(error) { errs.Add(1) }})
	must(t, e.Start())
	src.mu.Lock()
	src.failing = errors.New("not yet")
	src.sink.Fail(errors.New("gone"))
	src.mu.Unlock()
	settle(t, "two failures", func() bool { return errs.Load() >= 2 })
	src.mu.Lock()
	src.failing = nil
	src.mu.Unlock()
	settle(t, "another start", func() bool { n, _ := src.counts(); return n == 2 })
	settle(t, "a value", func() bool { return src.emit(5) == nil })
	recv(t, got)
	must(t, e.Shutdown())
	if a, b := src.counts(); a != b {
		t.Fatalf("%d starts, %d stops", a, b)
	}

	once := &manual[int]{}
	e = register(t, l, once, func(*aem.Ctx, int) {}, aem.EventConfig{})
	must(t, e.Start())
	once.sink.Fail(errors.New("gone"))
	settle(t, "the stop", func() bool { return e.State() == aem.Registered })
}

// A process for each occurrence; it belongs to the event.
func TestRun(t *testing.T) {
	if _, err := exec.LookPath("sleep"); err != nil {
		t.Skip("sleep is not installed: apt-get install coreutils")
	}
	l := newLoop(t, "stdnet")
	src := &manual[[]string]{}
	exits := make(chan aem.Exit, 10)
	h := aem.Run(2, func(_ *aem.Ctx, args []string) *exec.Cmd {
		if args == nil {
			return nil
		}
		return exec.Command(args[0], args[1:]...)
	}, func(x aem.Exit) { exits <- x })
	e := register(t, l, src, h, aem.EventConfig{Class: l.Executor().Normal(), Deadline: time.Minute})
	must(t, e.Start())
	must(t, src.emit([]string{"sh", "-c", "exit 3"}))
	if x := recv(t, exits); x.Cmd.ProcessState.ExitCode() != 3 || x.Event != e {
		t.Fatalf("%+v", x)
	}
	must(t, src.emit(nil))
	must(t, src.emit([]string{"/does/not/exist"}))
	if x := recv(t, exits); x.Err == nil {
		t.Fatal("a program that is not there ran")
	}
	for range 2 {
		must(t, src.emit([]string{"sleep", "1000"}))
	}
	settle(t, "two processes", func() bool { return e.Processes() == 2 })
	must(t, src.emit([]string{"sleep", "1000"}))
	if x := recv(t, exits); !errors.Is(x.Err, aem.ErrProcesses) {
		t.Fatalf("the third: %v", x.Err)
	}
	must(t, e.Shutdown())
	for range 2 {
		x := recv(t, exits)
		if ws, ok := x.Cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signal() != syscall.SIGKILL {
			t.Fatalf("%+v", x)
		}
	}
	if e.Processes() != 0 {
		t.Fatal("processes are left")
	}
}

// In the steady state an occurrence allocates nothing, whatever the class and the back end.
func TestEventsDoNotAllocate(t *testing.T) {
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		for _, c := range []*aem.Class{l.Executor().Critical(), classOf(t, l, "inline", aem.ClassConfig{Inline: true})} {
			src := &manual[[4]int]{}
			done := make(chan struct{}, 1)
			e := register(t, l, src, func(*aem.Ctx, [4]int) { done <- struct{}{} }, aem.EventConfig{Class: c})
			must(t, e.Start())
			one := func() {
				if err := src.emit([4]int{1}); err != nil {
					panic(err)
				}
				<-done
			}
			for range 100 {
				one()
			}
			if n := testing.AllocsPerRun(1000, one); n >= 1 { // others allocate now and then
				t.Errorf("class %s: %v allocations an occurrence", c.Name(), n)
			}
			must(t, e.Shutdown())
		}
	})
}

func TestRegisterNamesMistakes(t *testing.T) {
	l := newLoop(t, "stdnet")
	src := &manual[int]{}
	h := func(*aem.Ctx, int) {}
	other := newLoop(t, "stdnet").Executor().Critical()
	for field, cfg := range map[string]aem.EventConfig{"Deadline": {Deadline: -5}, "MinInterval": {MinInterval: -1}, "Pending": {Pending: -1}, "Class": {Class: other}} {
		_, err := aem.Register(l, src, h, cfg)
		var ce *aem.ConfigError
		if !errors.As(err, &ce) || ce.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := aem.Register[int](l, src, nil, aem.EventConfig{}); err == nil {
		t.Error("no handler")
	}
	if _, err := aem.NewLoop(l.Executor(), &aem.LoopConfig{Buffers: 7}); err == nil {
		t.Error("bad buffers")
	}
	must(t, l.Close())
	if _, err := aem.Register(l, src, h, aem.EventConfig{}); !errors.Is(err, aem.ErrLoopClosed) {
		t.Error(err)
	}
}
