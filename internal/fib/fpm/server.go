package fpm

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"midplane/internal/mono"
)

// Bounds of a Server.
const (
	readSize     = 256 << 10        // octets read and applied at a time; what is answered is not more
	writeTimeout = 30 * time.Second // a peer that does not read what it is answered is closed
)

// Server serves one Session to zebra. One connection is served at a time; others are closed at once and counted, as two
// zebras would undo each other's routes. A peer that is gone without a word is found by TCP's keep-alives in 25 s.
type Server struct {
	mu      sync.Mutex
	s       *Session
	busy    bool
	conn    net.Conn // nil: none
	refused uint64
	last    error
}

// NewServer makes a Server of a Session, which is the Server's from then on.
func NewServer(s *Session) *Server { return &Server{s: s} }

// Counters returns those of the Session, and how many connections were refused because one is served. It is safe for
// concurrent use.
func (v *Server) Counters() (c Counters, refused uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.s.Counters(), v.refused
}

// LastError says why the last connection ended, nil at first.
func (v *Server) LastError() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last
}

// Flush removes all that zebra told from the FIBs. It is safe for concurrent use.
func (v *Server) Flush() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.s.Flush()
}

// Resync closes the connection, upon which zebra makes another in three seconds and tells all that it has. It is safe
// for concurrent use.
func (v *Server) Resync() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.conn != nil {
		v.conn.Close()
	}
}

// Serve accepts connections until ctx is done or the listener fails, which is closed then. The routes stay in the FIBs.
func (v *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conns.Go(func() { v.hold(ctx) })
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() { // out of descriptors: it passes
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			return err
		}
		v.mu.Lock()
		if v.busy {
			v.refused++
			v.mu.Unlock()
			c.Close()
			continue
		}
		v.busy, v.conn = true, c
		v.s.Connect(mono.Now())
		v.mu.Unlock()
		conns.Go(func() {
			err := v.serve(ctx, c)
			v.mu.Lock()
			v.s.Disconnect(mono.Now())
			v.busy, v.conn, v.last = false, nil, err
			v.mu.Unlock()
		})
	}
}

// serve reads and applies until the connection ends.
func (v *Server) serve(ctx context.Context, c net.Conn) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3})
	}
	buf := make([]byte, readSize)
	for {
		v.mu.Lock()
		until := v.s.Deadline()
		v.mu.Unlock()
		var deadline time.Time
		if until != mono.Never {
			deadline = time.Now().Add(until.Until(mono.Now()))
		}
		if err := c.SetReadDeadline(deadline); err != nil {
			return err
		}
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			// What came while this process was kept from reading is not to be taken for silence.
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
				return err
			}
			n, err = c.Read(buf)
		}
		now := mono.Now()
		v.mu.Lock()
		var failed error
		var out []byte
		if n > 0 {
			failed = v.s.Receive(now, buf[:n])
			out = v.s.Output()
		}
		if failed == nil {
			failed = v.s.Tick(now)
		}
		v.mu.Unlock()
		if len(out) > 0 {
			if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return err
			}
			if _, err := c.Write(out); err != nil {
				return err
			}
		}
		if failed != nil {
			return failed
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// hold does what a Session has to do while nobody is connected.
func (v *Server) hold(ctx context.Context) {
	for {
		v.mu.Lock()
		wait := time.Second
		if !v.busy {
			now := mono.Now()
			_ = v.s.Tick(now)
			wait = min(max(v.s.Deadline().Until(now), time.Millisecond), wait)
		}
		v.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
