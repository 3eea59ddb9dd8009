package fib

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/enter"
)

// PortListener is a listener with a socket at each port of a FIB (see [ListenConfig]). All methods are safe for
// concurrent use.
type PortListener struct {
	members  []member[net.Listener]
	accepted chan accepted
	closed   chan struct{}
	once     sync.Once
	pumps    sync.WaitGroup
	deadline alarm
}

type accepted struct {
	conn net.Conn
	err  error
}

func newPortListener(members []member[net.Listener]) *PortListener {
	l := &PortListener{members: members, accepted: make(chan accepted), closed: make(chan struct{})}
	l.deadline.set(time.Time{})
	for _, m := range members {
		l.pumps.Go(func() { l.pump(m.socket) })
	}
	return l
}

// pump hands over what one socket accepts. It takes at most one connection that nobody has asked for; the others wait
// in the kernel's queue (listen(2), backlog).
func (l *PortListener) pump(s net.Listener) {
	for {
		c, err := s.Accept()
		select {
		case l.accepted <- accepted{c, err}:
		case <-l.closed:
			if c != nil {
				_ = c.Close()
			}
			return
		}
	}
}

// Accept waits for the next connection, at whichever port. It blocks until there is one, the listener is closed
// (net.ErrClosed), or the deadline passes (os.ErrDeadlineExceeded).
func (l *PortListener) Accept() (net.Conn, error) {
	for {
		expired, changed := l.deadline.wait()
		select { // what is over counts more than what waits
		case <-l.closed:
			return nil, l.error("accept", net.ErrClosed)
		case <-expired:
			return nil, l.error("accept", os.ErrDeadlineExceeded)
		default:
		}
		select {
		case a := <-l.accepted:
			return a.conn, a.err
		case <-l.closed:
		case <-expired:
		case <-changed:
		}
	}
}

func (l *PortListener) error(op string, err error) error {
	return &net.OpError{Op: op, Net: l.Addr().Network(), Addr: l.Addr(), Err: err}
}

// SetDeadline sets when Accept gives up; the zero time is never.
func (l *PortListener) SetDeadline(t time.Time) error { l.deadline.set(t); return nil }

// Addr returns the address; all sockets have the same.
func (l *PortListener) Addr() net.Addr { return l.members[0].socket.Addr() }

// Close closes all sockets and waits until none accepts any more.
func (l *PortListener) Close() error {
	err := error(l.error("close", net.ErrClosed))
	l.once.Do(func() {
		close(l.closed)
		err = nil
		for _, m := range l.members {
			err = errors.Join(err, m.socket.Close())
		}
		l.pumps.Wait()
		l.deadline.set(time.Time{}) // no timer stays
	})
	return err
}

// maxDatagram is the largest payload of UDP (RFC 768, length).
const maxDatagram = 65535

// PortPacketConn is a packet connection with a socket at each port of a FIB (see [ListenConfig]). A packet is sent by
// the port that the FIB's route to its destination leads to, for which the kernel is asked each time. All methods are
// safe for concurrent use.
type PortPacketConn struct {
	fib      binding.Binding
	members  []member[net.PacketConn]
	received chan datagram
	buffers  chan []byte
	closed   chan struct{}
	once     sync.Once
	pumps    sync.WaitGroup
	deadline alarm
}

type datagram struct {
	buffer []byte
	n      int
	from   net.Addr
	err    error
}

func newPortPacketConn(b binding.Binding, members []member[net.PacketConn]) *PortPacketConn {
	c := &PortPacketConn{fib: b, members: members, received: make(chan datagram), closed: make(chan struct{}), buffers: make(chan []byte, len(members))}
	c.deadline.set(time.Time{})
	for _, m := range members {
		c.buffers <- nil // one a socket; its octets are allocated when the first packet is there to be read
		c.pumps.Go(func() { c.pump(m.socket) })
	}
	return c
}

// pump hands over what one socket receives. It takes at most one packet that nobody has asked for; the others wait in
// the kernel's queue (SO_RCVBUF).
func (c *PortPacketConn) pump(s net.PacketConn) {
	for buffer := range c.buffers {
		if buffer == nil {
			buffer = make([]byte, maxDatagram)
		}
		n, from, err := s.ReadFrom(buffer)
		select {
		case c.received <- datagram{buffer, n, from, err}:
		case <-c.closed:
			return
		}
	}
}

// ReadFrom reads the next packet, from whichever port; see [net.PacketConn]. What does not fit into b is lost. It blocks
// until there is one, the connection is closed (net.ErrClosed), or the deadline passes (os.ErrDeadlineExceeded).
func (c *PortPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		expired, changed := c.deadline.wait()
		select {
		case <-c.closed:
			return 0, nil, c.error("read", net.ErrClosed)
		case <-expired:
			return 0, nil, c.error("read", os.ErrDeadlineExceeded)
		default:
		}
		select {
		case d := <-c.received:
			n := copy(b, d.buffer[:d.n])
			c.buffers <- d.buffer // never blocks: there are no more than sockets
			return n, d.from, d.err
		case <-c.closed:
		case <-expired:
		case <-changed:
		}
	}
}

// WriteTo sends a packet by the port that the FIB's route to its destination leads to.
func (c *PortPacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, c.error("write", net.ErrClosed)
	default:
	}
	ip, zone := addressOf(to)
	port := zone
	if port == "" {
		var err error
		if port, err = enter.RoutePort(c.fib, ip); err != nil {
			return 0, c.error("write", err)
		}
	}
	for _, m := range c.members {
		if m.port == port {
			return m.socket.WriteTo(b, to)
		}
	}
	return 0, c.error("write", &enter.PortError{FIB: enter.Title(c.fib), Port: port, Want: "a route by a port that the FIB had when the socket was opened"})
}

func addressOf(a net.Addr) (ip netip.Addr, zone string) {
	switch a := a.(type) {
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	case *net.IPAddr:
		ip, _ = netip.AddrFromSlice(a.IP)
		ip = ip.WithZone(a.Zone)
	}
	zone = ip.Zone()
	if n, err := strconv.Atoi(zone); err == nil { // a zone may be the device's number
		if i, err := net.InterfaceByIndex(n); err == nil {
			zone = i.Name
		}
	}
	return ip.Unmap().WithZone(""), zone
}

func (c *PortPacketConn) error(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Addr: c.LocalAddr(), Err: err}
}

// LocalAddr returns the address; all sockets have the same.
func (c *PortPacketConn) LocalAddr() net.Addr { return c.members[0].socket.LocalAddr() }

// SetDeadline sets when ReadFrom and WriteTo give up; the zero time is never.
func (c *PortPacketConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets when ReadFrom gives up; the zero time is never.
func (c *PortPacketConn) SetReadDeadline(t time.Time) error { c.deadline.set(t); return nil }

// SetWriteDeadline sets when WriteTo gives up; the zero time is never.
func (c *PortPacketConn) SetWriteDeadline(t time.Time) error {
	var err error
	for _, m := range c.members {
		err = errors.Join(err, m.socket.SetWriteDeadline(t))
	}
	return err
}

// Close closes all sockets and waits until none reads any more.
func (c *PortPacketConn) Close() error {
	err := error(c.error("close", net.ErrClosed))
	c.once.Do(func() {
		close(c.closed)
		err = nil
		for _, m := range c.members {
			err = errors.Join(err, m.socket.Close())
		}
		c.pumps.Wait()
		c.deadline.set(time.Time{})
	})
	return err
}

// alarm is a deadline that may be moved while others wait for it.
type alarm struct {
	mu      sync.Mutex
	expired chan struct{} // closed when the time has come; guarded by mu
	changed chan struct{} // closed when another deadline is set; guarded by mu
	timer   *time.Timer   // guarded by mu
}

func (a *alarm) set(t time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	if a.changed != nil {
		close(a.changed)
	}
	expired := make(chan struct{})
	a.expired, a.changed = expired, make(chan struct{})
	switch wait := time.Until(t); {
	case t.IsZero():
	case wait <= 0:
		close(expired)
	default:
		a.timer = time.AfterFunc(wait, func() { close(expired) })
	}
}

func (a *alarm) wait() (expired, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.expired, a.changed
}
