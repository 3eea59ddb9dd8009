package aem

import (
	"testing"
	"time"
	"unsafe"
)

func TestTimersOfALoop(t *testing.T) {
	ts := NewTimers()
	if ts.Wait() >= 0 {
		t.Error("there is something to wait for without timers")
	}
	fired := []string{}
	due := map[string]time.Time{}
	names := map[*Timer]string{}
	timer := func(name string) *Timer {
		var x *Timer
		x = &Timer{Handler: TimerFunc(func(fires *Timer) {
			if time.Now().Before(due[name]) || x.IsSet() || fires != x {
				t.Errorf("%s fires early, or is set %v, or another one fires", name, x.IsSet())
			}
			fired = append(fired, name)
		})}
		names[x] = name
		return x
	}
	a, b, c := timer("a"), timer("b"), timer("c")
	set := func(x *Timer, d time.Duration) {
		ts.Update()
		due[names[x]] = time.Now().Add(d)
		ts.Set(x, d+time.Millisecond) // Update came before the clock was read here
	}
	set(a, 30*time.Millisecond)
	set(b, 10*time.Millisecond)
	set(c, time.Millisecond)
	set(a, 5*time.Millisecond)  // earlier
	set(b, 40*time.Millisecond) // later
	if !ts.Stop(c) || ts.Stop(c) || ts.Len() != 2 {
		t.Errorf("%d timers are set", ts.Len())
	}
	for give := time.Now().Add(time.Minute); ts.Len() > 0; ts.Run() {
		if time.Now().After(give) {
			t.Fatal("nothing fires")
		}
		time.Sleep(max(0, ts.Wait()))
	}
	if len(fired) != 2 || fired[0] != "a" || fired[1] != "b" {
		t.Errorf("fired %v", fired)
	}
}

// A timer that sets itself to a time that has come does not keep the loop.
func TestTimerThatSetsItself(t *testing.T) {
	ts := NewTimers()
	n := 0
	x := &Timer{Handler: TimerFunc(func(x *Timer) { n++; ts.Set(x, 0) })}
	ts.Set(x, 0)
	for give := time.Now().Add(time.Minute); n < 3; {
		if time.Now().After(give) {
			t.Fatal("it does not fire")
		}
		if k := ts.Run(); k > 1 {
			t.Fatalf("it fired %d times in one Run", k)
		}
	}
}

func TestTwoTimersInACacheLine(t *testing.T) {
	if n := unsafe.Sizeof(Timer{}); unsafe.Sizeof(uintptr(0)) == 8 && n != 32 {
		t.Errorf("%d octets", n)
	}
}

func TestTimersDoNotAllocate(t *testing.T) {
	ts := NewTimers()
	x := &Timer{Handler: TimerFunc(func(*Timer) {})}
	if n := testing.AllocsPerRun(1000, func() {
		ts.Set(x, time.Hour)
		ts.Set(x, 2*time.Hour)
		ts.Stop(x)
		ts.Set(x, 0)
		ts.Run()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
