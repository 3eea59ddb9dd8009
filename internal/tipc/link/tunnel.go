package link

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// TunnelPrepare sends through the link tnl to the same peer what has to arrive there before the order of messages is
// safe (net/tipc/link.c tipc_link_tnl_prepare). out is tnl's.
//
// With [wire.TypeSynch], tnl has just come up and l works: tnl's first message tells the peer which packet of l is the
// last before it. With [wire.TypeFailover], l is lost: all its packets that are not acknowledged, and those in its
// backlog, go through the tunnel with their sequence numbers, so that the peer can sort out what it has already; what
// was received out of order on l waits on tnl for the peer's tunnel packets. A packet too large for the tunnel is
// fragmented, if the peer knows how to deal with that.
func (l *Link) TunnelPrepare(now mono.Time, tnl *Link, typ uint8, out Output) {
	if tnl == nil {
		return
	}
	var q buf.Queue
	if typ == wire.TypeSynch && tnl.peerCaps&wire.CapTunnelEnhanced != 0 {
		b := msg.Create(wire.UserTunnel, wire.TypeSynch, wire.IntHeaderSize, 0, l.peer, l.own, 0, 0, wire.CodeOK)
		b.Msg.SetSyncPt(l.sndNxt + uint16(l.backlogq.Len()) - 1)
		b.Msg.SetBearerID(l.peerBearer)
		q.PushBack(b)
		tnl.Xmit(now, &q, out)
		return
	}

	// The peer needs at least one packet. It is one that it drops.
	q.PushBack(msg.Create(wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 0, l.peer, l.own, 0, 0, wire.CodeNoPort))
	l.Xmit(now, &q, nil)
	l.pending = nil // it travels in the tunnel

	var hdr [wire.IntHeaderSize]byte
	h := wire.Msg(hdr[:])
	wire.Init(h, l.own, wire.UserTunnel, typ, wire.IntHeaderSize, l.peer)
	h.SetBearerID(l.peerBearer)
	seqno := l.sndNxt
	for b := l.backlogq.Front(); b != nil; b = b.Next() {
		b.Msg.SetSeqNo(seqno)
		seqno++
	}
	cnt := l.transmq.Len()
	if front := l.transmq.Front(); typ == wire.TypeSynch && front != nil {
		cnt = int(l.sndNxt - front.Msg.SeqNo())
	}
	cnt += l.backlogq.Len()
	for _, from := range [2]*buf.Queue{&l.transmq, &l.backlogq} {
		for b := from.Front(); b != nil; b = b.Next() {
			n, ok := tnl.wrap(b.Msg, h, typ, &q)
			if !ok {
				q.Purge()
				tnl.stats.BadMessages++
				return
			}
			cnt += n - 1
		}
	}
	for b := q.Front(); b != nil; b = b.Next() {
		b.Msg.SetMsgCnt(uint16(cnt))
	}
	if typ == wire.TypeFailover {
		tnl.tunnelled = max(tnl.tunnelled, q.Len())
	}
	tnl.Xmit(now, &q, out)

	if typ == wire.TypeFailover {
		tnl.dropPoint = l.rcvNxt
		tnl.failoverReasm.Take(&l.reasm)
		tnl.failoverDefq.take(&l.deferq)
		tnl.failoverHeld.Splice(&l.held) // the peer may have its acknowledgement: it does not come again
	}
}

// wrap appends m in one or more tunnel packets to q, and returns their number.
func (tnl *Link) wrap(m, h wire.Msg, typ uint8, q *buf.Queue) (n int, ok bool) {
	size := m.Size()
	if size > tnl.mtu-wire.IntHeaderSize {
		if typ != wire.TypeFailover || tnl.peerCaps&wire.CapTunnelEnhanced == 0 {
			return 0, false
		}
		before := q.Len()
		err := msg.Fragment(m, h, tnl.mtu, q)
		return q.Len() - before, err == nil
	}
	b := buf.Get(wire.IntHeaderSize + size)
	copy(b.Msg, h)
	copy(b.Msg[wire.IntHeaderSize:], m[:size])
	b.Msg.SetSize(wire.IntHeaderSize + size)
	q.PushBack(b)
	return 1, true
}

// FailoverPrepare makes l the tunnel for another link to the same peer that never came up at this end, so that only the
// peer has something to tunnel; the peer needs an answer all the same (net/tipc/link.c tipc_link_failover_prepare).
func (l *Link) FailoverPrepare(now mono.Time, out Output) {
	var q buf.Queue
	b := msg.Create(wire.UserTunnel, wire.TypeFailover, wire.IntHeaderSize, wire.BasicHeaderSize, l.peer, l.own, 0, 0, wire.CodeOK)
	b.Msg.SetMsgCnt(1)
	b.Msg.SetBearerID(l.peerBearer)
	in := b.Msg.InnerHdr()
	wire.Init(in, l.own, wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, l.peer)
	in.SetErrCode(wire.CodeNoPort)
	q.PushBack(b)
	l.Xmit(now, &q, out)
	l.dropPoint = 1
	l.failoverReasm.Reset()
	l.failoverDefq.purge()
	l.failoverHeld.Purge()
}

// tunnelReceive takes a tunnel packet (net/tipc/link.c tipc_link_tnl_rcv): it unpacks the packet of the lost link and
// goes on with it where that link's sequence ended. SYNCH messages were dealt with by the node.
func (l *Link) tunnelReceive(m wire.Msg) (rc Events) {
	if m.Type() == wire.TypeSynch {
		return 0
	}
	if l.role != unicast {
		l.stats.BadMessages++
		return 0
	}
	for b := l.failoverHeld.PopFront(); b != nil; b = l.failoverHeld.PopFront() {
		if rc = l.input(b.Msg, b, l.inputq, &l.failoverReasm); rc != 0 {
			return rc
		}
	}
	var b *buf.Buf
	in, _, ok := msg.Extract(m, 0)
	if nof := m.NofFragms(); nof != 0 {
		typ := uint8(wire.TypeFragment)
		switch no := m.FragmNo(); {
		case no == 1:
			typ = wire.TypeFirstFragment
		case no >= nof:
			typ = wire.TypeLastFragment
		}
		var err error
		if b, err = l.reasmTnl.AppendTyped(m, typ); err != nil {
			l.stats.BadMessages++
			return l.Event(FailureEvt)
		}
		if b == nil {
			return 0
		}
		in, ok = b.Msg, true
	}
	if !ok {
		l.stats.BadMessages++
		return 0
	}
	seqno := in.SeqNo()
	switch {
	case wire.SeqLess(seqno, l.dropPoint) || wire.SeqMore(seqno, l.dropPoint+MaxWindow):
		release(b)
		return 0
	case seqno != l.dropPoint:
		if l.failoverDefq.insert(0, in, b) == deferFull {
			l.stats.DeferFull++
		}
		return 0
	}
	for {
		l.dropPoint++
		if rc = l.input(in, b, l.inputq, &l.failoverReasm); rc != 0 {
			return rc
		}
		if b = l.failoverDefq.pop(l.dropPoint); b == nil {
			return 0
		}
		in = b.Msg
	}
}
