package link

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// Receive takes a packet that arrived for the link (net/tipc/link.c tipc_link_rcv). m has passed [wire.Validate]; it is
// the link's during the call only, and may be changed. Messages in sequence go to the queues that the link was made
// with; a packet out of sequence is kept and asked for. out takes acknowledgements, retransmissions and what they make
// room for. The result says what the node has to do; broadcast receive links return [SendState] when it is time for an
// acknowledgement.
func (l *Link) Receive(now mono.Time, m wire.Msg, out Output) (rc Events) {
	return l.receive(now, m, nil, out)
}

// ReceiveBuf is [Link.Receive] of the packet in b, which it takes over: what is to be kept is not copied.
func (l *Link) ReceiveBuf(now mono.Time, b *buf.Buf, out Output) (rc Events) {
	return l.receive(now, b.Msg, b, out)
}

// receive is Receive. own owns m's octets, or is nil; it is consumed.
func (l *Link) receive(now mono.Time, m wire.Msg, own *buf.Buf, out Output) (rc Events) {
	if m.User() == wire.UserLinkProtocol {
		rc = l.protoReceive(now, m, out)
		release(own)
		return rc
	}
	l.silent = 0
	if !l.IsUp() {
		release(own)
		// What acknowledges something is a late packet of the former session; in the kernel it brings the link up as well.
		if l.state == Establishing && m.Ack() == 0 {
			return UpEvent
		}
		return 0
	}
	seqno := m.SeqNo()
	if wire.SeqLess(seqno, l.rcvNxt) || wire.SeqMore(seqno, l.rcvNxt+MaxWindow) {
		l.stats.Duplicates++
		release(own)
		return 0
	}
	released := l.release(m.Ack())
	if seqno != l.rcvNxt {
		rc = l.deferPacket(now, m, own, out)
	} else {
		n := 0
		rc, n = l.deliver(now, m, own, out)
		released += n
	}
	if released > 0 {
		l.updateCwin(released, false)
		l.advanceBacklog(now, out)
		l.prepareWakeup()
	}
	return rc
}

// deliver takes the packet whose turn it is, and those kept before whose turn has come with it. b owns m's octets, or is
// nil; it is consumed.
func (l *Link) deliver(now mono.Time, m wire.Msg, b *buf.Buf, out Output) (rc Events, released int) {
	for {
		l.rcvNxt++
		l.stats.RecvPkts++
		if m.User() == wire.UserTunnel {
			rc |= l.tunnelReceive(m)
			release(b)
		} else if !l.holdBack(m, b) {
			rc |= l.input(m, b, l.inputq, &l.reasm)
		}
		l.rcvUnacked++
		if l.rcvUnacked >= ackInterval {
			rc |= l.BuildStateMsg(now, out)
		}
		if rc&^SendState != 0 {
			return rc, released
		}
		if l.deferq.octets == 0 {
			return rc, released
		}
		if b = l.deferq.pop(l.rcvNxt); b == nil {
			return rc, released
		}
		m = b.Msg
		released += l.release(m.Ack())
	}
}

func release(b *buf.Buf) {
	if b != nil {
		b.Release()
	}
}

// deferPacket keeps a packet out of sequence and asks for what is missing when enough have come (net/tipc/link.c
// tipc_link_build_nack_msg). Nodes that receive a broadcast take turns, so that not all ask at once. own
// owns m's octets, or is nil; it is consumed.
func (l *Link) deferPacket(now mono.Time, m wire.Msg, own *buf.Buf, out Output) Events {
	switch l.deferq.insert(now, m, own) {
	case deferDuplicate:
		l.stats.Duplicates++
	case deferFull:
		l.stats.DeferFull++
	}
	l.stats.DeferredRecv++
	if l.role == bcReceiver {
		if uint32(l.stats.DeferredRecv)&0xf == l.own&0xf {
			return SendState
		}
		return 0
	}
	if n := l.deferq.q.Len(); n >= nackStart && (n-nackStart)%nackInterval == 0 {
		l.buildProtoMsg(now, protoMsg{typ: wire.TypeState, gap: l.deferGap()}, out)
	}
	return 0
}

// deferGap is the number of packets missing before the first one kept.
func (l *Link) deferGap() uint16 {
	if b := l.deferq.q.Front(); b != nil {
		return b.Msg.SeqNo() - l.rcvNxt
	}
	return 0
}

// input takes apart what is in sequence: bundles, fragments, and messages as they are (net/tipc/link.c
// tipc_link_input). b owns m's octets, or is nil; it is consumed.
func (l *Link) input(m wire.Msg, b *buf.Buf, q *buf.Queue, r *msg.Reassembler) (rc Events) {
	switch m.User() {
	case wire.UserBundler:
		l.stats.RecvBundles++
		l.stats.RecvBundled += uint64(m.MsgCnt())
		n := 0
		for in, pos, ok := msg.Extract(m, 0); ok; in, pos, ok = msg.Extract(m, pos) {
			l.dataInput(in, nil, q)
			n++
		}
		if n != int(m.MsgCnt()) {
			l.stats.BadMessages++
		}
		release(b)
	case wire.UserFragmenter:
		l.stats.RecvFragments++
		whole, err := r.AppendBuf(m, b)
		switch {
		case whole != nil:
			l.stats.RecvFragmented++
			l.dataInput(whole.Msg, whole, q)
		case err != nil:
			l.stats.BadMessages++
			if l.role == unicast {
				return l.Event(FailureEvt)
			}
		}
	case wire.UserBcastProtocol:
		l.bcRcv.BcInitReceive(m)
		release(b)
	default:
		l.dataInput(m, b, q)
	}
	return 0
}

// dataInput puts a message on the queue of the layer that it is for (net/tipc/link.c tipc_data_input); what nobody may
// send in this place is dropped, such as a bundle in a bundle. b owns m's octets, or is nil, then m is copied; it is
// consumed.
func (l *Link) dataInput(m wire.Msg, b *buf.Buf, q *buf.Queue) {
	switch m.User() {
	case wire.UserLow, wire.UserMedium, wire.UserHigh, wire.UserCritical:
		if m.IsGroup() || m.IsMcast() {
			q = l.bcRcv.inputq
		}
	case wire.UserConnManager:
	case wire.UserGroup:
		q = l.bcRcv.inputq
	case wire.UserNameDistr:
		l.bcRcv.state = Established
		q = l.namedq
	default:
		l.stats.BadMessages++
		release(b)
		return
	}
	if b == nil {
		b = buf.Copy(m)
	}
	q.PushBack(b)
}
