// Package fibtool is the `midplane fib` command: FIBs, their routes, next hops, neighbours and ports, in the grammar of
// iproute2's ip(8) and with its text and JSON, as far as there is the same thing there. It asks a fibapi.Control.
package fibtool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"midplane/fib"
	"midplane/internal/api/fibapi"
	"midplane/internal/cli/grammar"
	"midplane/internal/cli/ipjson"
	"midplane/internal/fib/service/spec"
)

// Tool is one invocation's surroundings.
type Tool struct {
	Name    string                           // how the command is called, for help
	Control string                           // default path of the control socket
	Connect func(path string) fibapi.Control // opens the daemon; may be lazy
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Enter   Enterer // how processes get into FIBs; nil: not here
}

// Enterer starts and finds processes in FIBs of this host.
type Enterer interface {
	// Exec replaces this process by a command in a FIB, at one of its ports or, with "", at any; it returns only with an error.
	Exec(ctx context.Context, fib, port string, hostDNS bool, argv []string) error
	// Identify returns the FIB of a process, "" if it is in none.
	Identify(pid int) (string, error)
	// Pids returns the processes of a FIB.
	Pids(fib string) ([]int, error)
}

// Run carries out one command line, without the command's own name, and returns the exit code.
func (t *Tool) Run(ctx context.Context, args []string) int {
	c := &call{ctx: ctx, tool: t, path: t.Control, out: bufio.NewWriterSize(t.Stdout, 64<<10)}
	rest, err := c.globalOptions(args)
	if err == nil {
		c.w.Pretty = c.Pretty
		if c.batch != "" {
			err = c.runBatch(rest)
		} else {
			err = c.run(rest)
		}
	}
	if ferr := c.flush(); err == nil {
		err = ferr
	}
	return c.report(err)
}

func (c *call) report(err error) int {
	var done exitError
	if errors.As(err, &done) {
		return int(done)
	}
	return grammar.Report(c.tool.Stderr, err)
}

// exitError ends a command that has said all itself.
type exitError int

func (e exitError) Error() string { return "exit code " + strconv.Itoa(int(e)) }

// call is one command under way.
type call struct {
	grammar.Line[*call]
	ctx     context.Context
	tool    *Tool
	path    string
	detail  bool
	stats   bool
	line    bool
	force   bool
	family  int // 4, 6, 0 both
	batch   string
	queue   *[]spec.Op   // with -batch: operations that wait
	reading func() error // with -batch: does what waits
	node    fibapi.Control
	out     *bufio.Writer
	w       ipjson.Writer
}

// wrong makes an error about a value one of the command line.
func (c *call) wrong(err error) error {
	var field *fib.FieldError
	if errors.As(err, &field) {
		return c.Wrongf("%s", field.Error())
	}
	return err
}

// control returns the daemon to ask.
func (c *call) control() fibapi.Control {
	if c.node == nil {
		c.node = c.tool.Connect(c.path)
	}
	return c.node
}

// ask returns the daemon to ask for what it has, with all that was changed before.
func (c *call) ask() (fibapi.Control, error) {
	if err := c.Done(); err != nil {
		return nil, err
	}
	if c.reading != nil {
		if err := c.reading(); err != nil {
			return nil, err
		}
	}
	return c.control(), nil
}

// apply does operations, now or with the batch.
func (c *call) apply(ops ...spec.Op) error {
	for _, op := range ops {
		if err := op.Check(); err != nil {
			return c.wrong(err)
		}
	}
	if c.queue != nil {
		*c.queue = append(*c.queue, ops...)
		return nil
	}
	return c.control().Apply(c.ctx, ops...)
}

func (c *call) printf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

// spill writes the JSON that there is, so that long answers need no memory.
func (c *call) spill() {
	if c.w.Buf.Len() > 0 {
		c.out.Write(c.w.Buf.Bytes()) // an error stays in out
		c.w.Buf.Reset()
	}
}

func (c *call) flush() error {
	c.spill()
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// list prints a table: text builds the lines, or json the array.
func (c *call) list(text func() error, json func() error) error {
	if !c.JSON {
		return text()
	}
	c.w.BeginArray()
	err := json()
	c.w.EndArray()
	c.spill()
	c.out.WriteByte('\n')
	return err
}

// globalOptions takes out the options that may stand anywhere before "--".
func (c *call) globalOptions(args []string) (rest []string, err error) {
	text := func(to *string) func(string) error {
		return func(s string) error { *to = s; return nil }
	}
	o := grammar.Options{
		Long:  []string{"help", "json", "pretty", "details", "statistics", "stats", "oneline", "family", "force", "batch", "control", "4", "6"},
		Value: map[string]func(string) error{"batch": text(&c.batch), "control": text(&c.path), "family": c.setFamily},
		Flag:  c.flag,
	}
	return o.Take(args)
}

func (c *call) setFamily(s string) error {
	n := map[string]int{"inet": 4, "inet6": 6}[s]
	if n == 0 {
		return &grammar.UsageError{Text: fmt.Sprintf("family %q: want inet or inet6", s)}
	}
	c.family = n
	return nil
}

func (c *call) flag(name string) bool {
	switch name {
	case "d", "details":
		c.detail = true
	case "s", "statistics", "stats":
		c.stats = true
	case "o", "oneline":
		c.line = true
	case "force":
		c.force = true
	case "4":
		c.family = 4
	case "6":
		c.family = 6
	default:
		return c.Flag(name)
	}
	return true
}

// run runs one command.
func (c *call) run(args []string) error {
	c.Args, c.Words = args, c.tool.Name
	return c.Dispatch(root, c, c.out, c.tool.Stderr)
}

// runBatch runs the commands of a file, a line each; "-" is standard input. Changes that follow each other are done
// together, all or none; with -force one by one, and an error does not end the batch.
func (c *call) runBatch(rest []string) error {
	if len(rest) > 0 {
		return &grammar.UsageError{Text: fmt.Sprintf("unexpected %q beside -batch", rest[0])}
	}
	in := c.tool.Stdin
	if c.batch != "-" {
		f, err := os.Open(c.batch)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	var queue []spec.Op
	if !c.force {
		c.queue = &queue
	}
	first, n, failed := 0, 0, 0
	fail := func(err error) error {
		what := fmt.Sprintf("%s:%d", c.batch, n)
		if len(queue) > 0 {
			what = fmt.Sprintf("%s:%d-%d", c.batch, first, n)
		}
		if c.force {
			fmt.Fprintf(c.tool.Stderr, "%s: ", what)
			failed = max(failed, c.report(err))
			return nil
		}
		var usage *grammar.UsageError
		if errors.As(err, &usage) {
			return &grammar.UsageError{Text: what + ": " + usage.Text, Usage: usage.Usage}
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	commit := func() error {
		if len(queue) == 0 {
			return nil
		}
		err := c.control().Apply(c.ctx, queue...)
		if err != nil {
			return fail(err)
		}
		queue = queue[:0]
		return nil
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		n++
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		before := len(queue)
		if before == 0 {
			first = n
		}
		if err := c.runLine(words, commit); err != nil {
			if before > 0 && len(queue) == before { // nothing of the batch is done
				queue = nil
			}
			if err := fail(err); err != nil {
				return err
			}
		}
		if len(queue) >= spec.MaxBatch {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", c.batch, err)
	}
	if err := commit(); err != nil {
		return err
	}
	if failed != 0 {
		return exitError(failed)
	}
	return nil
}

// runLine runs a line of a batch. One that reads sees the changes before it.
func (c *call) runLine(words []string, commit func() error) error {
	one := *c
	rest, err := one.globalOptions(words)
	if err != nil {
		return err
	}
	one.reading = func() error {
		if c.queue == nil {
			return nil
		}
		return commit()
	}
	err = one.run(rest)
	one.spill()
	c.node = one.node
	return err
}
