package main

import (
	"io"
	"net"
	"sync"
	"syscall"

	"midplane/aem"
)

// What one connection may have waiting to be written until its requests are not read any more.
const maxUnwritten = 256 << 10

// aemConn is a connection whose replies come from its reader (light) and from workers (heavy).
type aemConn struct {
	net.Conn
	raw  syscall.RawConn
	mu   sync.Mutex
	room sync.Cond
	out  []byte
	busy bool // a goroutine writes
	dead bool
}

// write hands over octets. It does not block: what the socket does not take is written by a goroutine.
func (c *aemConn) write(r request, status byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = reply(c.out, r, status)
	if c.busy || c.dead {
		return
	}
	n := 0
	c.raw.Write(func(fd uintptr) bool {
		n, _ = syscall.Write(int(fd), c.out)
		return true
	})
	if n = max(n, 0); n == len(c.out) {
		c.out = c.out[:0]
		return
	}
	c.out = append(c.out[:0], c.out[n:]...)
	c.busy = true
	go c.drain()
}

func (c *aemConn) drain() {
	var b []byte
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && !c.dead {
		b, c.out = c.out, b[:0]
		c.room.Signal()
		c.mu.Unlock()
		_, err := c.Conn.Write(b)
		c.mu.Lock()
		c.dead = err != nil
	}
	c.busy = false
	c.room.Signal()
}

// awaitRoom waits until the peer has read enough of what it asked for.
func (c *aemConn) awaitRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > maxUnwritten && !c.dead {
		c.room.Wait()
	}
}

// heavyTask is one heavy request of a connection.
type heavyTask struct {
	aem.Task
	c   interface{ write(r request, status byte) }
	req [header]byte
}

var heavyTasks sync.Pool

func newHeavyTask() *heavyTask {
	if t, ok := heavyTasks.Get().(*heavyTask); ok {
		return t
	}
	t := &heavyTask{}
	t.Arg, t.Run, t.Done = t, runHeavy, doneHeavy
	return t
}

func runHeavy(*aem.Ctx) { work(heavy) }

func doneHeavy(t *aem.Task, f aem.Fate) {
	h := t.Arg.(*heavyTask)
	status := answered
	if f != aem.Ran {
		status = shed
	}
	h.c.write(h.req[:], status)
	h.c = nil
	heavyTasks.Put(h)
}

// lightTask is the light request of a connection.
type lightTask struct {
	aem.Task
	c   *aemConn
	req request
}

func runLight(x *aem.Ctx) {
	l := x.Task().Arg.(*lightTask)
	work(light)
	l.c.write(l.req, answered)
}

// executor makes the classes: light requests are handled where they are read, heavy ones by lowered workers.
func executor() (ex *aem.Executor, urgent, slow *aem.Class, err error) {
	if ex, err = aem.New(&aem.Config{TakeProcs: true, HeapBudget: int64(*budget) << 20, HeapPrefault: *churn && *budget > 0}); err != nil {
		return nil, nil, nil, err
	}
	if urgent, err = ex.Class("light", aem.ClassConfig{Inline: true}); err != nil {
		return nil, nil, nil, err
	}
	slow, err = ex.Class("heavy", aem.ClassConfig{Level: aem.Normal, Nice: 19, Queue: 256, Policy: aem.NewestFirst, Deadline: deadline})
	return ex, urgent, slow, err
}

func serveAEM(ready func(string)) error {
	_, urgent, slow, err := executor()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ready(l.Addr().String())
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		c := &aemConn{Conn: nc, raw: raw}
		c.room.L = &c.mu
		go c.serve(urgent, slow)
	}
}

func (c *aemConn) serve(urgent, slow *aem.Class) {
	defer c.Close()
	in := make([]byte, 0, 64*header)
	l := &lightTask{c: c}
	l.Arg, l.Run = l, runLight
	for {
		n, err := c.Read(in[len(in):cap(in)])
		if err != nil {
			if err != io.EOF {
				c.mu.Lock()
				c.dead = true
				c.mu.Unlock()
			}
			return
		}
		in = in[:len(in)+n]
		rest := in
		for ; len(rest) >= header; rest = rest[header:] {
			c.awaitRoom()
			if rest[0] == light {
				l.req = rest[:header]
				urgent.Submit(&l.Task)
				continue
			}
			h := newHeavyTask()
			h.c = c
			copy(h.req[:], rest)
			if slow.Submit(&h.Task) != nil {
				h.c = nil
				heavyTasks.Put(h)
				c.write(rest[:header], shed)
			}
		}
		in = append(in[:0], rest...)
	}
}
