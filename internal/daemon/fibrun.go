package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// running is what feeds of all kinds have in common: a goroutine that does the work until it is told to end.
type running struct {
	flush  func() // takes back what the feed brought
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	err error // the last one of the work
}

// run begins the work. An error of it is kept and logged; then, if again is not 0, it begins anew after that time.
func run(name string, log *slog.Logger, again time.Duration, work func(context.Context) error, flush func()) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{flush: flush, cancel: cancel}
	r.wg.Go(func() {
		for ctx.Err() == nil {
			err := work(ctx)
			if ctx.Err() != nil {
				return
			}
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			log.Error("feed", "name", name, "err", err)
			if again == 0 {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(again):
			}
		}
	})
	return r
}

// failure is the error that was kept, nil if there was none.
func (r *running) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close implements service.Feed.
func (r *running) Close() error {
	r.cancel()
	r.wg.Wait()
	return nil
}

// Withdraw implements service.Feed.
func (r *running) Withdraw() { r.flush() }
