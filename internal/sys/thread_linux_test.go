package sys

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
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
