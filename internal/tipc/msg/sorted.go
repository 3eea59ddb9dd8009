package msg

import (
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// InsertSorted puts b into q by its sequence number (net/tipc/msg.c __tipc_skb_queue_sorted). When that number is there
// already it returns false, and b is still the caller's. All numbers on q and b's must lie within half the circle. It
// looks from the end, where packets usually belong.
func InsertSorted(q *buf.Queue, b *buf.Buf) bool {
	seqno := b.Msg.SeqNo()
	var behind *buf.Buf
	for at := q.Back(); at != nil; at = at.Prev() {
		n := at.Msg.SeqNo()
		if n == seqno {
			return false
		}
		if wire.SeqLess(n, seqno) {
			break
		}
		behind = at
	}
	q.InsertBefore(b, behind)
	return true
}

// PopSeq removes and returns the first Buf if it has that sequence number, otherwise nil (__tipc_skb_dequeue).
func PopSeq(q *buf.Queue, seqno uint16) *buf.Buf {
	if b := q.Front(); b != nil && b.Msg.SeqNo() == seqno {
		q.Remove(b)
		return b
	}
	return nil
}
