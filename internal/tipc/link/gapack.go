package link

import (
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// maxBlocks is the number of blocks for each of unicast and broadcast.
const maxBlocks = wire.MaxGapAckBlocks / 2

// GapAck finds the gap-ack record of a STATE message (net/tipc/link.c tipc_get_gap_ack_blks). The result has no blocks
// when there is no usable record, or none of the desired kind. ok is false when the record claims to be longer than the
// message's data; the message is then to be dropped.
func (l *Link) GapAck(m wire.Msg, uc bool) (ga wire.GapAck, ok bool) {
	ga, _, ok = l.gapAck(m, uc)
	return ga, ok
}

func (l *Link) gapAck(m wire.Msg, uc bool) (ga wire.GapAck, length int, ok bool) {
	if l.peerCaps&wire.CapGapAckBlock == 0 {
		return wire.GapAck{}, 0, true
	}
	data := m.Data()
	ga, length, ok = wire.ParseGapAck(data)
	if length > len(data) {
		return wire.GapAck{}, length, false
	}
	if !ok && uc {
		ga, ok = wire.ParseOldGapAck(data)
	}
	if !ok || uc && ga.Unicast() == 0 || !uc && ga.Broadcast() == 0 {
		ga = wire.GapAck{}
	}
	return ga, length, true
}

// buildGapAck writes the record for a STATE message: what is there beyond the first gap of the peer's broadcasts, and,
// if uc is set, of the link's own packets (net/tipc/link.c tipc_build_gap_ack_blks). It returns its length.
func (l *Link) buildGapAck(dst []byte, uc bool) int {
	var bcBlocks, ucBlocks [maxBlocks]wire.GapAckBlock
	nbc := gapAckBlocks(&bcBlocks, &l.bcRcv.deferq.q)
	nuc := 0
	if uc {
		nuc = gapAckBlocks(&ucBlocks, &l.deferq.q)
	}
	return len(wire.AppendGapAck(dst[:0], bcBlocks[:nbc], ucBlocks[:nuc]))
}

// gapAckBlocks describes the runs of packets on q: for each its last number and how many are missing behind it
// (net/tipc/link.c __tipc_build_gap_ack_blks). Runs that find no room are left out; the peer sends them again when the
// rest has been dealt with.
func gapAckBlocks(dst *[maxBlocks]wire.GapAckBlock, q *buf.Queue) (n int) {
	b := q.Front()
	if b == nil {
		return 0
	}
	last := b.Msg.SeqNo()
	for b = b.Next(); b != nil; b = b.Next() {
		seqno := b.Msg.SeqNo()
		if missing := seqno - last - 1; missing > 0 {
			dst[n] = wire.GapAckBlock{Ack: last, Gap: missing}
			if n++; n == len(dst) {
				return n
			}
		}
		last = seqno
	}
	dst[n] = wire.GapAckBlock{Ack: last}
	return n + 1
}
