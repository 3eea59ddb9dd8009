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

// Inherited is what a Streams source of the program before this one had.
type Inherited struct {
	Name     string // its String
	Listener net.Listener
	Conns    []Taken
}

// Close closes what was inherited, for a program that does not take it after all. It must not confirm then.
func (i *Inherited) Close() {
	i.Listener.Close()
	for _, t := range i.Conns {
		t.Conn.Close()
	}
}

// detached is a socket that the loop has given away.
type detached struct {
	file *os.File
	err  error
}

// handover of one source.
type handover struct {
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

// Handover gives the listeners and connections of sources to the program at the other end of to, a Unix stream socket, with
// all that is queued: what peers have said and no handler has seen, and what was sent and no kernel has taken. Handlers
// that run are waited for; new occurrences wait, and happen in the other program. When it has confirmed, the events of the
// sources are stopped. Until then nothing is given up: on an error they go on here. A handler must not call it.
func (l *Loop) Handover(ctx context.Context, to *net.UnixConn, sources ...*Streams) error {
	stop := context.AfterFunc(ctx, func() { _ = to.SetDeadline(past) })
	defer stop()
	var all []*handover
	for _, s := range sources {
		h, err := s.giveUp(ctx)
		if h != nil {
			all = append(all, h)
		}
		if err != nil {
			return errors.Join(err, l.keep(sources[:len(all)], all))
		}
	}
	if err := sendAll(to, sources, all); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return errors.Join(fmt.Errorf("aem: handing over: %w", err), l.keep(sources, all))
	}
	for i, s := range sources {
		all[i].close()
		_ = s.sink.ev.Stop()
	}
	return nil
}

func (h *handover) close() {
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
}

// giveUp takes a source's sockets out of the loop.
func (s *Streams) giveUp(ctx context.Context) (*handover, error) {
	h := &handover{listener: make(chan detached, 1)}
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
	select {
	case <-done:
		return h, d.err
	case <-ctx.Done():
		<-done // handlers are bounded; half a handover is not to be had
		return h, ctx.Err()
	case <-l.ended:
		return h, ErrLoopClosed
	}
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

// keep takes back what was not handed over, and goes on with it.
func (l *Loop) keep(sources []*Streams, all []*handover) error {
	var errs []error
	for i, s := range sources {
		h := all[i]
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
	}
	return errors.Join(errs...)
}
