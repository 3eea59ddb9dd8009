// Package fpm is the server of FRR's Forwarding Plane Manager protocol: zebra, with its module dplane_fpm_nl, connects
// and tells the routes that it selected; they are applied to FIBs, and each is answered. The protocol is a stream of
// frames (FRR fpm/fpm.h): version 1, type (1: netlink, 2: protobuf), the length with this header as 16 bits in network
// byte order, and netlink messages. [Session] is the protocol, without a clock or socket; [Server] is its driver.
package fpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"midplane/fib"
	"midplane/internal/fib/feed"
	"midplane/internal/fib/rtnl"
	"midplane/internal/mono"
)

// Port is where zebra connects to unless told otherwise (SOUTHBOUND_DEFAULT_PORT).
const Port = 2620

const (
	headerSize  = 4
	version     = 1
	typeNetlink = 1
	flagsOffset = 16 + 8 // of rtm_flags in a message
)

// Config of a Session. The zero value is ready to use.
type Config struct {
	Feed   feed.Config // Metrics is not used: zebra tells one route of a prefix
	Silent bool        // do not answer

	// What a replay's end is told by; see the defaults.
	Start, Quiet, Limit time.Duration

	Partial time.Duration // how long one frame may take, 0: DefaultPartial
	Hold    time.Duration // how long routes stay without a connection, 0: for ever
}

// Defaults of Config.
const (
	// DefaultStart ends a replay in which nothing came at all: zebra connects before it has read the kernel's table.
	DefaultStart = time.Minute
	// DefaultQuiet ends the replay after a connect: FRR up to 10.5 marks no end, and sends in portions of 1 MB with a
	// second between them (fpm_rib_send), so that a pause of several is the end.
	DefaultQuiet = 5 * time.Second
	// DefaultLimit is when octets no longer prolong the replay by themselves, only routes of before that come again.
	DefaultLimit = 5 * time.Minute
	// DefaultPartial bounds how long one frame may take.
	DefaultPartial = 30 * time.Second
)

// Errors after which the connection is to be closed, as nothing after them can be read.
var (
	ErrVersion = errors.New("fpm: a frame of another version")
	ErrLength  = errors.New("fpm: a frame that is shorter than its header")
	ErrPartial = errors.New("fpm: a frame that did not come to its end in time")
)

// Counters of a Session.
type Counters struct {
	Connected   bool
	Resyncing   bool   // between a connect and the end of the replay
	Connects    uint64 // connections served
	Resyncs     uint64 // replays that came to their end
	Octets      uint64 // received
	Answered    uint64 // octets of answers
	Frames      uint64
	BadVersion  uint64 // connections closed because of it
	BadLength   uint64
	BadPartial  uint64
	Cut         uint64 // connections that ended within a frame
	OtherTypes  uint64 // frames that are not netlink, passed by
	NotForFIBs  uint64 // routes and next hops that no FIB can hold, such as those with MPLS labels
	Offloaded   uint64 // routes answered as in the FIB
	Failed      uint64 // routes answered as not in the FIB
	Netlink     rtnl.Counters
	Feed        feed.Counters
	LastFailure string // why the last message was refused
}

// Session is what one FRR tells, over one connection after another. It is not safe for concurrent use.
type Session struct {
	conf    Config
	a       *feed.Applier
	dec     rtnl.Decoder
	n       Counters
	in      []byte // the begin of a frame: less than 65,535 octets
	out     []byte
	since   mono.Time // when the frame in in began
	marked  mono.Time
	quiet   mono.Time // when the replay is over, if nothing more comes
	gone    mono.Time // when the connection ended
	told    uint64    // feed.Counters.Refreshed at last
	route   feed.Route
	object  feed.Object
	pending struct { // a deletion, until it is known that no addition follows
		is     bool
		table  uint32
		prefix netip.Prefix
	}
}

// NewSession makes a Session that applies to the FIBs of a Set.
func NewSession(set *fib.Set, c Config) *Session {
	for _, d := range []struct {
		of   *time.Duration
		want time.Duration
	}{{&c.Start, DefaultStart}, {&c.Quiet, DefaultQuiet}, {&c.Limit, DefaultLimit}, {&c.Partial, DefaultPartial}} {
		if *d.of <= 0 {
			*d.of = d.want
		}
	}
	c.Feed.Metrics = false
	return &Session{conf: c, a: feed.New(set, c.Feed), gone: mono.Never}
}

// Adopt takes over the routes of a table that an earlier process left; see feed.Applier.Adopt. It is called before the
// first Connect.
func (s *Session) Adopt(table uint32) error { return s.a.Adopt(table) }

// Connect begins a connection: zebra replays all that it has. What it had before stays in the FIBs until then.
func (s *Session) Connect(now mono.Time) {
	s.n.Connected, s.n.Resyncing = true, true
	s.n.Connects++
	s.in, s.out = s.in[:0], s.out[:0]
	s.a.Mark()
	s.marked, s.quiet, s.gone = now, now.Add(s.conf.Start), mono.Never
	s.told = s.a.Counters().Refreshed
}

// Disconnect ends a connection. The routes stay: forwarding goes on while zebra restarts.
func (s *Session) Disconnect(now mono.Time) {
	if len(s.in) > 0 {
		s.n.Cut++
	}
	s.n.Connected, s.n.Resyncing = false, false
	s.in, s.out = s.in[:0], s.out[:0]
	s.a.Commit()
	s.gone = now
}

// Deadline returns when Tick is to be called.
func (s *Session) Deadline() mono.Time {
	d := mono.Never
	if s.n.Resyncing {
		d = s.quiet
	}
	if len(s.in) > 0 {
		d = d.Min(s.since.Add(s.conf.Partial))
	}
	if !s.n.Connected && s.conf.Hold > 0 && s.gone != mono.Never {
		d = d.Min(s.gone.Add(s.conf.Hold))
	}
	return d
}

// Tick does what is due. After an error the connection is to be closed.
func (s *Session) Tick(now mono.Time) error {
	if s.n.Resyncing && !now.Before(s.quiet) && len(s.in) == 0 {
		s.a.Sweep()
		s.n.Resyncing = false
		s.n.Resyncs++
	}
	if !s.n.Connected && s.conf.Hold > 0 && s.gone != mono.Never && !now.Before(s.gone.Add(s.conf.Hold)) {
		s.gone = mono.Never
		s.a.Flush()
	}
	if len(s.in) > 0 && !now.Before(s.since.Add(s.conf.Partial)) {
		s.n.BadPartial++
		return ErrPartial
	}
	return nil
}

// Flush removes all that was told from the FIBs.
func (s *Session) Flush() { s.a.Flush() }

// Counters returns what happened so far.
func (s *Session) Counters() Counters {
	c := s.n
	c.Netlink, c.Feed = s.dec.Counters, s.a.Counters()
	return c
}

// Receive applies what came on the connection, b, which belongs to the caller again afterwards. After an error the
// connection is to be closed; what was received before the error is applied.
func (s *Session) Receive(now mono.Time, b []byte) error {
	s.n.Octets += uint64(len(b))
	err := s.frames(now, b)
	s.a.Commit()
	if s.n.Resyncing {
		told := s.a.Counters().Refreshed
		if told != s.told || now.Before(s.marked.Add(s.conf.Limit)) {
			s.quiet = now.Add(s.conf.Quiet)
		}
		s.told = told
	}
	return err
}

func (s *Session) frames(now mono.Time, b []byte) error {
	if len(s.in) > 0 { // the rest of a frame: only what it lacks is copied
		for len(s.in) < headerSize && len(b) > 0 {
			s.in, b = append(s.in, b[0]), b[1:]
		}
		if len(s.in) < headerSize {
			return nil
		}
		n, err := s.length(s.in)
		if err != nil {
			s.in = s.in[:0]
			return err
		}
		take := min(n-len(s.in), len(b))
		s.in, b = append(s.in, b[:take]...), b[take:]
		if len(s.in) < n {
			return nil
		}
		s.frame(s.in)
		s.in = s.in[:0]
	}
	for len(b) >= headerSize {
		n, err := s.length(b)
		if err != nil {
			return err
		}
		if n > len(b) {
			break
		}
		s.frame(b[:n])
		b = b[n:]
	}
	if len(b) > 0 {
		s.in, s.since = append(s.in, b...), now
	}
	return nil
}

// length reads the header of a frame.
func (s *Session) length(b []byte) (int, error) {
	if b[0] != version {
		s.n.BadVersion++
		return 0, fmt.Errorf("%w: %d, want %d", ErrVersion, b[0], version)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < headerSize {
		s.n.BadLength++
		return 0, fmt.Errorf("%w: %d octets, want 4 to 65535", ErrLength, n)
	}
	return n, nil
}

// frame applies the messages of one frame.
func (s *Session) frame(b []byte) {
	s.n.Frames++
	if b[1] != typeNetlink {
		s.n.OtherTypes++
		s.n.LastFailure = fmt.Sprintf("frame of type %d: want %d, netlink; configure zebra with -M dplane_fpm_nl", b[1], typeNetlink)
		return
	}
	for b = b[headerSize:]; len(b) > 0; {
		m, rest, err := s.dec.Next(b)
		msg := b[:len(b)-len(rest)]
		b = rest
		switch {
		case err != nil:
			s.failed(err)
			s.refuseRoute(m, msg)
		case m.Route != nil && m.Type == rtnl.DelRoute:
			s.settle()
			s.pending.is, s.pending.table, s.pending.prefix = true, m.Route.Table, m.Route.Dst
		case m.Route != nil:
			s.add(m.Route, msg)
		case m.NextHop != nil && m.Type == rtnl.DelNextHop:
			s.settle()
			s.failed(s.a.DeleteObject(m.NextHop.ID))
		case m.NextHop != nil:
			s.settle()
			if err := feed.ObjectFromNetlink(m.NextHop, &s.object); err != nil {
				s.n.NotForFIBs++
				s.failed(err)
			} else {
				s.failed(s.a.SetObject(&s.object))
			}
		}
	}
	s.settle()
}

func (s *Session) failed(err error) {
	if err != nil {
		s.n.LastFailure = err.Error()
	}
}

// settle applies a deletion that no addition of the same prefix followed. zebra sends both, in this order and in one
// frame, when a route changes (fpm_nl_enqueue, DPLANE_OP_ROUTE_UPDATE); taken together the table is never without.
func (s *Session) settle() {
	if !s.pending.is {
		return
	}
	s.pending.is = false
	s.route = feed.Route{Table: s.pending.table, Prefix: s.pending.prefix, Paths: s.route.Paths[:0]}
	s.failed(s.a.Delete(&s.route))
}

func (s *Session) add(r *rtnl.Route, msg []byte) {
	if s.pending.is && (s.pending.table != r.Table || s.pending.prefix != r.Dst) {
		s.settle()
	}
	s.pending.is = false
	usable, err := feed.FromNetlink(r, &s.route)
	if err != nil {
		s.n.NotForFIBs++
	} else if usable {
		err = s.a.Add(&s.route)
	}
	if (err != nil || !usable) && !errors.Is(err, feed.ErrTable) {
		// What was there before is not what zebra wants: better none.
		s.route.Paths = s.route.Paths[:0]
		_ = s.a.Delete(&s.route)
	}
	s.failed(err)
	s.answer(msg, err == nil && usable)
}

// refuseRoute answers a message about a route that could not be decoded, if it is whole enough to be known by zebra.
func (s *Session) refuseRoute(m rtnl.Message, msg []byte) {
	if m.Type == rtnl.NewRoute && len(msg) >= flagsOffset+4 {
		s.answer(msg, false)
	}
}

// answer tells zebra whether a route is in the FIB: its own message, with the flag set. zebra reads one message a frame,
// and only those with NLM_F_REQUEST (fpm_read, zebra/dplane_fpm_nl.c). It is heard by 8.5 to 10.2 and from 10.4 on: before,
// all that comes is thrown away, and 10.3 looks in a table that there is not (29122bc9b8, mended by b2fc167978).
func (s *Session) answer(msg []byte, ok bool) {
	flag := rtnl.RouteOffloadFailed
	if ok {
		s.n.Offloaded++
		flag = rtnl.RouteOffload
	} else {
		s.n.Failed++
	}
	if s.conf.Silent {
		return
	}
	start := len(s.out)
	s.out = append(append(s.out, version, typeNetlink, 0, 0), msg...)
	at := start + headerSize
	order := binary.NativeEndian
	order.PutUint16(s.out[at+6:], order.Uint16(s.out[at+6:])|rtnl.FlagRequest)
	f := s.out[at+flagsOffset:]
	order.PutUint32(f, order.Uint32(f)&^(rtnl.RouteOffload|rtnl.RouteOffloadFailed)|flag)
	n := len(s.out) - start
	if n > 65535 {
		s.out = s.out[:start]
		return
	}
	binary.BigEndian.PutUint16(s.out[start+2:], uint16(n))
	s.n.Answered += uint64(n)
}

// Output returns what is to be sent, nil if nothing. It is valid until the next call of Receive, and not much longer
// than what was received since the last Output: it has a frame for each message.
func (s *Session) Output() []byte {
	b := s.out
	s.out = s.out[:0]
	return b
}
