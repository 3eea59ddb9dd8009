package socket

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// protoReceive handles a message that is not data (tipc_sk_proto_rcv). It consumes b.
func (s *Sock) protoReceive(now mono.Time, b *buf.Buf) {
	switch m := b.Msg; m.User() {
	case wire.UserConnManager:
		s.connReceive(now, b)
		return
	case wire.UserSockWakeup:
		s.wakeup(now, m.OrigNode())
	}
	b.Release()
}

// wakeup notes that a link has room again.
func (s *Sock) wakeup(now mono.Time, node uint32) {
	if s.congLinks == 0 {
		return
	}
	s.congLinks--
	for i, n := range s.congNodes {
		if n == node {
			last := len(s.congNodes) - 1
			s.congNodes[i] = s.congNodes[last]
			s.congNodes = s.congNodes[:last]
			break
		}
	}
	s.pushBacklog(now, false)
	s.t.wake(s)
}

// congested notes that a unicast link is.
func (s *Sock) congested(node uint32) {
	s.congLinks++
	s.congNodes = append(s.congNodes, node)
}

func (s *Sock) isCongested(node uint32) bool {
	for _, n := range s.congNodes {
		if n == node {
			return true
		}
	}
	return false
}

// connReceive handles connection management (tipc_sk_conn_proto_rcv). It consumes b.
func (s *Sock) connReceive(now mono.Time, b *buf.Buf) {
	m := b.Msg
	if !s.isPeerMsg(m) {
		s.t.stats.Dropped++
		b.Release()
		return
	}
	if code := m.ErrCode(); code != wire.CodeOK {
		// One of ours came back: the peer is gone. The reader gets it as an abort message.
		s.disconnect(code)
		m.SetUser(wire.UserCritical)
		m.SetType(wire.TypeConn)
		n := min(m.Hdrsz(), wire.BasicHeaderSize)
		m.SetHdrsz(n)
		m.SetSize(n)
		b.Resize(n)
		s.enqueue(b)
		return
	}
	s.probeUnacked = false
	switch m.Type() {
	case wire.TypeConnProbe:
		m.SetType(wire.TypeConnProbeReply)
		s.t.reject(now, b, wire.CodeOK)
		return
	case wire.TypeConnAck:
		if s.sndUnacked < m.ConnAck() {
			s.t.stats.Dropped++ // acknowledges more than was sent
			break
		}
		was := s.connCongested()
		s.pushBacklog(now, m.NagleAck())
		s.sndUnacked -= m.ConnAck()
		if s.peerCaps&wire.CapBlockFlowctl != 0 {
			s.sndWin = uint32(m.AdvWin())
		}
		if was && !s.connCongested() {
			s.t.wake(s)
		}
	}
	b.Release()
}

// probe asks the peer whether it is still there, or ends the connection if it has not answered for an hour
// (tipc_sk_check_probing_state).
func (s *Sock) probe(now mono.Time) {
	if s.probeUnacked {
		s.soErr = ErrConnAborted
		s.disconnect(wire.CodeNoPort)
		return
	}
	s.probeUnacked = true
	s.timer = now.Add(probeInterval)
	b := msg.Create(wire.UserConnManager, wire.TypeConnProbe, wire.IntHeaderSize, 0, s.peerNodeAddr(), s.t.own, s.peerPort(), s.port, wire.CodeOK)
	if s.t.xmitBuf(now, b, s.peerNodeAddr(), s.port) == ErrLinkCong {
		s.congested(s.peerNodeAddr())
	}
}
