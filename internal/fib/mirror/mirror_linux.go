package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"

	"midplane/internal/fib/rtnl"
	"midplane/internal/sys"
)

// Multicast groups (include/uapi/linux/rtnetlink.h, enum rtnetlink_groups).
const (
	groupLink        = 1
	groupIPv4Address = 5
	groupIPv4Route   = 7
	groupIPv6Route   = 11
	groupNextHop     = 32

	familyRoute = 0 // NETLINK_ROUTE
)

// Mirror keeps FIBs the same as kernel tables, while Run runs. Its other methods are safe for concurrent use.
type Mirror struct {
	conf Config
	due  chan struct{} // of 1: a resynchronisation is wanted

	mu     sync.Mutex
	core   *core  // guarded by mu
	status Status // guarded by mu
	paused func() // tests: called before each read of notifications
}

// New checks the configuration. Errors: *fib.FieldError, and those of feed for what is to be adopted.
func New(c Config) (*Mirror, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.ReadBuffer == 0 {
		c.ReadBuffer = DefaultReadBuffer
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	m := &Mirror{conf: c, due: make(chan struct{}, 1), core: newCore(c.Set, c.Tables, c.Open, c.Alternates)}
	m.core.skip = c.Skip
	if c.Adopt {
		m.core.mark()
		for n := range c.Tables {
			if err := m.core.sink.Adopt(n); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// Status returns what was done so far. It waits for the change that is being made, up to that of a whole dump's part.
func (m *Mirror) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Counters, s.Feed = m.core.n, m.core.sink.Counters()
	return s
}

// Resync makes Run compare the FIBs with the kernel's tables anew.
func (m *Mirror) Resync() {
	select {
	case m.due <- struct{}{}:
	default:
	}
}

// enter opens the namespace, if it is not the caller's own. The caller closes it.
func enter(path string) (*os.File, int, error) {
	if path == "" {
		return nil, 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("namespace: %w", err)
	}
	return f, int(f.Fd()), nil
}

func dial(namespace string, buffer int) (*netlink.Conn, error) {
	f, fd, err := enter(namespace)
	if err != nil {
		return nil, err
	}
	if f != nil {
		defer f.Close()
	}
	conn, err := netlink.Dial(familyRoute, &netlink.Config{NetNS: fd, MessageBufferSize: 256 << 10})
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	if err := conn.SetOption(netlink.GetStrictCheck, true); err != nil {
		_ = conn.Close()
		return nil, &sys.UnsupportedError{Feature: "strict netlink dumps (NETLINK_GET_STRICT_CHK)", MinKernel: "4.20", Err: err}
	}
	if buffer > 0 {
		if err := conn.SetReadBuffer(buffer); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("rtnetlink: buffer of %d octets: %w", buffer, err)
		}
	}
	return conn, nil
}

// batch is what one read of notifications gave. lost says that some were dropped before it.
type batch struct {
	msgs []netlink.Message
	lost bool
	err  error // reading is at its end
}

// Run mirrors until ctx ends, and returns its cause then; other errors are those of opening the sockets and of reading
// notifications. Errors of dumps are in Status; the dump is tried again. It is not to be called twice at a time.
func (m *Mirror) Run(ctx context.Context) error {
	conn, err := dial(m.conf.Namespace, m.conf.ReadBuffer)
	if err != nil {
		return err
	}
	var done sync.WaitGroup
	defer done.Wait()
	defer conn.Close()
	for _, g := range []uint32{groupIPv4Route, groupIPv6Route, groupNextHop, groupLink, groupIPv4Address} {
		// Next hops are objects since Linux 5.3; an older kernel has none to tell of.
		if err := conn.JoinGroup(g); err != nil && g != groupNextHop {
			return fmt.Errorf("rtnetlink group %d: %w", g, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := make(chan batch, 64)
	done.Go(func() { m.read(ctx, conn, in) })
	if !m.conf.Keep {
		defer m.Flush()
	}
	return m.loop(ctx, in)
}

// read passes notifications on. When nobody takes them it waits, and the kernel drops what does not fit its buffer.
func (m *Mirror) read(ctx context.Context, conn *netlink.Conn, in chan<- batch) {
	for {
		if m.paused != nil {
			m.paused()
		}
		msgs, err := conn.Receive()
		b := batch{msgs: msgs, lost: overflowed(err)}
		if err != nil && !b.lost {
			b.err = err
		}
		select {
		case in <- b:
		case <-ctx.Done():
			return
		}
		if b.err != nil {
			return
		}
	}
}

// Flush removes all that was mirrored from the FIBs. Run must not run.
func (m *Mirror) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.core.sink.Flush()
}

// loop applies notifications and resynchronises when that is due: at once, and again not before settle has passed.
func (m *Mirror) loop(ctx context.Context, in <-chan batch) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	waiting, wait := true, settle // waiting: the timer runs, and a resynchronisation follows
	var last time.Time
	want := func() {
		if !waiting {
			waiting = true
			if time.Since(last) > 2*wait {
				wait = settle
			}
			timer.Reset(max(0, wait-time.Since(last)))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.due:
			want()
		case b := <-in:
			if b.err != nil {
				return fmt.Errorf("rtnetlink: %w", b.err)
			}
			if m.apply(b, len(in) == 0) {
				want()
			}
		case <-timer.C:
			waiting = false
			again, err := m.resync(ctx, in)
			last = time.Now()
			if again {
				wait = min(2*wait, settleMost)
				want()
			}
			m.mu.Lock()
			m.status.Err = err
			m.mu.Unlock()
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		m.mu.Lock()
		m.status.Synced = !waiting && m.status.Err == nil && len(in) == 0
		m.mu.Unlock()
	}
}

// apply takes a batch of notifications and says whether a dump is due.
func (m *Mirror) apply(b batch, last bool) (dump bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.lost {
		m.core.n.Overflows++
		dump = true
	}
	for _, msg := range b.msgs {
		if m.core.notified(uint16(msg.Header.Type), uint16(msg.Header.Flags), msg.Data) {
			dump = true
		}
	}
	if last {
		m.core.sink.Commit()
	}
	return dump
}

// errAgain says that a dump cannot be trusted.
var errAgain = errors.New("the dump was not of one moment")

// resync reads all tables anew. Notifications that arrive meanwhile are applied after it: whatever a dump has seen of a
// change, the change applied to it gives what the kernel has. again says that another one is due.
func (m *Mirror) resync(ctx context.Context, in <-chan batch) (again bool, err error) {
	conn, err := dial(m.conf.Namespace, 0)
	if err != nil {
		return true, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for try := 1; ; try++ {
		m.mu.Lock()
		m.core.mark()
		m.mu.Unlock()
		d := dump{m: m, conn: conn, in: in}
		err := d.tables()
		m.mu.Lock()
		if err == nil && d.lost {
			err = errAgain
		}
		// Even after an error: what was notified is true.
		for _, msg := range d.queue {
			if m.core.notified(uint16(msg.Header.Type), uint16(msg.Header.Flags), msg.Data) {
				again = true
			}
		}
		// An IPv6 dump begins anew where it stood when the table changes (net/ipv6/ip6_fib.c, fib6_dump_table), and may
		// pass routes by, so that missing is no proof of absence.
		if err == nil && (d.interrupted || d.sixth) {
			m.core.n.Interrupts++
			if try < unclean {
				err = errAgain
			} else {
				again = true
			}
		}
		if err == nil {
			m.core.sweep()
			if len(d.queue) == 0 && m.core.prove() {
				again = true
			}
			m.mu.Unlock()
			return again, nil
		}
		m.core.sink.Commit()
		m.core.n.Retries++
		m.mu.Unlock()
		if d.err != nil {
			return true, d.err
		}
		if !errors.Is(err, errAgain) {
			return true, err
		}
		if try >= unclean {
			return true, fmt.Errorf("%d dumps: %w", try, err)
		}
	}
}

// dump is one reading of all tables.
type dump struct {
	m           *Mirror
	conn        *netlink.Conn
	in          <-chan batch
	queue       []netlink.Message // notifications that arrived meanwhile
	lost        bool              // some of them were lost
	interrupted bool
	sixth       bool  // among them were IPv6 routes
	err         error // reading notifications is at its end
}

// tables reads next hops, and then the routes of each table.
func (d *dump) tables() error {
	req := rtnl.AppendNextHopDump(nil, 0)
	if err := d.read(req); err != nil && !unknown(err) {
		return fmt.Errorf("dump of next hops: %w", err)
	}
	for n := range d.m.conf.Tables {
		for _, f := range []uint8{rtnl.FamilyIPv4, rtnl.FamilyIPv6} {
			if err := d.read(rtnl.AppendRouteDump(nil, 0, f, n)); err != nil && !absent(err) {
				return fmt.Errorf("dump of table %d: %w", n, err)
			}
		}
	}
	d.drain()
	return d.err
}

// read sends a request and applies what comes, while it takes in notifications.
func (d *dump) read(req []byte) error {
	if err := send(d.conn, req); err != nil {
		return err
	}
	const step = 256
	n := 0
	m := d.m
	m.mu.Lock()
	defer m.mu.Unlock()
	for msg, err := range d.conn.ReceiveIter() {
		if err != nil {
			return err
		}
		if uint16(msg.Header.Flags)&rtnl.FlagDumpIntr != 0 {
			d.interrupted = true
		}
		m.core.dumped(uint16(msg.Header.Type), msg.Data)
		if n++; n%step == 0 { // others may look at the status meanwhile
			m.mu.Unlock()
			d.drain()
			m.mu.Lock()
		}
	}
	return nil
}

// drain takes in what was notified, without waiting.
func (d *dump) drain() {
	for {
		select {
		case b := <-d.in:
			if b.lost {
				d.m.mu.Lock()
				d.m.core.n.Overflows++
				d.m.mu.Unlock()
				d.lost = true
			}
			if b.err != nil {
				d.err = b.err
				return
			}
			if len(d.queue)+len(b.msgs) > d.m.conf.Queue {
				if !d.lost {
					d.m.mu.Lock()
					d.m.core.n.Overflows++
					d.m.mu.Unlock()
				}
				d.lost = true
				continue
			}
			d.queue = append(d.queue, b.msgs...)
			for _, msg := range b.msgs {
				if t := uint16(msg.Header.Type); (t == rtnl.NewRoute || t == rtnl.DelRoute) && len(msg.Data) > 0 && msg.Data[0] == rtnl.FamilyIPv6 {
					d.sixth = true
				}
			}
		default:
			return
		}
	}
}

func send(conn *netlink.Conn, req []byte) error {
	h, payload, _, err := rtnl.Next(req)
	if err != nil {
		return err
	}
	_, err = conn.Send(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(h.Type), Flags: netlink.HeaderFlags(h.Flags)}, Data: payload})
	return err
}
