package worker

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"midplane/internal/sys"
)

// Dedicate locks the calling goroutine to its thread for good, lowers the thread to a niceness and binds it to processors
// (nil for no change). An unprivileged thread that is lowered cannot be raised again, so it must never go back to the
// runtime: a goroutine that ends while it is locked takes its thread with it, and for that reason nothing unlocks it.
func Dedicate(nice int, cpus []int) error {
	runtime.LockOSThread()
	// One that is lower already stays so: the whole process was lowered.
	if now, err := sys.ThreadNice(); err == nil && now < nice {
		if err := sys.SetThreadNice(nice); err != nil {
			return fmt.Errorf("niceness %d: %w", nice, err)
		}
	}
	if len(cpus) > 0 {
		if err := sys.SetThreadCPUs(cpus); err != nil {
			return fmt.Errorf("processors %v: %w", cpus, err)
		}
	}
	return nil
}

// Bind binds the calling thread, which must be locked, to processors.
func Bind(cpus []int) error { return sys.SetThreadCPUs(cpus) }

// Realtime gives the calling thread, which must be locked, a real-time priority, 1 to 99. What it starts does not inherit it.
func Realtime(priority int) error { return sys.SetThreadRealtime(priority) }

// ShortSlice lets the calling thread, which must be locked, have a processor earlier and for a shorter time when several threads wait for one,
// for the same share. What it starts does not inherit that. Kernels before Linux 6.12 do nothing.
func ShortSlice() error { return sys.SetThreadSlice(leastSlice) }

const leastSlice = 100 * time.Microsecond // kernel/sched/syscalls.c:__setparam_fair

// populate makes the kernel give memory for b, of which nothing is in use yet.
func populate(b []byte) {
	if sys.Populate(b) != nil {
		touch(b)
	}
}

// CheckCPUs reports a processor of the list that this process may not run on.
func CheckCPUs(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	may, err := allowed()
	if err != nil {
		return err
	}
	for _, c := range cpus {
		if !slices.Contains(may, c) {
			return fmt.Errorf("processor %d is none that this process may run on, which are %v", c, may)
		}
	}
	return nil
}

// affinity is how many processors the process may run on now, as the calling thread sees it. That of the runtime is as it was when the
// process began.
func affinity() int {
	may, err := allowed()
	if err != nil || len(may) == 0 {
		return runtime.NumCPU()
	}
	return len(may)
}
