package aem

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
)

// ErrEnded is why a source ended that has nothing more to tell: a closed channel, a process that is gone.
var ErrEnded = errors.New("aem: the source has ended")

// Chan is the source of what comes over a channel. It receives while the event is started. A closed channel ends it with
// ErrEnded.
func Chan[T any](ch <-chan T) Source[T] { return &chanSource[T]{ch: ch} }

type chanSource[T any] struct {
	ch         <-chan T
	quit, done chan struct{}
}

// String names the source.
func (s *chanSource[T]) String() string { return fmt.Sprintf("%T", s.ch) }

// Start begins to receive.
func (s *chanSource[T]) Start(to *Sink[T]) error {
	s.quit, s.done = make(chan struct{}), make(chan struct{})
	go func(quit, done chan struct{}) {
		defer close(done)
		for {
			select {
			case v, ok := <-s.ch:
				if !ok {
					to.Fail(ErrEnded)
					return
				}
				_ = to.Emit(v)
			case <-quit:
				return
			}
		}
	}(s.quit, s.done)
	return nil
}

// Stop ends receiving.
func (s *chanSource[T]) Stop() {
	close(s.quit)
	<-s.done
}

// Signals is the source of signals of the process. Those that no handler is started for act as they do without this
// package.
func Signals(sigs ...os.Signal) Source[os.Signal] { return &signals{sigs: sigs} }

type signals struct {
	sigs []os.Signal
	ch   chan os.Signal
	in   Source[os.Signal]
}

// String names the source.
func (s *signals) String() string {
	var names []string
	for _, sig := range s.sigs {
		names = append(names, sig.String())
	}
	return "signal " + strings.Join(names, ", ")
}

// Start begins to catch the signals.
func (s *signals) Start(to *Sink[os.Signal]) error {
	if len(s.sigs) == 0 {
		return &ConfigError{"signals", "none", "at least one"}
	}
	s.ch = make(chan os.Signal, 64)
	s.in = Chan(s.ch)
	if err := s.in.Start(to); err != nil {
		return err
	}
	signal.Notify(s.ch, s.sigs...)
	return nil
}

// Stop ends catching.
func (s *signals) Stop() {
	signal.Stop(s.ch)
	s.in.Stop()
}
