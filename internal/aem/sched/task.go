package sched

import (
	"time"

	"midplane/internal/mono"
)

// Fate is what became of a task. The zero value is a task whose fate is open.
type Fate uint8

// Fates. The core decides Rejected, Shed, Expired, Canceled and Drained; whether a task that was begun Ran or Panicked is
// the driver's to say.
const (
	Open     Fate = iota
	Ran           // run to its end
	Rejected      // not accepted: the queue is full, its source is too fast, or the scheduler is closed
	Shed          // accepted, then given up for newer ones
	Expired       // accepted, but it could not be begun in time
	Canceled      // taken back
	Panicked      // begun, and its handler panicked
	Drained       // still waiting when the scheduler was flushed
	Fates         // how many there are
)

// Task is one piece of work. It is the caller's, holds the scheduler's links itself, and may be submitted again as soon
// as Next or Decided has returned it.
type Task struct {
	Owner    any       // the driver's own, not looked at
	Deadline mono.Time // when it must have ended; mono.Never for none
	Source   *Source   // what it comes from, nil when its rate is not limited
	Fate     Fate      // set when Decided returns it

	class      *Class
	arrived    mono.Time // when it joined the queue
	due        mono.Time // when its source lets it join the queue, if it was too early
	seq        uint64    // order of arrival, which decides between equal deadlines
	index      int       // place in its heap
	place      place
	prev, next *Task // neighbours in order of arrival; next also links decided tasks
}

type place uint8

const (
	nowhere place = iota
	delayed       // until its source may release it
	queued
	settled // its fate is decided and not yet told
)

// Waits reports whether the task waits in a queue.
func (t *Task) Waits() bool { return t.place == delayed || t.place == queued }

// Arrived returns when the task joined the queue (for one that its source held back: when it was released).
func (t *Task) Arrived() mono.Time { return t.arrived }

// Class returns the class that the task was last submitted to.
func (t *Task) Class() *Class { return t.class }

// Source is where tasks come from, with the least time between two of them: the minimum inter-arrival time of the
// Real-Time Specification for Java (javax.realtime.SporadicParameters, whose policies "save" and "except" are the two here).
type Source struct {
	Interval time.Duration // least time between two tasks; 0 for no limit
	Refuse   bool          // what comes too early is rejected; otherwise it is held back until it may run

	next mono.Time
}

// Admit says when a task of the source that comes now may run: now, or later when it comes too early.
func (s *Source) Admit(now mono.Time) mono.Time {
	if s == nil || s.Interval <= 0 || now >= s.next {
		return now
	}
	return s.next
}

// Take notes that a task of the source runs at a time.
func (s *Source) Take(at mono.Time) {
	if s != nil && s.Interval > 0 {
		s.next = at.Add(s.Interval)
	}
}
