package socket

import "midplane/internal/mono"

// Deadline is when [Table.Tick] has to be called next; [mono.Never] if no timer runs.
func (t *Table) Deadline() mono.Time { return t.timers.Next() }

// Tick serves the timers that have run out.
func (t *Table) Tick(now mono.Time) {
	t.enter()
	// A timer that is served is either off or later than now, so this ends.
	for s := t.timers.Due(now); s != nil; s = t.timers.Due(now) {
		s.expire(now)
	}
	t.leave(now)
}

// expire serves one socket (tipc_sk_timeout, and the timeouts that Linux has in the blocked caller).
func (s *Sock) expire(now mono.Time) {
	if s.lingerEnd <= now {
		s.lingerEnd = mono.Never
		s.finishLinger(now)
	}
	if s.connEnd <= now {
		s.connEnd = mono.Never
		if s.state == Connecting {
			s.soErr = ErrTimedOut
			s.t.wake(s)
		}
	}
	if s.heldEnd <= now {
		s.releaseHeld(now)
	}
	if s.timer <= now {
		s.timer = mono.Never
		switch s.state {
		case Established:
			s.probe(now)
		case Connecting:
			s.retryConnect(now)
		}
	}
	s.arm()
}

// arm sets the socket's place among all timers by its earliest one.
func (s *Sock) arm() {
	at := s.timer.Min(s.connEnd).Min(s.lingerEnd).Min(s.heldEnd)
	if s.dead {
		at = mono.Never
	}
	s.t.timers.Set(&s.first, s, at)
}
