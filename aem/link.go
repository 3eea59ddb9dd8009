package aem

import (
	"bytes"
	"errors"
	"net"
	"sync"

	"midplane/internal/aem/loop"
)

// link is a connection or packet socket of a loop, as other goroutines see it: what they want of it is noted, and the loop
// does it in its next turn.
type link struct {
	l                  *Loop
	h                  loop.Handle // the loop's own, like the list of all
	prevLink, nextLink *link
	nextDirty          *link // guarded by the loop's mu
	owner              linkOwner

	mu        sync.Mutex // guards the following
	inDirty   bool
	out       *outBuf // what the loop does not have yet
	grams     []gram
	full      bool // the loop took less than it was given; it tells when there is room
	hungry    bool // the owner was given less room than it wanted
	buffers   []loop.Buf
	receive   bool // what the owner wants
	receiving bool // what the loop knows
	shut      bool
	closing   bool
	aborting  bool
	shutDone  bool
	ended     bool // there is no handle any more
	away      bool // Detach was asked for: what is queued goes with the socket
	detach    func(*loop.Event)
	sendq     int // bound of out and of grams
}

// linkOwner is told by the loop, on its goroutine.
type linkOwner interface {
	received(data []byte, from loop.Addr, b loop.Buf)
	peerEnded()
	writable()
	closed(err error)
}

type outBuf struct{ b []byte }

type gram struct {
	data *outBuf
	to   loop.Addr
}

var outBufs = sync.Pool{New: func() any { return new(outBuf) }}

func (o *outBuf) free() {
	if cap(o.b) <= 64<<10 {
		o.b = o.b[:0]
		outBufs.Put(o)
	}
}

// adopt takes a handle over, on the loop.
func (c *link) adopt(h loop.Handle) {
	c.h = h
	if c.nextLink = c.l.links; c.nextLink != nil {
		c.nextLink.prevLink = c
	}
	c.l.links = c
}

func (c *link) forget() {
	if c.prevLink != nil {
		c.prevLink.nextLink = c.nextLink
	} else {
		c.l.links = c.nextLink
	}
	if c.nextLink != nil {
		c.nextLink.prevLink = c.prevLink
	}
	c.prevLink, c.nextLink = nil, nil
}

func (c *link) happened(e *loop.Event) {
	switch e.Op {
	case loop.OpRecv:
		c.owner.received(e.Data, e.From, e.Buf)
	case loop.OpEOF:
		c.owner.peerEnded()
	case loop.OpWritable:
		c.mu.Lock()
		c.full = false
		c.mu.Unlock()
		c.flush()
	case loop.OpClosed, loop.OpDetached:
		c.forget()
		c.mu.Lock()
		c.ended = true
		if e.Op == loop.OpDetached {
			if c.out != nil {
				e.Data = append(e.Data, c.out.b...)
			}
			for _, g := range c.grams {
				e.Grams = append(e.Grams, loop.Datagram{Data: bytes.Clone(g.data.b), Addr: g.to})
			}
		}
		c.dropOut()
		detach := c.detach
		c.mu.Unlock()
		if detach != nil {
			detach(e)
		}
		c.owner.closed(e.Err)
	}
}

func (c *link) dropOut() {
	if c.out != nil {
		c.out.free()
		c.out = nil
	}
	for _, g := range c.grams {
		g.data.free()
	}
	c.grams = nil
}

// touch lets the loop see to c. mu is locked; it returns whether the loop must be told, which is for after unlocking.
func (c *link) touch() bool {
	if c.inDirty || c.ended {
		return false
	}
	c.inDirty = true
	return true
}

func (c *link) touchLocked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.touch()
}

func (c *link) tell(must bool) {
	if !must {
		return
	}
	l := c.l
	l.mu.Lock()
	c.nextDirty, l.dirty = l.dirty, c
	l.mu.Unlock()
	l.back.Wake()
}

// flush does what is wanted, on the loop.
func (c *link) flush() {
	c.mu.Lock()
	back := c.l.back
	for _, b := range c.buffers {
		back.Release(b)
	}
	c.buffers = c.buffers[:0]
	if c.ended {
		c.mu.Unlock()
		return
	}
	if c.aborting {
		c.mu.Unlock()
		_ = back.Abort(c.h)
		return
	}
	if c.receive != c.receiving {
		c.receiving = c.receive
		if c.receive {
			_ = back.Resume(c.h)
		} else {
			_ = back.Pause(c.h)
		}
	}
	room := c.send()
	if c.out == nil && len(c.grams) == 0 {
		if c.shut && !c.shutDone {
			c.shutDone = true
			_ = back.Shutdown(c.h)
		}
		if c.closing {
			_ = back.Close(c.h)
		}
	}
	c.mu.Unlock()
	if room {
		c.owner.writable()
	}
}

// send gives the loop what it takes. It returns whether somebody waits for the room that there is now.
func (c *link) send() bool {
	if c.away {
		return false
	}
	back := c.l.back
	if o := c.out; o != nil && !c.full {
		n, err := back.Send(c.h, o.b)
		switch {
		case err != nil:
			c.dropOut() // the end is told, or will be
		case n < len(o.b):
			o.b = o.b[:copy(o.b, o.b[n:])]
			c.full = true
		default:
			c.out = nil
			o.free()
		}
	}
	for len(c.grams) > 0 && !c.full {
		g := c.grams[0]
		if errors.Is(back.SendTo(c.h, g.data.b, g.to), loop.ErrBusy) {
			c.full = true
			break
		}
		g.data.free()
		c.grams = c.grams[1:]
	}
	if len(c.grams) == 0 {
		c.grams = nil
	}
	if c.hungry && c.queued() <= c.sendq/2 {
		c.hungry = false
		return true
	}
	return false
}

func (c *link) queued() (n int) {
	if c.out != nil {
		n = len(c.out.b)
	}
	for _, g := range c.grams {
		n += len(g.data.b) + 64
	}
	return n
}

// put takes as much of p as there is room for.
func (c *link) put(p []byte) (int, error) {
	c.mu.Lock()
	if c.ended || c.closing || c.aborting {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	if c.shut {
		c.mu.Unlock()
		return 0, errShut
	}
	n := min(len(p), max(0, c.sendq-c.queued()))
	if n < len(p) {
		c.hungry = true
	}
	if n > 0 {
		if c.out == nil {
			c.out = outBufs.Get().(*outBuf)
		}
		c.out.b = append(c.out.b, p[:n]...)
	}
	must := c.touch()
	c.mu.Unlock()
	c.tell(must)
	return n, nil
}

var errShut = errors.New("aem: the sending direction is closed")

// ask changes what is wanted, and lets the loop see to it.
func (c *link) ask(change func(c *link)) error {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return net.ErrClosed
	}
	change(c)
	must := c.touch()
	c.mu.Unlock()
	c.tell(must)
	return nil
}

// release gives a receive buffer back, from any goroutine.
func (c *link) release(b loop.Buf) {
	c.mu.Lock()
	c.buffers = append(c.buffers, b)
	must := !c.inDirty // also when it has ended: the buffer is the loop's
	c.inDirty = true
	c.mu.Unlock()
	c.tell(must)
}

func wantReceive(c *link) { c.receive = true }
func wantPause(c *link)   { c.receive = false }
func wantShut(c *link)    { c.shut = true }
func wantClose(c *link)   { c.closing = true }
func wantAbort(c *link)   { c.aborting = true }
