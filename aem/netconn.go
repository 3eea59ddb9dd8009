package aem

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"midplane/internal/aem/loop"
)

// NetConn is a connection of a loop as a net.Conn: ordinary code, TLS and net/http use it, while the loop does the input
// and output. All methods are safe for concurrent use; they must not be called by handlers of inline classes, which run on
// the loop that Read and Write wait for.
type NetConn struct {
	link
	local, remote net.Addr

	rx     sync.Mutex // guards the following
	queue  []netData
	paused bool // the loop was told to receive nothing
	eof    bool
	err    error
	gone   bool
	wake   chan struct{} // closed and replaced when any of the above changes, or there is room to send
	read   deadline
	write  deadline
	reader sync.Mutex // one Read at a time
	writer sync.Mutex // one Write at a time
	shut   bool       // Close was called
	done   chan struct{}
}

type netData struct {
	data []byte
	buf  loop.Buf
}

// heldOfNet is how many receive buffers a connection keeps for its reader before it lets the peer wait.
const heldOfNet = 8

// NetConn takes over a connection that the standard library made, such as a *net.TCPConn. It is closed in any case.
func (l *Loop) NetConn(c net.Conn) (*NetConn, error) {
	n := l.newNetConn(c.LocalAddr(), c.RemoteAddr())
	err := l.hand(c, func() error {
		h, err := l.back.Conn(c, &n.link)
		if err != nil {
			return err
		}
		n.adopt(h)
		return l.back.Resume(h)
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Dial connects to an address, as net.Dialer does, and gives the connection to the loop.
func (l *Loop) Dial(ctx context.Context, network, address string) (*NetConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return l.NetConn(c)
}

func (l *Loop) newNetConn(local, remote net.Addr) *NetConn {
	n := &NetConn{local: local, remote: remote, wake: make(chan struct{}), done: make(chan struct{})}
	n.link.l, n.link.owner, n.sendq, n.receive, n.receiving = l, n, 64<<10, true, true
	n.read.init()
	n.write.init()
	return n
}

// changed wakes all who wait. rx is locked.
func (n *NetConn) changed() {
	close(n.wake)
	n.wake = make(chan struct{})
}

func (n *NetConn) received(data []byte, _ loop.Addr, b loop.Buf) {
	n.rx.Lock()
	if n.shut {
		n.rx.Unlock()
		n.release(b)
		return
	}
	n.queue = append(n.queue, netData{data, b})
	if len(n.queue) >= heldOfNet && !n.paused {
		n.paused = true
		_ = n.ask(wantPause)
	}
	n.changed()
	n.rx.Unlock()
}

func (n *NetConn) peerEnded() {
	n.rx.Lock()
	defer n.rx.Unlock()
	n.eof = true
	n.changed()
}

func (n *NetConn) writable() {
	n.rx.Lock()
	defer n.rx.Unlock()
	n.changed()
}

func (n *NetConn) closed(err error) {
	n.rx.Lock()
	defer n.rx.Unlock()
	n.gone, n.err = true, err
	n.changed()
	close(n.done)
}

func (n *NetConn) op(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	network := "tcp"
	if n.local != nil {
		network = n.local.Network()
	}
	return &net.OpError{Op: op, Net: network, Source: n.local, Addr: n.remote, Err: err}
}

// Read waits for data, the end of the peer's, or the deadline.
func (n *NetConn) Read(p []byte) (int, error) {
	n.reader.Lock()
	defer n.reader.Unlock()
	for {
		n.rx.Lock()
		wake := n.wake
		var err error
		switch {
		case n.shut:
			err = net.ErrClosed
		case n.read.over():
			err = os.ErrDeadlineExceeded
		case len(p) == 0:
			n.rx.Unlock()
			return 0, nil
		case len(n.queue) > 0:
			k := n.take(p)
			n.rx.Unlock()
			return k, nil
		case n.eof:
			err = io.EOF
		case n.gone && n.err == nil:
			err = net.ErrClosed
		case n.gone:
			err = n.err
		}
		n.rx.Unlock()
		if err != nil {
			return 0, n.op("read", err)
		}
		select {
		case <-wake:
		case <-n.read.wait():
		}
	}
}

// take copies what is queued. rx is locked.
func (n *NetConn) take(p []byte) (done int) {
	for done < len(p) && len(n.queue) > 0 {
		d := &n.queue[0]
		k := copy(p[done:], d.data)
		done += k
		if d.data = d.data[k:]; len(d.data) > 0 {
			break
		}
		n.release(d.buf)
		*d = netData{}
		n.queue = n.queue[1:]
	}
	if n.paused && len(n.queue) <= heldOfNet/2 {
		n.paused = false
		_ = n.ask(wantReceive)
	}
	if len(n.queue) == 0 {
		n.queue = nil
	}
	return done
}

// Write waits until the loop has taken all of p, or the deadline.
func (n *NetConn) Write(p []byte) (done int, err error) {
	n.writer.Lock()
	defer n.writer.Unlock()
	for {
		n.rx.Lock()
		wake := n.wake
		switch {
		case n.shut:
			err = net.ErrClosed
		case n.write.over():
			err = os.ErrDeadlineExceeded
		case n.gone && n.err != nil:
			err = n.err
		case n.gone:
			err = net.ErrClosed
		}
		n.rx.Unlock()
		if err != nil {
			return done, n.op("write", err)
		}
		if done == len(p) {
			return done, nil
		}
		k, err := n.put(p[done:])
		done += k
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return done, n.op("write", err)
		}
		if done == len(p) {
			return done, nil
		}
		select {
		case <-wake:
		case <-n.write.wait():
		}
	}
}

// Close sends what was written and closes. It does not wait for that.
func (n *NetConn) Close() error {
	n.rx.Lock()
	if n.shut {
		n.rx.Unlock()
		return n.op("close", net.ErrClosed)
	}
	n.shut = true
	queue := n.queue
	n.queue = nil
	n.changed()
	n.rx.Unlock()
	n.read.set(time.Time{})
	n.write.set(time.Time{})
	for _, d := range queue {
		n.release(d.buf)
	}
	_ = n.ask(wantClose)
	return nil
}

// CloseWrite ends the sending direction.
func (n *NetConn) CloseWrite() error {
	return n.op("close", n.ask(wantShut))
}

// LocalAddr is this end.
func (n *NetConn) LocalAddr() net.Addr { return n.local }

// RemoteAddr is the far end.
func (n *NetConn) RemoteAddr() net.Addr { return n.remote }

// SetDeadline sets both deadlines.
func (n *NetConn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}

// SetReadDeadline ends Read at that time; the zero time is none.
func (n *NetConn) SetReadDeadline(t time.Time) error { return n.setDeadline(&n.read, t) }

// SetWriteDeadline ends Write at that time; the zero time is none.
func (n *NetConn) SetWriteDeadline(t time.Time) error { return n.setDeadline(&n.write, t) }

func (n *NetConn) setDeadline(d *deadline, t time.Time) error {
	n.rx.Lock()
	shut := n.shut
	n.rx.Unlock()
	if shut {
		return n.op("set", net.ErrClosed)
	}
	d.set(t)
	return nil
}

// deadline is a time that can be moved while others wait for it.
type deadline struct {
	mu    sync.Mutex // guards the following
	timer *time.Timer
	c     chan struct{} // closed when it is over
}

func (d *deadline) init() { d.c = make(chan struct{}) }

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.c
}

func (d *deadline) over() bool {
	select {
	case <-d.wait():
		return true
	default:
		return false
	}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		// It has run, or is about to, for the time before: its channel is not this one any more.
		d.c = make(chan struct{})
	}
	d.timer = nil
	select {
	case <-d.c:
		d.c = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	c := d.c
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.c == c {
				close(c)
			}
		})
		return
	}
	close(c)
}
