package sched

import (
	"time"

	"midplane/internal/mono"
)

// Level is how urgent a class is. As long as a task of one level waits and may begin, none of a later level begins.
type Level uint8

// Levels, the most urgent first.
const (
	Critical Level = iota
	Normal
	Background
	Levels
)

// Policy is what happens to a class that gets more than it can do.
type Policy uint8

// Policies. In all of them a task that cannot be in time any more is dropped before it begins.
const (
	// Reject: a full queue takes nothing more.
	Reject Policy = iota
	// ShedOldest: a full queue gives up what waits longest.
	ShedOldest
	// NewestFirst: like ShedOldest, and when the wait has been above the target for an interval the newest task goes
	// first, until the wait is below the target again. A standing queue in order of arrival or of deadlines makes every
	// task late; this one keeps most in time (the controlled delay of RFC 8289 as a criterion, with the adaptive LIFO of
	// Maurer, "Fail at Scale", ACM Queue 13(8), 2015).
	NewestFirst
)

// Config is what a class is.
type Config struct {
	Level    Level
	Weight   int           // share among the classes of its level, at least 1
	Queue    int           // most tasks that wait, at least 1
	Policy   Policy        //
	Target   time.Duration // the wait that NewestFirst accepts for good
	Interval time.Duration // how long the wait must be longer before it acts
	Running  int           // most tasks that run at once; 0 for as many as the scheduler
}

// Class is a queue and what is known of it.
type Class struct {
	Config
	Counters

	edf        taskHeap // waiting, the earliest deadline first
	held       taskHeap // too early, the first release first
	head, tail *Task    // waiting, in order of arrival
	running    int

	above    mono.Time // since when the wait is above the target, 0 when it is not
	standing bool      // the wait stands: newest first

	pass uint64        // virtual time of the class: service received by weight
	mean time.Duration // how long its tasks run, an exponential mean
}

// Counters count since the class was made.
type Counters struct {
	Accepted uint64
	Begun    uint64
	TooSoon  uint64        // of the rejected: those that came before their source's interval was over
	Fate     [Fates]uint64 // by the core: Rejected, Shed, Expired, Canceled, Drained
	Longest  int           // most tasks that ever waited
	Standing uint64        // how often newest first began
}

// Waiting returns how many tasks wait, held back ones included.
func (c *Class) Waiting() int { return len(c.edf.a) + len(c.held.a) }

// InFlight returns how many tasks have begun and not ended.
func (c *Class) InFlight() int { return c.running }

// Newest reports whether the class runs the newest task first.
func (c *Class) Newest() bool { return c.standing }

// Mean returns how long its tasks run, in the mean of the last ones.
func (c *Class) Mean() time.Duration { return c.mean }

// Oldest returns how long the task that waits longest has waited at now.
func (c *Class) Oldest(now mono.Time) time.Duration {
	if c.head == nil {
		return 0
	}
	return max(0, now.Sub(c.head.arrived))
}

// enqueue lets a task join the queue.
func (c *Class) enqueue(at mono.Time, t *Task) {
	t.arrived, t.place = at, queued
	t.prev, t.next = c.tail, nil
	if c.tail != nil {
		c.tail.next = t
	} else {
		c.head = t
	}
	c.tail = t
	c.edf.push(t)
}

// dequeue takes a waiting task out, wherever it is.
func (c *Class) dequeue(t *Task) {
	if t.place == delayed {
		c.held.remove(t)
		t.place = nowhere
		return
	}
	c.edf.remove(t)
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		c.head = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		c.tail = t.prev
	}
	t.prev, t.next, t.place = nil, nil, nowhere
	if c.head == nil {
		c.above, c.standing = 0, false
	}
}

// judge decides whether the wait stands.
func (c *Class) judge(now mono.Time) {
	switch wait := c.Oldest(now); {
	case wait <= c.Target:
		c.above, c.standing = 0, false
	case c.above == 0:
		c.above = now
	case !c.standing && now.Sub(c.above) >= c.Interval:
		c.standing = true
		c.Standing++
	}
}

// choose returns the task whose turn it is, which still waits.
func (c *Class) choose(now mono.Time) *Task {
	if c.Policy == NewestFirst && c.head != nil {
		c.judge(now)
		if c.standing {
			return c.tail
		}
	}
	return c.edf.min()
}

// late reports whether a task that begins now would end too late, going by how long others of its class ran. The
// estimate counts for at most half of the time that the task was given, so that a class whose tasks have become shorter
// finds out.
func (c *Class) late(now mono.Time, t *Task) bool {
	if t.Deadline == mono.Never {
		return false
	}
	estimate := min(c.mean, t.Deadline.Sub(t.arrived)/2)
	return now.Add(estimate) > t.Deadline
}
