package worker

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
)

// ErrProcsTaken says that GOMAXPROCS belongs to somebody else.
var ErrProcsTaken = errors.New("GOMAXPROCS was set already")

var procs single[Procs]

// Procs is GOMAXPROCS, taken from the runtime. There is one at a time in a process.
type Procs struct {
	set int // the value that it has by us
}

// TakeProcs takes GOMAXPROCS. It changes nothing yet. It refuses when the environment, the program or another executor has set the
// value: it is one for the whole process, and whoever has set it had a reason.
func TakeProcs() (*Procs, error) {
	procs.Lock()
	defer procs.Unlock()
	now := runtime.GOMAXPROCS(0)
	switch {
	case procs.taken != nil:
		return nil, fmt.Errorf("%w, by another executor of this process", ErrProcsTaken)
	case os.Getenv("GOMAXPROCS") != "":
		return nil, fmt.Errorf("%w, by the environment: GOMAXPROCS=%s", ErrProcsTaken, os.Getenv("GOMAXPROCS"))
	case !untouched(now):
		return nil, fmt.Errorf("%w, by the program: it is %d", ErrProcsTaken, now)
	}
	procs.taken = &Procs{set: now}
	return procs.taken, nil
}

// untouched reports whether a value is one that the runtime chooses by itself: the number of processors, or the cgroup's quota
// rounded up and at least 2 (documentation of runtime.GOMAXPROCS).
func untouched(n int) bool {
	if n == runtime.NumCPU() {
		return true
	}
	q, ok := Quota()
	return ok && n == min(runtime.NumCPU(), max(2, int(math.Ceil(q))))
}

// Set sets the value, at least the number of processors. It stops the world for a moment.
func (p *Procs) Set(n int) {
	procs.Lock()
	defer procs.Unlock()
	if procs.taken != p || runtime.GOMAXPROCS(0) != p.set {
		return // somebody has set it since; it is theirs
	}
	if n = max(n, runtime.NumCPU()); n != p.set {
		runtime.GOMAXPROCS(n)
		p.set = n
	}
}

// Release gives the value back to the runtime, which keeps it right from then on. When somebody else has set it meanwhile, theirs
// stays.
func (p *Procs) Release() {
	procs.Lock()
	defer procs.Unlock()
	if procs.taken != p {
		return
	}
	procs.taken = nil
	if runtime.GOMAXPROCS(0) == p.set {
		runtime.SetDefaultGOMAXPROCS()
	}
}
