// Package sched decides what an executor runs next, and what it does not run at all: strict levels, weights among the
// classes of a level, earliest deadline first within a class, bounded queues, and what becomes of the rest.
//
// It is a core: the driver says what time it is, asks for a task (Next), says that it ended (End), and hands on what was
// decided about tasks that wait (Decided). Nothing here allocates after the classes are made. Not safe for concurrent use.
package sched

import (
	"time"

	"midplane/internal/mono"
)

// passUnit scales virtual time, so that weights divide it finely.
const passUnit = 1024

// leastCost is what a task costs its class at least: many tasks of no length must not count as nothing.
const leastCost = time.Microsecond

// Sched is one queueing system: classes, served by workers that are all alike. The zero value has no class and no limit.
type Sched struct {
	levels  [Levels][]*Class
	virtual [Levels]uint64 // virtual time of a level: the pass of the class that was served last
	waiting int            // tasks that wait, held back ones not counted
	running int
	limit   int // most that run at once, 0 for no limit
	seq     uint64
	closed  bool

	decided, lastDecided *Task
}

// Add makes a class. It panics when the configuration has values out of range; drivers check what users give them.
func (s *Sched) Add(cfg Config) *Class {
	if cfg.Level >= Levels || cfg.Weight < 1 || cfg.Queue < 1 || cfg.Policy > NewestFirst {
		panic("sched: class out of range")
	}
	c := &Class{Config: cfg}
	c.edf.a = make([]*Task, 0, cfg.Queue)
	c.held.a, c.held.byDue = make([]*Task, 0, cfg.Queue), true
	s.levels[cfg.Level] = append(s.levels[cfg.Level], c)
	return c
}

// Limit sets how many tasks may run at once, 0 for no limit. What runs already goes on.
func (s *Sched) Limit(n int) { s.limit = n }

// Running returns how many tasks have begun and not ended.
func (s *Sched) Running() int { return s.running }

// Waiting returns how many tasks wait that could begin, were there a worker.
func (s *Sched) Waiting() int { return s.waiting }

// Busy reports whether a task waits, held back ones included, or runs.
func (s *Sched) Busy() bool {
	return s.running > 0 || s.Deadline() != mono.Never || s.waiting > 0
}

// Ready reports whether Next could return a task.
func (s *Sched) Ready() bool { return s.waiting > 0 && (s.limit == 0 || s.running < s.limit) }

// Submit takes a task, which must not wait, into the queue of a class, and reports whether it did. When it did, the task
// comes back from Next or from Decided, once. When it did not, the task has the fate Rejected.
func (s *Sched) Submit(now mono.Time, c *Class, t *Task) bool {
	if t.place != nowhere {
		panic("sched: a task that waits was submitted")
	}
	t.Fate, t.class = Open, c
	s.expire(now, c)
	at := t.Source.Admit(now)
	if at > now && (t.Source.Refuse || at >= t.Deadline) {
		c.TooSoon++
		return s.reject(c, t)
	}
	if s.closed || t.Deadline <= now {
		return s.reject(c, t)
	}
	if c.Waiting() >= c.Queue {
		if c.Policy == Reject || c.head == nil {
			return s.reject(c, t)
		}
		s.decide(c, c.head, Shed)
	}
	t.Source.Take(at)
	c.Accepted++
	if at > now {
		s.seq++
		t.seq, t.due, t.place = s.seq, at, delayed
		c.held.push(t)
	} else {
		s.join(c, now, t)
	}
	c.Longest = max(c.Longest, c.Waiting())
	return true
}

func (s *Sched) reject(c *Class, t *Task) bool {
	t.Fate = Rejected
	c.Fate[Rejected]++
	return false
}

// join lets a task into the queue. A class that had nothing to do gets no credit for the time that it did not use.
func (s *Sched) join(c *Class, at mono.Time, t *Task) {
	if c.head == nil && c.running == 0 {
		c.pass = max(c.pass, s.virtual[c.Level])
	}
	s.waiting++
	s.seq++
	t.seq = s.seq
	c.enqueue(at, t)
}

// decide takes a waiting task out and notes its fate.
func (s *Sched) decide(c *Class, t *Task, f Fate) {
	if t.place == queued {
		s.waiting--
	}
	c.dequeue(t)
	t.Fate, t.place = f, settled
	c.Fate[f]++
	if s.lastDecided == nil {
		s.decided = t
	} else {
		s.lastDecided.next = t
	}
	s.lastDecided = t
}

// Decided returns the tasks that waited and will not run, each with its Fate, as a list to be walked with Unlink; nil when
// there is none. They are the caller's then.
func (s *Sched) Decided() *Task {
	first := s.decided
	for t := first; t != nil; t = t.next {
		t.place = nowhere
	}
	s.decided, s.lastDecided = nil, nil
	return first
}

// Unlink takes the first task off a list that Decided returned, and returns the rest.
func (t *Task) Unlink() (rest *Task) {
	rest, t.next = t.next, nil
	return rest
}

// expire drops what is late already, and lets those join whose time has come.
func (s *Sched) expire(now mono.Time, c *Class) {
	for t := c.held.min(); t != nil && t.due <= now; t = c.held.min() {
		c.held.remove(t)
		s.join(c, t.due, t)
	}
	for t := c.edf.min(); t != nil && t.Deadline <= now; t = c.edf.min() {
		s.decide(c, t, Expired)
	}
	// In newest first nothing else ends the wait of a task that has no deadline.
	for c.standing && c.head != nil && c.head.Deadline == mono.Never && c.Oldest(now) > 2*c.Interval {
		s.decide(c, c.head, Shed)
	}
}

// Advance does what time brings about: tasks expire, and held back ones join their queue.
func (s *Sched) Advance(now mono.Time) {
	for l := range s.levels {
		for _, c := range s.levels[l] {
			s.expire(now, c)
		}
	}
}

// Deadline returns when Advance has something to do again, mono.Never when nothing waits.
func (s *Sched) Deadline() mono.Time {
	d := mono.Never
	for l := range s.levels {
		for _, c := range s.levels[l] {
			if t := c.edf.min(); t != nil {
				d = d.Min(t.Deadline)
			}
			if t := c.held.min(); t != nil {
				d = d.Min(t.due)
			}
		}
	}
	return d
}

// Next returns the task that begins now, nil when none may. The scheduler does not know the task any more then; the
// driver tells End when it has ended.
func (s *Sched) Next(now mono.Time) *Task {
	s.Advance(now)
	for l := range s.levels {
		for s.Ready() {
			c := s.turn(Level(l))
			if c == nil {
				break
			}
			t := c.choose(now)
			if c.late(now, t) {
				s.decide(c, t, Expired)
				continue
			}
			s.waiting--
			c.dequeue(t)
			s.virtual[l] = max(s.virtual[l], c.pass)
			c.charge(c.mean)
			c.running++
			s.running++
			c.Begun++
			return t
		}
	}
	return nil
}

// turn returns the class of a level that has a task and has received least for its weight. One that runs as much as it
// may gathers no credit meanwhile, or it would starve others later.
func (s *Sched) turn(l Level) (best *Class) {
	for _, c := range s.levels[l] {
		switch {
		case c.head == nil:
		case c.Running > 0 && c.running >= c.Running:
			c.pass = max(c.pass, s.virtual[l])
		case best == nil || c.pass < best.pass:
			best = c
		}
	}
	return best
}

func (c *Class) charge(cost time.Duration) {
	c.pass += uint64(max(cost, leastCost)) * passUnit / uint64(c.Weight)
}

// End says that a task of the class has ended, and how long it ran. expected is what Mean returned when it began.
func (s *Sched) End(c *Class, expected, ran time.Duration) {
	c.running--
	s.running--
	// The class was charged with the mean when the task began.
	was, is := uint64(max(expected, leastCost))*passUnit/uint64(c.Weight), uint64(max(ran, leastCost))*passUnit/uint64(c.Weight)
	c.pass = c.pass - min(c.pass, was) + is
	if c.mean == 0 {
		c.mean = ran
	} else {
		c.mean += (ran - c.mean) / 8
	}
}

// Cancel takes a task back and reports whether it waited; Decided returns it then.
func (s *Sched) Cancel(t *Task) bool {
	if !t.Waits() {
		return false
	}
	s.decide(t.class, t, Canceled)
	return true
}

// Close lets in nothing more. What waits goes on.
func (s *Sched) Close() { s.closed = true }

// Flush drains everything that waits.
func (s *Sched) Flush() {
	for l := range s.levels {
		for _, c := range s.levels[l] {
			for t := c.held.min(); t != nil; t = c.held.min() {
				s.decide(c, t, Drained)
			}
			for c.head != nil {
				s.decide(c, c.head, Drained)
			}
		}
	}
}
