//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait of the lab that has no other bound. It is generous, because guests are slow when a
// machine of two processors runs many; what a test measures it measures itself.
const Patience = 2 * time.Minute

// maxOutput bounds what one program may write to each of its outputs before it is killed.
const maxOutput = 64 << 20

// Proc is a program that runs in a guest or in a namespace. Its methods are safe for concurrent use, except that
// only one goroutine at a time may follow the same output.
type Proc struct {
	Stdin  io.WriteCloser
	Stdout *Output
	Stderr *Output

	t    testing.TB
	name string

	signal func(syscall.Signal) error
	done   chan struct{}
	code   int   // valid once done is closed
	err    error // valid once done is closed
}

func newProc(t testing.TB, name string) *Proc {
	return &Proc{Stdout: newOutput(), Stderr: newOutput(), t: t, name: name, done: make(chan struct{})}
}

// ended records how the program ended and lets every waiter go.
func (p *Proc) ended(code int, err error) {
	p.code, p.err = code, err
	p.Stdout.close()
	p.Stderr.close()
	close(p.done)
}

// Done is closed when the program has ended and its output is complete.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns the exit code, 128 plus the number for a program ended by a signal.
// The error is about the lab (the program could not start, the guest went away), not about the program.
func (p *Proc) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.code, p.err
	case <-ctx.Done():
		return -1, fmt.Errorf("%s: %w", p.name, ctx.Err())
	}
}

// Finish waits for a good end and fails the test otherwise. It returns the standard output.
func (p *Proc) Finish() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil || code != 0 {
		p.t.Fatalf("%s: exit %d, %v\n%s%s", p.name, code, err, p.Stdout, p.Stderr)
	}
	return p.Stdout.String()
}

// Signal sends s to the program and to what it started.
func (p *Proc) Signal(s syscall.Signal) error { return p.signal(s) }

// Kill ends the program at once and waits until it is gone.
func (p *Proc) Kill() {
	_ = p.signal(syscall.SIGKILL)
	select {
	case <-p.done:
	case <-time.After(Patience):
		p.t.Errorf("%s did not die", p.name)
	}
}

// Event is one line of JSON that a program of the kit wrote; "event" names it.
type Event map[string]any

// Int returns a number of the event, 0 when it is absent.
func (e Event) Int(key string) int {
	f, _ := e[key].(float64)
	return int(f)
}

// Text returns a string of the event, empty when it is absent.
func (e Event) Text(key string) string {
	s, _ := e[key].(string)
	return s
}

// NextEvent returns the next line of standard output that is an event, waiting for it until ctx ends.
// Other lines are passed over.
func (p *Proc) NextEvent(ctx context.Context) (Event, error) {
	for {
		line, err := p.Stdout.Line(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		var e Event
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil && e.Text("event") != "" {
			return e, nil
		}
	}
}

// Expect waits for the next event with that name, passing over others, and fails the test when the program ends or
// Patience passes first.
func (p *Proc) Expect(event string) Event {
	p.t.Helper()
	return p.ExpectFunc(event, func(e Event) bool { return e.Text("event") == event })
}

// ExpectFunc is Expect for the next event that fits; what names it in the failure.
func (p *Proc) ExpectFunc(what string, fits func(Event) bool) Event {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for {
		e, err := p.NextEvent(ctx)
		if err != nil {
			p.t.Fatalf("waiting for %q: %v\n%s%s", what, err, tail(p.Stdout.String()), tail(p.Stderr.String()))
		}
		if fits(e) {
			return e
		}
	}
}

// ExpectLine waits for the next line of standard output that contains text, passing over others, and fails the test
// when the program ends or Patience passes first.
func (p *Proc) ExpectLine(text string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for {
		line, err := p.Stdout.Line(ctx)
		if err != nil {
			p.t.Fatalf("%s: waiting for a line with %q: %v\n%s%s", p.name, text, err, tail(p.Stdout.String()), tail(p.Stderr.String()))
		}
		if strings.Contains(line, text) {
			return line
		}
	}
}

func tail(s string) string {
	const keep = 4000
	if len(s) > keep {
		return "…" + s[len(s)-keep:]
	}
	return s
}

// Output collects what a program writes. String may be called at any time; Line is a cursor.
type Output struct {
	mu      sync.Mutex
	data    []byte        // guarded by mu
	cursor  int           // guarded by mu
	closed  bool          // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at each change
}

func newOutput() *Output { return &Output{changed: make(chan struct{})} }

// Write adds to what was written. It refuses when the bound is reached.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.data)+len(b) > maxOutput {
		return 0, fmt.Errorf("more than %d octets of output", maxOutput)
	}
	o.data = append(o.data, b...)
	o.wake()
	return len(b), nil
}

func (o *Output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.wake()
}

// wake lets whoever waits in Line look again. The caller holds mu.
func (o *Output) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// String returns everything written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.data)
}

// Line returns the next line without its end, waiting for it. io.EOF says that the program has ended.
func (o *Output) Line(ctx context.Context) (string, error) {
	for {
		o.mu.Lock()
		rest := o.data[o.cursor:]
		end := bytes.IndexByte(rest, '\n')
		if end >= 0 {
			o.cursor += end + 1
			o.mu.Unlock()
			return string(rest[:end]), nil
		}
		if o.closed {
			o.cursor = len(o.data)
			o.mu.Unlock()
			if len(rest) > 0 {
				return string(rest), nil
			}
			return "", io.EOF
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
