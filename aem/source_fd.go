package aem

import (
	"errors"
	"fmt"
	"sync"

	"midplane/internal/aem/source"
)

// fdSource is a source that reads a descriptor whenever that is ready.
type fdSource[T any] struct {
	name string
	want Ready
	open func() (fd int, err error)
	// read reads what is there and emits it; source.ErrAgain ends it in good order.
	read func(fd int, emit func(T) error) error

	mu sync.Mutex // guards the following
	w  *Watch
}

// String names the source.
func (s *fdSource[T]) String() string { return s.name }

// Start opens the descriptor.
func (s *fdSource[T]) Start(to *Sink[T]) error {
	fd, err := s.open()
	if err != nil {
		return err
	}
	want := s.want
	if want == 0 {
		want = ReadyIn
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w, err = to.Loop().Watch(fd, want, func(_ Ready, err error) bool {
		if err == nil {
			err = s.read(fd, to.Emit)
		}
		if err != nil && !errors.Is(err, source.ErrAgain) {
			to.Fail(fmt.Errorf("aem: %s: %w", s.name, err))
			return false
		}
		return true
	}, func() { source.Close(fd) })
	return err
}

// Stop closes the descriptor.
func (s *fdSource[T]) Stop() {
	s.mu.Lock()
	w := s.w
	s.mu.Unlock()
	w.Close()
}

// readAll reads until nothing is there, a buffer at a time.
func readAll(fd int, b []byte, each func([]byte) error) error {
	for {
		n, err := source.Read(fd, b)
		if err != nil {
			return err
		}
		if n == 0 {
			return source.ErrAgain
		}
		if err := each(b[:n]); err != nil {
			return err
		}
	}
}
