package aem

import "context"

// Func is the source of what a function emits that waits by itself, for programs whose other package has no more than a
// blocking call. It runs on a goroutine of its own from Start until its context ends, and must return then, soon: Stop
// waits for it. When it returns by itself the source has ended with its error, ErrEnded if that is nil.
func Func[T any](name string, run func(ctx context.Context, emit func(T) error) error) Source[T] {
	return &funcSource[T]{name: name, run: run}
}

type funcSource[T any] struct {
	name string
	run  func(context.Context, func(T) error) error
	stop context.CancelFunc
	done chan struct{}
}

// String names the source.
func (s *funcSource[T]) String() string { return s.name }

// Start runs the function.
func (s *funcSource[T]) Start(to *Sink[T]) error {
	if s.run == nil {
		return &ConfigError{"function", "nil", "a function"}
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.stop, s.done = stop, done
	go func() {
		defer close(done)
		err := s.run(ctx, to.Emit)
		if ctx.Err() == nil {
			if err == nil {
				err = ErrEnded
			}
			to.Fail(err)
		}
	}()
	return nil
}

// Stop ends it.
func (s *funcSource[T]) Stop() {
	s.stop()
	<-s.done
}
