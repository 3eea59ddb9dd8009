package aem

import (
	"sync/atomic"
	"time"

	"midplane/internal/aem/sched"
	"midplane/internal/mono"
)

// Task is one piece of work. It belongs to its submitter, is usually part of a longer-lived structure (a connection, an
// event), and may be submitted again once its fate is known, so that a steady state allocates nothing. It must not be
// copied or changed between Submit and the moment its fate is told.
type Task struct {
	// Run is the handler. It may block, but occupies a worker as long as it does.
	Run func(*Ctx)
	// Done, when not nil, is told the fate of the task: exactly once for every Submit that returned nil, after which the
	// task may be submitted again, by Done too. It runs on the worker, or on the goroutine that brought the fate about (a
	// submitter whose task displaced this one, the caller of Cancel or Shutdown, the executor's own). It must not block.
	Done func(*Task, Fate)
	// Deadline is how long after Submit the task must have ended, 0 for the default of its class, NoDeadline for none.
	Deadline time.Duration
	// Source limits the rate of what the task is an occurrence of; nil for no limit.
	Source *Arrivals
	// Arg is the submitter's own.
	Arg any

	class *Class
	core  sched.Task
	at    mono.Time // when it was submitted
	busy  atomic.Bool
}

// Arrivals is where tasks come from, with a least time between two of them (minimum inter-arrival time). It belongs to one
// class, and must not be copied or changed while tasks of it wait.
type Arrivals struct {
	// MinInterval is the least time between the beginnings of two tasks; 0 for no limit.
	MinInterval time.Duration
	// Refuse rejects what comes too early. Otherwise it is held back until its time, within its deadline; inline classes,
	// which have no queue, always refuse.
	Refuse bool

	core sched.Source
}
