package socket

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// Send sends p (sendmsg(2)). p is copied.
//
// On a connection, to.Kind is NoDest. A stream may take only part of p, n octets, when a link or the connection becomes
// congested; all other sockets take a message as a whole, of at most 66,000 octets, or not at all.
//
// Connectionless sockets send to a service address (one socket bound to it, taking turns; to.Addr.Node says where to
// look, 0 anywhere), to a range (all sockets bound to any part of it) or to a socket; with NoDest to what Connect
// stored. That a message was sent does not mean that it will arrive. Messages that cannot be delivered come back as
// received messages with an error code, unless the socket is set to drop them, which is the default.
//
// A stream or seqpacket socket that is not connected can be given a destination: this connects implicitly, with p as
// part of the request. The result can be read by ConnectResult; the reply is received like any message.
//
// Errors: [ErrWouldBlock] while a link or the connection is congested or the connection is being set up (a wakeup
// follows), [ErrMsgSize], [ErrHostUnreach], [ErrDestRequired], [ErrInvalid]; for connections also [ErrNotConnected],
// [ErrPipe] after the end, [ErrIsConnected], [ErrOpNotSupp], and pending errors, each once.
func (s *Sock) Send(now mono.Time, p []byte, to Dest) (n int, err error) {
	switch {
	case s.closed:
		return 0, ErrClosed
	case s.typ != Stream && len(p) > wire.MaxUserMsgSize:
		return 0, ErrMsgSize
	}
	s.t.enter()
	switch {
	case !s.typ.Connected():
		n, err = s.sendMsg(now, p, to)
	case to.Kind != NoDest && s.state == Open:
		n, err = s.implied(now, p, to)
	default:
		n, err = s.sendConn(now, p)
	}
	s.t.leave(now)
	if err == nil {
		s.sent.add(n)
	}
	return n, err
}

// sendMsg sends a message to a destination: of a connectionless socket, or as SYN (__tipc_sendmsg).
func (s *Sock) sendMsg(now mono.Time, p []byte, to Dest) (int, error) {
	if len(p) > wire.MaxUserMsgSize {
		return 0, ErrMsgSize
	}
	syn := s.typ.Connected()
	if to.Kind == NoDest {
		to = s.peer
	}
	h := s.phdr()
	if syn {
		switch {
		case to.Kind == RangeDest:
			return 0, ErrInvalid
		case len(s.pubs) > 0:
			return 0, ErrOpNotSupp
		}
		h.SetSyn(true)
	}

	var addr wire.SocketAddr
	scope := wire.ScopeCluster
	switch to.Kind {
	case NoDest:
		return 0, ErrDestRequired
	case RangeDest:
		return s.sendMcast(now, p, to.Range)
	case ServiceDest:
		if to.Addr.Node != 0 {
			scope = wire.ScopeNode
		}
		var ok bool
		if addr, ok = s.t.net.Lookup(to.Range.Type, to.Range.Lower, to.Addr.Node); !ok {
			return 0, ErrHostUnreach
		}
	case SocketDest:
		addr = to.Addr
	default:
		return 0, ErrInvalid
	}

	if s.isCongested(addr.Node) {
		return 0, s.blockedErr()
	}
	h.SetDestNode(addr.Node)
	h.SetDestPort(addr.Port)
	if to.Kind == ServiceDest {
		h.SetType(wire.TypeNamed)
		h.SetHdrsz(wire.NamedHeaderSize)
		h.SetLookupScope(scope)
		h.SetNameType(to.Range.Type)
		h.SetNameInst(to.Range.Lower)
		s.connNamed = syn
	} else {
		h.SetType(wire.TypeDirect)
		h.SetHdrsz(wire.BasicHeaderSize)
		h.SetLookupScope(0)
	}
	q := &s.t.xmitq
	if msg.Build(h, p, s.t.net.MTU(addr.Node, s.port), q) != nil {
		q.Purge()
		return 0, ErrMsgSize
	}
	if syn {
		if err := s.sendSyn(now, q, addr.Node); err != nil {
			q.Purge()
			return 0, err
		}
		return len(p), nil
	}
	err := s.t.net.Xmit(now, q, addr.Node, s.port)
	q.Purge()
	if err == ErrLinkCong {
		s.congested(addr.Node)
		err = nil
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// sendMcast sends a message to all sockets bound to any part of a range (tipc_sendmcast).
func (s *Sock) sendMcast(now mono.Time, p []byte, r wire.ServiceRange) (int, error) {
	if r.Lower > r.Upper {
		return 0, ErrInvalid
	}
	if s.congLinks > 0 {
		return 0, s.blockedErr()
	}
	t := s.t
	d := &t.dests
	d.Remote, d.Local = t.net.AppendMulticastNodes(d.Remote[:0], r)
	if !d.Local && len(d.Remote) == 0 {
		return 0, ErrHostUnreach
	}
	h := s.phdr()
	h.SetType(wire.TypeMcast)
	h.SetHdrsz(wire.McastHeaderSize)
	h.SetLookupScope(wire.ScopeCluster)
	h.SetDestPort(0)
	h.SetDestNode(0)
	h.SetNameType(r.Type)
	h.SetNameLower(r.Lower)
	h.SetNameUpper(r.Upper)
	q := &t.xmitq
	if msg.Build(h, p, t.net.BcastMTU(), q) != nil {
		q.Purge()
		return 0, ErrMsgSize
	}
	congested, err := t.net.Multicast(now, q, &s.method, d)
	q.Purge()
	s.congLinks += congested
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// sendConn sends on a connection (__tipc_sendstream).
func (s *Sock) sendConn(now mono.Time, p []byte) (sent int, err error) {
	h := s.phdr()
	node := s.peerNodeAddr()
	for first := true; first || sent < len(p); first = false {
		if s.state != Established || s.congLinks > 0 || s.connCongested() {
			if sent > 0 {
				return sent, nil
			}
			return 0, s.blockedErr()
		}
		part := p[sent:min(len(p), sent+wire.MaxUserMsgSize)]
		s.followMTU()
		blocks := s.sndBacklog
		oneway := s.oneway
		s.oneway++
		if oneway >= s.nagleStart && s.maxNagle > 0 && len(part) <= s.maxNagle {
			blocks += uint32(msg.Append(h, part, s.maxNagle, &s.txq))
			s.msgAcc++
			switch {
			case blocks > nagleMaxBacklog:
				s.pktCnt += uint32(s.txq.Len())
			case s.expectAck:
				s.sndBacklog = blocks
				return sent + len(part), nil
			default:
				s.requestAck()
				s.msgAcc, s.pktCnt = 0, 0
			}
		} else {
			if msg.Build(h, part, s.maxPkt, &s.txq) != nil {
				if sent > 0 {
					return sent, nil
				}
				return 0, ErrMsgSize
			}
			blocks += s.blocks(len(part) + wire.ShortHeaderSize)
		}
		err := s.t.net.Xmit(now, &s.txq, node, s.port)
		s.txq.Purge()
		s.sndBacklog = 0
		if err == ErrLinkCong {
			s.congested(node)
			err = nil
		}
		if err != nil {
			if sent > 0 {
				return sent, nil
			}
			return 0, err
		}
		s.sndUnacked += blocks
		sent += len(part)
	}
	return sent, nil
}

// blockedErr says why a message cannot be sent now (tipc_sk_sock_err).
func (s *Sock) blockedErr() error {
	if err := s.takeErr(); err != nil {
		return err
	}
	if s.typ.Connected() {
		switch {
		case s.state == Disconnecting || s.lingerPending:
			return ErrPipe
		case s.state != Established && s.state != Connecting:
			return ErrNotConnected
		}
	}
	return ErrWouldBlock
}
