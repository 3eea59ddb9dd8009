package socket

import (
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Connect begins to set up a connection to a service address or a socket (connect(2), tipc_connect). The result comes
// with a wakeup and is read with [Sock.ConnectResult]. A refusal because the listener is overloaded is retried until
// the connect timeout.
//
// For connectionless sockets it stores the default destination of Send, which may also be a range; NoDest clears it.
//
// Errors: nil for connectionless sockets; [ErrInProgress] when it has begun; [ErrAlready] while it goes on (this
// restarts a timeout that has run out); [ErrIsConnected]; [ErrHostUnreach]; [ErrOpNotSupp] for a socket with bindings;
// [ErrInvalid] for other destinations and for listening and disconnected sockets.
func (s *Sock) Connect(now mono.Time, to Dest) error {
	if s.closed {
		return ErrClosed
	}
	if !s.typ.Connected() {
		if to.Kind > SocketDest || to.Kind == RangeDest && to.Range.Lower > to.Range.Upper {
			return ErrInvalid
		}
		s.peer = to
		return nil
	}
	if to.Kind != ServiceDest && to.Kind != SocketDest {
		return ErrInvalid
	}
	switch s.state {
	case Open:
		s.t.enter()
		_, err := s.sendMsg(now, nil, to)
		if err == nil {
			s.startConnTimeout(now)
		}
		s.t.leave(now)
		if err != nil {
			return err
		}
		return ErrInProgress
	case Connecting:
		if s.connEnd == mono.Never {
			s.startConnTimeout(now)
		}
		return ErrAlready
	case Established:
		return ErrIsConnected
	}
	return ErrInvalid
}

func (s *Sock) startConnTimeout(now mono.Time) {
	if s.connTimeout > 0 {
		s.connEnd = now.Add(s.connTimeout)
		s.arm()
	}
}

// ConnectResult tells how far a connect has come: nil, established; [ErrInProgress]; or why it failed, which is told
// once ([ErrConnRefused], [ErrTimedOut], [ErrHostUnreach]). After that, or if there was no connect: [ErrNotConnected].
// A connect that has timed out is still [ErrInProgress] after that, since the answer may yet come.
func (s *Sock) ConnectResult() error {
	if err := s.takeErr(); err != nil {
		return err
	}
	switch s.state {
	case Established:
		return nil
	case Connecting:
		return ErrInProgress
	}
	return ErrNotConnected
}

// takeErr returns and clears the pending error. It returns an untyped nil if there is none.
func (s *Sock) takeErr() error {
	if err := s.soErr; err != nil {
		s.soErr = nil
		return err
	}
	return nil
}

// scheduleRetry has the SYN sent again after a while, since the listener was overloaded. The random part spreads the
// clients over a quarter of the timeout.
func (s *Sock) scheduleRetry(now mono.Time) {
	spread := uint32(max(s.connTimeout, minConnTimeout).Milliseconds() / 4)
	s.timer = now.Add(retryBase + time.Duration(s.t.rand()&0xffff%spread)*time.Millisecond)
	s.arm()
}

// retryConnect sends a copy of the SYN (tipc_sk_retry_connect).
func (s *Sock) retryConnect(now mono.Time) {
	if s.congLinks > 0 {
		s.timer = now.Add(retryBase)
		return
	}
	var q buf.Queue
	cloneQueue(&q, &s.txq)
	node := s.peerNodeAddr()
	if s.t.net.Xmit(now, &q, node, s.port) == ErrLinkCong {
		s.congested(node)
	}
}

// sendSyn sends a message as SYN, and keeps a copy for retries. It is the last step of sendMsg.
func (s *Sock) sendSyn(now mono.Time, q *buf.Queue, node uint32) error {
	s.txq.Purge()
	cloneQueue(&s.txq, q)
	err := s.t.net.Xmit(now, q, node, s.port)
	if err == ErrLinkCong {
		s.congested(node)
		err = nil
	}
	if err != nil {
		s.txq.Purge()
		return err
	}
	s.state = Connecting
	s.joinPeer(node)
	return nil
}

// cloneQueue appends copies of the messages on from to q.
func cloneQueue(q, from *buf.Queue) {
	for b := from.Front(); b != nil; b = b.Next() {
		q.PushBack(b.Clone())
	}
}

// implied sends the first message of a connection together with the SYN (the part of __tipc_sendstream before the
// loop).
func (s *Sock) implied(now mono.Time, p []byte, to Dest) (int, error) {
	n, err := s.sendMsg(now, p, to)
	if err == nil && n > 0 {
		s.peerCaps = wire.CapsAll
		s.sndUnacked = s.blocks(n + s.phdr().Hdrsz())
	}
	return n, err
}
