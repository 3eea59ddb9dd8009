package aem

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"midplane/internal/aem/loop"
	"midplane/internal/aem/worker"
	"midplane/internal/mono"
)

// LoopConfig is how a loop works. The zero value is a loop on the best back end that the system has.
type LoopConfig struct {
	// Backend is "io_uring", "epoll" or "stdnet", or "" for the first of them that can be had.
	Backend string
	// Buffers is how many receive buffers io_uring and epoll share among all connections, a power of two from 8 to 32768,
	// default 512. BufferSize is the octets of each, 256 to 65536, default 8192; longer datagrams are cut.
	Buffers, BufferSize int
	// SendQueue bounds the octets that wait to be sent on one connection, 1 Ki to 64 Mi, default 256 Ki.
	SendQueue int
	// MaxConns bounds connections, listeners and watched descriptors together, 1 to 1 Mi, default 65536. A listener that
	// would exceed it leaves its peers in the kernel's queue.
	MaxConns int
	// Linger is how long a closed connection tries to send what is queued, default 5 s.
	Linger time.Duration
	// Realtime gives the loop's thread a real-time priority, 1 to 99 (SCHED_RR, sched(7)); 0 for none. It then runs before everything
	// of normal priority on the machine, whatever the garbage collector and other programs do: see the package comment for what that
	// gains, and for what its handlers must not do then. NewLoop fails where the back end has no thread of its own (stdnet), or
	// the process may not: it takes CAP_SYS_NICE, or RLIMIT_RTPRIO of as much.
	Realtime int
}

// Loop waits for the kernel on behalf of events, on a thread of its own (io_uring, epoll) or a goroutine (stdnet), and runs
// handlers of inline classes there. The thread has the shortest time slice that there is (0.1 ms, since Linux 6.12), so that it waits less
// for a processor that others compute on. Its methods are safe for concurrent use.
type Loop struct {
	ex       *Executor
	backend  string
	fallback error
	back     loop.Loop // the loop's own, but for Wake
	timers   *Timers   // the loop's own, like what follows
	ended    chan struct{}
	events   []loop.Event
	links    *link // connections and packet sockets
	accepts  map[loop.Handle]struct{}
	routines []*Routines

	mu     sync.Mutex // guards what follows
	posted []func()
	first  occurring // occurrences for inline classes, oldest first
	last   occurring
	dirty  *link // connections with something for the loop to do
	all    map[*Event]struct{}
	serial uint64
	closed bool
}

// occurring is an occurrence of any type that waits for the loop.
type occurring interface {
	occur()
	link() *occurring
}

const maxRealtime = 99 // kernel: MAX_RT_PRIO-1

// ErrLoopClosed is the error of operations on a loop that is closed, or on what belonged to it.
var ErrLoopClosed = errors.New("aem: the loop is closed")

// NewLoop starts a loop whose events go to ex.
func NewLoop(ex *Executor, cfg *LoopConfig) (*Loop, error) {
	if cfg == nil {
		cfg = &LoopConfig{}
	}
	if cfg.Realtime < 0 || cfg.Realtime > maxRealtime {
		return nil, &ConfigError{"Realtime", cfg.Realtime, fmt.Sprintf("1 to %d, or 0 for none", maxRealtime)}
	}
	l := &Loop{ex: ex, ended: make(chan struct{}), events: make([]loop.Event, 256), timers: NewTimers(), accepts: map[loop.Handle]struct{}{}, all: map[*Event]struct{}{}}
	opened := make(chan error)
	go l.run(loop.Config{
		Buffers: cfg.Buffers, BufferSize: cfg.BufferSize, SendQueue: cfg.SendQueue, MaxEndpoints: cfg.MaxConns, Linger: cfg.Linger, Hold: ex.holder(),
	}, cfg.Backend, cfg.Realtime, opened)
	if err := <-opened; err != nil {
		return nil, err
	}
	if l.fallback != nil {
		ex.log.Info("event loop falls back", slog.String("backend", l.backend), slog.Any("because", l.fallback))
	}
	return l, nil
}

// Backend is the name of the back end that the loop runs on. Fallback says why none of those before it could be had, nil if
// none was tried.
func (l *Loop) Backend() string { return l.backend }

// Fallback says why back ends that are preferred to this one could not be had; nil if nothing was passed over.
func (l *Loop) Fallback() error { return l.fallback }

// Routines makes routines for handlers on this loop: those of inline classes, which alone may start them. class counts
// them. They end with the loop.
func (l *Loop) Routines(class *Class) *Routines {
	rs := NewRoutines(class, l.timers, func(f func()) { l.post(f) })
	l.post(func() { l.routines = append(l.routines, rs) })
	return rs
}

// Timers are the loop's timers, for handlers of inline classes.
func (l *Loop) Timers() *Timers { return l.timers }

// Executor is where the loop's events go.
func (l *Loop) Executor() *Executor { return l.ex }

func (l *Loop) run(cfg loop.Config, backend string, realtime int, opened chan<- error) {
	defer close(l.ended)
	if cfg.Hold != nil {
		defer l.ex.pace.leave()
	}
	// The thread is not given back: the goroutine ends with it, so that what the loop made of it touches nobody else.
	if backend != "stdnet" && runtime.GOOS == "linux" {
		runtime.LockOSThread()
	}
	var err error
	l.back, l.fallback, err = loop.Open(backend, cfg)
	if err != nil {
		opened <- err
		return
	}
	l.backend = l.back.Name()
	if err := l.prepareThread(realtime); err != nil {
		l.back.Stop()
		opened <- err
		return
	}
	opened <- nil
	for l.turn() {
	}
	l.closeAll()
	if err := l.back.Stop(); err != nil {
		l.ex.warn("event loop", err)
	}
	l.abandon()
}

// prepareThread gives the loop's thread its processors, and a real-time priority or, with 0 for that, a short time slice.
func (l *Loop) prepareThread(priority int) error {
	if l.backend == "stdnet" {
		if priority != 0 {
			return &ConfigError{"Realtime", priority, "0: a loop on stdnet has no thread of its own"}
		}
		return nil
	}
	if i := l.ex.isolation; i != nil {
		if err := worker.Bind(i.Kept); err != nil {
			return fmt.Errorf("aem: LoopCPUs is %v: %w", i.Kept, err)
		}
	}
	if priority == 0 {
		if err := worker.ShortSlice(); err != nil {
			l.ex.log.Debug("event loop keeps the kernel's time slice", slog.Any("because", err))
		}
		return nil
	}
	if err := worker.Realtime(priority); err != nil {
		return fmt.Errorf("aem: Realtime is %d, which takes CAP_SYS_NICE or RLIMIT_RTPRIO of %[1]d or more, and time for it in the cgroup: %w", priority, err)
	}
	return nil
}

// closeAll ends what belongs to no event, or whose end the back end has not told yet.
func (l *Loop) closeAll() {
	for _, rs := range l.routines {
		rs.Close()
	}
	for c := l.links; c != nil; c = c.nextLink {
		_ = l.back.Abort(c.h)
	}
	for h := range l.accepts {
		_ = l.back.Close(h)
	}
	for end, n := mono.Now().Add(lastPause), 1; (n > 0 || l.back.Stats().Endpoints > 0) && mono.Now() < end; {
		wait := mono.Time(0) // what the end of something made is there already
		if n == 0 {
			wait = mono.Now().Add(firstPause)
		}
		var err error
		if n, err = l.back.Wait(l.events, wait); err != nil {
			return
		}
		l.dispatch(n)
	}
}

// turn waits once and does what there is to do; false ends the loop.
func (l *Loop) turn() bool {
	n, err := l.back.Wait(l.events, l.timers.w.Deadline())
	if err != nil {
		l.ex.warn("event loop", err)
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		return false
	}
	l.timers.Update()
	l.dispatch(n)
	l.timers.Run()
	return l.takeIn()
}

func (l *Loop) dispatch(n int) {
	for i := range l.events[:n] {
		e := &l.events[i]
		if t, ok := e.Tag.(endpoint); ok {
			t.happened(e)
		} else if e.Op == loop.OpRecv {
			l.back.Release(e.Buf)
		}
		*e = loop.Event{}
	}
}

// endpoint is what the back end's events are for: the tag of a handle.
type endpoint interface{ happened(e *loop.Event) }

// takeIn does what others asked for.
func (l *Loop) takeIn() bool {
	for {
		l.back.Heard() // before looking: who asks after it calls again
		l.mu.Lock()
		posted, first, dirty, closed := l.posted, l.first, l.dirty, l.closed
		l.posted, l.first, l.last, l.dirty = nil, nil, nil, nil
		l.mu.Unlock()
		if posted == nil && first == nil && dirty == nil {
			return !closed
		}
		serve(posted, first)
		for dirty != nil {
			c := dirty
			dirty = c.nextDirty
			c.nextDirty = nil
			// Only here: a link that is flushed for another reason is still on the list.
			c.mu.Lock()
			c.inDirty = false
			c.mu.Unlock()
			c.flush()
		}
		if closed {
			return false
		}
	}
}

// abandon does what was asked for before the loop closed. Operations on the back end fail by now.
func (l *Loop) abandon() {
	l.mu.Lock()
	posted, first := l.posted, l.first
	l.posted, l.first, l.last, l.dirty = nil, nil, nil, nil
	l.mu.Unlock()
	serve(posted, first)
}

// serve runs what was posted.
func serve(posted []func(), first occurring) {
	for _, f := range posted {
		f()
	}
	for o := first; o != nil; {
		next := *o.link()
		*o.link() = nil
		o.occur()
		o = next
	}
}

// post lets the loop run f, which must not block. It reports whether the loop will: a closed one does not.
func (l *Loop) post(f func()) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, f)
	l.mu.Unlock()
	l.back.Wake()
	return true
}

// hand gives the loop what the standard library made: take runs on the loop, and its error is returned. A loop that is closed
// closes it.
func (l *Loop) hand(c io.Closer, take func() error) error {
	taken := make(chan error, 1)
	if !l.post(func() { taken <- take() }) {
		c.Close()
		return ErrLoopClosed
	}
	select {
	case err := <-taken:
		return err
	case <-l.ended:
		return ErrLoopClosed
	}
}

// postOccurring lets the loop run an occurrence.
func (l *Loop) postOccurring(o occurring) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	if l.first == nil {
		l.first = o
	} else {
		*l.last.link() = o
	}
	l.last = o
	l.mu.Unlock()
	l.back.Wake()
	return true
}

// Post runs f on the loop's goroutine, after what came before. f must not block. It reports false if the loop is closed.
func (l *Loop) Post(f func()) bool { return l.post(f) }

// Close shuts all events of the loop down, closes its connections at once and ends it. It waits for the loop's goroutine,
// so a handler of an inline class must not call it.
func (l *Loop) Close() error {
	err := l.All().Shutdown()
	l.mu.Lock()
	already := l.closed
	l.closed = true
	l.mu.Unlock()
	if !already {
		l.back.Wake()
	}
	<-l.ended
	return err
}

// LoopStats are numbers of a loop.
type LoopStats struct {
	Backend        string
	Busy           bool   // the loop did not come round within 200 ms, and the rest is not known: a handler keeps it
	Conns          int    // open connections, listeners and watched descriptors
	Timers         int    // set
	Held           int    // receive buffers that handlers have not given back
	Queued         int    // octets that wait to be sent
	Turns          uint64 // waits for the kernel
	Received, Sent uint64 // octets
	Starved        uint64 // times that receiving stopped because handlers held too many buffers
	AcceptPauses   uint64 // times that a listener paused for want of descriptors or room
	Resets         uint64 // connections that failed
}

// Stats returns the loop's numbers. It waits for the loop's next turn, 200 ms at most, so a handler of an inline class must
// not call it. Of a closed loop only the name is left.
func (l *Loop) Stats() LoopStats {
	done := make(chan LoopStats, 1)
	if l.post(func() { done <- l.read() }) {
		select {
		case s := <-done:
			return s
		case <-l.ended:
		case <-time.After(200 * time.Millisecond):
			return LoopStats{Backend: l.backend, Busy: true}
		}
	}
	return LoopStats{Backend: l.backend}
}

func (l *Loop) read() LoopStats {
	s := l.back.Stats()
	return LoopStats{
		Backend: l.backend, Conns: s.Endpoints, Timers: l.timers.Len(), Held: s.Held, Queued: s.Queued, Turns: s.Waits, Received: s.Received, Sent: s.Sent,
		Starved: s.Starved, AcceptPauses: s.AcceptPauses, Resets: s.Resets,
	}
}
