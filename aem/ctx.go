package aem

import (
	"context"
	"runtime/trace"
	"sync/atomic"
	"time"

	"midplane/internal/mono"
)

// Ctx is what a handler knows about its run. It is valid until the handler returns.
type Ctx struct {
	class *Class
	task  *Task
	start mono.Time
	end   mono.Time // deadline

	// For the stall detector, which reads them from its own goroutine.
	since    atomic.Int64             // when the handler began, 0 when none runs
	running  atomic.Pointer[Class]    // of it
	routines atomic.Pointer[Routines] // when it is theirs
	told     int64                    // the run that was last reported; the detector's own
	index    uint32                   // of an inline context: its place in the list, from 1
	next     atomic.Uint32            // the next free one
}

// Class returns the class that the task runs in.
func (c *Ctx) Class() *Class { return c.class }

// Task returns the task that runs.
func (c *Ctx) Task() *Task { return c.task }

// Waited returns how long the task waited from Submit until it began.
func (c *Ctx) Waited() time.Duration { return c.start.Sub(c.task.at) }

// Remaining returns how long there is until the task's deadline: negative when it has passed, the longest Duration when
// there is none.
func (c *Ctx) Remaining() time.Duration {
	if c.end == mono.Never {
		return 1<<63 - 1
	}
	return c.end.Sub(mono.Now())
}

// OverBudget reports whether the handler has run for longer than the budget of its class.
func (c *Ctx) OverBudget() bool { return mono.Now().Sub(c.start) > c.class.cfg.Budget }

// run calls a handler and returns how it ended. The stall detector finds its stack by the receiver: it is used after the call,
// so that tracebacks know its value.
//
//go:noinline
func (c *Ctx) run(fn func(*Ctx)) (f Fate) {
	f = Panicked // unless the line at the end is reached: panic or runtime.Goexit
	defer func() {
		if f == Panicked {
			c.class.ex.panicked(c, recover())
			c.since.Store(0)
		}
	}()
	if trace.IsEnabled() {
		c.traced(fn)
	} else {
		fn(c)
	}
	c.since.Store(0)
	return Ran
}

// traced runs a handler in a region of runtime/trace that has the name of its class.
func (c *Ctx) traced(fn func(*Ctx)) {
	defer trace.StartRegion(context.Background(), c.class.name).End()
	fn(c)
}

func (c *Ctx) begin(class *Class, t *Task, now, end mono.Time) {
	c.class, c.task, c.start, c.end = class, t, now, end
	c.running.Store(class)
	c.since.Store(int64(now) | 1) // never 0
}
