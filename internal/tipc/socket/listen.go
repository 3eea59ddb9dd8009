package socket

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// Listen makes the socket wait for connections (listen(2), tipc_listen). Linux ignores the backlog: what bounds the
// connection requests that wait is the receive buffer, doubled for each level of their importance. A backlog above 0
// is a second bound, on their number. A request beyond either bound is refused with ERR_OVERLOAD, and clients then
// retry until their connect timeout. Calling it again changes the backlog.
//
// Errors: [ErrInvalid] in any state but open, [ErrOpNotSupp] for connectionless sockets.
func (s *Sock) Listen(backlog int) error {
	switch {
	case s.closed:
		return ErrClosed
	case !s.typ.Connected():
		return ErrOpNotSupp
	case s.state != Open && s.state != Listening:
		return ErrInvalid
	}
	s.state = Listening
	s.backlog = max(backlog, 0)
	return nil
}

// Accept makes the next connection that waits into a socket and tells the peer so (accept(2), tipc_accept). Data that
// came with the request is what the new socket receives first. The new socket has the listener's type, receive buffer
// and no-delay setting, and the importance that the client chose.
//
// Errors: [ErrWouldBlock] if none waits, [ErrInvalid] if the socket does not listen, [ErrTooMany] (the request goes on
// waiting).
func (s *Sock) Accept(now mono.Time) (*Sock, error) {
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.state != Listening:
		return nil, ErrInvalid
	}
	front := s.rxq.Front()
	if front == nil {
		return nil, ErrWouldBlock
	}
	t := s.t
	n, err := t.Create(now, s.typ)
	if err != nil {
		return nil, err
	}
	t.enter()
	defer t.leave(now)
	n.rcvBuf, n.nodelay, n.connTimeout, n.ready = s.rcvBuf, s.nodelay, s.connTimeout, s.ready
	b := s.dequeue()
	m := b.Msg
	n.finishConn(now, m.OrigPort(), m.OrigNode())
	n.phdr().SetImportance(m.Importance())
	if m.IsNamed() {
		n.setConnName(m.NameType(), m.NameInst())
	}
	if m.DataSize() > 0 {
		n.enqueue(b)
	} else {
		b.Release()
	}
	if _, err := n.sendConn(now, nil); err != nil && n.state == Established {
		// The client's node was lost meanwhile. Nobody will say so again.
		n.disconnect(wire.CodeNoNode)
	}
	return n, nil
}

// setConnName notes the service address that the connection was set up with.
func (s *Sock) setConnName(typ, inst uint32) {
	s.connNamed = true
	s.phdr().SetNameType(typ)
	s.phdr().SetNameInst(inst)
}
