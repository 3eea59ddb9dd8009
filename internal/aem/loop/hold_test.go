package loop

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"midplane/internal/mono"
)

// The world stops, stacks are scanned and processors come and go while loops keep their P, and no call is lost meanwhile. Each
// call is answered before the next is made, so that the loop waits in between.
func TestHeldWaitsEndForTheRuntime(t *testing.T) {
	if !CanHold() {
		t.Skip("GODEBUG=asyncpreemptoff=1")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for _, name := range Backends[:len(Backends)-1] {
		t.Run(name, func(t *testing.T) {
			if err := Probe(name); err != nil {
				t.Skip(err)
			}
			opened, answers, ended := make(chan error), make(chan struct{}), make(chan error, 1)
			var l Loop
			var quit, called atomic.Bool
			go func() {
				runtime.LockOSThread() // the thread ends with the goroutine
				var err error
				l, _, err = Open(name, Config{Hold: func(mono.Time) bool { return true }})
				opened <- err
				if err != nil {
					return
				}
				events := make([]Event, 8)
				for !quit.Load() && err == nil {
					_, err = l.Wait(events, mono.Now().Add(bound))
					l.Heard()
					if called.Swap(false) {
						answers <- struct{}{}
					}
				}
				if err == nil {
					err = l.Stop()
				}
				ended <- err
			}()
			if err := <-opened; err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				called.Store(true)
				l.Wake()
				switch i % 3 {
				case 0:
					runtime.GC()
				case 1:
					debug.SetGCPercent(50 + i)
				case 2:
					runtime.Stack(make([]byte, 1<<12), true)
				}
				select {
				case <-answers:
				case <-time.After(bound):
					t.Fatal("a call was lost")
				}
			}
			quit.Store(true)
			l.Wake()
			select {
			case err := <-ended:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(bound):
				t.Fatal("the loop does not end")
			}
		})
	}
}

func TestHoldIsBounded(t *testing.T) {
	now := mono.Now()
	for _, c := range []struct {
		hold     func(mono.Time) bool
		deadline mono.Time
		holds    bool
		until    mono.Time
	}{
		{nil, mono.Never, false, mono.Never},
		{func(mono.Time) bool { return false }, mono.Never, false, mono.Never},
		{func(mono.Time) bool { return true }, mono.Never, true, now.Add(holdFor)},
		{func(mono.Time) bool { return true }, now.Add(holdFor / 2), true, now.Add(holdFor / 2)},
	} {
		holds, until := (&Config{Hold: c.hold}).hold(now, c.deadline)
		if holds != c.holds || until != c.until {
			t.Errorf("hold is %v until %v, want %v until %v", holds, until, c.holds, c.until)
		}
	}
	t.Setenv("GODEBUG", "gctrace=0,asyncpreemptoff=1")
	if CanHold() {
		t.Error("holds although the runtime sends no signals")
	}
}
