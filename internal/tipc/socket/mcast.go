package socket

import (
	"slices"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// receiveMcast handles a multicast message. While its sender changes from broadcast to replicast or back, messages are
// held until they are in order (tipc_mcast_filter_msg).
func (s *Sock) receiveMcast(now mono.Time, b *buf.Buf) {
	// One of ours that came back is not part of the order.
	if b.Msg.ErrCode() != wire.CodeOK && !isTwin(b.Msg) {
		s.accept(now, b)
		return
	}
	if s.defq.Empty() && !b.Msg.IsSyn() {
		s.accept(now, b)
		return
	}
	b.RetrStamp, b.NextRetr = now, now.Add(holdCheck) // if it is held: since when, and when to see whether that is of use
	q := &s.t.mcastq
	q.PushBack(b)
	s.t.net.FilterMcast(&s.defq, q)
	s.deliverMcast(now, q)
	s.boundHeld()
}

// isTwin tells whether a message is the empty twin of one that is the first to travel another way.
func isTwin(m wire.Msg) bool {
	return m.IsSyn() && m.ErrCode() != wire.CodeOK && m.DataSize() == 0
}

// deliverMcast empties q into the receive queue.
func (s *Sock) deliverMcast(now mono.Time, q *buf.Queue) {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		if isTwin(b.Msg) {
			s.t.stats.Dropped++
			b.Release()
			continue
		}
		s.accept(now, b)
	}
}

// boundHeld keeps the number and the size of held messages in bounds, and sets the time to look at them.
func (s *Sock) boundHeld() {
	octets, first := 0, mono.Never
	for b := s.defq.Front(); b != nil; b = b.Next() {
		octets += truesize(b)
		first = first.Min(b.NextRetr)
	}
	for s.defq.Len() > maxDeferred || octets > maxDeferredBytes {
		b := s.defq.PopFront()
		octets -= truesize(b)
		b.Release()
		s.drops++
		s.t.stats.Deferred++
	}
	if s.defq.Empty() {
		first = mono.Never
	}
	if first != s.heldEnd {
		s.heldEnd = first
		s.arm()
	}
}

// releaseHeld ends the wait for the order of those senders of whom what is missing cannot come any more, and delivers what
// there is of them. Linux waits for ever. The twin of a SYN message never comes when a Linux sender changed its way
// without knowing this socket's binding, or when a broadcast one waited for other nodes until contact was made with this
// one, after the other twin had been sent.
func (s *Sock) releaseHeld(now mono.Time) {
	q := &s.t.mcastq
	for late := s.late(now); late != nil; late = s.late(now) {
		m := late.Msg
		node, port := m.OrigNode(), m.OrigPort()
		wait := s.t.net.UnderWay(now, node, late.RetrStamp, m.IsRcast())
		for b := s.defq.Front(); b != nil; {
			next := b.Next()
			switch {
			case b.Msg.OrigNode() != node || b.Msg.OrigPort() != port:
			case wait:
				b.NextRetr = now.Add(holdCheck)
			default:
				s.defq.Remove(b)
				q.PushBack(b)
			}
			b = next
		}
		s.deliverMcast(now, q)
	}
	s.boundHeld()
}

// dropHeld forgets what waits for the order of a node's multicasts when contact with it is lost: what is missing before
// it never comes, and what comes after new contact must not be mixed up with it, as it is in Linux.
func (t *Table) dropHeld(node uint32) {
	var holding []uint32 // ports
	for port, s := range t.socks {
		if !s.defq.Empty() {
			holding = append(holding, port)
		}
	}
	slices.Sort(holding) // runs can be repeated
	for _, port := range holding {
		s, dropped := t.socks[port], false
		for b := s.defq.Front(); b != nil; {
			next := b.Next()
			if b.Msg.OrigNode() == node {
				s.defq.Remove(b)
				b.Release()
				t.stats.Dropped++
				dropped = true
			}
			b = next
		}
		if dropped {
			s.boundHeld()
		}
	}
}

// late is the first held message of a sender whose time to be looked at has come, or nil.
func (s *Sock) late(now mono.Time) *buf.Buf {
	for b := s.defq.Front(); b != nil; b = b.Next() {
		if b.NextRetr <= now {
			return b
		}
	}
	return nil
}
