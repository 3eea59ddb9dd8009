package aem

import (
	"runtime"
	"sync/atomic"
	"time"

	"midplane/internal/aem/worker"
)

// How often the pacemaker makes the runtime look at the network while lowered workers run. At 0.5 ms it and what it wakes take about
// 8 % of a processor. Loops that keep their P do not need it; the executor's own timers, at least, do.
const (
	beat     = 500 * time.Microsecond
	slowBeat = 2 * time.Millisecond // beside loops that keep their P
)

// pacemaker keeps the runtime polling while lowered workers run. A thread that schedules a goroutine which is locked to another
// thread hands its P over and goes to sleep (runtime/proc.go:startlockedm). Every stop of the world puts all lowered handlers that run
// through that, and often nobody is left in the network poller then, although Ps are idle: descriptors and timers wait until sysmon
// looks, 10 ms later. So a thread that sleeps by itself readies a goroutine now and then, which makes the runtime start a thread
// that polls, runs what is ready, and stays in the poller.
type pacemaker struct {
	running atomic.Int64 // lowered handlers that run
	loops   atomic.Int64 // loops that keep their P meanwhile
	asleep  atomic.Bool
	park    *worker.Parker
	poke    chan struct{}
	quit    atomic.Bool
	beats   atomic.Uint64
}

func newPacemaker() *pacemaker {
	return &pacemaker{park: worker.NewParker(true), poke: make(chan struct{}, 1)}
}

func (p *pacemaker) main() {
	runtime.LockOSThread() // for good: the thread sleeps by itself
	for !p.quit.Load() {
		if p.running.Load() > 0 {
			if p.loops.Load() > 0 {
				worker.Sleep(slowBeat)
			} else {
				worker.Sleep(beat)
			}
			select {
			case p.poke <- struct{}{}:
			default:
			}
			continue
		}
		p.asleep.Store(true)
		if p.running.Load() == 0 && !p.quit.Load() {
			p.park.Park()
		}
		p.asleep.Store(false)
	}
	close(p.poke)
}

// poked is the goroutine that is readied. It only counts.
func (p *pacemaker) poked() {
	for range p.poke {
		p.beats.Add(1)
	}
}

func (p *pacemaker) begin() {
	if p.running.Add(1) == 1 && p.asleep.Load() {
		p.park.Unpark()
	}
}

func (p *pacemaker) end() { p.running.Add(-1) }

func (p *pacemaker) stop() {
	p.quit.Store(true)
	p.park.Unpark()
}
