package aem

import (
	"context"
	"errors"
	"iter"
	"os"
	"time"

	"midplane/internal/mono"
)

// ErrRoutine says that the handler of a routine panicked or left by runtime.Goexit.
var ErrRoutine = errors.New("aem: the routine panicked")

// Routines run handlers that wait: straight-line code that keeps its locals, loops and returns errors, on a loop that goes
// on meanwhile. They are coroutines (iter.Pull) of the goroutine that resumes them, so a wait costs no thread switch and needs
// no lock against the loop. All methods belong to the loop's goroutine, unless they say otherwise. A routine that blocks in
// another way (a mutex, a channel, a system call) blocks its loop.
type Routines struct {
	class  *Class
	timers *Timers
	post   func(func())
	free   *Routine
	all    []*Routine
	ctx    *Ctx
	ended  uint64 // handlers
}

// NewRoutines makes the routines of a loop. class counts them, and its Budget is how long one may run without waiting; timers
// are those of the loop. post runs a function on the loop, from any goroutine, and is how the end of a context gets there; nil when
// routines are started with contexts that do not end.
func NewRoutines(class *Class, timers *Timers, post func(func())) *Routines {
	rs := &Routines{class: class, timers: timers, post: post, ctx: class.ex.contexts.get()}
	rs.ctx.class = class
	rs.ctx.running.Store(class)
	rs.ctx.routines.Store(rs)
	return rs
}

// Routine is a handler that may wait. It is valid until the handler returns; a Wait may outlive it.
type Routine struct {
	rs     *Routines
	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool

	fn        func(*Routine) error
	done      func(error)
	ctx       context.Context
	unwatch   func() bool
	seq       uint64 // of the wait that is on; odd while one is open
	parked    bool
	result    error
	timer     Timer
	timerAt   mono.Time // when the timer is due, if it is set
	deadline  mono.Time
	began     mono.Time
	since     mono.Time // when it was resumed last
	err       error
	next      *Routine // free list
	cancelled bool
	panicked  bool
}

// Wait is one thing that a routine waits for. The zero value is nothing.
type Wait struct {
	r   *Routine
	seq uint64
}

// Go starts a handler on the loop. It runs until it first waits before Go returns. done, when not nil, is told what the
// handler returned, on the loop: ErrRoutine when it panicked. ctx is what Context returns; its end makes every wait of the
// handler return its error.
func (rs *Routines) Go(ctx context.Context, fn func(*Routine) error, done func(error)) {
	r := rs.free
	if r == nil {
		r = rs.make()
	} else {
		rs.free, r.next = r.next, nil
	}
	r.fn, r.done, r.ctx, r.err, r.cancelled, r.began = fn, done, ctx, nil, false, rs.timers.now
	if ctx.Done() != nil {
		if rs.post == nil {
			panic("aem: routines without a post function cannot see the end of a context")
		}
		r.watch(ctx)
	}
	r.run()
}

func (r *Routine) watch(ctx context.Context) {
	r.unwatch = context.AfterFunc(ctx, func() {
		r.rs.post(func() {
			if r.ctx == ctx { // still the same handler
				r.cancelled = true
				r.complete(r.seq, context.Cause(ctx))
			}
		})
	})
}

func (rs *Routines) make() *Routine {
	r := &Routine{rs: rs}
	r.resume, r.stop = iter.Pull(r.main)
	rs.all = append(rs.all, r)
	return r
}

// main is the coroutine: one handler after the other, so that a steady state makes no coroutines.
func (r *Routine) main(yield func(struct{}) bool) {
	r.yield = yield
	for {
		r.err = r.rs.call(r)
		r.fn = nil
		if !yield(struct{}{}) {
			return
		}
	}
}

// call runs the handler of a routine. The stall detector finds its stack by the receiver: it is used after the call, so that
// tracebacks know its value.
//
//go:noinline
func (rs *Routines) call(r *Routine) (err error) {
	r.panicked = true
	defer func() {
		if r.panicked {
			err = ErrRoutine
			rs.class.ex.panicked(rs.ctx, recover())
		}
	}()
	err = r.fn(r)
	r.panicked = false
	rs.ended++
	return err
}

// run lets the routine go on until it waits or ends.
func (r *Routine) run() {
	rs := r.rs
	now := rs.timers.now
	r.since = now
	outer := rs.ctx.since.Load() // a routine that starts or completes another is suspended itself meanwhile
	rs.ctx.since.Store(int64(now) | 1)
	_, alive := r.resume()
	rs.ctx.since.Store(outer)
	if r.fn == nil || !alive {
		r.finish(alive)
	}
}

// finish tells what became of the handler, and frees the routine when its coroutine lives.
func (r *Routine) finish(alive bool) {
	rs := r.rs
	if r.unwatch != nil {
		r.unwatch()
		r.unwatch = nil
	}
	rs.timers.Stop(r.timer)
	done, err := r.done, r.err
	f := Ran
	if errors.Is(err, ErrRoutine) {
		f = Panicked
	}
	rs.class.count1(f, r.began, rs.timers.now)
	r.done, r.ctx, r.fn = nil, nil, nil
	r.seq += r.seq & 1 // what it began and did not wait for is nobody's now
	if alive {
		r.next, rs.free = rs.free, r
	}
	if done != nil {
		done(err)
	}
}

// Begin announces a wait and returns what completes it; Await waits for it then. One wait at a time is open: beginning the
// next forgets the one before.
func (r *Routine) Begin() Wait {
	r.seq += 1 + r.seq&1
	r.seq |= 1
	r.result = nil
	return Wait{r, r.seq}
}

// Complete ends a wait: Await returns err. It runs the routine until it waits again or ends, so it must be called on the loop, and
// not by the routine while it runs: a routine whose operation is complete at once calls Complete before Await, which then does
// not wait. It reports whether the wait was open; one that timed out, was cancelled or is complete is not.
func (w Wait) Complete(err error) bool {
	if w.r == nil {
		return false
	}
	return w.r.complete(w.seq, err)
}

func (r *Routine) complete(seq uint64, err error) bool {
	if r.seq != seq || seq&1 == 0 {
		return false
	}
	r.seq++
	r.result = err
	if r.parked {
		r.parked = false
		r.run()
	}
	return true
}

// Await waits until the wait that Begin announced is complete and returns its error; os.ErrDeadlineExceeded when a deadline, that
// long from now, comes first (0 for no deadline); the context's error when that ends first.
func (r *Routine) Await(deadline time.Duration) error {
	if r.seq&1 == 0 {
		return r.result // complete already
	}
	if r.cancelled {
		r.seq++
		return context.Cause(r.ctx)
	}
	r.deadline = mono.Never
	if deadline > 0 {
		ts := r.rs.timers
		r.deadline = ts.now.Add(deadline)
		// A timer that is set earlier stays: it finds out that it is early. That is cheaper than to stop it in every wait.
		if r.timerAt > r.deadline || !ts.IsSet(r.timer) {
			r.setTimer()
		}
	}
	r.parked = true
	if !r.yield(struct{}{}) {
		r.parked = false
		return ErrClosed // the loop ends
	}
	return r.result
}

// setTimer has the timer fire at the deadline.
func (r *Routine) setTimer() {
	ts := r.rs.timers
	r.timerAt = r.deadline
	if !ts.w.Reset(r.timer.id, r.deadline) {
		r.timer = ts.set(r.deadline, (*routineTimer)(r))
	}
}

// routineTimer is a routine as the handler of its timer.
type routineTimer Routine

// Expired ends the wait whose deadline has come.
func (x *routineTimer) Expired(Timer) {
	r := (*Routine)(x)
	switch {
	case !r.parked || r.deadline == mono.Never:
	case r.deadline > r.rs.timers.now:
		r.setTimer()
	default:
		r.complete(r.seq, os.ErrDeadlineExceeded)
	}
}

// Sleep waits for a duration, at least 1 ns.
func (r *Routine) Sleep(d time.Duration) error {
	r.Begin()
	if err := r.Await(max(d, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// Context returns the context that the routine was started with.
func (r *Routine) Context() context.Context { return r.ctx }

// OverBudget reports whether the routine has run for longer than the budget of its class since it waited last. It reads the
// clock.
func (r *Routine) OverBudget() bool {
	return mono.Now().Sub(r.since) > r.rs.class.cfg.Budget
}

// Checkpoint lets the loop go on when the routine is over its budget, and returns the context's error when that has ended.
// A handler that computes for long calls it now and then.
func (r *Routine) Checkpoint() error {
	if !r.OverBudget() {
		return nil
	}
	return r.Sleep(1)
}

// Close ends the routines of a loop that ends: waits return ErrClosed, and a handler that goes on waiting gets it each time.
func (rs *Routines) Close() {
	for _, r := range rs.all {
		open := r.fn != nil
		r.parked = false
		if r.stop(); open {
			r.finish(false)
		}
	}
	rs.all, rs.free = nil, nil
	if rs.ctx != nil {
		rs.class.ex.contexts.put(rs.ctx)
		rs.ctx = nil
	}
}
