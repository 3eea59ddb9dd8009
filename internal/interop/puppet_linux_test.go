//go:build linux

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/internal/mono"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/stack"
	"midplane/tipc"
)

// A puppet runs pieces of python on a guest's sockets; see puppet.py for what they can use.
type puppet struct {
	t    testing.TB
	proc *lab.Proc

	mu      sync.Mutex
	n       int                    // guarded by mu
	answers map[int]chan lab.Event // guarded by mu
}

func newPuppet(t testing.TB, g *lab.Guest) *puppet {
	t.Helper()
	p := &puppet{t: t, proc: g.Program("puppet.py"), answers: map[int]chan lab.Event{}}
	p.proc.Expect("ready")
	go func() {
		for {
			e, err := p.proc.NextEvent(context.Background())
			p.mu.Lock()
			if err != nil {
				for _, c := range p.answers {
					close(c)
				}
				p.answers = nil
				p.mu.Unlock()
				return
			}
			if c := p.answers[e.Int("n")]; c != nil {
				c <- e
			}
			p.mu.Unlock()
		}
	}()
	return p
}

// start starts a piece; what it returns waits for the piece's end.
func (p *puppet) start(format string, args ...any) func() answer {
	p.t.Helper()
	code := fmt.Sprintf(format, args...)
	c := make(chan lab.Event, 1)
	p.mu.Lock()
	p.n++
	n := p.n
	if p.answers == nil {
		close(c)
	} else {
		p.answers[n] = c
	}
	line, _ := json.Marshal(map[string]any{"n": n, "code": code})
	_, err := p.proc.Stdin.Write(append(line, '\n'))
	p.mu.Unlock()
	if err != nil {
		p.t.Fatalf("puppet: %v", err)
	}
	return func() answer {
		p.t.Helper()
		select {
		case e, ok := <-c:
			if !ok {
				p.t.Fatalf("puppet ended while running %q\n%s", code, p.proc.Stderr)
			}
			if strings.Contains(e.Text("error"), "Traceback") {
				p.t.Fatalf("puppet: %q: %s", code, e.Text("error"))
			}
			return answer{p.t, code, e}
		case <-time.After(lab.Patience):
			p.t.Fatalf("puppet: no end of %q", code)
			panic("unreachable")
		}
	}
}

// do runs a piece to its end, whatever that is.
func (p *puppet) do(format string, args ...any) answer {
	p.t.Helper()
	return p.start(format, args...)()
}

// must runs a piece to its end, which must be good.
func (p *puppet) must(format string, args ...any) answer {
	p.t.Helper()
	return p.do(format, args...).good()
}

// answer is how a piece of python ended.
type answer struct {
	t    testing.TB
	code string
	e    lab.Event
}

func (a answer) good() answer {
	a.t.Helper()
	if a.err() != "" {
		a.t.Fatalf("puppet: %q: %s", a.code, a.err())
	}
	return a
}

func (a answer) err() string      { return a.e.Text("error") }
func (a answer) text() string     { return a.e.Text("value") }
func (a answer) number() int      { return a.e.Int("value") }
func (a answer) String() string   { return fmt.Sprint(map[string]any(a.e)) }
func (a answer) field() lab.Event { m, _ := a.e["value"].(map[string]any); return lab.Event(m) }
func (a answer) list() (out []int) {
	l, _ := a.e["value"].([]any)
	for _, x := range l {
		f, _ := x.(float64)
		out = append(out, int(f))
	}
	return out
}

// errnoName is what Linux would call err, "" for none.
func errnoName(err error) string {
	if err == nil {
		return ""
	}
	for name, e := range map[string]syscall.Errno{
		"EHOSTUNREACH": syscall.EHOSTUNREACH, "ECONNREFUSED": syscall.ECONNREFUSED, "ETIMEDOUT": syscall.ETIMEDOUT,
		"ECONNRESET": syscall.ECONNRESET, "EPIPE": syscall.EPIPE, "EMSGSIZE": syscall.EMSGSIZE, "ENOTCONN": syscall.ENOTCONN,
		"EINVAL": syscall.EINVAL, "EACCES": syscall.EACCES,
	} {
		if errors.Is(err, e) {
			return name
		}
	}
	return err.Error()
}

// core gives access to the socket under a PacketConn, a Conn or a Listener.
func core(n *tipc.Node, a tipc.SocketAddr, f func(now mono.Time, s *socket.Sock)) {
	n.Internals().Do(func(now mono.Time, s *stack.Stack) {
		if k := s.Sockets().Lookup(a.Port); k != nil {
			f(now, k)
		}
	})
}
