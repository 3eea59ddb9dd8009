package tipc

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

// Service types of the protocol that can be subscribed to.
const (
	// NodeStateType has an instance, the node's address, for each node that is up.
	NodeStateType = 0

	// LinkStateType has an instance, the peer's address, for each link of the local node. The socket's port tells
	// the links to one peer apart.
	LinkStateType = 2
)

// EventKind is what happened.
type EventKind uint8

// Events.
const (
	Published EventKind = 1 // a socket was bound, or was already when the subscription began
	Withdrawn EventKind = 2 // it was unbound or closed, or its process or node was lost
	TimedOut  EventKind = 3 // the subscription's time is over; it ends
)

// String returns "published", "withdrawn" or "timeout".
func (k EventKind) String() string {
	switch k {
	case Published:
		return "published"
	case Withdrawn:
		return "withdrawn"
	case TimedOut:
		return "timeout"
	}
	return "event" + strconv.Itoa(int(k))
}

// MarshalText implements encoding.TextMarshaler.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Event is one change in what is bound in a subscription's range.
type Event struct {
	Kind    EventKind
	Service ServiceRange // the binding; for TimedOut the subscription's range
	Socket  SocketAddr   // who is bound
}

// String is for people.
func (e Event) String() string {
	return fmt.Sprintf("%s %v %v", e.Kind, e.Service, e.Socket)
}

// SubscribeConfig says what a subscription reports. A nil *SubscribeConfig and the zero value mean every binding, for
// ever.
type SubscribeConfig struct {
	// Timeout ends the subscription with a TimedOut event, in whole milliseconds; 0 means never.
	Timeout time.Duration

	// FirstAndLast reports only the first binding of a range that appears and the last that disappears.
	FirstAndLast bool
}

// Subscription reports events in order. It is safe for concurrent use, but each event goes to one caller.
type Subscription struct {
	s    sockif.Socket
	r    ServiceRange
	over atomic.Bool // it timed out: the node will send nothing more
}

// Subscribe watches the bindings that overlap r. What is bound already is reported first.
func (n *Node) Subscribe(r ServiceRange, cfg *SubscribeConfig) (*Subscription, error) {
	if cfg == nil {
		cfg = &SubscribeConfig{}
	}
	ms := cfg.Timeout.Milliseconds()
	if !r.IsValid() || cfg.Timeout < 0 || ms >= wire.WaitForever || cfg.Timeout > 0 && ms == 0 {
		return nil, opError("subscribe", r, syscall.EINVAL)
	}
	sub := wire.Subscr{Range: wire.ServiceRange(r), Timeout: wire.WaitForever, Filter: wire.SubPorts}
	if ms > 0 {
		sub.Timeout = uint32(ms)
	}
	if cfg.FirstAndLast {
		sub.Filter = wire.SubService
	}
	// The topology service of the local node, by its well-known address.
	c, err := n.Dial(ServiceAddr{Type: wire.TopologyType, Instance: wire.TopologyType}, &SocketConfig{Type: SeqPacket})
	if err != nil {
		return nil, opError("subscribe", r, err.(*OpError).Err)
	}
	var b [wire.SubscrSize]byte
	wire.PutSubscr(b[:], sub, binary.BigEndian)
	if _, err := c.Write(b[:]); err != nil {
		c.Close()
		return nil, opError("subscribe", r, err.(*OpError).Err)
	}
	return &Subscription{s: c.s, r: r}, nil
}

// Next waits for the next event. After TimedOut, and when the node ended the subscription, the error is io.EOF.
func (s *Subscription) Next() (Event, error) {
	if s.over.Load() {
		return Event{}, io.EOF
	}
	var b [wire.EventSize]byte
	n, _, err := s.s.Recv(b[:])
	if err != nil {
		return Event{}, opError("read", s.r, err)
	}
	e, ok := wire.ParseEvent(b[:n], binary.BigEndian)
	if !ok {
		return Event{}, opError("read", s.r, io.ErrUnexpectedEOF)
	}
	if e.Kind == wire.EventTimeout {
		s.over.Store(true)
	}
	return Event{EventKind(e.Kind), ServiceRange{e.Subscr.Range.Type, e.Lower, e.Upper}, socketAddr(e.Port)}, nil
}

// NextContext is Next that gives up when ctx ends. Only one goroutine may use it at a time.
func (s *Subscription) NextContext(ctx context.Context) (Event, error) {
	stop := context.AfterFunc(ctx, func() { s.s.SetReadDeadline(time.Now()) })
	e, err := s.Next()
	if !stop() {
		s.s.SetReadDeadline(time.Time{})
		if err != nil {
			return e, opError("read", s.r, ctx.Err())
		}
	}
	return e, err
}

// SetDeadline sets when Next gives up with os.ErrDeadlineExceeded; the zero time means never.
func (s *Subscription) SetDeadline(t time.Time) error {
	return opError("set deadline", s.r, s.s.SetReadDeadline(t))
}

// Close ends the subscription; a Next that waits returns an error that matches net.ErrClosed.
func (s *Subscription) Close() error { return opError("close", s.r, s.s.Close()) }
