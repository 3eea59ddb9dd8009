package socket

// ReadyList is a list of sockets whose readiness may have changed. The zero value is an empty list. It must not be
// copied once a socket uses it.
type ReadyList struct {
	head, tail *Sock
}

// Pop takes a socket off the list: one whose readiness may have changed since it was last returned, nil when there is
// none. It does not allocate. Closed sockets are never returned.
func (l *ReadyList) Pop() *Sock {
	for l.head != nil {
		s := l.head
		l.head, s.readyNext = s.readyNext, nil
		if l.head == nil {
			l.tail = nil
		}
		s.inReady = false
		if !s.closed {
			return s
		}
	}
	return nil
}

// SetReadyList has wakeups of the socket, and of sockets that it accepts, go to l instead of the table's own list. It
// is to be called before the socket is used.
func (s *Sock) SetReadyList(l *ReadyList) { s.ready = l }

// PopReady is [ReadyList.Pop] for the sockets that have no list of their own.
func (t *Table) PopReady() *Sock { return t.ready.Pop() }

// TakeWakeups appends all that PopReady would return.
func (t *Table) TakeWakeups(dst []*Sock) []*Sock {
	for s := t.PopReady(); s != nil; s = t.PopReady() {
		dst = append(dst, s)
	}
	return dst
}

// wake notes that a socket's readiness may have changed.
func (t *Table) wake(s *Sock) {
	if s.inReady || s.closed {
		return
	}
	s.inReady = true
	l := s.ready
	if l == nil {
		l = &t.ready
	}
	if l.tail != nil {
		l.tail.readyNext = s
	} else {
		l.head = s
	}
	l.tail = s
}
