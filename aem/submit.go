package aem

import (
	"context"
	"sync"
	"time"

	"midplane/internal/mono"
)

// Submit hands a task to the class. When it returns nil, the task's Done tells its fate, once. When it returns an error,
// Done is not called: a *FateError with Rejected under overload, ErrClosed, ErrBusy or ErrNoRun. Submit does not block and
// does not allocate. Tasks of an inline class have run when it returns.
func (c *Class) Submit(t *Task) error {
	if t.Run == nil {
		return ErrNoRun
	}
	if !t.busy.CompareAndSwap(false, true) {
		return ErrBusy
	}
	now := mono.Now()
	t.class, t.at = c, now
	end := mono.Never
	switch {
	case t.Deadline > 0:
		end = now.Add(t.Deadline)
	case t.Deadline == 0 && c.cfg.Deadline > 0:
		end = now.Add(c.cfg.Deadline)
	}
	if s := t.Source; s != nil {
		s.core.Interval, s.core.Refuse = s.MinInterval, s.Refuse
	}
	if c.pool == nil {
		return c.inline(t, now, end)
	}
	t.core.Owner, t.core.Deadline, t.core.Source = t, end, nil
	if t.Source != nil {
		t.core.Source = &t.Source.core
	}
	p := c.pool
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		t.busy.Store(false)
		return ErrClosed
	}
	p.ensure()
	ok := p.core.Submit(now, c.core, &t.core)
	dropped := p.decided()
	w := p.idleWorker()
	hurry := t.Source != nil && p.sooner()
	p.mu.Unlock()
	if w != nil {
		w.park.Unpark()
	}
	c.ex.monitor.poke(hurry)
	p.settle(dropped)
	if !ok {
		t.busy.Store(false)
		return c.refused[Rejected]
	}
	return nil
}

// inline runs a task on the caller's goroutine.
func (c *Class) inline(t *Task, now, end mono.Time) error {
	if t.Source != nil || c.ex.closing.Load() {
		c.mu.Lock()
		refuse := c.closed
		if s := t.Source; !refuse && s != nil {
			if s.core.Admit(now) > now {
				c.tooSoon++
				c.count[Rejected]++
				c.mu.Unlock()
				t.busy.Store(false)
				return c.refused[Rejected]
			}
			s.core.Take(now)
		}
		c.mu.Unlock()
		if refuse {
			t.busy.Store(false)
			return ErrClosed
		}
	}
	x := c.ex.contexts.get()
	x.begin(c, t, now, end)
	c.ex.monitor.poke(false)
	f := Panicked
	defer func() { // runs even when the handler leaves by runtime.Goexit
		ended := mono.Now()
		c.ex.contexts.put(x)
		c.mu.Lock()
		c.accepted++
		c.record(f, now, now, ended, end)
		c.mu.Unlock()
		t.tell(f)
	}()
	f = x.run(t.Run)
	return nil
}

// record counts a run. The caller holds the lock of the class.
func (c *Class) record(f Fate, at, start, ended, deadline mono.Time) {
	c.count[f]++
	c.wait.Add(start.Sub(at))
	c.run.Add(ended.Sub(start))
	c.total.Add(ended.Sub(at))
	if ended > deadline {
		c.late++
	}
}

// lock returns what guards the counters of the class.
func (c *Class) lock() *sync.Mutex {
	if c.pool != nil {
		return &c.pool.mu
	}
	return &c.mu
}

// count1 counts a run that did not wait for its beginning. The caller does not hold the lock of the class.
func (c *Class) count1(f Fate, start, ended mono.Time) {
	mu := c.lock()
	mu.Lock()
	c.accepted++
	c.record(f, start, start, ended, mono.Never)
	mu.Unlock()
}

// tell frees the task and tells its fate.
func (t *Task) tell(f Fate) {
	done := t.Done
	t.busy.Store(false)
	if done != nil {
		done(t, f)
	}
}

// Cancel takes the task back and reports whether it did; Done was told Canceled then. A task that has begun is not
// stopped. Cancel must not be called before Submit has returned.
func (t *Task) Cancel() bool {
	c := t.class
	if c == nil || c.pool == nil || !t.busy.Load() {
		return false
	}
	p := c.pool
	p.mu.Lock()
	ok := t.core.Waits() && p.core.Cancel(&t.core)
	dropped := p.decided()
	p.mu.Unlock()
	p.settle(dropped)
	return ok
}

// goTask is a task of Go and Do.
type goTask struct {
	Task
	fn   func(*Ctx)
	fate chan Fate
}

var goTasks = sync.Pool{New: func() any {
	g := &goTask{fate: make(chan Fate, 1)}
	g.Run, g.Arg = runGo, g
	return g
}}

func runGo(c *Ctx) { c.task.Arg.(*goTask).fn(c) }

func doneGo(t *Task, _ Fate) { t.Arg.(*goTask).free() }

func doneDo(t *Task, f Fate) { t.Arg.(*goTask).fate <- f }

func (g *goTask) free() {
	g.fn = nil
	goTasks.Put(g)
}

// Go submits a function, for example processor-bound work to the class Background. Its error is that of Submit; who needs
// the fate of work that was accepted submits a Task.
func (c *Class) Go(fn func(*Ctx)) error {
	if fn == nil {
		return ErrNoRun
	}
	g := goTasks.Get().(*goTask)
	g.fn, g.Done, g.Deadline = fn, doneGo, 0
	err := c.Submit(&g.Task)
	if err != nil {
		g.free()
	}
	return err
}

// within returns the deadline of a task that must also respect ctx.
func (c *Class) within(ctx context.Context) time.Duration {
	at, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	left := max(time.Until(at), 1)
	if c.cfg.Deadline > 0 && c.cfg.Deadline < left {
		return 0
	}
	return left
}

// Do submits a function and waits for its fate. It returns nil when the function has run; otherwise it has not begun, or
// panicked (a *FateError). A deadline of ctx that is earlier than the class's is the deadline of the task. When ctx ends while
// the task waits, Do takes it back and returns the error of ctx; a function that has begun is waited for.
func (c *Class) Do(ctx context.Context, fn func(*Ctx)) error {
	if fn == nil {
		return ErrNoRun
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	g := goTasks.Get().(*goTask)
	defer g.free()
	g.fn, g.Done, g.Deadline = fn, doneDo, c.within(ctx)
	if err := c.Submit(&g.Task); err != nil {
		return err
	}
	var f Fate
	select {
	case f = <-g.fate:
	case <-ctx.Done():
		g.Cancel()
		f = <-g.fate
	}
	switch f {
	case Ran:
		return nil
	case Canceled:
		return ctx.Err()
	}
	return c.refused[f]
}
