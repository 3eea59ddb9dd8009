package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"midplane/internal/aem/hist"

	"golang.org/x/sys/unix"
)

// machine is what the processors can do at the moment, with nothing else running on them: on a shared host that changes by the minute.
type machine struct {
	capacity float64       // heavy requests a second, on as many lowered threads as there are processors
	wake     time.Duration // 99th percentile of how late a raised thread wakes beside them
}

const probeTime = 500 * time.Millisecond

// probe measures the machine. Its threads end with it.
func probe() machine {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 * runtime.NumCPU())) // the thread that wakes finds a P
	var stop atomic.Bool
	var done atomic.Int64
	var busy, awake sync.WaitGroup
	for range runtime.NumCPU() {
		busy.Go(func() {
			runtime.LockOSThread() // for good: the thread stays lowered
			_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
			for !stop.Load() {
				burn(heavyWork)
				done.Add(1)
			}
		})
	}
	var late hist.Hist
	start := time.Now()
	awake.Go(func() {
		runtime.LockOSThread()
		raise(unix.Gettid())
		unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		for time.Since(start) < probeTime {
			due := time.Now().Add(time.Millisecond)
			ts := unix.NsecToTimespec(int64(time.Millisecond))
			unix.Nanosleep(&ts, nil)
			late.Add(time.Since(due))
		}
	})
	awake.Wait()
	took := time.Since(start)
	stop.Store(true)
	n := done.Load()
	busy.Wait()
	return machine{capacity: float64(n) / took.Seconds(), wake: late.Quantile(0.99)}
}

// raise makes a thread real-time, which needs privilege; without it nothing changes.
func raise(tid int) {
	_ = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}, 0)
}
