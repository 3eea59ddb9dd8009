package sys

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

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
	done := make(chan struct{})
	go func() { // ends locked, so its thread ends with it
		defer close(done)
		runtime.LockOSThread()
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
	}()
	<-done
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if n, err := ThreadNice(); n != before || err != nil {
		t.Errorf("another thread's niceness is %d now, was %d (%v)", n, before, err)
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
