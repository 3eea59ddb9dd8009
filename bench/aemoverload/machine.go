package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"midplane/bench/internal/garbage"
	"midplane/internal/aem/hist"
	"midplane/internal/sys"

	"golang.org/x/sys/unix"
)

// machine is what the processors can do at the moment, beside the garbage of the cell and nothing else: on a shared host that changes by
// the minute.
type machine struct {
	Capacity float64       // heavy requests a second, on as many lowered threads as there are processors
	Wake     time.Duration // 99th percentile of how late a raised thread wakes beside them, every millisecond
}

const (
	probeWarm = 300 * time.Millisecond
	probeTime = 500 * time.Millisecond
)

// probed measures the machine in a process of its own.
func probed(garbage bool) (m machine, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	b, err := exec.Command(self, append(serverFlags(garbage), "-probe")...).Output()
	if err != nil {
		return m, fmt.Errorf("probe: %w", err)
	}
	return m, json.Unmarshal(b, &m)
}

func runProbe(churn bool) error {
	if err := takeHeap(); err != nil {
		return err
	}
	if churn {
		go garbage.Make(new(atomic.Bool))
	}
	time.Sleep(probeWarm)
	return json.NewEncoder(os.Stdout).Encode(probe())
}

func probe() machine {
	runtime.GOMAXPROCS(2 * runtime.NumCPU()) // the thread that wakes finds a P
	var stop atomic.Bool
	var done atomic.Int64
	var busy sync.WaitGroup
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
	start := time.Now()
	late := wake(probeTime)
	took := time.Since(start)
	stop.Store(true)
	n := done.Load()
	busy.Wait()
	return machine{float64(n) / took.Seconds(), late}
}

// wake lets a raised thread wake every millisecond, and returns the 99th percentile of how late it was.
func wake(d time.Duration) time.Duration {
	var late hist.Hist
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread stays raised
		// Real-time, which needs privilege; without it the thread is as any other.
		_ = sys.SetThreadRealtime(10)
		unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		for start := time.Now(); time.Since(start) < d; {
			due := time.Now().Add(time.Millisecond)
			sleepUntil(due)
			late.Add(time.Since(due))
		}
	}()
	<-done
	return late.Quantile(0.99)
}

// sleepUntil puts the thread to sleep past the runtime, whose signals end a sleep early.
func sleepUntil(due time.Time) {
	for wait := time.Until(due); wait > 0; wait = time.Until(due) {
		sys.SleepThread(wait, true)
	}
}

// settle waits until the machine is quiet, 4 s at most. What ended before may still make work for it, such as memory that goes back to
// the host.
func settle() {
	for range 20 {
		if wake(200*time.Millisecond) <= lateness {
			return
		}
	}
}
