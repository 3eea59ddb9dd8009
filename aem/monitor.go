package aem

import (
	"sync/atomic"
	"time"

	"midplane/internal/mono"
)

const (
	// tick is how often the monitor looks while there is something to look at. A task that waits learns at most so much
	// later that it has expired.
	tick = 5 * time.Millisecond
	// quietTicks is how long nothing must happen until the monitor sleeps and has to be woken.
	quietTicks = 100
)

// monitor does what must happen without anybody submitting: tasks expire and are released, stalls are found.
type monitor struct {
	ex     *Executor
	asleep atomic.Bool
	kick   chan struct{}
	quit   chan struct{}
	ended  chan struct{}
}

// poke wakes the monitor when it sleeps, or, in a hurry, when it waits for its next tick.
func (m *monitor) poke(hurry bool) {
	if hurry || m.asleep.Load() {
		select {
		case m.kick <- struct{}{}:
		default:
		}
	}
}

func (m *monitor) main() {
	defer close(m.ended)
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for quiet := 0; ; {
		now := mono.Now()
		next, busy := m.ex.advance(now)
		m.ex.findStalls(now)
		m.ex.control(now)
		if quiet++; busy {
			quiet = 0
		}
		if quiet > quietTicks {
			m.asleep.Store(true)
			if _, busy := m.ex.advance(mono.Now()); !busy {
				select {
				case <-m.kick:
				case <-m.quit:
					return
				}
			}
			m.asleep.Store(false)
			quiet = 0
			continue
		}
		timer.Reset(max(next.Until(mono.Now()), 200*time.Microsecond))
		select {
		case <-timer.C:
		case <-m.kick:
		case <-m.quit:
			return
		}
	}
}

// advance moves the queues of all pools on in time and returns when to do so next, and whether anything waits or runs.
func (ex *Executor) advance(now mono.Time) (next mono.Time, busy bool) {
	next = now.Add(tick)
	for _, p := range ex.poolList() {
		p.mu.Lock()
		p.core.Advance(now)
		dropped := p.decided()
		p.nextAt = now.Add(tick).Min(p.core.Deadline())
		next = next.Min(p.nextAt)
		busy = busy || p.busy()
		for range p.core.Waiting() {
			r := p.idleWorker()
			if r == nil {
				break
			}
			r.park.Unpark()
		}
		p.mu.Unlock()
		p.settle(dropped)
	}
	for _, x := range ex.contexts.list() {
		busy = busy || x.since.Load() != 0
	}
	return next, busy
}
