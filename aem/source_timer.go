package aem

import (
	"fmt"
	"time"

	"midplane/internal/mono"
)

// Tick is the run of a timer.
type Tick struct {
	Late   time.Duration // how long after its time the loop saw it
	Missed int           // periods before it that are over and were left out, because the loop came too late
}

// Every is the source of a timer that runs every period, first one period after Start. Its times do not drift. A period is
// at least 1 ms.
func Every(period time.Duration) Source[Tick] { return &ticker{period: period, every: true} }

// After is the source of a timer that runs once, so long after each Start.
func After(d time.Duration) Source[Tick] { return &ticker{period: d} }

type ticker struct {
	period time.Duration
	every  bool
	timer  Timer
	sink   *Sink[Tick]
	at     mono.Time // the loop's own, like the timer
}

// String names the source.
func (t *ticker) String() string {
	if t.every {
		return fmt.Sprintf("every %v", t.period)
	}
	return fmt.Sprintf("after %v", t.period)
}

// Start sets the timer.
func (t *ticker) Start(to *Sink[Tick]) error {
	if t.every && t.period < time.Millisecond {
		return &ConfigError{"period", t.period, "at least 1ms"}
	}
	if t.period < 0 {
		return &ConfigError{"time", t.period, "a positive duration"}
	}
	t.sink = to
	l, at := to.Loop(), mono.Now().Add(t.period)
	if !l.post(func() {
		t.at = at
		l.timers.Stop(t.timer)
		t.timer = l.timers.set(at, t)
	}) {
		return ErrLoopClosed
	}
	return nil
}

// Stop stops it.
func (t *ticker) Stop() {
	l := t.sink.Loop()
	l.post(func() { l.timers.Stop(t.timer) })
}

// Expired is called by the loop.
func (t *ticker) Expired(Timer) {
	now := mono.Now()
	tick := Tick{Late: now.Sub(t.at)}
	if t.every {
		next := t.at.Add(t.period)
		if next <= now {
			tick.Missed = int(now.Sub(t.at) / t.period)
			next = t.at.Add(t.period * time.Duration(tick.Missed+1))
		}
		t.at = next
		t.timer = t.sink.Loop().timers.set(next, t)
	}
	_ = t.sink.emit(tick, nil, true)
}
