package wire

import "encoding/binary"

// Records of the topology service (include/uapi/linux/tipc.h struct tipc_subscr and tipc_event).
const (
	SubscrSize = 28
	EventSize  = 48
)

// SubscrFilter selects what a subscription reports.
type SubscrFilter uint32

// Filter bits.
const (
	SubPorts   SubscrFilter = 1 // each binding
	SubService SubscrFilter = 2 // first and last binding of an instance range only
	SubCancel  SubscrFilter = 4 // cancels the subscription that is equal in all other fields
)

// WaitForever as a timeout means that the subscription does not expire.
const WaitForever = 0xffffffff

// Subscr is a subscription. Timeout is in milliseconds. UserHandle is the subscriber's own and comes back unchanged.
type Subscr struct {
	Range      ServiceRange
	Timeout    uint32
	Filter     SubscrFilter
	UserHandle [8]byte
}

// EventKind is the kind of an [Event].
type EventKind uint32

// Events.
const (
	EventPublished EventKind = 1
	EventWithdrawn EventKind = 2
	EventTimeout   EventKind = 3
)

// Event is what the topology service sends to a subscriber.
type Event struct {
	Kind         EventKind
	Lower, Upper uint32 // bounds of the whole binding; in a timeout those of the subscription
	Port         SocketAddr
	Subscr       Subscr
}

// ParseSubscr decodes the first 28 octets of b. The record does not say its byte order: as on a little-endian Linux it
// is little-endian when the filter, read that way, has one of the known bits, and big-endian otherwise
// (net/tipc/subscr.h tipc_sub_read). ok is false when b is short.
func ParseSubscr(b []byte) (s Subscr, order binary.ByteOrder, ok bool) {
	if len(b) < SubscrSize {
		return s, nil, false
	}
	const known = uint32(SubPorts | SubService | SubCancel)
	order = binary.BigEndian
	if binary.LittleEndian.Uint32(b[16:])&known != 0 {
		order = binary.LittleEndian
	}
	s.Range.Type = order.Uint32(b)
	s.Range.Lower = order.Uint32(b[4:])
	s.Range.Upper = order.Uint32(b[8:])
	s.Timeout = order.Uint32(b[12:])
	s.Filter = SubscrFilter(order.Uint32(b[16:]))
	copy(s.UserHandle[:], b[20:])
	return s, order, true
}

// PutSubscr encodes s into the first 28 octets of b in the given byte order.
func PutSubscr(b []byte, s Subscr, order binary.ByteOrder) {
	_ = b[SubscrSize-1]
	order.PutUint32(b, s.Range.Type)
	order.PutUint32(b[4:], s.Range.Lower)
	order.PutUint32(b[8:], s.Range.Upper)
	order.PutUint32(b[12:], s.Timeout)
	order.PutUint32(b[16:], uint32(s.Filter))
	copy(b[20:28], s.UserHandle[:])
}

// PutEvent encodes e into the first 48 octets of b in the given byte order.
func PutEvent(b []byte, e Event, order binary.ByteOrder) {
	_ = b[EventSize-1]
	order.PutUint32(b, uint32(e.Kind))
	order.PutUint32(b[4:], e.Lower)
	order.PutUint32(b[8:], e.Upper)
	order.PutUint32(b[12:], e.Port.Port)
	order.PutUint32(b[16:], e.Port.Node)
	PutSubscr(b[20:], e.Subscr, order)
}

// ParseEvent decodes the first 48 octets of b in the given byte order; ok is false when there are fewer.
func ParseEvent(b []byte, order binary.ByteOrder) (e Event, ok bool) {
	if len(b) < EventSize {
		return e, false
	}
	e.Kind = EventKind(order.Uint32(b))
	e.Lower = order.Uint32(b[4:])
	e.Upper = order.Uint32(b[8:])
	e.Port = SocketAddr{Port: order.Uint32(b[12:]), Node: order.Uint32(b[16:])}
	s := b[20:]
	e.Subscr.Range = ServiceRange{order.Uint32(s), order.Uint32(s[4:]), order.Uint32(s[8:])}
	e.Subscr.Timeout = order.Uint32(s[12:])
	e.Subscr.Filter = SubscrFilter(order.Uint32(s[16:]))
	copy(e.Subscr.UserHandle[:], s[20:28])
	return e, true
}
