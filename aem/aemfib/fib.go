// Package aemfib makes events of changes of forwarding information bases.
package aemfib

import (
	"context"
	"fmt"
	"time"

	"midplane/aem"
	"midplane/fib"
)

// Change is that a FIB is new, another, or gone. Several changes that come between two looks are one event.
type Change struct {
	ID         fib.ID
	Name       string
	Generation uint64 // of the FIB: it counts changes of routes
	Changes    uint64 // since the last event of this FIB
	IPv4, IPv6 int    // routes now
	New, Gone  bool
}

// Changes is the source of changes of the FIBs of a set, looked for every interval (at least 1 ms): a FIB's generation is one
// word of memory, and looking at it disturbs nobody. FIBs that are there at Start are New first. Routes of the kernel's
// own tables are aem.Routes.
func Changes(s *fib.Set, interval time.Duration) aem.Source[Change] {
	return aem.Func(fmt.Sprintf("FIB changes every %v", interval), func(ctx context.Context, emit func(Change) error) error {
		if interval < time.Millisecond {
			return &aem.ConfigError{Field: "interval", Value: interval, Want: "at least 1ms"}
		}
		t := time.NewTicker(interval)
		defer t.Stop()
		w := watcher{set: s, seen: map[fib.ID]seen{}, emit: emit}
		for {
			w.look()
			select {
			case <-t.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
}

type watcher struct {
	set  *fib.Set
	seen map[fib.ID]seen
	emit func(Change) error
}

// seen is what was told of a FIB last.
type seen struct {
	generation uint64
	table      *fib.Table
}

// look tells of what is another than it was told. What is refused is told by the next look.
func (w *watcher) look() {
	there := map[fib.ID]bool{}
	for _, t := range w.set.Tables() {
		id, g := t.ID(), t.Generation()
		there[id] = true
		was, known := w.seen[id]
		known = known && was.table == t
		if known && was.generation == g {
			continue
		}
		c := Change{ID: id, Name: t.Name(), Generation: g, Changes: g, New: !known}
		if known {
			c.Changes = g - was.generation
		}
		c.IPv4, c.IPv6 = t.Len()
		if w.emit(c) == nil {
			w.seen[id] = seen{g, t}
		}
	}
	for id, was := range w.seen {
		if !there[id] && w.emit(Change{ID: id, Name: was.table.Name(), Gone: true}) == nil {
			delete(w.seen, id)
		}
	}
}
