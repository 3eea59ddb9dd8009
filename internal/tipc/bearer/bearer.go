package bearer

import (
	"fmt"
	"net"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// BatchSize is a good length of the slice given to ReadBatch. Any length from
// 1 on works.
const BatchSize = 64

// All as a bearer number makes WriteBatch send every datagram of the batch.
const All = -1

// ErrClosed is returned by a bearer's methods after Close.
var ErrClosed = net.ErrClosed

// Packet is one received datagram.
type Packet struct {
	Src       wire.MediaAddr
	Broadcast bool   // it was sent to all nodes, as far as the bearer can tell
	Data      []byte // never empty; valid until the reader's next call, must not be changed

	// Buf, when not nil, has Data as its message. It goes to the caller, who may change and keep it, and releases it
	// when done. Only datagrams too long for a small Buf come so, see buf.Roomy.
	Buf *buf.Buf
}

// Reader is one stream of received datagrams. A reader is used by one
// goroutine at a time.
type Reader interface {
	// ReadBatch waits for datagrams and returns how many of p it filled, at
	// least one. It returns ErrClosed after Close, which also wakes it.
	// Errors of the network are counted and do not end the reader.
	ReadBatch(p []Packet) (int, error)

	// TryReadBatch is ReadBatch without waiting: it may return 0.
	TryReadBatch(p []Packet) (int, error)
}

// Bearer sends and receives datagrams on one medium. All methods are safe for
// concurrent use.
type Bearer interface {
	// Name is the full name, media and instance: "udp:u1" or "eth:eth0".
	Name() string
	Media() wire.MediaType

	// Addr is where peers reach this node, as it stands in its discovery
	// messages. It changes only with an AddrChanged event.
	Addr() wire.MediaAddr

	// BroadcastAddr is the destination that reaches all nodes; its
	// Broadcast is true.
	BroadcastAddr() wire.MediaAddr

	// BroadcastSupport reports whether one datagram to BroadcastAddr costs
	// one transmission. It is false where the bearer copies it to a list of
	// peers (net/tipc/bearer.c tipc_bearer_bcast_support).
	BroadcastSupport() bool

	// MTU is the largest datagram in octets, TIPC header included.
	MTU() int

	// Readers returns the bearer's receive streams, always the same ones,
	// at least one. Each needs a goroutine.
	Readers() []Reader

	// WriteBatch sends the datagrams of b that are for bearer number id (or
	// [All]), in order. It waits for room in the socket a short while at
	// most and drops what then does not fit. Datagrams that cannot be sent
	// are counted and skipped; the only error is ErrClosed. b is not kept.
	WriteBatch(b *buf.Batch, id int) error

	// Events tells of changes below the bearer. It is nil for a bearer that
	// has none to tell, and is closed with the bearer.
	Events() <-chan Event

	Stats() Stats
	Close() error
}

// EventKind is what happened below a bearer.
type EventKind uint8

// The events, named after what net/tipc/bearer.c tipc_l2_device_event acts on.
const (
	LinkDown    EventKind = iota + 1 // the device lost its carrier or was set down: reset the bearer's links
	LinkUp                           // it can carry traffic again
	MTUChanged                       // MTU() has a new value: reset the bearer's links
	AddrChanged                      // Addr() has a new value: reset the bearer's links
	Gone                             // the device was removed or renamed: disable the bearer
)

// String names the event.
func (k EventKind) String() string {
	switch k {
	case LinkDown:
		return "link down"
	case LinkUp:
		return "link up"
	case MTUChanged:
		return "MTU changed"
	case AddrChanged:
		return "address changed"
	case Gone:
		return "gone"
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// Event is a change below a bearer.
type Event struct {
	Kind EventKind
	MTU  int            // with MTUChanged
	Addr wire.MediaAddr // with AddrChanged
}
