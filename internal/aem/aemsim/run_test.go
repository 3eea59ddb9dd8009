package aemsim

import (
	"flag"
	"testing"

	"midplane/internal/aem/sched"
)

var (
	seeds  = flag.Int("seeds", 3, "simulations to run")
	length = flag.Int("events", 1_000_000, "events of the first simulation; the others have a tenth")
)

func TestSeeds(t *testing.T) {
	for seed := range *seeds {
		n := *length
		if seed > 0 {
			n /= 10
		}
		w := newWorld(uint64(seed))
		if err := w.run(n); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		t.Logf("seed %d: %d events, %d begun, %d rejected, %d shed, %d expired, %d taken back", seed, w.events, w.begun,
			w.fates[sched.Rejected], w.fates[sched.Shed], w.fates[sched.Expired], w.fates[sched.Canceled])
		if w.begun == 0 || w.fates[sched.Rejected] == 0 || (w.fates[sched.Expired] == 0) != w.patient || w.timeouts == 0 {
			t.Errorf("seed %d: something never happened: begun %d, fates %v, timeouts %d", seed, w.begun, w.fates, w.timeouts)
		}
	}
}

// The same seed is the same run, to the last decision.
func TestReplay(t *testing.T) {
	trace := func(seed uint64) uint64 {
		w := newWorld(seed)
		if err := w.run(50_000); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return w.trace
	}
	if a, b := trace(1), trace(1); a != b {
		t.Errorf("two runs of one seed differ: %x, %x", a, b)
	}
	if a, b := trace(1), trace(2); a == b {
		t.Error("two seeds are the same run")
	}
}
