package monitor

import "encoding/binary"

// Specification constants.
const (
	MaxDomain = 64 // MAX_MON_DOMAIN: members in a domain record
	headerLen = 16 // length, generation, acknowledged generation, member count, 64-bit map
	MaxRecord = headerLen + 4*MaxDomain

	maxDownEvents = 4 // MAX_PEER_DOWN_EVENTS: reports of loss that reset a link
)

// record is a domain record: a node's view of the nodes behind it in the ring. On the wire all is big-endian.
type record struct {
	gen     uint16
	upMap   uint64 // bit i: members[i] is up
	members []uint32
}

func recordLen(members int) int { return headerLen + 4*members }

func (r *record) up(i int) bool { return r.upMap>>i&1 != 0 }

func (r *record) setUp(i int, v bool) {
	r.upMap &^= 1 << i
	if v {
		r.upMap |= 1 << i
	}
}

// put writes r with the generation that is acknowledged; dst must hold it.
func (r *record) put(dst []byte, acked uint16) int {
	n := recordLen(len(r.members))
	putHeader(dst, n, r.gen, acked, len(r.members))
	binary.BigEndian.PutUint64(dst[8:], r.upMap)
	for i, a := range r.members {
		binary.BigEndian.PutUint32(dst[headerLen+4*i:], a)
	}
	return n
}

func putHeader(dst []byte, n int, gen, acked uint16, members int) {
	binary.BigEndian.PutUint16(dst, uint16(n))
	binary.BigEndian.PutUint16(dst[2:], gen)
	binary.BigEndian.PutUint16(dst[4:], acked)
	binary.BigEndian.PutUint16(dst[6:], uint16(members))
}

// parse checks a received record before anything of it is used: at most 64 members, and both the record's own length
// and the octets present exactly right (net/tipc/monitor.c tipc_mon_rcv, after CVE-2022-0435).
func parse(b []byte) (gen, acked uint16, members int, ok bool) {
	if len(b) < headerLen {
		return 0, 0, 0, false
	}
	members = int(binary.BigEndian.Uint16(b[6:]))
	if members > MaxDomain || len(b) != recordLen(members) || int(binary.BigEndian.Uint16(b)) != len(b) {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:]), members, true
}

// load takes the map and the members of a parsed record. It reuses r's memory.
func (r *record) load(b []byte, gen uint16, members int) {
	r.gen = gen
	r.upMap = binary.BigEndian.Uint64(b[8:])
	r.members = r.members[:0]
	for i := range members {
		r.members = append(r.members, binary.BigEndian.Uint32(b[headerLen+4*i:]))
	}
}
