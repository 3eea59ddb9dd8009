package aem

import (
	"net"
	"os"
	"sync"

	"midplane/internal/aem/loop"
)

// NetListener is a listener of a loop as a net.Listener: its connections are NetConns. Ordinary servers, net/http's among
// them, accept from it. Its methods are safe for concurrent use; not for handlers of inline classes.
type NetListener struct {
	l    *Loop
	addr net.Addr
	h    loop.Handle // the loop's own

	mu     sync.Mutex // guards the following
	queue  []*NetConn
	wake   chan struct{}
	closed bool
	err    error
}

// netBacklog is how many connections wait for Accept before the rest waits in the kernel.
const netBacklog = 128

// NetListener takes over a listener that the standard library made. It is closed in any case.
func (l *Loop) NetListener(ln net.Listener) (*NetListener, error) {
	n := &NetListener{l: l, addr: ln.Addr(), wake: make(chan struct{})}
	err := l.hand(ln, func() (err error) {
		if n.h, err = l.back.Listener(ln, n); err == nil {
			l.accepts[n.h] = struct{}{}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Listen is net.Listen on the loop.
func (l *Loop) Listen(network, address string) (*NetListener, error) {
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return l.NetListener(ln)
}

func (n *NetListener) happened(e *loop.Event) {
	l := n.l
	switch e.Op {
	case loop.OpAccept:
		local, remote, err := l.back.Addrs(e.Conn)
		if err != nil {
			_ = l.back.Abort(e.Conn)
			return
		}
		c := l.newNetConn(local, remote)
		if l.back.SetTag(e.Conn, &c.link) != nil {
			return
		}
		c.adopt(e.Conn)
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			_ = l.back.Abort(e.Conn)
			return
		}
		n.queue = append(n.queue, c)
		if len(n.queue) == netBacklog {
			_ = l.back.Pause(n.h)
		}
		n.changed()
		n.mu.Unlock()
		_ = l.back.Resume(e.Conn)
	case loop.OpClosed:
		delete(l.accepts, n.h)
		n.mu.Lock()
		n.closed, n.err = true, e.Err
		n.changed()
		n.mu.Unlock()
	}
}

func (n *NetListener) changed() {
	close(n.wake)
	n.wake = make(chan struct{})
}

// Accept waits for a connection.
func (n *NetListener) Accept() (net.Conn, error) {
	for {
		n.mu.Lock()
		wake := n.wake
		if len(n.queue) > 0 && !n.closed {
			c := n.queue[0]
			n.queue = n.queue[1:]
			resume := len(n.queue) == netBacklog/2
			n.mu.Unlock()
			if resume {
				n.l.post(func() { _ = n.l.back.Resume(n.h) })
			}
			return c, nil
		}
		if n.closed {
			err := n.err
			if err == nil {
				err = net.ErrClosed
			}
			n.mu.Unlock()
			return nil, &net.OpError{Op: "accept", Net: n.addr.Network(), Addr: n.addr, Err: err}
		}
		n.mu.Unlock()
		<-wake
	}
}

// Addr is where it listens.
func (n *NetListener) Addr() net.Addr { return n.addr }

// Close ends the listener. Connections that were accepted live on; those that wait for Accept are aborted.
func (n *NetListener) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return &net.OpError{Op: "close", Net: n.addr.Network(), Addr: n.addr, Err: net.ErrClosed}
	}
	n.closed = true
	queue := n.queue
	n.queue = nil
	n.changed()
	n.mu.Unlock()
	if u, ok := n.addr.(*net.UnixAddr); ok {
		_ = os.Remove(u.Name)
	}
	for _, c := range queue {
		_ = c.ask(wantAbort)
	}
	done := make(chan struct{})
	if n.l.post(func() {
		_ = n.l.back.Close(n.h)
		close(done)
	}) {
		select {
		case <-done: // so that the address is free when Close returns
		case <-n.l.ended:
		}
	}
	return nil
}

var (
	_ net.Conn     = (*NetConn)(nil)
	_ net.Listener = (*NetListener)(nil)
)
