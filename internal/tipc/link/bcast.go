package link

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// nackState decides when a broadcast NACK is sent to a peer that does not read them from STATE messages.
type nackState uint8

const (
	nackConditional nackState = iota
	nackUnconditional
	nackSuppress
)

// seqSet is a set of sequence numbers, all within half the circle of each other.
type seqSet [1 << 16 / 64]uint64

func (s *seqSet) add(n uint16)      { s[n>>6] |= 1 << (n & 63) }
func (s *seqSet) del(n uint16)      { s[n>>6] &^= 1 << (n & 63) }
func (s *seqSet) has(n uint16) bool { return s[n>>6]>>(n&63)&1 != 0 }

// AddBcPeer makes the peer of the unicast link uc a receiver of the broadcast link snd, and tells it with which sequence
// number it starts (net/tipc/link.c tipc_link_add_bc_peer). out is uc's.
func AddBcPeer(now mono.Time, snd, uc *Link, out Output) {
	snd.ackers++
	uc.bcRcv.acked = snd.sndNxt - 1
	snd.state = Established
	var q buf.Queue
	b := uc.bcRcv.bcProtoMsg(0)
	b.Msg.SetBcAckInvalid(true)
	q.PushBack(b)
	uc.Xmit(now, &q, out)
}

// RemoveBcPeer takes the peer of the broadcast receive link rcv off snd's receivers, as if it had acknowledged
// everything, and resets rcv (net/tipc/link.c tipc_link_remove_bc_peer). With the last peer, snd is reset. out is snd's.
func RemoveBcPeer(now mono.Time, snd, rcv *Link, out Output) {
	snd.ackers--
	rcv.bcPeerIsUp = true
	rcv.state = Established
	if snd.ackers <= 0 {
		out = nil
	}
	rcv.BcAckReceive(now, snd.sndNxt-1, 0, wire.GapAck{}, out, nil)
	rcv.Reset(now)
	rcv.state = Reset
	if snd.ackers <= 0 {
		snd.ackers = 0
		snd.Reset(now)
		snd.state = Reset
	}
}

// bcRcvGap is the number of the peer's broadcasts that are missing first (net/tipc/link.c link_bc_rcv_gap). For a
// broadcast receive link sndNxt is the peer's.
func (l *Link) bcRcvGap() uint16 {
	if !l.deferq.q.Empty() {
		return l.deferGap()
	}
	if wire.SeqMore(l.sndNxt, l.rcvNxt) {
		return l.sndNxt - l.rcvNxt
	}
	return 0
}

// bcProtoMsg builds a BCAST_PROTOCOL message (net/tipc/link.c tipc_link_build_bc_proto_msg).
func (l *Link) bcProtoMsg(peersSndNxt uint16) *buf.Buf {
	b := msg.Create(wire.UserBcastProtocol, wire.TypeState, wire.IntHeaderSize, 0, l.peer, l.own, 0, 0, wire.CodeOK)
	m := b.Msg
	ack, gapTo := l.rcvNxt-1, peersSndNxt-1
	if first := l.deferq.q.Front(); first != nil {
		gapTo = first.Msg.SeqNo() - 1
	}
	m.SetLastBcast(l.bcSnd.sndNxt - 1)
	m.SetBcastAck(ack)
	m.SetBcgapAfter(ack)
	m.SetBcgapTo(gapTo)
	return b
}

// BcInitReceive takes what the peer says about where its broadcasts start (net/tipc/link.c tipc_link_bc_init_rcv): a
// BCAST_PROTOCOL message, or of old peers RESET and ACTIVATE.
func (l *Link) BcInitReceive(m wire.Msg) {
	switch {
	case l.IsUp():
	case m.User() == wire.UserBcastProtocol:
		l.rcvNxt = m.BcSndNxt()
		l.state = Established
	case l.peerCaps&wire.CapBcastSynch != 0 || m.PeerNodeIsUp():
	case m.Type() == wire.TypeReset || m.Type() == wire.TypeActivate:
		l.rcvNxt = m.BcSndNxt()
	}
}

// BcSyncReceive takes what a STATE message says about how far the peer has broadcast (net/tipc/link.c
// tipc_link_bc_sync_rcv). It returns [SendState] when something is missing. To old peers it sends a NACK to out, the
// output of the broadcast send link.
//
// Broadcasts have no session number. What came before contact was made anew waits among those out of order, to be taken
// for another one of the same number; unless the peer says later that it has not got that far yet. In the kernel the
// wrong one is delivered.
func (l *Link) BcSyncReceive(now mono.Time, m wire.Msg, out Output) (rc Events) {
	if !l.IsUp() || !m.PeerNodeIsUp() {
		return 0
	}
	if m.Ack() != 0 {
		l.bcPeerIsUp = true // it has received packet 1, our own start
	}
	next := m.BcSndNxt()
	l.stats.Duplicates += uint64(l.deferq.dropFrom(next, now-mono.Time(l.tolerance)*1e6))
	if !l.bcPeerIsUp || wire.SeqMore(next, l.rcvNxt+uint16(l.window)) {
		return 0
	}
	l.sndNxt = next
	if l.bcRcvGap() != 0 {
		rc = SendState
	}
	if l.peerCaps&wire.CapBcastStateNack != 0 {
		return rc
	}
	if !wire.SeqMore(next, l.rcvNxt) {
		l.nackState = nackConditional
		return 0
	}
	switch l.nackState {
	case nackSuppress:
		l.nackState = nackUnconditional
		return 0
	case nackConditional:
		l.nackState = nackUnconditional
		if next-l.rcvNxt < ackInterval {
			return 0
		}
	}
	b := l.bcProtoMsg(next)
	b.Msg.SetNonSeq(true)
	b.Msg.SetMcNetID(l.netID)
	send(out, b.Msg, b)
	b.Release()
	l.nackState = nackSuppress
	return 0
}

// BcAckReceive takes the peer's acknowledgement of our broadcasts (net/tipc/link.c tipc_link_bc_ack_rcv). l is the peer's
// broadcast receive link. gap and ga report what is missing, 0 and the zero value: nothing. What is sent for the first
// time goes to out, what is sent again to retr; both are outputs of the broadcast send link, or retr a unicast one.
func (l *Link) BcAckReceive(now mono.Time, acked, gap uint16, ga wire.GapAck, out, retr Output) (rc Events) {
	if !l.IsUp() || !l.bcPeerIsUp {
		return 0
	}
	snd := l.bcSnd
	if gap != 0 {
		snd.stats.RecvNacks++
		l.stats.RecvNacks++
	}
	if wire.SeqLess(acked, l.acked) || acked == l.acked && gap == 0 && ga.Broadcast() == 0 {
		return 0
	}
	if wire.SeqMore(acked, snd.sndNxt-1) {
		l.stats.BadAcks++
		return 0
	}
	rc = snd.bcAdvance(now, l, acked, gap, ga, retr)
	snd.advanceBacklog(now, out)
	snd.prepareWakeup()
	return rc
}

// bcAdvance lets each packet that r acknowledges wait for one peer less, frees it when it waits for none, and sends
// again what r misses (net/tipc/link.c tipc_link_advance_transmq). What r acknowledged behind a gap is remembered, so
// that it is not counted twice.
func (l *Link) bcAdvance(now mono.Time, r *Link, acked, gap uint16, ga wire.GapAck, out Output) Events {
	rg := newRanges(acked, gap, l.sndNxt-1, ga, true)
	var rc Events
	for b := l.transmq.Front(); b != nil; {
		next := b.Next()
		seqno := b.Msg.SeqNo()
		v := rg.judge(seqno)
		if v == unknown {
			break
		}
		switch {
		case wire.SeqLessEq(seqno, r.acked) || r.gapAcked != nil && r.gapAcked.has(seqno):
		case v == isAcked:
			if wire.SeqMore(seqno, acked) {
				if r.gapAcked == nil {
					r.gapAcked = new(seqSet)
				}
				r.gapAcked.add(seqno)
			}
			if b.Ackers--; b.Ackers <= 0 {
				l.free(b)
			}
		case seqno == acked+1 && l.retransmitFailure(now, r):
			r.state = Reset
			rc = DownEvent
			next = nil
		default:
			if l.retransmit(now, b, out) {
				r.stats.Retransmitted++
			}
		}
		b = next
	}
	if r.gapAcked != nil {
		for n := r.acked; n != acked; {
			n++
			r.gapAcked.del(n)
		}
	}
	r.acked = acked
	return rc
}

// BcNackReceive takes a broadcast NACK, which only old peers send (net/tipc/link.c tipc_link_bc_nack_rcv). l is the
// sender's broadcast receive link, or, when the NACK is for another node, that node's. out is the output of the
// broadcast send link.
func (l *Link) BcNackReceive(now mono.Time, m wire.Msg, out Output) (rc Events) {
	if !l.IsUp() || !l.bcPeerIsUp || m.Type() != wire.TypeState {
		return 0
	}
	acked, to := m.BcastAck(), m.BcgapTo()
	if m.DestNode() == l.own {
		rc = l.BcAckReceive(now, acked, to-acked, wire.GapAck{}, out, out)
		l.stats.RecvNacks++
		return rc
	}
	if wire.SeqMore(to+1, l.rcvNxt) && !wire.SeqLess(l.rcvNxt, acked+1) {
		l.nackState = nackSuppress // somebody has asked already
	}
	return 0
}
