package worker

import (
	"errors"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func gogc() int {
	s := [1]metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s[:])
	return int(s[0].Value.Uint64())
}

func TestPercent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		budget := rapid.Uint64Range(LeastHeap, 1<<44).Draw(t, "budget")
		live := rapid.Uint64Range(0, 1<<44).Draw(t, "live")
		p := uint64(percent(budget, live))
		// As the runtime has it: runtime/mgcpacer.go:commit.
		goal := max(live+live/100*p+live%100*p/100, heapMinimum*p/100)
		switch {
		case p < defaultPercent:
			t.Fatalf("%d percent", p)
		case p == defaultPercent && live >= budget/2:
		case goal > budget+budget/50+heapMinimum || goal < budget-budget/20:
			t.Fatalf("%d percent of %d octets is a goal of %d, want %d", p, live, goal, budget)
		}
	})
}

func TestHeap(t *testing.T) {
	if v := gogc(); v != defaultPercent {
		t.Skipf("GOGC is %d here", v)
	}
	t.Setenv("GOGC", "")
	const budget = 64 << 20
	h, err := TakeHeap(budget, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if _, err := TakeHeap(budget, false); !errors.Is(err, ErrHeapTaken) {
		t.Errorf("taken twice: %v", err)
	}
	until := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !cond(); runtime.GC() {
			if time.Now().After(end) {
				t.Fatalf("%s: GOGC is %d", what, gogc())
			}
		}
	}
	if v := gogc(); v < 1000 {
		t.Errorf("GOGC is %d with a budget of %d and nothing alive", v, budget)
	}
	live := make([]byte, 24<<20)
	until("24 MB live", func() bool { return gogc() < 200 && gogc() > 100 })
	more := make([]byte, 24<<20)
	until("48 MB live", func() bool { return gogc() == defaultPercent })
	runtime.KeepAlive(live)
	runtime.KeepAlive(more)
	live, more = nil, nil
	until("nothing lives", func() bool { return gogc() > 1000 })
	h.Release()
	h.Release()
	if v := gogc(); v != defaultPercent {
		t.Errorf("GOGC is %d after Release", v)
	}

	// Whoever sets it while it is taken keeps it.
	if h, err = TakeHeap(budget, false); err != nil {
		t.Fatal(err)
	}
	debug.SetGCPercent(77)
	h.Release()
	if v := debug.SetGCPercent(77); v != 77 {
		t.Errorf("GOGC is %d, was set to 77 by somebody else", v)
	}
	if _, err := TakeHeap(budget, false); !errors.Is(err, ErrHeapTaken) {
		t.Errorf("taken from the program: %v", err)
	}
	debug.SetGCPercent(defaultPercent)
	t.Setenv("GOGC", "100")
	if _, err := TakeHeap(budget, false); !errors.Is(err, ErrHeapTaken) {
		t.Errorf("taken from the environment: %v", err)
	}
}
