package socket

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// advBlocks translates a receive buffer to the window that is advertised: a block may take four times its size in
// memory (tsk_adv_blocks).
func advBlocks(rcvBuf int) uint32 { return min(uint32(rcvBuf/blockSize/4), 1<<16-1) }

// blocks is the weight of a message in flow control: 1 KiB blocks, or 1 for peers that count messages (tsk_inc).
func (s *Sock) blocks(size int) uint32 {
	if s.peerCaps&wire.CapBlockFlowctl != 0 {
		return uint32(size/blockSize) + 1
	}
	return 1
}

// connCongested tells whether the window is used up; one message may exceed it (tsk_conn_cong).
func (s *Sock) connCongested() bool { return s.sndUnacked > s.sndWin }

// consumed counts a message as read, and acknowledges at a quarter of the window.
func (s *Sock) consumed(now mono.Time, size int) {
	s.rcvUnacked += s.blocks(size)
	if s.rcvUnacked >= s.rcvWin/ackRate {
		s.sendAck(now, false)
	}
}

// sendAck acknowledges what was read and advertises the window (tipc_sk_build_ack). nagle says that the peer's Nagle
// algorithm waits for it.
func (s *Sock) sendAck(now mono.Time, nagle bool) {
	if s.state != Established {
		return
	}
	node := s.peerNodeAddr()
	b := msg.Create(wire.UserConnManager, wire.TypeConnAck, wire.IntHeaderSize, 0, node, s.t.own, s.peerPort(), s.port, wire.CodeOK)
	b.Msg.SetConnAck(min(s.rcvUnacked, 1<<16-1))
	s.rcvUnacked = 0
	if s.peerCaps&wire.CapBlockFlowctl != 0 {
		s.rcvWin = advBlocks(s.rcvBuf)
		b.Msg.SetAdvWin(uint16(s.rcvWin))
	}
	if nagle {
		b.Msg.SetNagleAck()
	}
	s.t.xmitBuf(now, b, node, s.port)
}

// setNagle finds up to which length parts of a stream are gathered; 0 is never (tsk_set_nagle).
func (s *Sock) setNagle() {
	switch {
	case s.typ != Stream || s.nodelay || s.peerCaps&wire.CapNagle == 0:
		s.maxNagle = 0
	case s.maxPkt == wire.MaxMsgSize:
		s.maxNagle = nagleLocal
	default:
		s.maxNagle = s.maxPkt
	}
}

// pushBacklog sends what Nagle's algorithm has gathered (tipc_sk_push_backlog). nagleAck says that the peer has
// acknowledged a message that asked for it; gathering only goes on if it saved at least every second packet.
func (s *Sock) pushBacklog(now mono.Time, nagleAck bool) {
	if nagleAck {
		s.pktCnt += uint32(s.txq.Len())
		if s.pktCnt == 0 || s.msgAcc/s.pktCnt < 2 {
			s.oneway = 0
			if s.nagleStart < nagleStartMax {
				s.nagleStart *= 2
			}
			s.expectAck = false
		} else {
			s.nagleStart = nagleStartInit
			s.requestAck()
		}
		s.msgAcc, s.pktCnt = 0, 0
	}
	// On a connecting socket the queue has the SYN, for retries only.
	if s.txq.Empty() || s.congLinks > 0 || s.txq.Back().Msg.IsSyn() || s.state != Established {
		return
	}
	if s.msgAcc > 0 {
		s.pktCnt += uint32(s.txq.Len())
	}
	s.followMTU()
	s.sndUnacked += s.sndBacklog
	s.sndBacklog = 0
	if s.t.net.Xmit(now, &s.txq, s.peerNodeAddr(), s.port) == ErrLinkCong {
		s.congested(s.peerNodeAddr())
	}
}

// requestAck has the last gathered message ask the peer for an acknowledgement.
func (s *Sock) requestAck() {
	s.expectAck = false
	if b := s.txq.Back(); b != nil {
		b.Msg.SetAckRequired()
		s.expectAck = true
	}
}

// followMTU adapts to a changed MTU of the link. What a stream has gathered is cut anew if it no longer fits: a stream
// has no message boundaries.
func (s *Sock) followMTU() {
	node := s.peerNodeAddr()
	if s.t.isOwn(node) {
		return
	}
	mtu := s.t.net.MTU(node, s.port)
	if mtu == s.maxPkt || mtu == wire.MaxMsgSize {
		return // the latter is what a node without a link has
	}
	s.maxPkt = mtu
	s.setNagle()
	if s.typ != Stream || s.txq.Empty() {
		return
	}
	var cut buf.Queue
	for b := s.txq.PopFront(); b != nil; b = s.txq.PopFront() {
		msg.Append(s.phdr(), b.Msg.Data(), mtu, &cut)
		if b.Msg.AckRequired() {
			cut.Back().Msg.SetAckRequired()
		}
		b.Release()
	}
	s.sndBacklog = 0
	for b := cut.PopFront(); b != nil; b = cut.PopFront() {
		s.sndBacklog += b.Msg.Blocks()
		s.txq.PushBack(b)
	}
}
