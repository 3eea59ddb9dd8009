package aem

import (
	"math"
	"runtime/metrics"
	"time"

	"midplane/internal/aem/ctl"
	"midplane/internal/aem/worker"
	"midplane/internal/mono"
)

const (
	// sampleEvery is how often the controller looks at the runtime's scheduling latencies.
	sampleEvery = 100 * time.Millisecond
	// schedulingGoal is the 99th percentile of scheduling latency above which lowered workers give way, for patience samples.
	schedulingGoal = 2 * time.Millisecond
	patience       = 5
)

// schedulingLatency reads how long goroutines wait for the runtime's scheduler.
type schedulingLatency struct {
	sample [1]metrics.Sample
	before []uint64
}

// p99 returns the 99th percentile since it was called last, 0 when nothing waited.
func (s *schedulingLatency) p99() time.Duration {
	s.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(s.sample[:])
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	h := s.sample[0].Value.Float64Histogram()
	if len(s.before) != len(h.Counts) {
		s.before = make([]uint64, len(h.Counts))
	}
	total := uint64(0)
	for i, n := range h.Counts {
		total += n - s.before[i]
	}
	left := total - total*99/100 // how many are at or above it
	d := time.Duration(0)
	for i := len(h.Counts) - 1; i >= 0; i-- {
		n := h.Counts[i] - s.before[i]
		if left > 0 && n >= left {
			if d = seconds(h.Buckets[i]); d < 0 {
				d = 0
			}
			left = 0
		} else if left > 0 {
			left -= n
		}
		s.before[i] = h.Counts[i]
	}
	return d
}

func seconds(f float64) time.Duration {
	if math.IsInf(f, 0) || f > 1e9 {
		return 0
	}
	return time.Duration(f * float64(time.Second))
}

// processors is how many workers there are when nobody has said; tests have another.
var processors = worker.Processors

// lookEvery is how often the executor looks how many processors the process has.
const lookEvery = time.Second

// look lets the number of workers follow that of processors, unless it was configured. The monitor calls it.
func (ex *Executor) look(now mono.Time) {
	if ex.cfg.Workers != 0 || now < ex.nextLook {
		return
	}
	ex.nextLook = now.Add(lookEvery)
	n := min(processors(), maxWorkers)
	if n == int(ex.workers.Load()) {
		return
	}
	ex.mu.Lock()
	ex.workers.Store(int64(n)) // pools that are made from now on have it
	pools := ex.pools
	ex.mu.Unlock()
	for _, p := range pools {
		p.mu.Lock()
		p.resize(n)
		p.mu.Unlock()
	}
}

// control measures and sets how many workers of each pool run. The monitor calls it.
func (ex *Executor) control(now mono.Time) {
	if now < ex.nextSample {
		return
	}
	ex.nextSample = now.Add(sampleEvery)
	ex.look(now)
	s := ctl.Sample{Scheduling: ex.latency.p99()}
	ex.scheduling.Store(int64(s.Scheduling))
	pools := ex.poolList()
	for _, p := range pools {
		if p.nice > 0 {
			continue
		}
		p.mu.Lock()
		for _, c := range p.classes {
			if c.cfg.Level == Critical {
				s.Urgent = max(s.Urgent, c.core.Oldest(now))
			}
		}
		p.mu.Unlock()
	}
	for _, p := range pools {
		p.mu.Lock()
		p.control(s, now)
		p.mu.Unlock()
	}
}

// control sets the number of workers of a pool. Those whose handler is stalled are replaced as long as it is, up to as many
// again. The caller holds the lock.
func (p *pool) control(s ctl.Sample, now mono.Time) {
	s.Stalled = 0
	for _, r := range p.runners {
		since, c := r.ctx.since.Load(), r.ctx.running.Load()
		if since != 0 && c != nil && now.Sub(mono.Time(since)) > c.cfg.Budget {
			s.Stalled++
		}
	}
	if p.nice == 0 {
		s.Scheduling, s.Urgent = 0, 0 // only lowered workers give way
	}
	n := p.ctl.Step(s)
	p.core.Limit(n)
	for len(p.runners) > 0 && len(p.runners) < n && !p.quit {
		p.start()
	}
}
