package node

import (
	"errors"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// Specification constants (net/tipc/core.h, node.c, bcast.h).
const (
	MaxBearers      = 3       // bearers per node
	maxLinksPerPeer = 2       // links to one peer
	invalidSig      = 1 << 16 // signature of a peer that was never heard: no 16-bit value equals it
	noBearer        = -1      // INVALID_BEARER_ID
	minBearerMTU    = wire.MaxHeaderSize + wire.IntHeaderSize
	maxBearerMTU    = 1<<16 - 1 // the link keeps it in 16 bits
)

// Times of the node layer, in nanoseconds.
const (
	cleanupAfter  = mono.Time(300e9) // NODE_CLEANUP_AFTER: a peer down this long is forgotten
	idleInterval  = 10000            // ms between timer runs of a peer without links
	maxInterval   = 500              // ms between timer runs of a peer with links, at most
	methodExpires = mono.Time(5e9)   // TIPC_METHOD_EXPIRE
	bcNackLimit   = mono.Time(10e6)  // between two equal broadcast NACKs (TIPC_BC_RETR_LIM)
	ms            = mono.Time(1e6)
)

// Implementation constants.
const (
	// DefaultMaxNodes bounds the peers remembered. The kernel has no bound; larger TIPC clusters are not known.
	DefaultMaxNodes = 1024
)

// Errors of sending and of management. The kernel's errno is in brackets.
var (
	// ErrLinkCong [ELINKCONG]: the message was taken, but its sender must send no more before the SOCK_WAKEUP message that
	// will be delivered to its port.
	ErrLinkCong = link.ErrLinkCong
	// ErrHostUnreach [EHOSTUNREACH]: no such peer, or no link to it is up. The message was dropped.
	ErrHostUnreach = errors.New("tipc/node: destination node is unreachable")
	// ErrMsgSize [EMSGSIZE]: larger than the link's MTU. The message was dropped.
	ErrMsgSize = link.ErrMsgSize
	// ErrNoBufs [ENOBUFS]: the queue for internal messages overflowed. The message was dropped and the link reset.
	ErrNoBufs = link.ErrNoBufs

	ErrConfig  = errors.New("tipc/node: invalid configuration")
	ErrNoLink  = errors.New("tipc/node: no such link")                                   // EINVAL
	ErrNoNode  = errors.New("tipc/node: no such peer node")                              // ENXIO
	ErrBusy    = errors.New("tipc/node: peer node is up")                                // EBUSY
	ErrOwnNode = errors.New("tipc/node: not for the own node")                           // ENOTSUPP
	ErrRange   = errors.New("tipc/node: value out of range")                             // EINVAL
	ErrBearer  = errors.New("tipc/node: no such bearer")                                 // EINVAL
	ErrInUse   = errors.New("tipc/node: bearer already enabled")                         // EINVAL
	ErrNoProto = errors.New("tipc/node: the peers or bearers do not support the method") // ENOPROTOOPT
)

// Config is what a [Table] needs to know. Out, Up and Rand are mandatory.
type Config struct {
	Own    uint32      // own address; 0: not known yet, see [Table.SetOwn]
	ID     wire.NodeID // own identity
	NetID  uint32      // cluster identity; 0: 4711
	Random uint32      // this instance's random number (tn->random): mixes into suggested addresses

	MaxNodes int // peers remembered, at least 1; 0: [DefaultMaxNodes]

	Rand func() uint32 // randomness for session numbers
	Out  buf.Output    // takes outgoing datagrams
	Up   Upcalls       // takes what is received
}

// Upcalls is implemented by the layer above: sockets, name table, discovery. See the package comment for when they are
// made. A queue passed to an upcall belongs to it during the call; what is left on it afterwards is released.
type Upcalls interface {
	// Deliver takes unicast messages for sockets in order (tipc_sk_rcv), among them SOCK_WAKEUP pseudo messages, whose
	// OrigNode is the peer that was congested, 0 for the broadcast link.
	Deliver(now mono.Time, q *buf.Queue)
	// DeliverMulticast takes messages that may have several receivers here (tipc_sk_mcast_rcv): multicast and all group
	// traffic.
	DeliverMulticast(now mono.Time, q *buf.Queue)
	// DeliverNames takes NAME_DISTRIBUTOR messages of one peer in the order of arrival (tipc_named_rcv).
	DeliverNames(now mono.Time, q *buf.Queue, from uint32)

	// NodeUp: contact was made on the first link (tipc_named_node_up).
	NodeUp(now mono.Time, addr uint32, caps wire.Caps)
	// NodeDown: contact was lost. All that the peer sent in order before has been delivered. The name table forgets the
	// peer's publications, and the sockets break the connections to it.
	NodeDown(now mono.Time, addr uint32, caps wire.Caps)
	// LinkUp and LinkDown: one link changed. linkID is the port number of the {2,peer,peer} publication.
	LinkUp(now mono.Time, addr, linkID uint32, bearer int)
	LinkDown(now mono.Time, addr, linkID uint32, bearer int)

	// Discovery takes a LINK_CONFIG message (tipc_disc_rcv). m passed wire.Validate and is valid during the call only.
	// Unlike the other upcalls it is made during Receive.
	Discovery(now mono.Time, bearer int, src wire.MediaAddr, m wire.Msg)
}

// Bearer describes one carrier of links (struct tipc_bearer).
type Bearer struct {
	Name      string         // "udp:UDP1", "eth:eth0": media, colon, interface (at most 15 octets)
	MTU       int            // largest message, octets; at least MinMTU
	MinMTU    int            // smallest MTU that a peer may ask for, at least 100, which is the default
	Priority  int            // of new links, 0 to 31
	Tolerance int            // of new links, ms, 50 to 30000
	MinWin    int            // of new links, packets
	MaxWin    int            // of new links, packets, 16 to 8191
	Broadcast wire.MediaAddr // where broadcasts go
	Replicast bool           // a broadcast is sent to a list of peers one by one, so replicast costs the same
}

// Ranges of link properties (include/uapi/linux/tipc_config.h).
const (
	MinTolerance = 50
	MaxTolerance = 30000
	MaxPriority  = 31
	MinWindow    = 16
	DefWindow    = 50
	MaxWindow    = 8191
)
