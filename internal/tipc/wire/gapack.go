package wire

import "encoding/binary"

// Gap-ack records follow the header of STATE messages when both ends have [CapGapAckBlock]: length, number of unicast
// and of broadcast blocks, then the broadcast blocks, then the unicast ones (net/tipc/msg.h struct tipc_gap_ack_blks).

// GapAckHeaderSize is the length of a record without blocks, GapAckBlockSize that of one block, and MaxGapAckBlocks
// the most that Linux puts in one record.
const (
	GapAckHeaderSize = 4
	GapAckBlockSize  = 4
	MaxGapAckBlocks  = 128
)

// GapAckBlock acknowledges everything up to Ack and reports that Gap packets behind it are missing.
type GapAckBlock struct {
	Ack, Gap uint16
}

// GapAck is a view of a record; the zero value has no blocks.
type GapAck struct {
	b        []byte
	nbc, nuc int
}

// ParseGapAck reads the record at the start of b and returns it with its length. ok is false when the record lies about
// its length or runs past b; as in Linux such a record is then to be ignored as a whole (net/tipc/link.c
// tipc_get_gap_ack_blks).
func ParseGapAck(b []byte) (g GapAck, length int, ok bool) {
	if len(b) < GapAckHeaderSize {
		return g, 0, false
	}
	length = int(binary.BigEndian.Uint16(b))
	nuc, nbc := int(b[2]), int(b[3])
	if length != GapAckHeaderSize+GapAckBlockSize*(nuc+nbc) || length > len(b) {
		return g, length, false
	}
	return GapAck{b: b[GapAckHeaderSize:length], nbc: nbc, nuc: nuc}, length, true
}

// Broadcast returns the number of broadcast blocks and Unicast that of unicast blocks.
func (g GapAck) Broadcast() int { return g.nbc }
func (g GapAck) Unicast() int   { return g.nuc }

// BroadcastBlock returns broadcast block i.
func (g GapAck) BroadcastBlock(i int) GapAckBlock { return g.block(i) }

// UnicastBlock returns unicast block i.
func (g GapAck) UnicastBlock(i int) GapAckBlock { return g.block(g.nbc + i) }

func (g GapAck) block(i int) GapAckBlock {
	b := g.b[i*GapAckBlockSize:]
	return GapAckBlock{Ack: binary.BigEndian.Uint16(b), Gap: binary.BigEndian.Uint16(b[2:])}
}

// AppendGapAck appends a record of the given broadcast and unicast blocks to b. Blocks beyond 255 of a kind do not fit
// and are left out.
func AppendGapAck(b []byte, bc, uc []GapAckBlock) []byte {
	bc, uc = bc[:min(len(bc), 255)], uc[:min(len(uc), 255)]
	b = binary.BigEndian.AppendUint16(b, uint16(GapAckHeaderSize+GapAckBlockSize*(len(bc)+len(uc))))
	b = append(b, byte(len(uc)), byte(len(bc)))
	for _, blks := range [2][]GapAckBlock{bc, uc} {
		for _, k := range blks {
			b = binary.BigEndian.AppendUint16(b, k.Ack)
			b = binary.BigEndian.AppendUint16(b, k.Gap)
		}
	}
	return b
}
