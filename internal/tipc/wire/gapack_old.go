package wire

import "encoding/binary"

// ParseOldGapAck reads a record of a peer that knows unicast blocks only, and whose fourth octet means nothing
// (net/tipc/link.c tipc_get_gap_ack_blks). It is for records that [ParseGapAck] refuses.
func ParseOldGapAck(b []byte) (g GapAck, ok bool) {
	if len(b) < GapAckHeaderSize {
		return g, false
	}
	n := int(b[2])
	length := GapAckHeaderSize + GapAckBlockSize*n
	if int(binary.BigEndian.Uint16(b)) != length || length > len(b) {
		return g, false
	}
	return GapAck{b: b[GapAckHeaderSize:length], nuc: n}, true
}
