package socket

import (
	"io"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Recv receives into p, which must not be empty (recvmsg(2)): of a stream what there is, up to len(p); otherwise one
// message, of which the rest is lost if p is too short, see info.Truncated and [RecvEOR]. Empty messages are skipped.
//
// Connectionless sockets get messages of their own back that could not be delivered: info.Err is then the reason,
// info.From the socket that refused it (port 0: none was found), and p has the data, of which at most 1024 octets come
// back.
//
// A connection ends with io.EOF if the peer shut it down, with [ErrConnReset] otherwise; info.Err is the code that was
// received. Both are repeated by further calls. With [RecvAncillary] the message that ended the connection is first
// returned as a message, with info.Err and what data came back.
//
// Errors: [ErrWouldBlock] if nothing waits, [ErrInvalid], [ErrNotConnected] before there was a connection and after
// Shutdown, and pending errors, each once.
func (s *Sock) Recv(now mono.Time, p []byte, flags RecvFlags) (n int, info RecvInfo, err error) {
	conn := s.typ.Connected()
	switch {
	case s.closed:
		return 0, info, ErrClosed
	case len(p) == 0:
		return 0, info, ErrInvalid
	case conn && (s.state == Open || s.state == Listening || s.shut):
		return 0, info, ErrNotConnected
	}
	s.t.enter()
	if s.typ == Stream {
		n, err = s.recvStream(now, p, flags, &info)
	} else {
		n, err = s.recvMsg(now, p, flags, &info)
	}
	s.t.leave(now)
	if err == nil && flags&RecvPeek == 0 {
		s.received.add(n)
	}
	return n, info, err
}

// front is the first message with data or an error code, nil and an error if there is none.
func (s *Sock) front(now mono.Time, info *RecvInfo) (*buf.Buf, error) {
	if err := s.takeErr(); err != nil {
		return nil, err
	}
	for {
		b := s.rxq.Front()
		switch {
		case b != nil && (b.Msg.DataSize() > 0 || b.Msg.ErrCode() != wire.CodeOK):
			return b, nil
		case b != nil:
			s.consume(now)
			continue
		case s.shut:
			return nil, ErrNotConnected
		case s.state == Disconnecting:
			info.Err = s.endErr
			return nil, s.endError()
		}
		return nil, ErrWouldBlock
	}
}

// endError is what a reader gets at the end of a connection.
func (s *Sock) endError() error {
	if s.endErr == wire.CodeConnShutdown {
		return io.EOF
	}
	return ErrConnReset
}

// consume takes the first message off the queue; on a connection it is acknowledged in time.
func (s *Sock) consume(now mono.Time) {
	b := s.dequeue()
	size := b.Msg.Size()
	b.Release()
	if s.typ.Connected() {
		s.consumed(now, size)
	}
}

// recvMsg receives one message (tipc_recvmsg).
func (s *Sock) recvMsg(now mono.Time, p []byte, flags RecvFlags, info *RecvInfo) (n int, err error) {
	b, err := s.front(now, info)
	if err != nil {
		return 0, err
	}
	m := b.Msg
	s.describe(m, info)
	data := m.Data()
	if info.Err != wire.CodeOK {
		if s.typ.Connected() && flags&RecvAncillary == 0 {
			return 0, s.endedBy(now, info.Err, flags)
		}
		n = copy(p, data)
		info.Truncated = n < len(data)
	} else {
		n = copy(p, data[b.BytesRead:])
		end := b.BytesRead + n
		switch {
		case end == len(data):
			info.EOR = flags&RecvEOR != 0
		case flags&RecvEOR == 0:
			info.Truncated = true
		default:
			if flags&RecvPeek == 0 {
				b.BytesRead = end
			}
			return n, nil
		}
	}
	if flags&RecvPeek == 0 {
		s.consume(now)
	}
	return n, nil
}

// endedBy returns the end of the connection that the first message says; an orderly one is consumed, as there is
// nothing to be had from it with RecvAncillary.
func (s *Sock) endedBy(now mono.Time, code wire.ErrCode, flags RecvFlags) error {
	if code != wire.CodeConnShutdown {
		return ErrConnReset
	}
	if flags&RecvPeek == 0 {
		s.consume(now)
	}
	return io.EOF
}

// recvStream receives what there is (tipc_recvstream).
func (s *Sock) recvStream(now mono.Time, p []byte, flags RecvFlags, info *RecvInfo) (n int, err error) {
	for n < len(p) {
		b, err := s.streamFront(now, info, n)
		if err != nil {
			return n, err
		}
		if b == nil {
			return n, nil
		}
		m := b.Msg
		if n == 0 {
			s.describe(m, info)
		}
		if code := m.ErrCode(); code != wire.CodeOK {
			if n > 0 {
				return n, nil
			}
			if flags&RecvAncillary == 0 {
				return 0, s.endedBy(now, code, flags)
			}
			n = copy(p, m.Data())
			if flags&RecvPeek == 0 {
				s.consume(now)
			}
			return n, nil
		}
		data := m.Data()
		c := copy(p[n:], data[b.BytesRead:])
		n += c
		if flags&RecvPeek != 0 {
			return n, nil // as in Linux, of one message only
		}
		if b.BytesRead += c; b.BytesRead == len(data) {
			s.consume(now)
		}
	}
	return n, nil
}

// streamFront is front, but once something was received the absence of more is no error.
func (s *Sock) streamFront(now mono.Time, info *RecvInfo, n int) (*buf.Buf, error) {
	if n == 0 {
		return s.front(now, info)
	}
	for b := s.rxq.Front(); b != nil; b = s.rxq.Front() {
		if b.Msg.DataSize() > 0 || b.Msg.ErrCode() != wire.CodeOK {
			return b, nil
		}
		s.consume(now)
	}
	return nil, nil
}

// describe fills in what the header says (tipc_sk_set_orig_addr, tipc_sk_anc_data_recv).
func (s *Sock) describe(m wire.Msg, info *RecvInfo) {
	info.From = wire.SocketAddr{Port: m.OrigPort(), Node: m.OrigNode()}
	info.Err = m.ErrCode()
	h := m
	switch m.Type() {
	case wire.TypeMcast:
		info.HasDest = true
		info.Dest = wire.ServiceRange{Type: m.NameType(), Lower: m.NameLower(), Upper: m.NameUpper()}
		return
	case wire.TypeConn:
		info.HasDest = s.connNamed
		h = s.phdr()
	case wire.TypeNamed:
		info.HasDest = true
	}
	if info.HasDest {
		info.Dest = wire.ServiceRange{Type: h.NameType(), Lower: h.NameInst(), Upper: h.NameInst()}
	}
}
