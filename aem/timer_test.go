package aem

import (
	"testing"
	"time"
)

func TestTimersOfALoop(t *testing.T) {
	ts := NewTimers()
	if ts.Wait() >= 0 {
		t.Error("there is something to wait for without timers")
	}
	fired := []string{}
	due := map[string]time.Time{}
	timers := map[string]Timer{}
	set := func(name string, d time.Duration) {
		ts.Update()
		due[name] = time.Now().Add(d)
		d += time.Millisecond // Update came before the clock was read here
		if ts.Reset(timers[name], d) {
			return
		}
		timers[name] = ts.Set(d, TimerFunc(func(x Timer) {
			if time.Now().Before(due[name]) || ts.IsSet(x) || x != timers[name] || ts.Reset(x, 0) || ts.Stop(x) {
				t.Errorf("%s fires early, or is set %v, or another one fires", name, ts.IsSet(x))
			}
			fired = append(fired, name)
		}))
	}
	set("a", 30*time.Millisecond)
	set("b", 10*time.Millisecond)
	set("c", time.Millisecond)
	set("a", 5*time.Millisecond)  // earlier
	set("b", 40*time.Millisecond) // later
	c := timers["c"]
	if !ts.IsSet(c) || !ts.Stop(c) || ts.Stop(c) || ts.Reset(c, 0) || ts.IsSet(c) || ts.Len() != 2 {
		t.Errorf("%d timers are set", ts.Len())
	}
	if ts.Stop(Timer{}) || ts.IsSet(Timer{}) || ts.Reset(Timer{}, 0) {
		t.Error("the zero Timer is set")
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
	var x TimerFunc
	x = func(Timer) { n++; ts.Set(0, x) }
	ts.Set(0, x)
	for give := time.Now().Add(time.Minute); n < 3; {
		if time.Now().After(give) {
			t.Fatal("it does not fire")
		}
		if k := ts.Run(); k > 1 {
			t.Fatalf("it fired %d times in one Run", k)
		}
	}
}

func TestTimersDoNotAllocate(t *testing.T) {
	ts := NewTimers()
	var h TimerHandler = TimerFunc(func(Timer) {})
	if n := testing.AllocsPerRun(1000, func() {
		x := ts.Set(time.Hour, h)
		ts.Reset(x, 2*time.Hour)
		ts.Reset(x, time.Minute)
		ts.Stop(x)
		ts.Set(0, h)
		ts.Run()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
