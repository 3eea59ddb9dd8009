package aem

import (
	"runtime"
	"sync/atomic"
	"time"

	"midplane/internal/aem/loop"
	"midplane/internal/aem/worker"
	"midplane/internal/mono"
)

// beat is how often the runtime is made to look at the network while lowered workers run. Shorter ones cost more (0.5 ms: a twentieth of two
// processors) and gained nothing.
const beat = 2 * time.Millisecond

// pacemaker keeps the runtime polling while lowered workers run. A thread that schedules a goroutine which is locked to another
// thread hands its P over and goes to sleep (runtime/proc.go:startlockedm). Every stop of the world puts all lowered handlers that run
// through that, and often nobody is left in the network poller then, although Ps are idle: descriptors and timers wait until sysmon
// looks, 10 ms later. So somebody whom the kernel wakes by itself readies a goroutine now and then, which makes the runtime start a
// thread that polls, runs what is ready, and stays in the poller: a loop that keeps its P does it before it waits, which it does
// every 2 ms; without one, a thread of the pacemaker's own, which sleeps past the runtime and keeps its P as well. If it gave it up each
// time, sysmon would hand it over and look again after 20 us, all the time, for a tenth of a processor.
type pacemaker struct {
	running atomic.Int64 // lowered handlers that run
	loops   atomic.Int64 // loops that keep their P meanwhile
	last    atomic.Int64 // when a loop beat
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
	runtime.LockOSThread()  // for good: the thread sleeps by itself
	_ = worker.ShortSlice() // as well as it goes
	keep := loop.CanHold()  // else who stops the world would wait for the thread to wake
	for !p.quit.Load() {
		if p.wanted() {
			worker.Sleep(beat, keep)
			p.beat()
			continue
		}
		p.asleep.Store(true)
		if !p.wanted() && !p.quit.Load() {
			p.park.Park()
		}
		p.asleep.Store(false)
	}
}

// wanted reports whether the thread has to beat.
func (p *pacemaker) wanted() bool { return p.running.Load() > 0 && p.loops.Load() == 0 }

func (p *pacemaker) beat() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// poked is the goroutine that is readied. It only counts.
func (p *pacemaker) poked() {
	for !p.quit.Load() {
		<-p.poke
		p.beats.Add(1)
	}
}

// hold is asked by a loop before it waits, and says whether the wait keeps its P: while lowered workers run.
func (p *pacemaker) hold(now mono.Time) bool {
	if p.running.Load() == 0 {
		return false
	}
	if last := p.last.Load(); now.Sub(mono.Time(last)) >= beat && p.last.CompareAndSwap(last, int64(now)) {
		p.beat()
	}
	return true
}

func (p *pacemaker) begin() {
	if p.running.Add(1) == 1 {
		p.wake()
	}
}

func (p *pacemaker) end() { p.running.Add(-1) }

// leave takes a loop away that kept its P.
func (p *pacemaker) leave() {
	if p.loops.Add(-1) == 0 {
		p.wake()
	}
}

func (p *pacemaker) wake() {
	if p.asleep.Load() && p.wanted() {
		p.park.Unpark()
	}
}

func (p *pacemaker) stop() {
	p.quit.Store(true)
	p.park.Unpark()
	p.beat()
}
