package aem

import (
	"fmt"
	"net"
	"os"
	"sync"

	"midplane/internal/aem/loop"
)

// StreamKind is what happened to a connection.
type StreamKind uint8

// What happens to connections, in this order: opened first, closed last, each once.
const (
	StreamOpened   StreamKind = iota // a peer has connected
	StreamTaken                      // in place of opened: the program before this one had it; Data is what its Save returned
	StreamReceived                   // Data came in
	StreamEnded                      // the peer sends no more; it may still receive
	StreamWritable                   // there is room again after a Send that took less than it was given
	StreamClosed                     // the connection is gone; Err is why, nil if this side closed it
)

// String returns the name of the kind.
func (k StreamKind) String() string {
	return name(k, "opened", "taken", "received", "ended", "writable", "closed")
}

// StreamEvent is what happened to a connection.
type StreamEvent struct {
	Conn *Conn
	Kind StreamKind
	Data []byte // of StreamReceived; the handler's until it returns, then the memory is used again
	Err  error  // of StreamClosed
}

// Conn is a connection whose occurrences are handled one after the other, in order, whatever the class. Its methods are
// safe for concurrent use and do not wait.
//
// An occurrence that overload takes from the handler (refused, shed, expired), or whose handler panics, leaves a hole in
// what the peer said: the connection is aborted then.
type Conn struct {
	// Value is the handlers' own.
	Value any

	link
	peer loop.Addr
	src  *Streams
	told func(Fate) // c.fate, made once

	q       sync.Mutex // guards the following
	busy    bool       // an occurrence is with the handler
	holding bool       // occurrences wait, because the connection is being handed over
	still   func()     // told when the handler has ended
	taken   bool       // handed over
	cur     loop.Buf
	kind    StreamKind
	queue   []pendingStream
}

type pendingStream struct {
	StreamEvent
	buf loop.Buf
}

// Send takes as much of p as the queue of the connection has room for, and returns how much that was. Less than all is no
// error: StreamWritable follows when half of the queue is free. p is the caller's again.
func (c *Conn) Send(p []byte) (int, error) { return c.put(p) }

// Close sends what is queued and closes. Abort closes at once; a TCP peer sees a reset. CloseWrite ends the sending
// direction. StreamClosed follows all but the last.
func (c *Conn) Close() error { return c.ask(wantClose) }

// Abort closes the connection at once.
func (c *Conn) Abort() error { return c.ask(wantAbort) }

// CloseWrite ends the sending direction after what is queued.
func (c *Conn) CloseWrite() error { return c.ask(wantShut) }

// Pause lets the peer wait: nothing is received until Resume, but what the kernel had handed over.
func (c *Conn) Pause() error { return c.ask(wantPause) }

// Resume ends a Pause.
func (c *Conn) Resume() error { return c.ask(wantReceive) }

// Streams is a source: the connections that peers make to an address, and what they say. Stop closes the listener and
// aborts the connections.
type Streams struct {
	// Network and Address are those of net.Listen: tcp, tcp4, tcp6, unix.
	Network, Address string
	// Listener, when not nil, is used in place of Network and Address by the first Start. The source closes it.
	Listener net.Listener
	// Conns are connections that the program before this one had (Takeover). The first Start takes them.
	Conns []Taken
	// Save, when not nil, is asked by Handover for what the next program must know of a connection, such as Conn.Value. No
	// occurrence of the connection is being handled then.
	Save func(*Conn) []byte

	mu    sync.Mutex // guards the following
	sink  *Sink[StreamEvent]
	ln    net.Listener
	addr  net.Addr
	h     loop.Handle // the loop's own
	conns map[*Conn]struct{}
	over  *handover // under way, or done
}

// Listen is the source of connections to an address.
func Listen(network, address string) *Streams { return &Streams{Network: network, Address: address} }

// String names the source.
func (s *Streams) String() string { return fmt.Sprintf("%s %s", s.Network, s.Address) }

// Addr is where the source listens, nil before Start.
func (s *Streams) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// to is where occurrences go, of the last Start.
func (s *Streams) to() *Sink[StreamEvent] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sink
}

// Start listens. Its error is that of net.Listen.
func (s *Streams) Start(to *Sink[StreamEvent]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln := s.Listener
	if ln == nil {
		var err error
		if ln, err = net.Listen(s.Network, s.Address); err != nil {
			return err
		}
	}
	first := s.Conns
	s.Listener, s.Conns = nil, nil
	s.sink, s.addr, s.conns = to, ln.Addr(), map[*Conn]struct{}{}
	s.ln, s.over = ln, nil
	l := to.Loop()
	if !l.post(func() { s.open(l, ln, first) }) {
		ln.Close()
		return ErrLoopClosed
	}
	return nil
}

// open begins, on the loop.
func (s *Streams) open(l *Loop, ln net.Listener, first []Taken) {
	s.mu.Lock()
	stopped := s.ln != ln
	s.mu.Unlock()
	if stopped {
		ln.Close()
		for _, t := range first {
			t.Conn.Close()
		}
		return
	}
	h, err := l.back.Listener(ln, s)
	if err != nil {
		s.to().Fail(err)
		return
	}
	s.mu.Lock()
	s.h = h
	s.mu.Unlock()
	for _, t := range first {
		if h, err := l.back.Conn(t.Conn, nil); err == nil {
			s.newConn(l, h, &t)
		}
	}
}

// Stop closes the listener, and aborts the connections.
func (s *Streams) Stop() {
	s.mu.Lock()
	l, ln := s.sink.Loop(), s.ln
	s.ln = nil
	over := s.over != nil
	s.mu.Unlock()
	if u, ok := ln.(*net.UnixListener); ok && !over {
		_ = os.Remove(u.Addr().String()) // the loop's copy of the listener does not
	}
	l.post(func() {
		s.mu.Lock()
		h := s.h
		s.h = 0
		conns := s.conns
		s.mu.Unlock()
		if h != 0 {
			_ = l.back.Close(h)
		}
		for c := range conns {
			_ = l.back.Abort(c.h)
		}
	})
}

func (s *Streams) happened(e *loop.Event) {
	to := s.to()
	l := to.Loop()
	switch e.Op {
	case loop.OpAccept:
		s.mu.Lock()
		live := s.h == e.H || s.over != nil
		s.mu.Unlock()
		if !live {
			_ = l.back.Abort(e.Conn)
			return
		}
		s.newConn(l, e.Conn, nil)
	case loop.OpPaused:
		if f := to.ev.cfg.OnError; f != nil {
			f(fmt.Errorf("%v accepts nothing for a while: %w", s, e.Err))
		}
	case loop.OpDetached, loop.OpClosed:
		s.mu.Lock()
		own, over := s.h == e.H, s.over
		if own {
			s.h = 0
		}
		s.mu.Unlock()
		switch {
		case over != nil:
			over.listener <- detached{file: e.File, err: e.Err}
		case own && e.Err != nil:
			to.Fail(e.Err)
		}
	}
}

func (s *Streams) newConn(l *Loop, h loop.Handle, taken *Taken) {
	c := &Conn{src: s, peer: l.back.Peer(h)}
	c.told = c.fate
	c.link.l, c.link.owner, c.sendq, c.receive, c.receiving = l, c, 64<<10, true, true
	if err := l.back.SetTag(h, &c.link); err != nil {
		return
	}
	c.adopt(h)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	c.holding = s.over != nil
	s.mu.Unlock()
	first := StreamEvent{Conn: c, Kind: StreamOpened}
	if taken != nil {
		if !taken.fresh {
			first.Kind, first.Data = StreamTaken, taken.State
		}
		c.mu.Lock()
		c.hungry, c.shut = taken.hungry, taken.shut
		if len(taken.unsent) > 0 {
			c.out = &outBuf{taken.unsent}
		}
		c.mu.Unlock()
		c.tell(c.touchLocked())
	}
	c.deliver(pendingStream{StreamEvent: first}, true)
	if taken != nil && len(taken.received) > 0 {
		c.deliver(pendingStream{StreamEvent: StreamEvent{Conn: c, Kind: StreamReceived, Data: taken.received}}, true)
	}
	_ = l.back.Resume(h)
}

func (c *Conn) received(data []byte, _ loop.Addr, b loop.Buf) {
	c.deliver(pendingStream{StreamEvent{Conn: c, Kind: StreamReceived, Data: data}, b}, true)
}

func (c *Conn) peerEnded() {
	c.deliver(pendingStream{StreamEvent: StreamEvent{Conn: c, Kind: StreamEnded}}, true)
}

func (c *Conn) writable() {
	c.deliver(pendingStream{StreamEvent: StreamEvent{Conn: c, Kind: StreamWritable}}, true)
}

func (c *Conn) closed(err error) {
	if !c.taken { // by the next program
		c.deliver(pendingStream{StreamEvent: StreamEvent{Conn: c, Kind: StreamClosed, Err: err}}, true)
	}
	s := c.src
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// deliver hands an occurrence over, or queues it behind the one that is being handled.
func (c *Conn) deliver(p pendingStream, here bool) {
	c.q.Lock()
	if c.busy || c.holding {
		c.queue = append(c.queue, p)
		c.q.Unlock()
		return
	}
	c.busy = true
	c.q.Unlock()
	c.pass(p, here)
}

func (c *Conn) pass(p pendingStream, here bool) {
	for {
		c.q.Lock()
		c.cur, c.kind = p.buf, p.Kind
		c.q.Unlock()
		err := c.src.sink.emit(p.StreamEvent, c.told, here)
		if err == nil {
			return
		}
		// It was not accepted: as if its fate were that.
		var more bool
		if p, more = c.lost(); !more {
			return
		}
	}
}

// lost frees an occurrence that the handler did not get.
func (c *Conn) lost() (next pendingStream, more bool) {
	if c.kind != StreamClosed {
		_ = c.Abort()
	}
	return c.settle()
}

// settle ends an occurrence and returns the next.
func (c *Conn) settle() (next pendingStream, more bool) {
	c.q.Lock()
	b := c.cur
	c.cur = 0
	var still func()
	if more = len(c.queue) > 0 && !c.holding; more {
		next = c.pop()
	} else {
		c.busy = false
		still, c.still = c.still, nil
	}
	c.q.Unlock()
	if still != nil {
		defer still()
	}
	if b != 0 {
		c.release(b)
	}
	return next, more
}

func (c *Conn) pop() pendingStream {
	next := c.queue[0]
	c.queue[0] = pendingStream{}
	if c.queue = c.queue[1:]; len(c.queue) == 0 {
		c.queue = nil
	}
	return next
}

// fate is told by whoever decided it.
func (c *Conn) fate(f Fate) {
	if f != Ran && c.kind != StreamClosed {
		_ = c.Abort()
	}
	if next, more := c.settle(); more {
		c.pass(next, false)
	}
}

// RemoteAddr is the peer: a *net.TCPAddr or *net.UnixAddr.
func (c *Conn) RemoteAddr() net.Addr {
	if c.peer.AddrPort.IsValid() {
		return net.TCPAddrFromAddrPort(c.peer.AddrPort)
	}
	return &net.UnixAddr{Name: c.peer.Path, Net: "unix"}
}
