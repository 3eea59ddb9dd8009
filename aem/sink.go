package aem

import (
	"fmt"
	"strings"
	"time"
)

// Sink is where a source puts what happens. Its methods are safe for concurrent use.
type Sink[T any] struct {
	ev      *Event
	src     Source[T]
	handler func(*Ctx, T)
}

func (k *Sink[T]) start() error { return k.src.Start(k) }
func (k *Sink[T]) stop()        { k.src.Stop() }

// Loop is the loop of the event.
func (k *Sink[T]) Loop() *Loop { return k.ev.loop }

// Event is the event.
func (k *Sink[T]) Event() *Event { return k.ev }

// Emit tells that something has happened. It does not wait. Its error says that the occurrence was not accepted: ErrStopped,
// ErrPending, a *FateError. In the steady state it allocates nothing.
func (k *Sink[T]) Emit(v T) error { return k.emit(v, nil, false) }

// EmitTold is Emit for sources that must know the fate, for example because v refers to a buffer that is used again. end is
// called once if the error is nil, where the handler ran or where the fate was decided, and must not block.
func (k *Sink[T]) EmitTold(v T, end func(Fate)) error { return k.emit(v, end, false) }

// Fail tells that the source has ended by itself. With KeepAlive it is stopped and started again; else the event is
// stopped.
func (k *Sink[T]) Fail(err error) { go k.ev.failed(err) }

// occurrence is a value on its way to the handler.
type occurrence[T any] struct {
	slot
	sink *Sink[T]
	v    T
}

func runOccurrence[T any](c *Ctx) {
	o := c.task.Arg.(*occurrence[T])
	cfg := &o.ev.cfg
	if cfg.After != nil {
		defer cfg.After(c)
	}
	if cfg.Before != nil {
		cfg.Before(c)
	}
	o.sink.handler(c, o.v)
}

func doneOccurrence[T any](t *Task, f Fate) {
	o := t.Arg.(*occurrence[T])
	var zero T
	o.v = zero
	o.finish(f)
}

func (o *occurrence[T]) link() *occurring { return &o.next }

// occur hands an occurrence of an inline class to it, on the loop.
func (o *occurrence[T]) occur() {
	if err := o.to.Submit(&o.Task); err != nil {
		doneOccurrence[T](&o.Task, Rejected)
	}
}

func (k *Sink[T]) emit(v T, end func(Fate), here bool) error {
	e := k.ev
	if e.State() != Started || e.cfg.OneShot && !e.state.CompareAndSwap(int32(Started), int32(Registered)) {
		return ErrStopped
	}
	if e.cfg.OneShot {
		e.loop.post(e.rest)
	}
	nth := e.happened.Add(1)
	e.mu.Lock()
	s := e.free
	switch {
	case s != nil:
		e.free = s.free
	case len(e.slots) >= e.cfg.Pending:
		e.mu.Unlock()
		e.refuse()
		return ErrPending
	default:
		o := &occurrence[T]{sink: k}
		s = &o.slot
		s.ev, s.Arg, s.Run, s.Done = e, o, runOccurrence[T], doneOccurrence[T]
		e.slots = append(e.slots, s)
	}
	e.pending++
	s.used++
	used := s.used
	s.nth = nth
	e.mu.Unlock()
	o := s.Arg.(*occurrence[T])
	o.v, s.end, s.to, s.Deadline = v, end, e.class.Load(), time.Duration(e.deadline.Load())
	if e.cfg.MinInterval > 0 {
		s.Source = &e.arrivals
	}
	if s.to.cfg.Inline && !here {
		if !e.loop.postOccurring(o) {
			s.end = nil
			s.release()
			return ErrLoopClosed
		}
		return nil
	}
	inline := s.to.cfg.Inline
	if err := s.to.Submit(&s.Task); err != nil {
		var zero T
		o.v, s.end = zero, nil
		s.release()
		e.refuse()
		return err
	}
	if !inline {
		e.mu.Lock()
		if s.used == used && s.ev.pending > 0 {
			s.in = true
		}
		e.mu.Unlock()
	}
	return nil
}

// release makes the slot free.
func (s *slot) release() {
	e := s.ev
	e.mu.Lock()
	s.in = false
	s.used++
	s.free, e.free = e.free, s
	if e.pending--; e.pending == 0 {
		e.idle.Broadcast()
	}
	e.mu.Unlock()
}

// finish tells the fate and frees the slot. The slot is freed last, so that Shutdown waits for who is told.
func (s *slot) finish(f Fate) {
	e, end := s.ev, s.end
	s.end = nil
	e.fates[f].Add(1)
	if end != nil {
		end(f)
	}
	if e.cfg.OnFate != nil {
		e.cfg.OnFate(f)
	}
	s.release()
}

// refuse counts what was not accepted.
func (e *Event) refuse() {
	e.refused.Add(1)
	if e.cfg.OnFate != nil {
		e.cfg.OnFate(Rejected)
	}
}

// rest stops the source of a one-shot event that has happened.
func (e *Event) rest() {
	e.ctl.Lock()
	defer e.ctl.Unlock()
	if e.State() == Registered {
		e.halt()
	}
}

const (
	firstPause = 10 * time.Millisecond
	lastPause  = 5 * time.Second
)

func (e *Event) failed(err error) {
	if e.cfg.OnError != nil {
		e.cfg.OnError(err)
	}
	e.ctl.Lock()
	defer e.ctl.Unlock()
	if e.State() != Started {
		return
	}
	lasted := time.Since(e.since)
	e.halt()
	if !e.cfg.KeepAlive {
		e.state.CompareAndSwap(int32(Started), int32(Registered))
		return
	}
	e.again(lasted)
}

// again starts the source later. ctl is locked.
func (e *Event) again(lasted time.Duration) {
	e.pause = min(max(2*e.pause, firstPause), lastPause)
	if lasted > lastPause {
		e.pause = firstPause
	}
	e.retry = time.AfterFunc(e.pause, func() {
		e.ctl.Lock()
		defer e.ctl.Unlock()
		if e.State() != Started || e.running || e.retry == nil {
			return
		}
		e.retry = nil
		if err := e.src.start(); err != nil {
			if e.cfg.OnError != nil {
				e.cfg.OnError(err)
			}
			e.again(0)
			return
		}
		e.running, e.since = true, time.Now()
	})
}

func nameOf(src any) string {
	if s, ok := src.(fmt.Stringer); ok {
		return s.String()
	}
	n := fmt.Sprintf("%T", src)
	return strings.TrimPrefix(strings.TrimPrefix(n, "*"), "aem.")
}
