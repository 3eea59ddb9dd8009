package aem

import (
	"context"
	"errors"
	"iter"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// testLoop is a loop in its smallest form: timers, and functions that were posted.
type testLoop struct {
	*Timers
	rs     *Routines
	posted chan func()
}

func newTestLoop(t testing.TB, ex *Executor, cfg ClassConfig) *testLoop {
	cfg.Inline = true
	name := "routines of " + t.Name()
	c := ex.Lookup(name)
	if c == nil {
		var err error
		if c, err = ex.Class(name, cfg); err != nil {
			t.Fatal(err)
		}
	}
	l := &testLoop{Timers: NewTimers(), posted: make(chan func(), 16)}
	l.rs = NewRoutines(c, l.Timers, func(f func()) { l.posted <- f })
	return l
}

// until runs the loop until a condition holds.
func (l *testLoop) until(t testing.TB, cond func() bool) {
	t.Helper()
	give := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(give) {
			t.Fatal("nothing happens")
		}
		l.Run()
		select {
		case f := <-l.posted:
			f()
		case <-time.After(min(max(l.Wait(), 0), 10*time.Millisecond)):
		}
	}
}

func TestAwait(t *testing.T) {
	for _, locked := range []bool{false, true} {
		ex, err := New(nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if locked {
				runtime.LockOSThread()
			}
			awaitAll(t, ex)
		}()
		<-done
		ex.Close()
	}
}

func awaitAll(t *testing.T, ex *Executor) {
	l := newTestLoop(t, ex, ClassConfig{})
	defer l.rs.Close()
	bg := context.Background()
	ended := 0
	var result error
	tell := func(err error) { ended++; result = err }

	// Completed later, with locals, a loop and an error.
	oops := errors.New("oops")
	var w Wait
	sum := 0
	l.rs.Go(bg, func(r *Routine) error {
		for i := range 3 {
			w = r.Begin()
			if err := r.Await(0); err != nil {
				return err
			}
			sum += i
		}
		w = r.Begin()
		return r.Await(0)
	}, tell)
	for range 3 {
		if !w.Complete(nil) {
			t.Error("an open wait was not open")
		}
	}
	if sum != 3 || ended != 0 {
		t.Errorf("sum %d, ended %d", sum, ended)
	}
	last := w
	if w.Complete(oops); ended != 1 || result != oops {
		t.Errorf("ended %d with %v", ended, result)
	}
	if last.Complete(nil) || (Wait{}).Complete(nil) {
		t.Error("a wait was completed twice")
	}

	// Complete at once: no wait.
	l.rs.Go(bg, func(r *Routine) error {
		r.Begin().Complete(oops)
		return r.Await(time.Hour)
	}, tell)
	if ended != 2 || result != oops {
		t.Errorf("ended %d with %v", ended, result)
	}

	// A deadline, after an earlier wait had a longer one, and one that had a shorter.
	var stale Wait
	l.rs.Go(bg, func(r *Routine) error {
		w = r.Begin()
		if err := r.Await(time.Hour); err != nil {
			return err
		}
		stale = r.Begin()
		if err := r.Await(3 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := r.Sleep(time.Millisecond); err != nil {
			return err
		}
		w = r.Begin()
		return r.Await(20 * time.Millisecond)
	}, tell)
	w.Complete(nil)
	l.until(t, func() bool { return ended == 3 })
	if stale.Complete(nil) {
		t.Error("a wait that timed out was open")
	}
	if !errors.Is(result, os.ErrDeadlineExceeded) {
		t.Errorf("ended with %v", result)
	}

	// The end of the context, while it waits and afterwards.
	ctx, cancel := context.WithCancel(bg)
	waits := 0
	l.rs.Go(ctx, func(r *Routine) error {
		for range 2 {
			r.Begin()
			if err := r.Await(0); !errors.Is(err, context.Canceled) {
				t.Errorf("a wait ended with %v", err)
			}
			waits++
		}
		return r.Context().Err()
	}, tell)
	cancel()
	l.until(t, func() bool { return ended == 4 })
	if !errors.Is(result, context.Canceled) || waits != 2 {
		t.Errorf("ended with %v after %d waits", result, waits)
	}

	// One routine that completes another's wait and starts a third.
	l.rs.Go(bg, func(r *Routine) error {
		w = r.Begin()
		return r.Await(0)
	}, tell)
	l.rs.Go(bg, func(r *Routine) error {
		w.Complete(nil)
		l.rs.Go(bg, func(r *Routine) error { return r.Sleep(time.Millisecond) }, tell)
		return r.Sleep(2 * time.Millisecond)
	}, tell)
	l.until(t, func() bool { return ended == 7 })
	if result != nil {
		t.Error(result)
	}

	// A panic is the routine's alone.
	l.rs.Go(bg, func(r *Routine) error {
		if err := r.Sleep(time.Millisecond); err != nil {
			return err
		}
		panic("on purpose")
	}, tell)
	l.until(t, func() bool { return ended == 8 })
	if !errors.Is(result, ErrRoutine) || ex.panics.Load() != 1 {
		t.Errorf("ended with %v, %d panics", result, ex.panics.Load())
	}
	if len(l.rs.all) > 3 {
		t.Errorf("%d coroutines were made", len(l.rs.all))
	}

	// The loop ends.
	l.rs.Go(bg, func(r *Routine) error {
		r.Begin()
		if err := r.Await(0); !errors.Is(err, ErrClosed) {
			t.Errorf("a wait ended with %v", err)
		}
		return r.Sleep(time.Hour)
	}, tell)
	l.rs.Close()
	if ended != 9 || !errors.Is(result, ErrClosed) {
		t.Errorf("ended %d with %v", ended, result)
	}
}

func TestRoutineBudget(t *testing.T) {
	stalled := make(chan Stall, 1)
	ex := newExecutor(t, &Config{OnStall: func(s Stall) {
		select {
		case stalled <- s:
		default:
		}
	}})
	l := newTestLoop(t, ex, ClassConfig{Budget: time.Millisecond})
	defer l.rs.Close()
	over, ended := 0, false
	var stall Stall
	l.rs.Go(context.Background(), func(r *Routine) error {
		for end := time.Now().Add(time.Minute); stall.Class == "" && time.Now().Before(end); { // too long
			select {
			case stall = <-stalled:
			default:
			}
		}
		if r.OverBudget() {
			over++
		}
		return r.Checkpoint()
	}, func(err error) { ended = err == nil })
	if over != 1 || ended {
		t.Errorf("over budget %d times, ended %v", over, ended)
	}
	l.until(t, func() bool { return ended })
	if !strings.Contains(stall.Handler, "TestRoutineBudget") {
		t.Errorf("the handler that stalls is %q, stack %s", stall.Handler, stall.Stack)
	}
}

func TestAwaitDoesNotAllocate(t *testing.T) {
	ex := newExecutor(t, nil)
	l := newTestLoop(t, ex, ClassConfig{})
	defer l.rs.Close()
	var w Wait
	body := func(r *Routine) error {
		for range 3 {
			w = r.Begin()
			if err := r.Await(time.Second); err != nil {
				return err
			}
		}
		return nil
	}
	bg := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		l.Update()
		l.rs.Go(bg, body, nil)
		for range 3 {
			w.Complete(nil)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAwait(b *testing.B) {
	ex, err := New(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer ex.Close()
	b.Run("iter.Pull alone", func(b *testing.B) {
		next, stop := iter.Pull(func(yield func(int) bool) {
			for yield(0) {
			}
		})
		defer stop()
		for b.Loop() {
			next()
		}
	})
	for _, deadline := range []time.Duration{0, time.Second} {
		b.Run("deadline="+deadline.String(), func(b *testing.B) {
			l := newTestLoop(b, ex, ClassConfig{})
			defer l.rs.Close()
			var w Wait
			l.rs.Go(context.Background(), func(r *Routine) error {
				for {
					w = r.Begin()
					if err := r.Await(deadline); err != nil {
						return err
					}
				}
			}, nil)
			for b.Loop() {
				w.Complete(nil)
			}
		})
	}
}
