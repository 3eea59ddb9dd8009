package aem

import (
	"runtime"
	"time"

	"midplane/internal/aem/hist"
	"midplane/internal/mono"
)

// Latency is a distribution of durations since the class was made. Quantiles are at most 1/32 too long.
type Latency struct {
	Count               uint64
	Mean                time.Duration
	P50, P90, P99, P999 time.Duration
	Max                 time.Duration
}

func latencyOf(h *hist.Hist) Latency {
	return Latency{
		Count: h.Count, Mean: h.Mean(), Max: h.Most,
		P50: h.Quantile(0.5), P90: h.Quantile(0.9), P99: h.Quantile(0.99), P999: h.Quantile(0.999),
	}
}

// ClassStats is what a class has done since it was made, and what it does now.
type ClassStats struct {
	Name     string
	Level    Level
	Nice     int
	Inline   bool
	Queue    int           // most tasks that may wait
	Deadline time.Duration // default of its tasks

	Waiting     int           // tasks that wait, held back ones included
	Running     int           // tasks that run; of an inline class, 0
	Oldest      time.Duration // how long the task that waits longest has waited
	MostWaiting int           // that ever waited at once
	NewestFirst bool          // the wait stands above the target

	Accepted uint64 // of these: Ran, Panicked, Shed, Expired, Canceled, Drained, Waiting and Running
	Ran      uint64
	Late     uint64 // of those that ran or panicked: ended after their deadline
	Panicked uint64
	Rejected uint64 // not accepted
	TooSoon  uint64 // of these: before their source's interval was over
	Shed     uint64
	Expired  uint64
	Canceled uint64
	Drained  uint64

	Wait  Latency // from Submit to the beginning
	Run   Latency // from the beginning to the end
	Total Latency // from Submit to the end
}

// Stats is a snapshot of an executor.
type Stats struct {
	Classes    []ClassStats
	Workers    int           // workers of each niceness
	GOMAXPROCS int           // now
	TookProcs  bool          // the executor set it
	Scheduling time.Duration // 99th percentile of the runtime's scheduling latency, of the last 100 ms in which there was work
	GaveWay    uint64        // how often lowered workers gave way to others
	Stalls     uint64        // handlers that were found over their budget
	Panics     uint64        // handlers that panicked
}

// Stats returns a snapshot. Classes are in the order in which they were made, the three built-in ones first.
func (ex *Executor) Stats() Stats {
	ex.mu.Lock()
	classes, pools := ex.classes, ex.pools
	ex.mu.Unlock()
	s := Stats{
		Workers: int(ex.workers.Load()), GOMAXPROCS: runtime.GOMAXPROCS(0), TookProcs: ex.procs != nil,
		Scheduling: time.Duration(ex.scheduling.Load()), Stalls: ex.stalls.Load(), Panics: ex.panics.Load(),
	}
	for _, c := range classes {
		s.Classes = append(s.Classes, c.Stats())
	}
	for _, p := range pools {
		p.mu.Lock()
		s.GaveWay += p.ctl.Cuts
		p.mu.Unlock()
	}
	return s
}

// Stats returns a snapshot of the class.
func (c *Class) Stats() ClassStats {
	s := ClassStats{Name: c.name, Level: c.cfg.Level, Nice: c.cfg.Nice, Inline: c.cfg.Inline, Queue: c.cfg.Queue, Deadline: c.cfg.Deadline}
	mu := c.lock()
	mu.Lock()
	wait, run, total := c.wait, c.run, c.total
	s.Accepted, s.Late, s.TooSoon = c.accepted, c.late, c.tooSoon
	n := c.count
	if k := c.core; k != nil {
		s.Waiting, s.Running, s.Oldest, s.MostWaiting, s.NewestFirst = k.Waiting(), k.InFlight(), k.Oldest(mono.Now()), k.Longest, k.Newest()
		s.Accepted, s.TooSoon = k.Accepted, k.TooSoon
		for f, m := range k.Fate {
			n[f] += m
		}
	}
	mu.Unlock()
	s.Ran, s.Panicked, s.Rejected, s.Shed = n[Ran], n[Panicked], n[Rejected], n[Shed]
	s.Expired, s.Canceled, s.Drained = n[Expired], n[Canceled], n[Drained]
	s.Wait, s.Run, s.Total = latencyOf(&wait), latencyOf(&run), latencyOf(&total)
	return s
}
