package aem

import (
	"fmt"
	"sync"
	"time"

	"midplane/internal/aem/hist"
	"midplane/internal/aem/sched"
)

// Level is how urgent a class is.
type Level uint8

// Levels, the most urgent first. Among classes of one niceness no task of a level begins while one of a more urgent level
// waits; between nicenesses the kernel's scheduler decides by its weights (nice 0 to nice 19 is 1024 to 15).
const (
	Critical Level = iota
	Normal
	Background
)

// String returns the name of the level.
func (l Level) String() string {
	return name(l, "critical", "normal", "background")
}

// Policy is what a class does when it gets more than it can do. In all policies a task that cannot end by its deadline
// any more is dropped before it begins.
type Policy uint8

// Policies.
const (
	Reject      Policy = iota // a full queue takes nothing more
	ShedOldest                // a full queue gives up the task that waits longest
	NewestFirst               // ShedOldest, and when the wait stands above the target, the newest task is next
)

// String returns the name of the policy.
func (p Policy) String() string {
	return name(p, "reject", "shed-oldest", "newest-first")
}

func name[T ~uint8](v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%d", uint8(v))
}

// NoDeadline as a deadline means none. Nothing bounds then how long a task waits.
const NoDeadline time.Duration = -1

// ClassConfig is what a class is. Its zero value is a class of level Critical with all defaults.
type ClassConfig struct {
	// Level is how urgent the class is.
	Level Level
	// Weight is the share of the class among those of its level and niceness, 1 to 1000, default 100. Classes that always
	// have work get processor time in proportion.
	Weight int
	// Queue is how many tasks may wait, 1 to 1,000,000, default 1024.
	Queue int
	// Policy is what happens when there is too much to do, default Reject.
	Policy Policy
	// Target is the wait that NewestFirst accepts for good, default 5 ms.
	Target time.Duration
	// Deadline is how long after Submit a task must have ended, when the task does not say itself. Default: critical
	// 100 ms, normal 1 s, background 1 min.
	Deadline time.Duration
	// Workers is how many tasks of the class may run at once, default as many as the executor has workers.
	Workers int
	// Nice is the niceness of the threads that run the class, 0 to 19. Default: 19 for Background, else 0. Classes whose
	// tasks take more than about 1 ms of processor time should have 19, whatever their level.
	Nice int
	// Inline runs tasks in Submit itself, on the caller's goroutine: no queue, no hand-off, no concurrency of its own. For
	// handlers that take microseconds. Queue, Policy, Target, Workers, Weight and Nice have no meaning then.
	Inline bool
	// Budget is how long a handler may run before it counts as stalled, default 25 ms for inline classes, else 1 s.
	Budget time.Duration
}

const (
	maxWeight = 1000
	maxQueue  = 1_000_000
	maxNice   = 19
)

// ConfigError says which field of a configuration is wrong.
type ConfigError struct {
	Field string
	Value any
	Want  string
}

// Error names the field, its value and what would be right.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("aem: %s is %v, want %s", e.Field, e.Value, e.Want)
}

// complete checks the configuration and fills in defaults.
func (c *ClassConfig) complete() error {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	switch {
	case c.Level > Background:
		return &ConfigError{"Level", uint8(c.Level), "Critical, Normal or Background"}
	case c.Policy > NewestFirst:
		return &ConfigError{"Policy", uint8(c.Policy), "Reject, ShedOldest or NewestFirst"}
	case c.Weight < 0 || c.Weight > maxWeight:
		return &ConfigError{"Weight", c.Weight, "1 to 1000, or 0 for 100"}
	case c.Queue < 0 || c.Queue > maxQueue:
		return &ConfigError{"Queue", c.Queue, "1 to 1000000, or 0 for 1024"}
	case c.Target < 0:
		return &ConfigError{"Target", c.Target, "a positive duration, or 0 for 5 ms"}
	case c.Deadline < 0 && c.Deadline != NoDeadline:
		return &ConfigError{"Deadline", c.Deadline, "a positive duration, NoDeadline, or 0 for the level's default"}
	case c.Workers < 0:
		return &ConfigError{"Workers", c.Workers, "a positive number, or 0 for all workers"}
	case c.Nice < 0 || c.Nice > maxNice:
		return &ConfigError{"Nice", c.Nice, "0 to 19"}
	case c.Budget < 0:
		return &ConfigError{"Budget", c.Budget, "a positive duration, or 0 for the default"}
	}
	if c.Weight == 0 {
		c.Weight = 100
	}
	if c.Queue == 0 {
		c.Queue = 1024
	}
	def(&c.Target, 5*time.Millisecond)
	def(&c.Deadline, [...]time.Duration{100 * time.Millisecond, time.Second, time.Minute}[c.Level])
	if c.Inline {
		c.Nice = 0
		def(&c.Budget, 25*time.Millisecond)
		return nil
	}
	def(&c.Budget, time.Second)
	if c.Nice == 0 && c.Level == Background {
		c.Nice = maxNice
	}
	return nil
}

// Class is a kind of work with its queue, its share and what happens when there is too much of it. Its methods are safe
// for concurrent use.
type Class struct {
	name string
	cfg  ClassConfig
	ex   *Executor
	pool *pool        // nil for inline classes
	core *sched.Class // guarded by pool.mu

	mu       sync.Mutex // for an inline class; the fields below are guarded by pool.mu in others
	closed   bool
	count    [fates]uint64
	accepted uint64
	late     uint64 // ran, and ended after the deadline
	tooSoon  uint64
	wait     hist.Hist // from Submit to the beginning
	run      hist.Hist // from the beginning to the end
	total    hist.Hist // from Submit to the end

	refused [fates]*FateError // made once, so that refusing costs nothing
}

// Name returns the name of the class.
func (c *Class) Name() string { return c.name }

// Config returns the configuration of the class with its defaults filled in.
func (c *Class) Config() ClassConfig { return c.cfg }
