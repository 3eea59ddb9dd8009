package aem

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Source is a kind of event with values of type T: a timer, a signal, a file that changes. Package aem has those of the
// kernel; a program adds its own by implementing this interface.
type Source[T any] interface {
	// Start begins to watch and returns without waiting. From then on the source calls Emit of the sink for each value,
	// from any goroutine, until Stop. A source may be started again after Stop.
	Start(to *Sink[T]) error
	// Stop ends what Start began and gives everything back. After it returns the source emits no more. It is called once
	// for each Start that returned nil, and not while Start runs.
	Stop()
}

// EventConfig is how an event is handled.
type EventConfig struct {
	// Name is for people: logs and `midplane aem top`. Default: the type of the source.
	Name string
	// Class is where the handler runs, default the executor's Critical class. An inline class runs it on the loop.
	Class *Class
	// Deadline is how long after it happened an occurrence must have been handled, 0 for the class's, NoDeadline for none.
	Deadline time.Duration
	// MinInterval is the least time between two runs of the handler, 0 for none. What comes earlier is held back within
	// its deadline, or refused if Refuse is set or the class is inline.
	MinInterval time.Duration
	Refuse      bool
	// Pending bounds the occurrences whose fate is open, 1 to 1,000,000, default 1024. What comes beyond is refused.
	Pending int
	// OneShot stops the event with its first occurrence; Start makes it ready for one more.
	OneShot bool
	// KeepAlive starts the source again when it ends by itself (its process exits, its connection breaks), after a pause
	// of 10 ms that doubles to 5 s while that goes on.
	KeepAlive bool
	// Before and After run right before and after each run of the handler, in the same place. After runs also when the
	// handler panics.
	Before, After func(*Ctx)
	// OnFate, when not nil, is told what became of each occurrence, exactly once each. It must not block.
	OnFate func(Fate)
	// OnError, when not nil, is told why a source ended by itself, or why KeepAlive could not start it. It must not block.
	OnError func(error)
}

// State of an event.
type State uint8

// States.
const (
	Registered State = iota // not started, or stopped
	Started
	Down // shut down for good
)

// String returns the name of the state.
func (s State) String() string { return name(s, "registered", "started", "down") }

// Errors of events.
var (
	ErrStopped = errors.New("aem: the event is not started")
	ErrDown    = errors.New("aem: the event is shut down")
	ErrPending = errors.New("aem: as many occurrences of the event are pending as EventConfig.Pending")
)

// Event is a source with a handler. Its methods are safe for concurrent use, and may be called by handlers, but for
// Shutdown, which waits for them.
type Event struct {
	loop   *Loop
	cfg    EventConfig
	src    starter
	serial uint64 // order of registration

	ctl      sync.Mutex // one Start, Stop or Shutdown at a time
	state    atomic.Int32
	running  bool // the source is; guarded by ctl
	class    atomic.Pointer[Class]
	deadline atomic.Int64
	arrivals Arrivals // guarded by ctl: MinInterval is set once

	mu      sync.Mutex // guards the following
	free    *slot
	slots   []*slot
	pending int
	idle    *sync.Cond // pending is 0
	procs   processes

	happened, refused atomic.Uint64
	fates             [fates]atomic.Uint64
	retry             *time.Timer // guarded by ctl, like the next
	pause             time.Duration
	since             time.Time // when the source was started
}

// starter is a source without its type.
type starter interface {
	start() error
	stop()
}

// slot is an occurrence without its type.
type slot struct {
	Task
	ev   *Event
	free *slot
	next occurring // in the loop's queue
	to   *Class
	end  func(Fate) // of the source
	in   bool       // Submit has returned and the fate is open; guarded by the event's mu, like the next
	used uint32     // how often
	nth  uint64     // of the event's occurrences
}

// Register makes an event of a source and its handler. It is disabled: nothing happens before Start. The handler gets the
// value itself; what that refers to is the handler's until it returns, unless the source says otherwise.
func Register[T any](l *Loop, src Source[T], handler func(*Ctx, T), cfg EventConfig) (*Event, error) {
	switch {
	case handler == nil:
		return nil, &ConfigError{"handler", "nil", "a function"}
	case any(src) == nil:
		return nil, &ConfigError{"source", "nil", "a source"}
	case cfg.Deadline < 0 && cfg.Deadline != NoDeadline:
		return nil, &ConfigError{"Deadline", cfg.Deadline, "a positive duration, NoDeadline, or 0 for the class's"}
	case cfg.MinInterval < 0:
		return nil, &ConfigError{"MinInterval", cfg.MinInterval, "a positive duration, or 0 for none"}
	case cfg.Pending < 0 || cfg.Pending > maxQueue:
		return nil, &ConfigError{"Pending", cfg.Pending, "1 to 1000000, or 0 for 1024"}
	case cfg.Class != nil && cfg.Class.ex != l.ex:
		return nil, &ConfigError{"Class", cfg.Class.name, "a class of the loop's executor"}
	}
	if cfg.Pending == 0 {
		cfg.Pending = 1024
	}
	if cfg.Class == nil {
		cfg.Class = l.ex.Critical()
	}
	if cfg.Name == "" {
		cfg.Name = nameOf(src)
	}
	e := &Event{loop: l, cfg: cfg}
	e.idle = sync.NewCond(&e.mu)
	e.class.Store(cfg.Class)
	e.deadline.Store(int64(cfg.Deadline))
	e.arrivals = Arrivals{MinInterval: cfg.MinInterval, Refuse: cfg.Refuse}
	e.src = &Sink[T]{ev: e, src: src, handler: handler}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrLoopClosed
	}
	l.serial++
	e.serial = l.serial
	l.all[e] = struct{}{}
	return e, nil
}

// Name is the name of the event.
func (e *Event) Name() string { return e.cfg.Name }

// State says whether the event is started.
func (e *Event) State() State { return State(e.state.Load()) }

// Class is where the handler runs.
func (e *Event) Class() *Class { return e.class.Load() }

// SetClass changes where the handler runs, from the next occurrence on. The class must be of the same executor. An event
// with MinInterval keeps its class: its pace is counted there.
func (e *Event) SetClass(c *Class) error {
	if c == nil || c.ex != e.loop.ex {
		return &ConfigError{"Class", c, "a class of the loop's executor"}
	}
	if e.cfg.MinInterval > 0 && c != e.class.Load() {
		return &ConfigError{"Class", c.name, "the event's own, because it has a MinInterval"}
	}
	e.class.Store(c)
	return nil
}

// SetPriority is SetClass with the executor's own class of that level.
func (e *Event) SetPriority(p Level) error {
	if p > Background {
		return &ConfigError{"priority", uint8(p), "Critical, Normal or Background"}
	}
	return e.SetClass(e.loop.ex.base[p])
}

// SetDeadline changes the deadline, from the next occurrence on: a positive duration, NoDeadline, or 0 for the class's.
func (e *Event) SetDeadline(d time.Duration) error {
	if d < 0 && d != NoDeadline {
		return &ConfigError{"Deadline", d, "a positive duration, NoDeadline, or 0 for the class's"}
	}
	e.deadline.Store(int64(d))
	return nil
}

// Start enables the event. Starting what is started changes nothing.
func (e *Event) Start() error {
	e.ctl.Lock()
	defer e.ctl.Unlock()
	return e.startLocked()
}

func (e *Event) startLocked() error {
	switch e.State() {
	case Down:
		return ErrDown
	case Started:
		return nil
	}
	e.halt() // of a one-shot that has stopped itself
	e.state.Store(int32(Started))
	if err := e.src.start(); err != nil {
		e.state.Store(int32(Registered))
		return err
	}
	e.running, e.since = true, time.Now()
	return nil
}

// Stop disables the event: what happens from now on is not handled. What happened before is.
func (e *Event) Stop() error {
	e.ctl.Lock()
	defer e.ctl.Unlock()
	if e.State() == Down {
		return ErrDown
	}
	e.state.CompareAndSwap(int32(Started), int32(Registered))
	e.halt()
	return nil
}

// halt stops the source. ctl is locked.
func (e *Event) halt() {
	if e.retry != nil {
		e.retry.Stop()
		e.retry = nil
	}
	if e.running {
		e.running = false
		e.src.stop()
	}
}

// Shutdown stops the event for good, takes back what waits (fate Canceled), and waits until no handler of it runs. Processes
// that it started are killed and waited for. It must not be called by a handler of the event.
func (e *Event) Shutdown() error {
	e.ctl.Lock()
	was := State(e.state.Swap(int32(Down)))
	e.halt()
	e.ctl.Unlock()
	if was == Down {
		return nil
	}
	e.recall()
	e.procs.kill()
	e.mu.Lock()
	for e.pending > 0 {
		e.idle.Wait()
	}
	e.mu.Unlock()
	e.procs.wait()
	l := e.loop
	l.mu.Lock()
	delete(l.all, e)
	l.mu.Unlock()
	return nil
}

// recall takes back what waits, the latest first, so that what a worker begins meanwhile comes before all of it. Nothing must
// be emitted meanwhile.
func (e *Event) recall() {
	e.mu.Lock()
	var waiting []*slot
	for _, s := range e.slots {
		if s.in {
			waiting = append(waiting, s)
		}
	}
	slices.SortFunc(waiting, func(a, b *slot) int { return cmp.Compare(b.nth, a.nth) })
	e.mu.Unlock()
	for _, s := range waiting {
		s.Cancel()
	}
}

// EventStats are counters of an event.
type EventStats struct {
	Name     string
	Class    string
	State    State
	Happened uint64        // occurrences that the source told of while the event was started
	Refused  uint64        // of them, not accepted: queue or Pending full, too soon
	Fates    [fates]uint64 // of those accepted, by Fate
	Pending  int           // whose fate is open
}

// Stats returns the event's counters.
func (e *Event) Stats() EventStats {
	s := EventStats{Name: e.cfg.Name, Class: e.Class().name, State: e.State(), Happened: e.happened.Load(), Refused: e.refused.Load()}
	for f := range s.Fates {
		s.Fates[f] = e.fates[f].Load()
	}
	e.mu.Lock()
	s.Pending = e.pending
	e.mu.Unlock()
	return s
}
