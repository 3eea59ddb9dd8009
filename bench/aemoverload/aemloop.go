package main

import (
	"fmt"
	"sync"

	"midplane/aem"
)

// loopConn is a connection of an aem loop.
type loopConn struct {
	*aem.Conn
	in []byte // the beginning of a request

	mu     sync.Mutex
	out    []byte // what the connection's queue had no room for
	paused bool
}

// write sends a reply, or keeps it until there is room. A peer that does not read is not read from either.
func (c *loopConn) write(r request, status byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b [header]byte
	p := reply(b[:0], r, status)
	if len(c.out) > 0 {
		c.out = append(c.out, p...)
		return
	}
	n, err := c.Send(p)
	if err != nil || n == len(p) {
		return
	}
	c.out = append(c.out, p[n:]...)
	c.paused = true
	c.Pause()
}

// writable sends what was kept.
func (c *loopConn) writable() {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Send(c.out)
	if err != nil {
		return
	}
	if c.out = append(c.out[:0], c.out[n:]...); len(c.out) == 0 && c.paused {
		c.paused = false
		c.Resume()
	}
}

func (c *loopConn) received(b []byte, slow *aem.Class) {
	if len(c.in) > 0 {
		c.in = append(c.in, b...)
		b = c.in
	}
	for ; len(b) >= header; b = b[header:] {
		if b[0] == light {
			work(light)
			c.write(b[:header], answered)
			continue
		}
		h := newHeavyTask()
		h.c = c
		copy(h.req[:], b)
		if slow.Submit(&h.Task) != nil {
			h.c = nil
			heavyTasks.Put(h)
			c.write(b[:header], shed)
		}
	}
	c.in = append(c.in[:0], b...)
}

func serveLoop(backend string) func(func(string)) error {
	return func(ready func(string)) error {
		ex, urgent, slow, err := executor()
		if err != nil {
			return err
		}
		l, err := aem.NewLoop(ex, &aem.LoopConfig{Backend: backend})
		if err != nil {
			return err
		}
		src := aem.Listen("tcp", "127.0.0.1:0")
		e, err := aem.Register(l, src, func(_ *aem.Ctx, s aem.StreamEvent) {
			switch s.Kind {
			case aem.StreamOpened:
				s.Conn.Value = &loopConn{Conn: s.Conn}
			case aem.StreamReceived:
				s.Conn.Value.(*loopConn).received(s.Data, slow)
			case aem.StreamWritable:
				s.Conn.Value.(*loopConn).writable()
			case aem.StreamEnded:
				s.Conn.Close()
			}
		}, aem.EventConfig{Class: urgent, Deadline: aem.NoDeadline, Pending: 1_000_000})
		if err != nil {
			return err
		}
		if err := e.Start(); err != nil {
			return err
		}
		if l.Backend() != backend {
			return fmt.Errorf("the loop runs on %s", l.Backend())
		}
		ready(src.Addr().String())
		select {}
	}
}
