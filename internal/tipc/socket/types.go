package socket

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

// Type, DestKind and Dest are those of the public API's socket interface.
type (
	Type     = sockif.Type
	DestKind = sockif.DestKind
	Dest     = sockif.Dest
)

// Socket types and kinds of destinations.
const (
	Stream    = sockif.Stream
	Dgram     = sockif.Dgram
	RDM       = sockif.RDM
	SeqPacket = sockif.SeqPacket

	NoDest      = sockif.NoDest
	ServiceDest = sockif.ServiceDest
	RangeDest   = sockif.RangeDest
	SocketDest  = sockif.SocketDest
)

// State is a socket's state. The values are the kernel's (TIPC_OPEN etc., numbers of TCP states).
type State uint8

// States.
const (
	Established   State = 1
	Connecting    State = 2
	Open          State = 7
	Disconnecting State = 8
	Listening     State = 10
)

// String returns the name that ss(8) and the kernel's traces give.
func (s State) String() string {
	switch s {
	case Established:
		return "ESTABLISHED"
	case Connecting:
		return "CONNECTING"
	case Open:
		return "OPEN"
	case Disconnecting:
		return "DISCONNECTING"
	case Listening:
		return "LISTEN"
	}
	return "UNKNOWN"
}

// Readiness is a set of poll(2) conditions.
type Readiness uint8

// Conditions.
const (
	ReadyIn    Readiness = 1 << iota // something to receive or accept, or an end to be told
	ReadyOut                         // connection: Send would take something. Connectionless sockets: always
	ReadyHup                         // connection has ended
	ReadyRdHup                       // Shutdown was called
	ReadyErr                         // an error waits to be told
)

// RecvFlags modify one call of [Sock.Recv].
type RecvFlags uint8

// Flags.
const (
	RecvPeek      RecvFlags = 1 << iota // leave the message in the queue (MSG_PEEK)
	RecvEOR                             // what does not fit stays to be read next; the last part has EOR set (MSG_EOR)
	RecvAncillary                       // connections: return errored messages with their data, as recvmsg with a control buffer
)

// RecvInfo is what Recv tells about a message.
type RecvInfo struct {
	From      wire.SocketAddr   // the socket that sent it; for a returned message the one that would have received it
	Dest      wire.ServiceRange // service address or range that the sender used, on a connection the one it was set up with
	HasDest   bool              // Dest is set (ancillary TIPC_DESTNAME)
	Err       wire.ErrCode      // not OK: a message of ours came back, or the connection ended (TIPC_ERRINFO)
	Truncated bool              // the message was longer than the slice and the rest is lost (MSG_TRUNC)
	EOR       bool              // with RecvEOR: this was the last part of the message
}

// Method is a socket's memory of how its last multicast travelled (struct tipc_mc_method); it belongs to the [Net].
type Method struct {
	Rcast     bool // as a copy for each node; otherwise as a broadcast
	Mandatory bool // the user fixed the way, to replicast if Wish is set
	Wish      bool
	Expires   mono.Time
}

// Dests are the nodes that a multicast goes to.
type Dests struct {
	Local  bool     // this node is one of them
	Remote []uint32 // the others, each once
}
