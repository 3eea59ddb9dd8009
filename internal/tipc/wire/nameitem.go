package wire

import "encoding/binary"

// NameItemSize is the length of a publication in NAME_DISTRIBUTOR messages.
const NameItemSize = 20

// NameItem is one binding in a NAME_DISTRIBUTOR message (net/tipc/name_distr.h struct distr_item). The publishing node
// is the message's origin node.
type NameItem struct {
	Range     ServiceRange
	Port, Key uint32
}

// PutNameItem encodes it into the first 20 octets of b.
func PutNameItem(b []byte, it NameItem) {
	_ = b[NameItemSize-1]
	binary.BigEndian.PutUint32(b, it.Range.Type)
	binary.BigEndian.PutUint32(b[4:], it.Range.Lower)
	binary.BigEndian.PutUint32(b[8:], it.Range.Upper)
	binary.BigEndian.PutUint32(b[12:], it.Port)
	binary.BigEndian.PutUint32(b[16:], it.Key)
}

// ParseNameItem decodes the first 20 octets of b; ok is false when there are fewer.
func ParseNameItem(b []byte) (it NameItem, ok bool) {
	if len(b) < NameItemSize {
		return it, false
	}
	it.Range.Type = binary.BigEndian.Uint32(b)
	it.Range.Lower = binary.BigEndian.Uint32(b[4:])
	it.Range.Upper = binary.BigEndian.Uint32(b[8:])
	it.Port = binary.BigEndian.Uint32(b[12:])
	it.Key = binary.BigEndian.Uint32(b[16:])
	return it, true
}
