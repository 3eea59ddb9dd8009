package aem

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"midplane/internal/aem/source"
)

// ProcessExit is the end of a process.
type ProcessExit struct {
	PID    int
	Known  bool // the following are known, because it was a child of this one that nobody had waited for
	Code   int  // exit code, -1 when a signal ended it
	Signal int  // 0 when none did
}

// ProcessEnd is the source of the end of a process, child or not (pidfd, Linux 5.3). It happens once a Start, and then the
// source has ended. A child must still be waited for by its parent.
func ProcessEnd(pid int) Source[ProcessExit] {
	s := &fdSource[ProcessExit]{name: fmt.Sprintf("process %d", pid)}
	s.open = func() (int, error) { return source.Pidfd(pid) }
	s.read = func(fd int, emit func(ProcessExit) error) error {
		e := ProcessExit{PID: pid}
		e.Code, e.Signal, e.Known = source.ExitOf(fd)
		_ = emit(e)
		return ErrEnded
	}
	return s
}

// Pressure is a trigger of pressure stall information: it happens when, in any window of that length, tasks were stalled
// for want of the resource for that long.
type Pressure struct {
	// Resource is "memory" (default), "cpu" or "io"; or the path of such a file, for example of a cgroup.
	Resource string
	// Full means that all tasks were stalled at the same time, else some.
	Full bool
	// Stall is 1 µs up to Window, default 100 ms. Window is 500 ms to 10 s, default 2 s; without privilege the kernel wants
	// multiples of 2 s (Linux 6.1).
	Stall, Window time.Duration
}

// PressureEvent is that a trigger fired; the kernel lets it do so once a window at most.
type PressureEvent struct{ Resource string }

// Source is the source of the trigger (Linux 5.2).
func (p Pressure) Source() Source[PressureEvent] {
	if p.Resource == "" {
		p.Resource = "memory"
	}
	if p.Stall == 0 {
		p.Stall = 100 * time.Millisecond
	}
	if p.Window == 0 {
		p.Window = 2 * time.Second
	}
	path := p.Resource
	if path[0] != '/' {
		path = "/proc/pressure/" + path
	}
	return &fdSource[PressureEvent]{
		name: "pressure of " + p.Resource, want: ReadyPriority,
		open: func() (int, error) {
			if p.Window < 500*time.Millisecond || p.Window > 10*time.Second {
				return -1, &ConfigError{"Window", p.Window, "500ms to 10s"}
			}
			if p.Stall < time.Microsecond || p.Stall > p.Window {
				return -1, &ConfigError{"Stall", p.Stall, "1µs to the window"}
			}
			return source.Pressure(path, p.Full, p.Stall, p.Window)
		},
		read: func(_ int, emit func(PressureEvent) error) error {
			_ = emit(PressureEvent{p.Resource}) // polling it has reset the trigger (kernel/sched/psi.c:psi_trigger_poll)
			return nil
		},
	}
}

// Counter is a source that other goroutines, and with its descriptor other processes, raise (eventfd). What was added since
// the last occurrence is the value of the next. Make one with NewCounter, and Close it.
type Counter struct {
	fdSource[uint64]
	mu sync.Mutex // guards the following
	fd int
}

// NewCounter makes a counter.
func NewCounter() (*Counter, error) {
	fd, err := source.Eventfd()
	if err != nil {
		return nil, err
	}
	c := &Counter{fd: fd}
	c.name = "counter"
	c.open = func() (int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fd < 0 {
			return -1, ErrEnded
		}
		return source.Duplicate(c.fd)
	}
	var b [8]byte
	c.read = func(fd int, emit func(uint64) error) error {
		return readAll(fd, b[:], func(b []byte) error {
			_ = emit(binary.NativeEndian.Uint64(b))
			return nil
		})
	}
	return c, nil
}

// Add raises the counter by n, 1 to the largest uint64 - 1.
func (c *Counter) Add(n uint64) error {
	if n == 0 || n == math.MaxUint64 {
		return &ConfigError{"n", n, "1 to the largest uint64 - 1"}
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return ErrEnded
	}
	return source.Write(c.fd, b[:])
}

// Close ends the counter.
func (c *Counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return ErrEnded
	}
	source.Close(c.fd)
	c.fd = -1
	return nil
}
