package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// spent is the processor time of this thread. The goroutine must be locked to it.
func spent() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		check(err)
	}
	return time.Duration(t.Nano())
}
