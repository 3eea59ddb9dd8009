package socket

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// Shutdown ends the connection in both directions and discards what was not read (shutdown(2) with SHUT_RDWR; TIPC has
// no half-close). The peer's reader gets the data sent before and then io.EOF. If the connection is congested, the end
// is sent when that is over, after 8 seconds at the latest.
//
// Messages that wait on a listening or connectionless socket go back to their senders. [ErrNotConnected] if there was
// no connection; the socket counts as shut down all the same.
func (s *Sock) Shutdown(now mono.Time) error {
	if s.closed {
		return ErrClosed
	}
	s.t.enter()
	s.shut = true
	s.end(now, wire.CodeConnShutdown)
	var err error
	if !s.lingerPending && s.state != Disconnecting {
		err = ErrNotConnected
	}
	s.t.wake(s)
	s.t.leave(now)
	return err
}

// Close closes the socket and withdraws its bindings (close(2), tipc_release). Messages that wait on a listening or
// connectionless socket go back to their senders. A connection that was not shut down is aborted: the first unread
// message goes back, or if there is none a FIN is sent, with code ERR_NO_PORT. If the connection is congested, it ends
// when that is over, after 8 seconds at the latest; until then the socket stays in its table.
//
// All later calls return [ErrClosed]. Closing twice does nothing.
func (s *Sock) Close(now mono.Time) {
	if s.closed {
		return
	}
	s.closed, s.shut = true, true
	s.t.enter()
	s.end(now, wire.CodeNoPort)
	s.t.leave(now)
	s.UnbindAll(now)
	if !s.lingerPending {
		s.remove()
	}
}

// end ends the connection now or, so that the FIN does not overtake data, when it is not congested any more
// (__tipc_shutdown).
func (s *Sock) end(now mono.Time, code wire.ErrCode) {
	switch {
	case s.lingerPending:
	case s.congestedConn():
		s.lingerPending, s.lingerCode = true, code
		s.lingerEnd = now.Add(connTimeoutDefault)
		s.arm()
	default:
		s.finish(now, code)
	}
}

func (s *Sock) congestedConn() bool {
	return s.typ.Connected() && s.state == Established && (s.congLinks > 0 || s.connCongested())
}

// continueLinger finishes an end that had to wait, if it can be.
func (s *Sock) continueLinger(now mono.Time) {
	if s.lingerPending && !s.congestedConn() {
		s.finishLinger(now)
	}
}

func (s *Sock) finishLinger(now mono.Time) {
	if !s.lingerPending {
		return
	}
	s.lingerPending, s.lingerEnd = false, mono.Never
	s.finish(now, s.lingerCode)
	s.purgeReceived()
	if s.closed {
		s.remove()
	}
	s.arm()
}

// finish is __tipc_shutdown from where it no longer waits.
func (s *Sock) finish(now mono.Time, code wire.ErrCode) {
	s.pushBacklog(now, false)
	s.txq.Purge()
	s.sndBacklog = 0
	if b := s.rxq.Front(); b != nil && b.BytesRead > 0 {
		s.dequeue().Release()
	}
	switch {
	case !s.typ.Connected() || s.state == Listening:
		for b := s.dequeue(); b != nil; b = s.dequeue() {
			s.t.reject(now, b, code)
		}
	case s.state == Connecting || s.state == Established:
		node, port := s.peerNodeAddr(), s.peerPort()
		s.disconnect(code)
		b := s.dequeue()
		s.purgeReceived()
		if b != nil && s.t.reject(now, b, code) {
			return
		}
		fin := msg.Create(wire.UserCritical, wire.TypeConn, wire.ShortHeaderSize, 0, node, s.t.own, port, s.port, code)
		s.t.xmitBuf(now, fin, node, s.port)
	default:
		s.purgeReceived()
	}
}

// purgeReceived discards what was not read.
func (s *Sock) purgeReceived() {
	for b := s.dequeue(); b != nil; b = s.dequeue() {
		b.Release()
	}
}

// remove takes the closed socket out of its table.
func (s *Sock) remove() {
	if s.dead {
		return
	}
	s.dead = true
	s.leavePeer()
	s.purgeReceived()
	s.txq.Purge()
	s.defq.Purge()
	s.arm()
	delete(s.t.socks, s.port)
	s.t.stats.Sockets--
}
