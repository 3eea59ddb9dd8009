package socket

import "midplane/internal/tipc/wire"

// Ready tells which calls would not block (poll(2), tipc_poll).
func (s *Sock) Ready() Readiness {
	var r Readiness
	if s.shut {
		r = ReadyRdHup | ReadyIn | ReadyHup
	}
	if s.soErr != nil {
		r |= ReadyErr
	}
	waiting := !s.rxq.Empty()
	switch s.state {
	case Established:
		if s.congLinks == 0 && !s.connCongested() {
			r |= ReadyOut
		}
		if waiting {
			r |= ReadyIn
		}
	case Listening, Connecting:
		if waiting {
			r |= ReadyIn
		}
	case Open:
		if s.congLinks == 0 {
			r |= ReadyOut
		}
		if waiting && !s.typ.Connected() {
			r |= ReadyIn
		}
	case Disconnecting:
		r |= ReadyIn | ReadyHup
	}
	return r
}

// Info describes a socket as the kernel does to `tipc socket list` and ss(8) (__tipc_nl_add_sk_info,
// tipc_sk_fill_sock_diag), and some more.
type Info struct {
	Port, Node uint32
	Type       Type
	State      State

	Connected bool            // Peer is set
	Peer      wire.SocketAddr // other end
	ConnNamed bool            // the connection was set up with the service address {ConnType, ConnInst}
	ConnType  uint32
	ConnInst  uint32
	HasPubl   bool // has bindings, see Sock.Publications

	RcvQ     int    // messages to be received
	RcvUsed  int    // octets that they count
	RcvBuf   int    // octets that they may
	SendQ    int    // messages gathered by Nagle's algorithm, or the SYN kept for retries
	Drops    uint32 // messages refused for lack of room
	LinkCong bool   // a link is congested
	ConnCong bool   // the connection is

	Importance             int
	SndUnacked, SndWin     uint32 // flow control blocks
	RcvUnacked, RcvWin     uint32
	SentMsgs, SentOctets   uint64 // by Send, in parts as it took them
	RecvdMsgs, RecvdOctets uint64 // by Recv
}

// Info returns the present figures.
func (s *Sock) Info() Info {
	h := s.phdr()
	i := Info{
		Port: s.port, Node: s.t.own, Type: s.typ, State: s.state,
		RcvQ: s.rxq.Len(), RcvUsed: s.rxUsed, RcvBuf: s.rcvBuf, SendQ: s.txq.Len(), Drops: s.drops,
		LinkCong: s.congLinks > 0, ConnCong: s.connCongested(), Importance: s.Importance(),
		SndUnacked: s.sndUnacked, SndWin: s.sndWin, RcvUnacked: s.rcvUnacked, RcvWin: s.rcvWin,
		SentMsgs: s.sent.msgs, SentOctets: s.sent.octets, RecvdMsgs: s.received.msgs, RecvdOctets: s.received.octets,
	}
	if s.state == Established {
		i.Connected = true
		i.Peer = wire.SocketAddr{Port: s.peerPort(), Node: s.peerNodeAddr()}
		if s.connNamed {
			i.ConnNamed, i.ConnType, i.ConnInst = true, h.NameType(), h.NameInst()
		}
	} else {
		i.HasPubl = len(s.pubs) > 0
	}
	return i
}
