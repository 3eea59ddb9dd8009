package link

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// importance is the part of the backlog that m belongs to.
func importance(m wire.Msg) int { return min(m.Importance(), wire.SystemImportance) }

// Xmit sends one message, which q holds as one or more packets (net/tipc/link.c tipc_link_xmit). Packets within the
// window go out at once, the rest waits in the backlog, where small messages are bundled. q is consumed, whatever the
// result: nil; [ErrLinkCong], the message was taken but its sender must wait; [ErrMsgSize] or [ErrNoBufs], it was
// dropped. Internal messages never wait.
func (l *Link) Xmit(now mono.Time, q *buf.Queue, out Output) error {
	front := q.Front()
	if front == nil {
		return nil
	}
	if front.Msg.Size() > l.mtu {
		q.Purge()
		return ErrMsgSize
	}
	imp := importance(front.Msg)
	lv := &l.backlog[imp]
	var err error
	limit := lv.limit
	if imp == wire.SystemImportance {
		limit += l.tunnelled // in the kernel a large failover makes the next internal message reset the last link as well
	}
	if lv.len >= limit { // each sender may exceed the limit by one message
		if imp == wire.SystemImportance {
			q.Purge()
			return ErrNoBufs
		}
		l.scheduleUser(front.Msg)
		err = ErrLinkCong
	}
	if n := q.Len(); n > 1 {
		l.stats.SentFragmented++
		l.stats.SentFragments += uint64(n)
	}
	if !l.backlogq.Empty() {
		l.advanceBacklog(now, out) // the window may have been enlarged meanwhile
	}
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		if l.eager && l.hold(now, b, q.Empty(), out) {
			continue
		}
		if l.transmq.Len() < l.window && l.backlogq.Empty() {
			l.transmit(now, b, out)
			continue
		}
		// Only the last packet may be added to. In the kernel a message can overtake others in an older bundle of its own
		// importance: the FIN of a connection its data, what follows a tunnel the tunnel.
		if lv.target != l.backlogq.Back() {
			lv.target = nil
		}
		target, how := msg.TryBundle(&l.backlogq, lv.target, b.Msg, l.MSS(), l.peer)
		switch how {
		case msg.NotBundled:
			lv.target = nil
			lv.len++
			l.backlogq.PushBack(b)
		case msg.NewTarget:
			lv.target = b
			lv.len++
			l.backlogq.PushBack(b)
		default:
			l.countBundled(how)
			lv.target = target
			b.Release()
		}
	}
	return err
}

func (l *Link) countBundled(how msg.Bundled) {
	if how == msg.NewBundle {
		l.stats.SentBundles++
		l.stats.SentBundled++
	}
	l.stats.SentBundled++
}

// enlist gives b its place in the sequence; it is not sent yet.
func (l *Link) enlist(b *buf.Buf) {
	b.Msg.SetSeqNo(l.sndNxt)
	l.sndNxt++
	b.Ackers = l.ackers
	l.transmq.PushBack(b)
}

// emit sends the packet b of transmq for the first time.
func (l *Link) emit(now mono.Time, b *buf.Buf, out Output) {
	l.stamp(now, b)
	if l.role == bcSender {
		b.Msg.SetNonSeq(true)
		b.Msg.SetMcNetID(l.netID)
	}
	l.rcvUnacked = 0
	l.stats.SentPkts++
	send(out, b.Msg, b)
}

// stamp brings a packet's acknowledgements up to date before it is sent, and notes when it may be sent again.
func (l *Link) stamp(now mono.Time, b *buf.Buf) {
	b.Msg.SetAck(l.rcvNxt - 1)
	b.Msg.SetBcastAck(l.bcRcv.rcvNxt - 1)
	if l.role == bcSender {
		b.NextRetr = now + bcRetrTime
	} else {
		b.NextRetr = now + ucRetrTime
	}
}

func (l *Link) transmit(now mono.Time, b *buf.Buf, out Output) {
	l.enlist(b)
	l.emit(now, b, out)
}

// send sends m; own is its Buf if that is to stay as it is behind the header.
func send(out Output, m wire.Msg, own *buf.Buf) {
	if out != nil {
		out.Send(m, own)
	}
}

// advanceBacklog sends what the window has room for (net/tipc/link.c tipc_link_advance_backlog).
func (l *Link) advanceBacklog(now mono.Time, out Output) {
	for l.transmq.Len() < l.window {
		b := l.backlogq.PopFront()
		if b == nil {
			return
		}
		lv := &l.backlog[importance(b.Msg)]
		lv.len--
		if lv.target == b {
			lv.target = nil
		}
		l.Flush(now, out)
		l.transmit(now, b, out)
	}
}

// scheduleUser notes that the sender of m waits (net/tipc/link.c link_schedule_user).
func (l *Link) scheduleUser(m wire.Msg) {
	b := msg.Create(wire.UserSockWakeup, 0, wire.IntHeaderSize, 0, l.own, l.peer, m.OrigPort(), 0, wire.CodeOK)
	b.Msg.SetDestDroppable(true)
	b.ChainImp = importance(m)
	l.wakeupq.PushBack(b)
	l.stats.LinkCongs++
}

// prepareWakeup lets as many waiting senders go on as the backlog has room for messages (net/tipc/link.c
// link_prepare_wakeup).
func (l *Link) prepareWakeup() {
	if l.wakeupq.Empty() {
		return
	}
	var room [levels]int
	for i := range room {
		room[i] = l.backlog[i].limit - l.backlog[i].len
	}
	for b := l.wakeupq.Front(); b != nil; {
		next := b.Next()
		if room[b.ChainImp] > 0 {
			room[b.ChainImp]--
			l.wakeupq.Remove(b)
			l.inputq.PushBack(b)
		}
		b = next
	}
}

// updateCwin adapts the window after released packets were acknowledged, or some had to be sent again (net/tipc/link.c
// tipc_link_update_cwin). Without either, nothing was heard for a timer interval, and slow start begins.
func (l *Link) updateCwin(released int, retransmitted bool) {
	if retransmitted || released == 0 {
		l.ssthresh = max(l.window/2, minSSThresh)
		if retransmitted {
			l.window = min(l.window, l.ssthresh)
		} else {
			l.window = l.minWin
		}
		return
	}
	n := l.transmq.Len()
	if n+l.backlogq.Len() < l.window {
		return // no need for more
	}
	if n > 0 && int(l.sndNxt-l.transmq.Front().Msg.SeqNo()) != n {
		return // packets are missing at the peer
	}
	l.congAcks += released
	switch {
	case l.window <= l.ssthresh:
		l.window = min(l.window+released, l.maxWin)
	case l.congAcks >= l.window:
		l.window = min(l.window+1, l.maxWin)
		l.congAcks = 0
	}
}

// SetBundleEager lets Xmit hold the last small message back, so that more can be bundled with it, until [Link.Flush].
// The driver flushes when it takes the output: while it is busy sending, messages collect. Receivers take bundles at any
// time, but the kernel itself makes them only of messages that wait for the window.
func (l *Link) SetBundleEager(v bool) { l.eager = v }

// Pending reports whether a message is held back.
func (l *Link) Pending() bool { return l.pending != nil }

// Flush sends the message that is held back, if any.
func (l *Link) Flush(now mono.Time, out Output) {
	if b := l.pending; b != nil {
		l.pending = nil
		l.emit(now, b, out)
	}
}

// hold tries to bundle b with the message held back, or to hold b back. It reports whether b was consumed; if not,
// nothing is held back any more, so that b can follow.
func (l *Link) hold(now mono.Time, b *buf.Buf, last bool, out Output) bool {
	if p := l.pending; p != nil {
		target, how := msg.TryBundle(&l.transmq, p, b.Msg, l.MSS(), l.peer)
		if how == msg.Joined || how == msg.NewBundle {
			l.countBundled(how)
			l.pending = target
			b.Release()
			return true
		}
		l.Flush(now, out)
	}
	if !last || l.transmq.Len() >= l.window || !l.backlogq.Empty() {
		return false
	}
	if mss := l.MSS(); b.Msg.Size() > mss/2 || !msg.Bundlable(b.Msg, mss) {
		return false
	}
	l.enlist(b)
	l.pending = b
	return true
}
