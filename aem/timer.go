package aem

import (
	"time"
	"unsafe"

	"midplane/internal/aem/wheel"
	"midplane/internal/mono"
)

// Timer fires once, on the loop whose Timers it is set in. It belongs to its user, is usually part of a longer-lived
// structure, and must not be copied while it is set. It is as large as a cache line of most processors: of a million timers
// that come up in any order, each costs one access to memory.
type Timer struct {
	node wheel.Timer // first, so that one is found from the other
	// Fire runs on the loop when the time has come; the timer is not set any more then, and may be set again.
	Fire func(*Timer)
	_    uintptr
}

// Arg returns what SetArg was given: the user's own.
func (t *Timer) Arg() any { return t.node.Owner }

// SetArg gives the timer something of its user, for Fire to find.
func (t *Timer) SetArg(v any) { t.node.Owner = v }

// IsSet reports whether the timer is set and has not fired.
func (t *Timer) IsSet() bool { return t.node.IsSet() }

// Timers are the timers of one loop: a hierarchical timing wheel with a resolution of 1.05 ms. A timer never fires early. All
// methods, and what the timers fire, belong to the loop's goroutine; nothing allocates.
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
// move it later costs next to nothing.
func (ts *Timers) Set(t *Timer, after time.Duration) {
	ts.w.Set(&t.node, ts.now.Add(after))
}

// Stop stops a timer and reports whether it was set.
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
		t.Fire(t)
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
