package sys

import (
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own, which ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// What one thread is given changes nothing for others.
func TestThread(t *testing.T) {
	cpus, err := ThreadCPUs()
	if err != nil || len(cpus) == 0 {
		t.Fatal(cpus, err)
	}
	before, err := ThreadNice()
	if err != nil {
		t.Fatal(err)
	}
	onThread(func() {
		want := min(before+3, 19)
		if err := SetThreadNice(want); err != nil {
			t.Error(err)
		}
		if n, err := ThreadNice(); n != want || err != nil {
			t.Errorf("niceness %d, %v; want %d", n, err, want)
		}
		last := cpus[len(cpus)-1:]
		if err := SetThreadCPUs(last); err != nil {
			t.Error(err)
		}
		if got, err := ThreadCPUs(); !slices.Equal(got, last) || err != nil {
			t.Errorf("processors %v, %v; want %v", got, err, last)
		}
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if n, err := ThreadNice(); n != before || err != nil {
		t.Errorf("another thread's niceness is %d now, was %d (%v)", n, before, err)
	}
}

// A thread's time slice is its own: niceness and other threads stay as they are, and what it starts does not inherit it.
func TestThreadSlice(t *testing.T) {
	before, err := ThreadSlice()
	if err != nil {
		t.Fatal(err)
	}
	nice, err := ThreadNice()
	if err != nil {
		t.Fatal(err)
	}
	onThread(func() {
		const d = 300 * time.Microsecond
		if err := SetThreadSlice(d); err != nil {
			t.Error(err)
		}
		if n, err := ThreadNice(); n != nice || err != nil {
			t.Errorf("niceness %d, %v; was %d", n, err, nice)
		}
		if before == 0 || nice < 0 {
			return // the kernel has one slice for all; or niceness is inherited with it
		}
		if got, err := ThreadSlice(); got != d || err != nil {
			t.Errorf("slice %v, %v; want %v", got, err, d)
		}
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil { // in this thread
			t.Error(err)
			return
		}
		defer child.Wait()
		defer child.Process.Kill()
		if a, err := unix.SchedGetAttr(child.Process.Pid, 0); err != nil || time.Duration(a.Runtime) != before {
			t.Errorf("a process that it starts has slice %v, %v; want %v", time.Duration(a.Runtime), err, before)
		}
	})
	onThread(func() {
		if SetThreadRealtime(1) != nil {
			return // it takes a privilege
		}
		if err := SetThreadSlice(time.Millisecond); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a real-time thread gets a slice: %v", err)
		}
		if p, err := ThreadRealtime(); p != 1 || err != nil {
			t.Errorf("its priority is %d then, %v", p, err)
		}
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if got, err := ThreadSlice(); got != before || err != nil {
		t.Errorf("another thread's slice is %v now, was %v (%v)", got, before, err)
	}
	if before == 0 {
		t.Skip("this kernel has one slice for all threads (before Linux 6.12)")
	}
}

// A goroutine whose thread sleeps keeps its P, so that with one P nothing else runs meanwhile, or gives it to others.
func TestSleepThread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var others atomic.Int64
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			others.Add(1)
			runtime.Gosched()
		}
	}()
	defer func() {
		stop.Store(true)
		<-done
	}()
	runtime.Gosched()
	const d = 3 * time.Millisecond
	for _, keep := range []bool{true, false} {
		ok := false
		for range 20 { // a signal of the runtime's may end one that keeps it
			before, start := others.Load(), time.Now()
			SleepThread(d, keep)
			if took, alone := time.Since(start), others.Load() == before; took >= d && alone == keep {
				ok = true
				break
			}
		}
		if !ok {
			t.Errorf("with keep %v others ran each time, or never", keep)
		}
	}
}

func TestFutex(t *testing.T) {
	var word atomic.Uint32
	woken := make(chan struct{})
	go func() {
		for word.Load() == 0 {
			FutexWait(&word, 0)
		}
		close(woken)
	}()
	FutexWait(&word, 1) // is not 1, so it does not wait
	word.Store(1)
	FutexWake(&word)
	<-woken
}
