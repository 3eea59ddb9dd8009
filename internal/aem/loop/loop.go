// Package loop does the input and output of many sockets on one thread, completion style: operations are asked for, and
// a batch of events tells what came of them. Three back ends do the same: stdnet (the standard library, everywhere),
// epoll and io_uring (Linux). One suite of tests runs over all of them (conformance_test.go).
//
// A Loop belongs to the goroutine that opened it, which must be locked to its thread (io_uring insists: the thread that
// opens a ring is the only one that may use it). Only Wake may be called from elsewhere. No method but Wait blocks.
package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"midplane/internal/mono"
)

// Handle names a listener, a connection, a packet socket or a watched descriptor of one loop. Zero is none. A handle is
// not used again for another endpoint: operations on one that is closed return ErrClosed.
type Handle uint64

// Buf names a receive buffer; zero is none.
type Buf uint32

// Op is what an event tells.
type Op uint8

// The events.
const (
	OpAccept   Op = iota + 1 // Conn came in at listener H; it receives nothing before Resume
	OpPaused                 // listener H accepts nothing for Config.AcceptRetry: Err says why (no descriptors, no memory)
	OpRecv                   // Data came in at H; it is the receiver's until Release(Buf)
	OpEOF                    // the peer of H sends no more; H can still send
	OpWritable               // H takes data again, after a Send that took less than it was given
	OpReady                  // the watched descriptor H is ready, as Mask says; Rearm asks for the next time
	OpDetached               // the last event of H after Detach: File is the socket, Data or Grams what was not sent yet
	OpClosed                 // the last event of H; Err tells why, nil after Close or Abort
)

var opNames = [...]string{"none", "accept", "paused", "recv", "eof", "writable", "ready", "detached", "closed"}

func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Mask says what a watched descriptor is or shall be ready for; the values are those of poll(2).
type Mask uint32

// The masks. Err and Hup are told unasked.
const (
	In  Mask = 0x1
	Pri Mask = 0x2
	Out Mask = 0x4
	Err Mask = 0x8
	Hup Mask = 0x10
)

// Addr is where a datagram came from or goes to: an IP address and port, or a path of a Unix socket ("" if it has none).
type Addr struct {
	netip.AddrPort
	Path string
}

// Datagram is one with its sender or receiver.
type Datagram struct {
	Data []byte
	Addr Addr
}

// Event is one thing that happened. Which fields are set is told at the Ops.
type Event struct {
	Op   Op
	Mask Mask
	Buf  Buf
	H    Handle
	Conn Handle
	Data []byte
	From Addr // of datagrams
	// Grams are those of OpDetached, the first to be sent first.
	Grams []Datagram
	Err   error
	File  *os.File
	Tag   any // what SetTag gave H
}

// Errors of operations.
var (
	ErrClosed = errors.New("loop: endpoint is closed")
	ErrBusy   = errors.New("loop: send queue is full") // of SendTo; OpWritable follows
	ErrKind   = errors.New("loop: operation does not fit the endpoint")
	ErrFull   = errors.New("loop: as many endpoints as Config.MaxEndpoints")
)

// Loop is a back end. All but Wake is for the goroutine that opened it.
type Loop interface {
	// Name is "stdnet", "epoll" or "io_uring".
	Name() string

	// Listener, Conn and Packet take over what the standard library made; the loop closes it, also when it returns an
	// error. A listener accepts at once; a connection or packet socket receives nothing before Resume.
	Listener(l net.Listener, tag any) (Handle, error)
	Conn(c net.Conn, tag any) (Handle, error)
	Packet(c net.PacketConn, tag any) (Handle, error)
	// Poll watches a descriptor, which stays the caller's and must outlive the handle. It tells of readiness once, and
	// again after each Rearm. Descriptors exist on Linux only; elsewhere the error is one of errors.ErrUnsupported.
	Poll(fd int, mask Mask, tag any) (Handle, error)

	SetTag(h Handle, tag any) error
	// Resume and Pause say whether H receives, or a listener accepts. What the kernel has handed over already may
	// still come after Pause.
	Resume(h Handle) error
	Pause(h Handle) error
	Rearm(h Handle) error

	// Send takes as much of p as the send queue of H has room for, copies it and returns how much that was; less than
	// all is no error, and OpWritable follows when half of the queue is free.
	Send(h Handle, p []byte) (int, error)
	// SendTo sends one datagram or returns ErrBusy. On a connected packet socket to is the zero Addr. What the network
	// says of a datagram is counted (Stats.SendErrors), not returned.
	SendTo(h Handle, p []byte, to Addr) error
	// Shutdown ends the sending direction after what is queued.
	Shutdown(h Handle) error
	// Close sends what is queued, for Config.Linger at most, and closes. Abort closes at once; a TCP peer sees a reset.
	// H receives no more; data that events have told of stays valid until released. OpClosed follows.
	Close(h Handle) error
	Abort(h Handle) error
	// Detach takes H out of the loop and hands its socket over in OpDetached. No octet and no datagram is lost: what the
	// kernel had delivered comes in OpRecv events before it, what was not sent yet is in its Data or Grams. Not for watched
	// descriptors.
	Detach(h Handle) error
	// Name of the far and near end, for those that have one.
	Addrs(h Handle) (local, remote net.Addr, err error)
	// Peer is the far end of a connection, cheaper; the zero Addr if it has none.
	Peer(h Handle) Addr

	// Release gives a receive buffer back. Endpoints that hold Config.Held buffers receive no more until they do.
	Release(b Buf)

	// Wait fills events with what happened, and waits for the first until deadline. It returns 0 at the deadline,
	// after Wake, and may so at other times. Events are valid until the next Wait, data until Release.
	Wait(events []Event, deadline mono.Time) (int, error)
	// Wake lets Wait return soon: the one that runs or the next. It is safe for concurrent use, also after Stop.
	Wake()
	// Heard says that what Wake was called for so far is seen to after this: the next Wait need not return for it.
	Heard()

	Stats() Stats
	// Stop closes every endpoint at once, without events, and the loop.
	Stop() error
}

// Stats are counters of one loop, for its owner to read.
type Stats struct {
	Endpoints    int    // open now
	Held         int    // receive buffers that are not released
	Queued       int    // octets in send queues
	Waits        uint64 // calls of Wait
	Received     uint64 // octets
	Sent         uint64 // octets that the kernel took
	Starved      uint64 // times that receiving stopped for want of a buffer
	AcceptPauses uint64
	SendErrors   uint64 // datagrams that the kernel refused
	Resets       uint64 // endpoints that failed
}

// Config bounds a loop. The zero value is the defaults.
type Config struct {
	Buffers      int                      // receive buffers of epoll and io_uring, a power of two, 8 to 32768; default 512
	BufferSize   int                      // octets of each, 256 to 65536; default 8192. Longer datagrams are cut.
	Held         int                      // unreleased receive buffers of one endpoint at which it stops to receive, 1 to Buffers; default 16
	SendQueue    int                      // octets queued for one endpoint, 1024 to 64 Mi; default 256 Ki
	SendMemory   int                      // octets queued for all, 64 Ki to 16 Gi; default 64 Mi
	MaxEndpoints int                      // 1 to 1 Mi; default 65536
	AcceptRetry  time.Duration            // pause of a listener when descriptors or memory lack; default 50 ms
	Linger       time.Duration            // what Close gives the peer to take what is queued; default 5 s
	InFlight     int                      // sends that io_uring may have in flight at once, 1 to 32768; default 4096
	Hold         func(now mono.Time) bool // asked before each wait: whether it keeps its processor of the runtime; nil: never. See hold.go
}

func (c Config) withDefaults() (Config, error) {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&c.Buffers, 512)
	set(&c.BufferSize, 8192)
	set(&c.Held, min(16, c.Buffers))
	set(&c.SendQueue, 256<<10)
	set(&c.SendMemory, 64<<20)
	set(&c.MaxEndpoints, 65536)
	set(&c.InFlight, 4096)
	if c.AcceptRetry == 0 {
		c.AcceptRetry = 50 * time.Millisecond
	}
	if c.Linger == 0 {
		c.Linger = 5 * time.Second
	}
	for _, v := range []struct {
		name        string
		v, low, top int
	}{
		{"Buffers", c.Buffers, 8, 32768}, {"BufferSize", c.BufferSize, 256, 65536}, {"Held", c.Held, 1, c.Buffers},
		{"SendQueue", c.SendQueue, 1024, 64 << 20}, {"SendMemory", c.SendMemory, 64 << 10, 16 << 30},
		{"MaxEndpoints", c.MaxEndpoints, 1, 1 << 20}, {"InFlight", c.InFlight, 1, 32768},
	} {
		if v.v < v.low || v.v > v.top {
			return c, fmt.Errorf("loop: Config.%s is %d, want %d to %d", v.name, v.v, v.low, v.top)
		}
	}
	if c.Buffers&(c.Buffers-1) != 0 {
		return c, fmt.Errorf("loop: Config.Buffers is %d, want a power of two", c.Buffers)
	}
	if c.AcceptRetry < 0 || c.Linger < 0 {
		return c, fmt.Errorf("loop: Config.AcceptRetry is %v and Linger %v, want none below 0", c.AcceptRetry, c.Linger)
	}
	return c, nil
}
