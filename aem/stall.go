package aem

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"midplane/internal/mono"
)

// Stall is a handler that has run for longer than the budget of its class.
type Stall struct {
	Class   string
	Handler string        // name of the function, "" when the stack does not tell
	Running time.Duration // until it was found
	Stack   string        // of its goroutine
}

// Panic is a handler that panicked.
type Panic struct {
	Class string
	Value any // nil when it left by runtime.Goexit
	Stack string
}

// stackEvery is the least time between two tracebacks: one stops all goroutines for as long as it takes.
const stackEvery = time.Second

// findStalls looks for handlers over their budget, and reports each once.
func (ex *Executor) findStalls(now mono.Time) {
	check := func(x *Ctx) {
		since := x.since.Load()
		c := x.running.Load()
		if since == 0 || since == x.told || c == nil || now.Sub(mono.Time(since)) <= c.cfg.Budget || x.since.Load() != since {
			return
		}
		if now < ex.nextStack {
			return // a later tick finds it, if it goes on
		}
		x.told = since
		ex.nextStack = now.Add(stackEvery)
		ex.stalls.Add(1)
		s := Stall{Class: c.name, Running: now.Sub(mono.Time(since))}
		s.Stack, s.Handler = stackOf(x)
		if ex.cfg.OnStall != nil {
			ex.cfg.OnStall(s)
			return
		}
		ex.log.Warn("handler stalls", slog.String("class", s.Class), slog.String("handler", s.Handler),
			slog.Duration("running", s.Running), slog.String("stack", s.Stack))
	}
	for _, p := range ex.poolList() {
		p.mu.Lock()
		ex.scratch = append(ex.scratch[:0], p.runners...)
		p.mu.Unlock()
		for _, r := range ex.scratch {
			check(&r.ctx)
		}
	}
	for _, x := range ex.contexts.list() {
		check(x)
	}
}

// stackOf returns the stack of the goroutine in which a context runs, and the name of its handler.
func stackOf(x *Ctx) (stack, handler string) {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || len(buf) >= 16<<20 {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 4*len(buf))
	}
	frame := fmt.Sprintf("aem.(*Ctx).run(%p", x)
	if rs := x.routines.Load(); rs != nil {
		frame = fmt.Sprintf("aem.(*Routines).call(%p", rs)
	}
	for g := range bytes.SplitSeq(buf, []byte("\n\n")) {
		s := string(g)
		header, _, _ := strings.Cut(s, "\n")
		if strings.Contains(s, frame) && !strings.Contains(header, "[coroutine") { // those are routines that wait
			return s, handlerOf(s)
		}
	}
	return "", ""
}

// handlerOf finds the function that was called as a handler.
func handlerOf(stack string) string {
	last := ""
	for line := range strings.SplitSeq(stack, "\n") {
		if strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "goroutine ") {
			continue
		}
		f := line
		if i := strings.LastIndexByte(f, '('); i > 0 {
			f = f[:i]
		}
		switch {
		case strings.HasSuffix(f, "aem.(*Ctx).run"), strings.HasSuffix(f, "aem.(*Routines).call"):
			return last
		case strings.HasSuffix(f, "aem.runGo"), strings.HasSuffix(f, "aem.(*Ctx).traced"): // around the user's own
		default:
			last = f
		}
	}
	return ""
}

// panicked reports a handler that did not return. It runs in the handler's goroutine, while its stack still stands.
func (ex *Executor) panicked(x *Ctx, value any) {
	ex.panics.Add(1)
	p := Panic{Class: x.class.name, Value: value, Stack: string(debug.Stack())}
	if ex.cfg.OnPanic != nil {
		ex.cfg.OnPanic(p)
		return
	}
	what := "runtime.Goexit"
	if value != nil {
		what = fmt.Sprint(value)
	}
	ex.log.Error("handler panicked", slog.String("class", p.Class), slog.String("value", what), slog.String("stack", p.Stack))
}
