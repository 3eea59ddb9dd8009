package aem

import (
	"sync"
	"sync/atomic"

	"midplane/internal/aem/loop"
)

// Ready says what a descriptor is ready for; the values are those of poll(2).
type Ready uint32

// What a descriptor can be ready for. ReadyError and ReadyHangup are told unasked.
const (
	ReadyIn       = Ready(loop.In)
	ReadyPriority = Ready(loop.Pri)
	ReadyOut      = Ready(loop.Out)
	ReadyError    = Ready(loop.Err)
	ReadyHangup   = Ready(loop.Hup)
)

// Watch is a descriptor that a loop watches for a source.
type Watch struct {
	l      *Loop
	fd     int
	ready  func(Ready, error) bool
	free   func()
	handle loop.Handle // the loop's own
	closed atomic.Bool
	once   sync.Once
}

// Watch calls ready on the loop's goroutine, whenever the descriptor is ready for what is wanted, as long as it returns
// true; it must not block, and must do what makes the descriptor not ready, else it is called again at once. An error is
// told once and ends the watch.
// From the call on the descriptor is the loop's: free, which closes it, is called exactly once, when the watch has ended,
// also when Watch fails. Only Linux has descriptors to watch; elsewhere the error that is told is one of
// errors.ErrUnsupported.
func (l *Loop) Watch(fd int, want Ready, ready func(Ready, error) bool, free func()) (*Watch, error) {
	w := &Watch{l: l, fd: fd, ready: ready, free: free}
	if !l.post(func() {
		if w.closed.Load() {
			return
		}
		var err error
		if w.handle, err = l.back.Poll(fd, loop.Mask(want), w); err != nil {
			ready(0, err)
		}
	}) {
		w.once.Do(free)
		return nil, ErrLoopClosed
	}
	return w, nil
}

// Close ends the watch. A call of ready that runs is not waited for.
func (w *Watch) Close() {
	if w.closed.Swap(true) {
		return
	}
	if !w.l.post(func() {
		if w.handle == 0 || w.l.back.Close(w.handle) != nil {
			w.once.Do(w.free)
		}
	}) {
		<-w.l.ended // what watched it is gone then
		w.once.Do(w.free)
	}
}

func (w *Watch) happened(e *loop.Event) {
	switch e.Op {
	case loop.OpReady:
		if w.closed.Load() {
			return
		}
		if w.ready(Ready(e.Mask), nil) && !w.closed.Load() {
			if err := w.l.back.Rearm(w.handle); err != nil {
				w.ready(0, err)
			}
		}
	case loop.OpClosed:
		if e.Err != nil && !w.closed.Load() {
			w.ready(0, e.Err)
		}
		w.once.Do(w.free)
	}
}
