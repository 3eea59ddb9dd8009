//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"

	"midplane/internal/lab/proto"
)

// errGuestGone is how programs end whose guest was switched off under them.
var errGuestGone = errors.New("the guest is gone")

// control is the test's end of a guest's serial line: it starts programs and takes their output apart.
type control struct {
	line   *os.File
	hello  chan string // receives the boot report once
	credit chan int    // octets that the guest took off the line

	writing  sync.Mutex
	uncredit int // octets on the line; guarded by writing

	mu     sync.Mutex
	last   uint32             // guarded by mu
	procs  map[uint32]*stream // guarded by mu; nil when the line is closed
	closed chan struct{}
}

type stream struct {
	*Proc
	taken chan struct{} // one for each Stdin frame that the program took
}

func newControl(line *os.File) *control {
	c := &control{line: line, hello: make(chan string, 1), credit: make(chan int, proto.Window), procs: map[uint32]*stream{}, closed: make(chan struct{})}
	go c.read()
	return c
}

// send puts a frame on the line, waiting for room on it.
func (c *control) send(f proto.Frame) error {
	var frame bytes.Buffer
	if err := proto.Write(&frame, f); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	for frame.Len() > 0 {
		for c.uncredit >= proto.Window {
			select {
			case n := <-c.credit:
				c.uncredit -= n
			case <-c.closed:
				return errGuestGone
			}
		}
		n, err := c.line.Write(frame.Next(proto.Window - c.uncredit))
		if err != nil {
			return err
		}
		c.uncredit += n
	}
	return nil
}

// read takes frames until the line closes, which is when the guest's process ends.
func (c *control) read() {
	r := bufio.NewReaderSize(c.line, 64<<10)
	for {
		f, err := proto.Read(r)
		if err != nil {
			break
		}
		switch {
		case f.Kind == proto.Hello:
			c.hello <- string(f.Data)
			continue
		case f.Kind == proto.Credit && len(f.Data) == 4:
			// Never blocks: no more credits than octets within the window are under way.
			c.credit <- int(binary.BigEndian.Uint32(f.Data))
			continue
		}
		c.mu.Lock()
		s := c.procs[f.Stream]
		if f.Kind == proto.Exit {
			delete(c.procs, f.Stream)
		}
		c.mu.Unlock()
		if s != nil {
			c.take(s, f)
		}
	}
	c.mu.Lock()
	left := c.procs
	c.procs = nil
	c.mu.Unlock()
	close(c.closed)
	for _, s := range left {
		s.ended(-1, errGuestGone)
	}
}

func (c *control) take(s *stream, f proto.Frame) {
	var err error
	switch f.Kind {
	case proto.Stdout:
		_, err = s.Stdout.Write(f.Data)
	case proto.Stderr:
		_, err = s.Stderr.Write(f.Data)
	case proto.Taken:
		s.taken <- struct{}{}
	case proto.Exit:
		var status proto.Status
		if err := json.Unmarshal(f.Data, &status); err != nil {
			status = proto.Status{Code: -1, Err: err.Error()}
		}
		if status.Err != "" {
			s.ended(status.Code, errors.New(status.Err))
		} else {
			s.ended(status.Code, nil)
		}
	}
	if err != nil {
		go func() { _ = s.signal(syscall.SIGKILL) }()
	}
}

// start starts a program in the guest.
func (c *control) start(t testing.TB, name string, command proto.Command) (*Proc, error) {
	b, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	s := &stream{Proc: newProc(t, name), taken: make(chan struct{}, 2)}
	c.mu.Lock()
	if c.procs == nil {
		c.mu.Unlock()
		return nil, errGuestGone
	}
	c.last++
	id := c.last
	c.procs[id] = s
	c.mu.Unlock()
	s.Stdin = &guestInput{c: c, s: s, id: id}
	s.signal = func(sig syscall.Signal) error {
		select {
		case <-s.done:
			return os.ErrProcessDone
		default:
			return c.send(proto.Frame{Stream: id, Kind: proto.Signal, Data: []byte{byte(sig)}})
		}
	}
	if err := c.send(proto.Frame{Stream: id, Kind: proto.Start, Data: b}); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return s.Proc, nil
}

// guestInput is the standard input of a program in a guest. Write returns when the program's pipe has taken it.
type guestInput struct {
	c    *control
	s    *stream
	id   uint32
	once sync.Once
}

func (in *guestInput) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		k := min(len(b), proto.MaxData)
		if err := in.c.send(proto.Frame{Stream: in.id, Kind: proto.Stdin, Data: b[:k]}); err != nil {
			return n, err
		}
		select {
		case <-in.s.taken:
		case <-in.s.done:
			return n, os.ErrProcessDone
		case <-in.c.closed:
			return n, errGuestGone
		}
		b, n = b[k:], n+k
	}
	return n, nil
}

func (in *guestInput) Close() (err error) {
	in.once.Do(func() { err = in.c.send(proto.Frame{Stream: in.id, Kind: proto.EOF}) })
	return err
}
