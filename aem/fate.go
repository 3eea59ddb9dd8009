package aem

import (
	"errors"
	"fmt"

	"midplane/internal/aem/sched"
)

// Fate is what became of a task.
type Fate uint8

// Fates.
const (
	Open     = Fate(sched.Open)     // not decided yet
	Ran      = Fate(sched.Ran)      // run to its end
	Rejected = Fate(sched.Rejected) // not accepted: the queue is full, the source too fast or the executor closed
	Shed     = Fate(sched.Shed)     // accepted, then given up for newer tasks
	Expired  = Fate(sched.Expired)  // accepted, but it could not be begun in time
	Canceled = Fate(sched.Canceled) // taken back before it began
	Panicked = Fate(sched.Panicked) // begun, and its handler panicked or left by runtime.Goexit
	Drained  = Fate(sched.Drained)  // still waiting when the executor ended
	fates    = int(sched.Fates)
)

// String returns the name of the fate.
func (f Fate) String() string {
	return name(f, "open", "ran", "rejected", "shed", "expired", "canceled", "panicked", "drained")
}

// FateError is the error of a task that did not run to its end.
type FateError struct {
	Class string
	Fate  Fate
}

// Error names the class and the fate.
func (e *FateError) Error() string { return fmt.Sprintf("aem: class %s: task %s", e.Class, e.Fate) }

// FateOf returns the fate that an error of this package tells, Open when it tells none.
func FateOf(err error) Fate {
	var e *FateError
	if errors.As(err, &e) {
		return e.Fate
	}
	return Open
}

// Errors.
var (
	ErrBusy   = errors.New("aem: the task was submitted already and its fate is open")
	ErrClosed = errors.New("aem: the executor is closed")
	ErrNoRun  = errors.New("aem: the task has no Run function")
)
