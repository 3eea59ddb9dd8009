package sim

import (
	"flag"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed only; with -v, print its trace")
	seedsFlag = flag.Int("seeds", 200, "run so many seeds")
	firstFlag = flag.Uint64("first", 1, "the first seed")
)

// TestSeeds runs clusters with mixed faults. Each seed is a scenario of its own.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		sc := NewScenario(*seedFlag)
		t.Log(sc)
		var o Options
		if testing.Verbose() {
			o.Trace = os.Stdout
		}
		start := time.Now()
		r := Run(sc, o)
		t.Logf("%v; %+v; %+v", time.Since(start), r.World, r.Stats)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return
	}
	n := *seedsFlag
	if testing.Short() {
		n = min(n, 40)
	}
	var (
		next   atomic.Int64
		wg     sync.WaitGroup
		mu     sync.Mutex
		sum    totals
		failed []uint64
		begin  = time.Now()
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				seed := *firstFlag + uint64(i)
				r := Run(NewScenario(seed), Options{})
				mu.Lock()
				sum.add(r)
				if r.Err != nil {
					failed = append(failed, seed)
					if len(failed) <= 20 {
						t.Errorf("seed %d %v", seed, r.Err)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds in %v, whole again %v after the last fault on average: %+v", n, time.Since(begin).Round(time.Millisecond), sum.healed/time.Duration(max(n, 1)), sum)
	if len(failed) > 0 {
		report(t, failed[0])
		t.Fatalf("%d of %d seeds failed", len(failed), n)
	}
	if n >= 100 && (sum.linksDown == 0 || sum.broken == 0 || sum.congested == 0 || sum.restarts == 0 || sum.mcasts == 0) {
		t.Errorf("the scenarios are too tame: %+v", sum)
	}
}

// report shows the end of a failing run.
func report(t *testing.T, seed uint64) {
	sc := NewScenario(seed)
	r := Run(sc, Options{Keep: 120})
	t.Logf("%vlatest events:\n%s\n%v\nreplay: go test ./internal/sim -run TestSeeds -seed=%d -v", sc, strings.Join(r.Trace, "\n"), r.Err, seed)
}

type totals struct {
	sent, lost, steps                         uint64
	messages, mcasts, returned, conns, octets int
	broken, congested, linksUp, linksDown     int
	restarts                                  int
	healed                                    time.Duration
}

func (s *totals) add(r Result) {
	s.sent += r.World.Sent
	s.lost += r.World.Lost
	s.steps += r.World.Steps
	s.messages += r.Stats.Messages
	s.mcasts += r.Stats.Multicasts
	s.returned += r.Stats.Returned
	s.conns += r.Stats.Conns
	s.octets += r.Stats.Octets
	s.broken += r.Stats.Broken
	s.congested += r.Stats.Congested
	s.linksUp += r.Stats.LinksUp
	s.linksDown += r.Stats.LinksDown
	s.restarts += r.Stats.Restarts
	s.healed += r.Stats.Healed
}

// TestReplay runs seeds again: nothing may depend on anything but the seed.
func TestReplay(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		a := Run(NewScenario(seed), Options{})
		b := Run(NewScenario(seed), Options{Keep: 10})
		if a.Hash != b.Hash || a.World != b.World || a.Stats != b.Stats {
			t.Errorf("seed %d: two runs differ:\n%+v\n%+v", seed, a, b)
		}
	}
}
