// Package sockif says what a TIPC socket is to the public API. The engine has sockets in this process, the attach
// client has them in a daemon.
package sockif

import (
	"context"
	"time"

	"midplane/internal/tipc/wire"
)

// Type is a socket type with the kernel's numbers.
type Type uint8

// Types.
const (
	Stream    Type = 1
	Dgram     Type = 2
	RDM       Type = 4
	SeqPacket Type = 5
)

// Connected tells whether the type carries connections.
func (t Type) Connected() bool { return t == Stream || t == SeqPacket }

// Valid tells whether t is one of the four.
func (t Type) Valid() bool { return t == Stream || t == Dgram || t == RDM || t == SeqPacket }

// DestKind is what a Dest is.
type DestKind uint8

// Kinds of destinations.
const (
	NoDest      DestKind = iota // the peer of the connection
	ServiceDest                 // Range.Type and Range.Lower, looked up on Addr.Node or anywhere
	RangeDest                   // all sockets bound in Range
	SocketDest                  // Addr
)

// Dest is where a message goes.
type Dest struct {
	Kind  DestKind
	Range wire.ServiceRange
	Addr  wire.SocketAddr
}

// Info is what Recv tells about a message.
type Info struct {
	From      wire.SocketAddr
	Dest      wire.ServiceRange // what it was sent to; zero if to the socket itself
	HasDest   bool
	Err       wire.ErrCode // it is one of ours that came back
	Truncated bool
}

// Options of a socket, set before it is used.
type Options struct {
	Importance   uint8
	SrcDroppable bool  // drop what a congested link cannot take, instead of waiting
	Returnable   bool  // connectionless: what cannot be delivered comes back, instead of being dropped
	NoDelay      bool  // stream: no Nagle
	Mcast        Mcast // RDM and Dgram: how multicast travels
	RecvBuf      int   // octets; 0: default
	ConnTimeout  time.Duration
}

// Mcast is how a socket's multicast messages travel to other nodes.
type Mcast uint8

// Ways of multicast.
const (
	McastAuto      Mcast = iota // as the node decides
	McastBroadcast              // one datagram for all
	McastReplicast              // a copy for each destination node
)

// Error is a failure with the protocol's code, if one was received.
type Error struct {
	Code wire.ErrCode
	Err  error // never nil
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Socket is a TIPC socket. Calls block until they are done, a deadline passes (os.ErrDeadlineExceeded) or the socket
// is closed (net.ErrClosed). All methods are safe for concurrent use.
type Socket interface {
	LocalAddr() wire.SocketAddr
	PeerAddr() wire.SocketAddr // zero unless connected

	Bind(wire.ServiceRange, wire.Scope) error
	Unbind(wire.ServiceRange, wire.Scope) error
	Listen(backlog int) error
	Accept() (Socket, error)
	Connect(context.Context, Dest) error

	// Send sends p: a stream in as many pieces as it takes, others as one message. n is how much was sent. With a
	// destination, on a new socket of a connection type, p goes with the request for a connection, which is not waited
	// for.
	Send(p []byte, to Dest) (n int, err error)

	// Recv receives into p: what there is of a stream, or one message, of which the rest is lost if p is short.
	// The end of a connection that the peer shut down is io.EOF.
	Recv(p []byte) (n int, info Info, err error)

	// Peek is Recv that leaves the data where it is.
	Peek(p []byte) (n int, info Info, err error)

	// Queued is how many messages, or pieces of a stream, wait to be received.
	Queued() int

	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Close() error
}

// Opener makes sockets: an engine, or the client of a daemon.
type Opener interface {
	Socket(Type, Options) (Socket, error)
	Close() error
}
