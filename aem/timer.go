package aem

import (
	"time"

	"midplane/internal/aem/wheel"
	"midplane/internal/mono"
)

// TimerHandler is what a timer is for, usually a pointer to the structure that the timer belongs to.
type TimerHandler interface {
	// Expired runs on the loop when the time of t has come. The timer is over then; another may be set, for the same handler.
	Expired(t Timer)
}

// TimerFunc is a function as a TimerHandler.
type TimerFunc func(t Timer)

// Expired calls f(t).
func (f TimerFunc) Expired(t Timer) { f(t) }

// Timer names a timer of one Timers, from when it is set until it fires or is stopped; after that it names nothing, and never
// another timer. The zero value names none. Timers may be copied and compared.
type Timer struct{ id wheel.ID }

// Timers are the timers of one loop: a hierarchical timing wheel with a resolution of 1.05 ms. A timer never fires early. Timers
// fire in the order of their times, but those that are less than the resolution apart may fire in any order. All methods, and
// what the timers fire, belong to the loop's goroutine. Nothing allocates but for the greatest number of timers that were set at
// a time: about 45 octets for each. The handler of a timer that was stopped may be kept until the time that the timer had, but of
// no more than twice as many timers as are set, and what chunks of the wheel hold that are not full (up to 130,000).
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

// Set sets a timer that fires after a duration, counted from when the loop last called Update or Run.
func (ts *Timers) Set(after time.Duration, h TimerHandler) Timer {
	return ts.set(ts.now.Add(after), h)
}

func (ts *Timers) set(at mono.Time, h TimerHandler) Timer { return Timer{ts.w.Set(at, h)} }

// Reset moves a timer to another time, counted as Set does, and reports whether it is set: one that has fired or was stopped is
// over. To move it is a write or two; what an earlier time costs beyond that is done when the loop runs.
func (ts *Timers) Reset(t Timer, after time.Duration) bool {
	return ts.w.Reset(t.id, ts.now.Add(after))
}

// Stop stops a timer and reports whether it was set.
func (ts *Timers) Stop(t Timer) bool { return ts.w.Stop(t.id) }

// IsSet reports whether a timer is set, and has not fired.
func (ts *Timers) IsSet(t Timer) bool { return ts.w.IsSet(t.id) }

// Update reads the clock. A loop does it once a batch of events.
func (ts *Timers) Update() { ts.now = mono.Now() }

// Run reads the clock and fires what is due, except what is set anew to a time that has come already: that is for the next
// Run, so that a timer which sets itself cannot keep the loop. It returns how many fired.
func (ts *Timers) Run() (n int) {
	ts.Update()
	ts.w.Advance(ts.now)
	for limit := ts.w.Len(); n < limit; n++ {
		id, h, ok := ts.w.Expired()
		if !ok {
			break
		}
		h.(TimerHandler).Expired(Timer{id})
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
