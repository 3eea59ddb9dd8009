// Package wait lets goroutines wait for a condition under a lock until a deadline. It is what the blocking calls of
// drivers are made of.
package wait

import (
	"context"
	"os"
	"sync"
	"time"
)

// Gate is a condition variable whose waiters give up at a deadline that may be changed meanwhile. All methods but
// Deadline.fire are called with L held. Waiting allocates nothing.
//
//	for !ready() {
//		if err := g.Wait(); err != nil { return err }
//	}
type Gate struct {
	cond    sync.Cond // L is the lock that guards the condition and the Gate
	timer   *time.Timer
	gen     int // of the deadline: a timer of an older one says nothing
	expired bool
}

// Init sets the lock. It must be called before all else.
func (g *Gate) Init(l sync.Locker) { g.cond.L = l }

// Wait unlocks L, waits for Wake and locks L again. It returns os.ErrDeadlineExceeded, without waiting, when the
// deadline has passed.
func (g *Gate) Wait() error {
	if g.expired {
		return os.ErrDeadlineExceeded
	}
	g.cond.Wait()
	return nil
}

// Wake lets all waiters look again.
func (g *Gate) Wake() { g.cond.Broadcast() }

// Expired tells whether the deadline has passed. Operations check it first: with an expired deadline they fail even
// if they could go on.
func (g *Gate) Expired() bool { return g.expired }

// SetDeadline replaces the deadline; the zero time means none.
func (g *Gate) SetDeadline(t time.Time) {
	g.gen++
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	g.expired = false
	if t.IsZero() {
		return
	}
	d := time.Until(t)
	if d <= 0 {
		g.expired = true
		g.Wake()
		return
	}
	gen := g.gen
	g.timer = time.AfterFunc(d, func() {
		g.cond.L.Lock()
		defer g.cond.L.Unlock()
		if gen == g.gen {
			g.expired = true
			g.Wake()
		}
	})
}

// Stop ends the timer of the deadline, if any.
func (g *Gate) Stop() { g.SetDeadline(time.Time{}) }

// WithContext wakes the waiters when ctx ends, so that they can check it. The returned function must be called when
// the wait is over, with or without L held.
func (g *Gate) WithContext(ctx context.Context) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() {
		g.cond.L.Lock()
		defer g.cond.L.Unlock()
		g.Wake()
	})
}
