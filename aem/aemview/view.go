// Package aemview shows an executor and its loops to another process, such as `midplane aem top`: a program that wants to
// be seen calls Serve.
package aemview

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"midplane/aem"
)

// Snapshot is what is seen at one moment.
type Snapshot struct {
	Time     time.Time
	PID      int
	Program  string
	Executor aem.Stats
	Loops    []aem.LoopStats
	Events   []aem.EventStats
}

// Limits of a view.
const (
	MaxViewers  = 16                     // at once; further ones are turned away
	MinInterval = 100 * time.Millisecond // between two snapshots
	MaxInterval = time.Minute
)

// request is the line that a viewer sends.
type request struct {
	Interval time.Duration
}

// Server answers viewers.
type Server struct {
	ln    *net.UnixListener
	ex    *aem.Executor
	loops []*aem.Loop
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	slots chan struct{}
}

// Serve listens on a Unix socket that only the owner can open, and shows who connects what the executor and the loops do,
// until Close. A path that a program before this one left behind is taken over; one that answers is an error.
func Serve(path string, ex *aem.Executor, loops ...*aem.Loop) (*Server, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("aemview: somebody listens on %s", path)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == os.ModeSocket {
		_ = os.Remove(path)
	}
	// Another user may not connect between bind and chmod: it is made in a directory of its own.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".aem")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	at := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	if err = os.Chmod(at, 0o600); err == nil {
		err = os.Link(at, path) // fails if somebody was faster
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	s := &Server{ln: ln, ex: ex, loops: loops, slots: make(chan struct{}, MaxViewers)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.wg.Go(func() {
		s.accept()
		_ = os.Remove(path)
	})
	return s, nil
}

// Close ends the view and removes the socket.
func (s *Server) Close() error {
	s.stop()
	err := s.ln.Close()
	s.wg.Wait()
	return err
}

func (s *Server) accept() {
	for {
		c, err := s.ln.AcceptUnix()
		if s.ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return
		}
		if err != nil { // no descriptors, for example: the program has more important needs for them
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(MinInterval):
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			defer c.Close()
			defer context.AfterFunc(s.ctx, func() { c.Close() })()
			s.show(c)
		})
	}
}

// patience is how long a viewer may take to ask, or to read.
const patience = 5 * time.Second

func (s *Server) show(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var r request
	if err := json.NewDecoder(bufio.NewReaderSize(c, 512)).Decode(&r); err != nil {
		return
	}
	t := time.NewTicker(min(max(r.Interval, MinInterval), MaxInterval))
	defer t.Stop()
	out := json.NewEncoder(c)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		if out.Encode(s.Snapshot()) != nil {
			return
		}
		select {
		case <-t.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// Snapshot is what viewers see now.
func (s *Server) Snapshot() *Snapshot {
	v := &Snapshot{Time: time.Now(), PID: os.Getpid(), Program: filepath.Base(os.Args[0]), Executor: s.ex.Stats()}
	for _, l := range s.loops {
		v.Loops = append(v.Loops, l.Stats())
		for _, e := range l.All().Events() {
			v.Events = append(v.Events, e.Stats())
		}
	}
	return v
}

// Watch connects to a program and calls f with each snapshot, about one an interval, until ctx ends, the program does, or f
// returns an error, which is returned.
func Watch(ctx context.Context, path string, interval time.Duration, f func(*Snapshot) error) error {
	if interval < MinInterval || interval > MaxInterval {
		return fmt.Errorf("aemview: interval is %v, want %v to %v", interval, MinInterval, MaxInterval)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := json.NewEncoder(c).Encode(request{interval}); err != nil {
		return err
	}
	in := json.NewDecoder(c)
	for {
		var s Snapshot
		if err := in.Decode(&s); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("aemview: the program ended the view: %w", err)
		}
		if err := f(&s); err != nil {
			return err
		}
	}
}
