package loop

import (
	"os"
	"strings"
	"time"

	"midplane/internal/mono"
)

// holdFor bounds one wait that keeps its P. The runtime preempts who has kept one for 10 ms (runtime/proc.go:retake), and a
// stop of the world that is not heard of otherwise waits for so long.
const holdFor = 2 * time.Millisecond

// A wait that the runtime knows of gives its P up, and during a collection idle marking takes each P that is free: who comes
// back from the kernel then queues for one, behind 100 us of marking at best. A wait that the runtime does not know of keeps the
// P, and goes on at once. It must end when the runtime wants the thread: the runtime's signal, which it repeats until it is
// heard (stopTheWorldWithSema, forEachP, suspendG), interrupts the system call.

// CanHold reports whether the runtime sends that signal: not with GODEBUG=asyncpreemptoff=1.
func CanHold() bool {
	for s := range strings.SplitSeq(os.Getenv("GODEBUG"), ",") {
		if s == "asyncpreemptoff=1" {
			return false
		}
	}
	return true
}

// hold reports whether the next wait keeps its P, and until when it waits then.
func (c *Config) hold(now, deadline mono.Time) (bool, mono.Time) {
	if c.Hold == nil || !c.Hold(now) {
		return false, deadline
	}
	return true, deadline.Min(now.Add(holdFor))
}
