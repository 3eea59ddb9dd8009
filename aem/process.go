package aem

import (
	"errors"
	"os"
	"os/exec"
	"sync"
)

// processes are what an event started.
type processes struct {
	mu   sync.Mutex // guards the following
	live map[*os.Process]struct{}
	down bool
	wg   sync.WaitGroup
}

// Exit is how a process of an event ended.
type Exit struct {
	Event *Event
	Cmd   *exec.Cmd // ended; its ProcessState is set
	Err   error     // of starting it, or of Wait
}

// Run is a handler that runs a process for each occurrence: what command returns, nothing if that is nil. The process
// belongs to the event: at most limit run at once, further occurrences then run none and ended is told ErrProcesses;
// Shutdown kills those that run and waits for them; Stop leaves them alone. ended, when not nil, is told of each end, on a
// goroutine of its own. Starting a process takes about a millisecond: not for inline classes.
func Run[T any](limit int, command func(*Ctx, T) *exec.Cmd, ended func(Exit)) func(*Ctx, T) {
	if ended == nil {
		ended = func(Exit) {}
	}
	return func(c *Ctx, v T) {
		cmd := command(c, v)
		if cmd == nil {
			return
		}
		e := c.Event()
		if err := e.procs.start(limit, cmd, func(err error) { ended(Exit{e, cmd, err}) }); err != nil {
			ended(Exit{e, cmd, err})
		}
	}
}

// ErrProcesses is the error of an occurrence that found as many processes of the event running as may.
var ErrProcesses = errors.New("aem: as many processes of the event run as may")

// Processes is how many processes of the event run.
func (e *Event) Processes() int {
	e.procs.mu.Lock()
	defer e.procs.mu.Unlock()
	return len(e.procs.live)
}

func (s *slot) event() *Event { return s.ev }

// Event returns the event whose occurrence is handled, nil when the task is not one.
func (c *Ctx) Event() *Event {
	if o, ok := c.task.Arg.(interface{ event() *Event }); ok {
		return o.event()
	}
	return nil
}

func (p *processes) start(limit int, cmd *exec.Cmd, ended func(error)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return ErrDown
	}
	if len(p.live) >= limit {
		return ErrProcesses
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if p.live == nil {
		p.live = map[*os.Process]struct{}{}
	}
	p.live[cmd.Process] = struct{}{}
	p.wg.Go(func() {
		err := cmd.Wait()
		p.mu.Lock()
		delete(p.live, cmd.Process)
		p.mu.Unlock()
		ended(err)
	})
	return nil
}

func (p *processes) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for proc := range p.live {
		_ = proc.Kill()
	}
}

func (p *processes) wait() { p.wg.Wait() }
