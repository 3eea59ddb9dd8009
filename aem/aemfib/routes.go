package aemfib

import (
	"context"
	"errors"
	"fmt"
	"time"

	"midplane/aem"
	"midplane/fib"
)

// RouteChange is one change of one route, or Reread: the table is to be read (again), because the event has just begun or
// because changes were lost (fib.ErrLost, or occurrences that the event's class refused). What changes from then on follows:
// with it may come what a Snapshot that the handler takes has already, which is known by a Generation that is not above the Snapshot's, and to
// be passed over. In a Reread, Update is zero.
type RouteChange struct {
	fib.Update
	Reread bool
}

// Routes is the source of changes of a FIB's routes, without waiting for an interval; a Reread comes first. They happen in
// their order, and are handled in it by a class that is inline or has one worker. Up to backlog changes (1 to 1,048,576)
// are kept for an event whose Pending is used up; writers never wait. The source ends with fib.ErrRemoved when the FIB is
// removed.
func Routes(t *fib.Table, backlog int) aem.Source[RouteChange] {
	return aem.Func(fmt.Sprintf("routes of FIB %v", t.ID()), func(ctx context.Context, emit func(RouteChange) error) error {
		w, err := t.Watch(backlog)
		if err != nil {
			return err
		}
		defer w.Close()
		return (&routes{watch: w, emit: emit, reread: true}).run(ctx)
	})
}

// again is when a Reread that was refused is tried again.
const again = 10 * time.Millisecond

type routes struct {
	watch  *fib.Watch
	emit   func(RouteChange) error
	buf    [64]fib.Update
	reread bool // is owed
}

func (r *routes) run(ctx context.Context) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		if err := r.tell(); err != nil {
			return err
		}
		if r.reread {
			retry.Reset(again)
		}
		select {
		case <-r.watch.Ready():
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// tell emits all there is. While a Reread is owed nothing else is told: it covers all.
func (r *routes) tell() error {
	for {
		n, err := r.watch.Next(r.buf[:])
		switch {
		case errors.Is(err, fib.ErrLost):
			r.reread = true
			continue
		case err != nil:
			return err
		case n == 0:
			if r.reread && r.emit(RouteChange{Reread: true}) == nil {
				r.reread = false
				continue
			}
			return nil
		}
		for _, u := range r.buf[:n] {
			if r.reread || r.emit(RouteChange{Update: u}) != nil {
				r.reread = true
			}
		}
	}
}
