package socket

import "midplane/internal/mono"

// Deadline is when [Table.Tick] has to be called next; [mono.Never] if no timer runs.
func (t *Table) Deadline() mono.Time {
	if len(t.timers) == 0 {
		return mono.Never
	}
	return t.timers[0].when
}

// Tick serves the timers that have run out.
func (t *Table) Tick(now mono.Time) {
	t.enter()
	// A timer that is served is either off or later than now, so this ends.
	for len(t.timers) > 0 && t.timers[0].when <= now {
		t.timers[0].expire(now)
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

// arm puts the socket where its next timer belongs in the heap, or takes it out.
func (s *Sock) arm() {
	t := s.t
	when := s.timer.Min(s.connEnd).Min(s.lingerEnd).Min(s.heldEnd)
	if s.dead {
		when = mono.Never
	}
	if when == s.when {
		return
	}
	s.when = when
	switch {
	case when == mono.Never:
		if i := s.heapIdx; i >= 0 {
			last := len(t.timers) - 1
			t.swap(i, last)
			t.timers[last] = nil
			t.timers = t.timers[:last]
			s.heapIdx = -1
			if i < last {
				t.fix(i)
			}
		}
	case s.heapIdx < 0:
		s.heapIdx = len(t.timers)
		t.timers = append(t.timers, s)
		t.fix(s.heapIdx)
	default:
		t.fix(s.heapIdx)
	}
}

func (t *Table) swap(i, j int) {
	h := t.timers
	h[i], h[j] = h[j], h[i]
	h[i].heapIdx, h[j].heapIdx = i, j
}

// before is the order in which timers are served. Of equal ones it is that of ports, so that runs can be repeated, in
// whatever order they were set.
func (s *Sock) before(o *Sock) bool {
	return s.when < o.when || s.when == o.when && s.port < o.port
}

// fix restores the heap after the socket at i changed.
func (t *Table) fix(i int) {
	h := t.timers
	for i > 0 && h[i].before(h[(i-1)/2]) {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
			if h[c].before(h[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		t.swap(i, least)
		i = least
	}
}
