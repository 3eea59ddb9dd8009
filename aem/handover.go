package aem

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"midplane/internal/aem/loop"
)

// Taken is a connection that the program before this one had.
type Taken struct {
	Conn  net.Conn
	State []byte // what its Streams.Save returned

	fresh, hungry, shut bool
	received, unsent    []byte
}

// Inherited is what a source of the program before this one had: the first two of Streams, or the last of Packets.
type Inherited struct {
	Name     string        // its String
	Listener net.Listener  // for Streams.Listener
	Conns    []Taken       // for Streams.Conns
	Packets  *TakenPackets // for Packets.Taken
}

// Close closes what was inherited, for a program that does not take it after all. It must not confirm then.
func (i *Inherited) Close() {
	if i.Packets != nil {
		i.Packets.Conn.Close()
		return
	}
	i.Listener.Close()
	for _, t := range i.Conns {
		t.Conn.Close()
	}
}

// Inheritable is a source whose sockets Handover can give to another program: *Streams or *Packets.
type Inheritable interface {
	fmt.Stringer
	// giveUp takes the sockets out of the loop. What it returns may be kept with an error too.
	giveUp(ctx context.Context) (passing, error)
}

// passing is a source on its way.
type passing interface {
	send(record func(*handoverRecord, *os.File) error) error
	gone()       // it is the other program's
	keep() error // it is not
}

// What goes over the socket: records of a length, the descriptor that the first octet carries, and JSON. A listener comes
// before its connections; the record of kind "end" is last, and one octet confirms all.
type handoverRecord struct {
	Kind                string // listener, conn, packets, end
	Name                string `json:",omitempty"`
	State               []byte `json:",omitempty"`
	Received, Unsent    []byte `json:",omitempty"` // of packets: see appendGrams
	Fresh, Hungry, Shut bool   `json:",omitempty"`
}

// detached is a socket that the loop has given away.
type detached struct {
	file *os.File
	err  error
}

// handover of Streams.
type handover struct {
	src      *Streams
	listener chan detached
	wg       sync.WaitGroup
	mu       sync.Mutex // guards the following
	conns    []given
}

// given is a connection on its way.
type given struct {
	conn *Conn
	file *os.File
	Taken
}

// Handover gives the listeners, connections and packet sockets of sources to the program at the other end of to, a Unix
// stream socket, with all that is queued: what peers have said and no handler has seen, and what was sent and no kernel has
// taken. Handlers that run are waited for; new occurrences wait, and happen in the other program. Datagrams that wait in the
// queue of a class are taken back for it: their fate here is Canceled. When the other program has confirmed, the events of
// the sources are stopped. Until then nothing is given up: on an error they go on here, in order. A handler must not call it.
func (l *Loop) Handover(ctx context.Context, to *net.UnixConn, sources ...Inheritable) error {
	stop := context.AfterFunc(ctx, func() { _ = to.SetDeadline(past) })
	defer stop()
	var all []passing
	for _, s := range sources {
		h, err := s.giveUp(ctx)
		if h != nil {
			all = append(all, h)
		}
		if err != nil {
			return errors.Join(err, keep(all))
		}
	}
	if err := sendAll(to, all); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return errors.Join(fmt.Errorf("aem: handing over: %w", err), keep(all))
	}
	for _, h := range all {
		h.gone()
	}
	return nil
}

// keep takes back what was not handed over.
func keep(all []passing) error {
	var errs []error
	for _, h := range all {
		errs = append(errs, h.keep())
	}
	return errors.Join(errs...)
}

// settled waits until done, or until there is no loop that could do it. Handlers are bounded, and half a handover is not to be
// had: an end of ctx is waited for too.
func settled(ctx context.Context, l *Loop, done <-chan struct{}) error {
	select {
	case <-done:
		return ctx.Err()
	case <-l.ended:
		return ErrLoopClosed
	}
}

func (h *handover) send(record func(*handoverRecord, *os.File) error) error {
	d := <-h.listener
	h.listener <- d
	if d.err != nil {
		return d.err
	}
	if err := record(&handoverRecord{Kind: "listener", Name: h.src.String()}, d.file); err != nil {
		return err
	}
	for _, g := range h.conns {
		r := &handoverRecord{Kind: "conn", State: g.State, Received: g.received, Unsent: g.unsent, Fresh: g.fresh, Hungry: g.hungry, Shut: g.shut}
		if err := record(r, g.file); err != nil {
			return err
		}
	}
	return nil
}

func (h *handover) gone() {
	for _, g := range h.conns {
		g.file.Close()
	}
	if h.listener != nil {
		select {
		case d := <-h.listener:
			d.file.Close()
		default:
		}
	}
	_ = h.src.sink.ev.Stop()
}

func (s *Streams) giveUp(ctx context.Context) (passing, error) {
	h := &handover{src: s, listener: make(chan detached, 1)}
	s.mu.Lock()
	if s.ln == nil || s.over != nil {
		s.mu.Unlock()
		return nil, ErrStopped
	}
	s.over = h
	l := s.sink.Loop()
	s.mu.Unlock()
	if !l.post(func() { s.release(l, h) }) {
		return h, ErrLoopClosed
	}
	var d detached
	select {
	case d = <-h.listener:
	case <-l.ended:
		return h, ErrLoopClosed
	}
	// The listener is out, so no more connections come.
	quiet := make(chan struct{})
	if !l.post(func() {
		s.mu.Lock()
		for c := range s.conns {
			h.wg.Add(1)
			c.giveUp(h)
		}
		s.mu.Unlock()
		close(quiet)
	}) {
		return h, ErrLoopClosed
	}
	done := make(chan struct{})
	go func() {
		<-quiet
		h.wg.Wait()
		close(done)
	}()
	h.listener <- d // keep sees to it, or close
	if err := settled(ctx, l, done); err != nil {
		return h, err
	}
	return h, d.err
}

// release begins, on the loop.
func (s *Streams) release(l *Loop, h *handover) {
	s.mu.Lock()
	listener := s.h
	for c := range s.conns {
		c.q.Lock()
		c.holding = true
		c.q.Unlock()
	}
	s.mu.Unlock()
	if err := l.back.Detach(listener); err != nil {
		h.listener <- detached{err: err}
	}
}

// giveUp waits for the handler of c, and then takes it out of the loop.
func (c *Conn) giveUp(h *handover) {
	detach := func() {
		c.mu.Lock()
		c.detach = func(e *loop.Event) { c.given(h, e) }
		ended := c.ended
		c.mu.Unlock()
		if ended {
			c.given(h, &loop.Event{Op: loop.OpClosed})
			return
		}
		c.link.l.post(func() {
			c.flush() // what the handler wanted comes before
			c.mu.Lock()
			c.away = true
			c.mu.Unlock()
			if err := c.link.l.back.Detach(c.h); err != nil {
				c.mu.Lock()
				ended, closing := c.ended, c.detach != nil
				c.mu.Unlock()
				if !ended && closing {
					return // it is closing: its end is told as OpClosed
				}
			}
		})
	}
	c.q.Lock()
	c.holding = true
	if c.busy {
		c.still = detach
		c.q.Unlock()
		return
	}
	c.q.Unlock()
	detach()
}

// given is told of the end in this loop, once.
func (c *Conn) given(h *handover, e *loop.Event) {
	defer h.wg.Done()
	c.mu.Lock()
	c.detach = nil
	g := given{conn: c, file: e.File}
	g.hungry, g.shut, g.unsent = c.hungry, c.shut, e.Data
	c.mu.Unlock()
	c.q.Lock()
	if e.Op != loop.OpDetached {
		// It ended meanwhile, which is this program's to tell.
		c.holding = false
		next, more := pendingStream{}, len(c.queue) > 0
		if more {
			next, c.busy = c.pop(), true
		}
		c.q.Unlock()
		if more {
			go c.pass(next, false)
		}
		return
	}
	c.taken = true
	for _, p := range c.queue {
		switch p.Kind {
		case StreamOpened:
			g.fresh = true
		case StreamReceived:
			g.received = append(g.received, p.Data...)
		case StreamWritable:
			g.hungry = true
		}
		if p.buf != 0 {
			c.release(p.buf)
		}
	}
	c.queue = nil
	c.q.Unlock()
	if c.src.Save != nil && !g.fresh {
		g.State = c.src.Save(c)
	}
	h.mu.Lock()
	h.conns = append(h.conns, g)
	h.mu.Unlock()
}

func (h *handover) keep() error {
	s := h.src
	l := s.to().Loop()
	var errs []error
	var ln net.Listener
	select {
	case d := <-h.listener:
		if d.err == nil {
			var err error
			ln, err = net.FileListener(d.file)
			d.file.Close()
			errs = append(errs, err)
		}
	default:
	}
	var conns []Taken
	for _, g := range h.conns {
		c, err := net.FileConn(g.file)
		g.file.Close()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		g.Conn = c
		conns = append(conns, g.Taken)
	}
	s.mu.Lock()
	s.over = nil
	if ln != nil {
		s.ln = ln
	}
	s.mu.Unlock()
	if ln == nil || !l.post(func() { s.open(l, ln, conns) }) {
		errs = append(errs, fmt.Errorf("aem: %v could not go on", s))
	}
	return errors.Join(errs...)
}
