package aem

import (
	"errors"
	"slices"
	"sync"
)

// Group is a set of events that are started and stopped together. The zero Group is empty. Its methods are safe for
// concurrent use.
type Group struct {
	mu     sync.Mutex
	events []*Event
}

// Add puts events into the group. An event may be in several.
func (g *Group) Add(events ...*Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range events {
		if e != nil && !slices.Contains(g.events, e) {
			g.events = append(g.events, e)
		}
	}
}

// Events returns the members, in the order in which they were added.
func (g *Group) Events() []*Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.events)
}

// Start starts all events, or none: when one cannot, those that this call started are stopped again.
func (g *Group) Start() error {
	var started []*Event
	for _, e := range g.Events() {
		was := e.State()
		if err := e.Start(); err != nil {
			for _, s := range slices.Backward(started) {
				_ = s.Stop()
			}
			return err
		}
		if was != Started {
			started = append(started, e)
		}
	}
	return nil
}

// Stop stops all events, the last one first.
func (g *Group) Stop() error {
	return g.each((*Event).Stop)
}

// Shutdown shuts all events down, the last one first. As with one event, no handler of them may call it.
func (g *Group) Shutdown() error {
	return g.each((*Event).Shutdown)
}

func (g *Group) each(f func(*Event) error) error {
	var errs []error
	for _, e := range slices.Backward(g.Events()) {
		if err := f(e); err != nil && !errors.Is(err, ErrDown) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// All is the group of all events of the loop that are not shut down, as they are now.
func (l *Loop) All() *Group {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := &Group{}
	for e := range l.all {
		g.events = append(g.events, e)
	}
	slices.SortFunc(g.events, func(a, b *Event) int { return int(a.serial) - int(b.serial) })
	return g
}
