package link

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// release frees what a packet acknowledges (net/tipc/link.c tipc_link_advance_transmq). It returns the number of packets
// freed. Acknowledgements older than what is freed already are normal; of packets that were never sent they are counted
// and ignored.
func (l *Link) release(acked uint16) (released int) {
	front := l.transmq.Front()
	if front == nil {
		return 0
	}
	if wire.SeqMore(acked, l.sndNxt-1) {
		l.stats.BadAcks++
		return 0
	}
	for b := front; b != nil && wire.SeqLessEq(b.Msg.SeqNo(), acked); b = l.transmq.Front() {
		l.free(b)
		released++
	}
	return released
}

func (l *Link) free(b *buf.Buf) {
	if b == l.pending {
		l.pending = nil
	}
	l.transmq.Remove(b)
	b.Release()
}

// ranges walks through what an acknowledgement with gaps says: all up to acked is there, the next gap packets are not,
// then come blocks of the same form.
type ranges struct {
	acked, end uint16 // of the present block: acknowledged up to, missing up to
	last       uint16 // last packet sent; nothing beyond it is believed
	blocks     wire.GapAck
	bc         bool
	n          int
}

func newRanges(acked, gap, last uint16, ga wire.GapAck, bc bool) ranges {
	r := ranges{acked: acked, last: last, blocks: ga, bc: bc}
	r.end = acked + min(gap, last-acked)
	return r
}

type verdict uint8

const (
	unknown verdict = iota // nothing is said about it or what follows
	isAcked
	isMissing
)

// judge says what is known of a packet. Calls must be in the order of sequence numbers.
func (r *ranges) judge(seqno uint16) verdict {
	for {
		switch {
		case wire.SeqLessEq(seqno, r.acked):
			return isAcked
		case wire.SeqLessEq(seqno, r.end):
			return isMissing
		}
		var k wire.GapAckBlock
		switch {
		case r.bc && r.n < r.blocks.Broadcast():
			k = r.blocks.BroadcastBlock(r.n)
		case !r.bc && r.n < r.blocks.Unicast():
			k = r.blocks.UnicastBlock(r.n)
		default:
			return unknown
		}
		r.n++
		if wire.SeqMore(k.Ack, r.last) || wire.SeqLess(k.Ack, r.end) {
			continue // a lie, or out of order
		}
		r.acked = k.Ack
		r.end = k.Ack + min(k.Gap, r.last-k.Ack)
	}
}

// advance frees what a STATE message acknowledges and sends again what it reports missing (net/tipc/link.c
// tipc_link_advance_transmq).
func (l *Link) advance(now mono.Time, acked, gap uint16, ga wire.GapAck, out Output) (released int, retransmitted bool, rc Events) {
	if wire.SeqMore(acked, l.sndNxt-1) {
		l.stats.BadAcks++
		return 0, false, 0
	}
	r := newRanges(acked, gap, l.sndNxt-1, ga, false)
	for b := l.transmq.Front(); b != nil; {
		next := b.Next()
		seqno := b.Msg.SeqNo()
		switch r.judge(seqno) {
		case isAcked:
			l.free(b)
			released++
		case isMissing:
			if seqno == acked+1 && l.retransmitFailure(now, l) {
				return released, retransmitted, l.Event(FailureEvt)
			}
			if l.retransmit(now, b, out) {
				retransmitted = true
			}
		case unknown:
			return released, retransmitted, 0
		}
		b = next
	}
	return released, retransmitted, 0
}

// retransmit sends b again unless that was done a moment ago.
func (l *Link) retransmit(now mono.Time, b *buf.Buf, out Output) bool {
	if b == l.pending || now < b.NextRetr {
		return false
	}
	l.stamp(now, b)
	send(out, b.Msg, b)
	l.stats.Retransmitted++
	if b.RetrCnt == 0 {
		b.RetrStamp = now
	}
	b.RetrCnt++
	return true
}

// retransmitFailure reports whether the first packet that r, the peer's broadcast link or l itself, misses has been sent
// again for too long (net/tipc/link.c link_retransmit_failure).
func (l *Link) retransmitFailure(now mono.Time, r *Link) bool {
	b := l.transmq.Front()
	if b == nil || b.RetrCnt == 0 || now <= b.RetrStamp+mono.Time(r.tolerance)*retrFactor*1e6 {
		return false
	}
	return l.role != bcSender || wire.SeqLess(r.acked, b.Msg.SeqNo())
}
