package aem

import (
	"time"
	"unsafe"

	"midplane/internal/aem/wheel"
	"midplane/internal/mono"
)

// TimerHandler is what a timer is for, usually the structure that the timer is part of.
type TimerHandler interface {
	// Expired runs on the loop when the time has come; the timer is not set any more then, and may be set again.
	Expired(t *Timer)
}

// TimerFunc is a function as a TimerHandler.
type TimerFunc func(t *Timer)

// Expired calls f(t).
func (f TimerFunc) Expired(t *Timer) { f(t) }

// Timer fires once, on the loop whose Timers it is set in. It belongs to its user and is usually part of a longer-lived
// structure. It must not be copied while it is set; while it is not, nothing refers to it, and it may be copied, and set in the
// Timers of another loop.
type Timer struct {
	node wheel.Timer // first, so that one is found from the other
	// Handler must be there when the timer fires.
	Handler TimerHandler
}

// IsSet reports whether the timer is set and has not fired.
func (t *Timer) IsSet() bool { return t.node.IsSet() }

// Timers are the timers of one loop: a hierarchical timing wheel with a resolution of 1.05 ms. A timer never fires early. Timers
// fire in the order of their times, but those that are less than the resolution apart may fire in any order. All methods, and
// what the timers fire, belong to the loop's goroutine. Nothing allocates but for the greatest number of timers that were set at
// a time: about 20 octets for each, beside the 32 of the Timer itself.
type Timers struct {
	w   *wheel.Wheel
	now mono.Time
}

// NewTimers makes the timers of a loop.
func NewTimers() *Timers {
	now := mono.Now()
	return &Timers{w: wheel.New(now), now: now}
}

// Len returns how many timers are set.
func (ts *Timers) Len() int { return ts.w.Len() }

// Set sets a timer to fire after a duration, counted from when the loop last called Update or Run, or moves one that is set. To
// move it later is a write to the Timer, and to set one again that was stopped is often little more.
func (ts *Timers) Set(t *Timer, after time.Duration) {
	ts.w.Set(&t.node, ts.now.Add(after))
}

// Stop stops a timer and reports whether it was set, in these Timers.
func (ts *Timers) Stop(t *Timer) bool { return ts.w.Stop(&t.node) }

// Update reads the clock. A loop does it once a batch of events.
func (ts *Timers) Update() { ts.now = mono.Now() }

// Run reads the clock and fires what is due, except what is set anew to a time that has come already: that is for the next
// Run, so that a timer which sets itself cannot keep the loop. It returns how many fired.
func (ts *Timers) Run() (n int) {
	ts.Update()
	ts.w.Advance(ts.now)
	for limit := ts.w.Len(); n < limit; n++ {
		x := ts.w.Expired()
		if x == nil {
			break
		}
		t := (*Timer)(unsafe.Pointer(x))
		t.Handler.Expired(t)
	}
	return n
}

// Wait returns how long the loop may sleep until Run has something to do: 0 when it has now, negative when no timer is set.
func (ts *Timers) Wait() time.Duration {
	d := ts.w.Deadline()
	if d == mono.Never {
		return -1
	}
	return d.Until(mono.Now())
}
