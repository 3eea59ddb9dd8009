package tipc

import "strconv"

// SocketType says how a socket carries data.
type SocketType uint8

// Socket types. The zero value lets the function choose: Stream for Dial and Listen, RDM for ListenPacket.
const (
	Stream    SocketType = 1 // connection, octet stream
	Datagram  SocketType = 2 // connectionless; dropped when a link or the receiver is congested
	RDM       SocketType = 4 // connectionless; waits when a link is congested
	SeqPacket SocketType = 5 // connection that keeps message boundaries
)

// ParseSocketType parses "stream", "seqpacket", "rdm" or "dgram".
func ParseSocketType(s string) (SocketType, error) {
	switch s {
	case "stream":
		return Stream, nil
	case "seqpacket":
		return SeqPacket, nil
	case "rdm":
		return RDM, nil
	case "dgram":
		return Datagram, nil
	}
	return 0, parseError("socket type", s, "want stream, seqpacket, rdm or dgram")
}

// String returns the name that ParseSocketType takes.
func (t SocketType) String() string {
	switch t {
	case Stream:
		return "stream"
	case SeqPacket:
		return "seqpacket"
	case RDM:
		return "rdm"
	case Datagram:
		return "dgram"
	}
	return "socktype" + strconv.Itoa(int(t))
}

// Connected tells whether sockets of this type carry connections.
func (t SocketType) Connected() bool { return t == Stream || t == SeqPacket }

// MarshalText implements encoding.TextMarshaler.
func (t SocketType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *SocketType) UnmarshalText(b []byte) (err error) {
	*t, err = ParseSocketType(string(b))
	return err
}

// Scope says how far a binding is visible. The numbers are the kernel's.
type Scope uint8

// Scopes. The zero value means ClusterScope.
const (
	ClusterScope Scope = 2 // every node of the cluster
	NodeScope    Scope = 3 // only the node that the socket is on
)

// ParseScope parses "cluster" or "node".
func ParseScope(s string) (Scope, error) {
	switch s {
	case "cluster":
		return ClusterScope, nil
	case "node":
		return NodeScope, nil
	}
	return 0, parseError("scope", s, "want cluster or node")
}

// String returns "cluster" or "node".
func (s Scope) String() string {
	switch s {
	case 0, ClusterScope:
		return "cluster"
	case NodeScope:
		return "node"
	}
	return "scope" + strconv.Itoa(int(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Scope) UnmarshalText(b []byte) (err error) { *s, err = ParseScope(string(b)); return err }

// Importance is the level of a message: the higher, the more of a congested link's queue, and of a receiver's
// buffer, it may still use. The numbers are the kernel's.
type Importance uint8

// Importance levels.
const (
	LowImportance Importance = iota // the default
	MediumImportance
	HighImportance
	CriticalImportance
)

// String returns "low", "medium", "high" or "critical".
func (i Importance) String() string {
	if i <= CriticalImportance {
		return [...]string{"low", "medium", "high", "critical"}[i]
	}
	return "importance" + strconv.Itoa(int(i))
}

// MulticastMethod is how multicast messages travel to other nodes.
type MulticastMethod uint8

// Multicast methods.
const (
	MulticastAuto      MulticastMethod = iota // as the node decides, by the number of destinations
	MulticastBroadcast                        // one message for the whole cluster
	MulticastReplicast                        // a copy for each destination node
)

// MaxMessage is the largest message that a socket sends, in octets.
const MaxMessage = 66000

// MsgInfo tells about a received message more than its octets.
type MsgInfo struct {
	// From is the socket that sent the message; for a returned message, the socket or node it did not reach.
	From SocketAddr

	// Dest is what the sender addressed when that was a service: the address {Type, n, n} or the range. The zero
	// value says that it was sent to this socket's own address or on its connection.
	Dest ServiceRange

	// Returned is not zero when this is a message of one's own that came back undelivered, and says why. At most
	// 1,024 octets of it come back.
	Returned Code

	// Truncated tells that the message was longer than the buffer; the rest is gone.
	Truncated bool
}
