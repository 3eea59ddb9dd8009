// Package tipctool is the `tipc` command with the grammar of iproute2's tool: the same commands, key words, unique
// abbreviations, text and JSON output. Where the original talks netlink to the kernel, this one asks an api.Control.
//
// Differences on purpose, all documented in docs/cli.md: help that was asked for goes to standard output and exits 0;
// numbers are checked instead of read as far as they go; -j gives JSON for every command; exit codes tell usage
// errors, refusals and an absent node apart.
package tipctool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
)

// Exit codes.
const (
	ExitOK     = 0
	ExitFailed = 1 // the node refused, or output could not be written
	ExitUsage  = 2 // the command line is wrong
	ExitNoNode = 3 // nothing answers at the control socket
)

// Tool is one invocation's surroundings.
type Tool struct {
	Name    string                        // how the command is called, for help: "tipc" or "midplane tipc"
	Control string                        // default path of the control socket
	Connect func(path string) api.Control // opens the node; may be lazy
	Stdout  io.Writer
	Stderr  io.Writer
}

// Run carries out one command line, without the command's own name, and returns the exit code.
func (t *Tool) Run(ctx context.Context, args []string) int {
	c := &call{ctx: ctx, tool: t, path: t.Control, words: t.Name}
	rest, err := c.globalOptions(args)
	if err == nil {
		c.args = rest
		err = c.dispatch(root)
	}
	if err == nil {
		err = c.flush()
	}
	if err == nil {
		return ExitOK
	}
	var usage *usageError
	var absent *api.NoDaemonError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(t.Stderr, "error: %s\n", usage.text)
		if usage.usage != "" {
			fmt.Fprintf(t.Stderr, "usage: %s\n", usage.usage)
		}
		return ExitUsage
	case errors.As(err, &absent):
		fmt.Fprintf(t.Stderr, "error: %v\n", err)
		return ExitNoNode
	}
	fmt.Fprintf(t.Stderr, "error: %v\n", err)
	return ExitFailed
}

// call is one command under way.
type call struct {
	ctx    context.Context
	tool   *Tool
	path   string
	args   []string
	cmd    *command
	words  string // how cmd is called
	help   bool
	json   bool
	pretty bool
	node   api.Control
	text   strings.Builder
	w      ipjson.Writer
}

// usageError is a mistake in the command line.
type usageError struct {
	text  string
	usage string // of the command, if one was recognised
}

func (e *usageError) Error() string { return e.text }

func (c *call) usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), c.cmd.usage(c.words)}
}

// control returns the node to ask.
func (c *call) control() api.Control {
	if c.node == nil {
		c.node = c.tool.Connect(c.path)
	}
	return c.node
}

func (c *call) printf(format string, args ...any) { fmt.Fprintf(&c.text, format, args...) }

// flush writes the answer. Nothing is written before the command has succeeded.
func (c *call) flush() error {
	out := bufio.NewWriter(c.tool.Stdout)
	out.WriteString(c.text.String())
	if c.w.Buf.Len() > 0 {
		out.Write(c.w.Buf.Bytes())
		out.WriteByte('\n')
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// globalOptions takes out the options that may stand anywhere; "--" ends them.
func (c *call) globalOptions(args []string) (rest []string, err error) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return append(rest, args[i+1:]...), nil
		case strings.HasPrefix(a, "--"):
			name, value, hasValue := strings.Cut(a[2:], "=")
			var match string
			for _, o := range []string{"help", "json", "pretty", "control"} {
				if name != "" && strings.HasPrefix(o, name) {
					match = o
				}
			}
			if match == "control" {
				if !hasValue {
					if i++; i == len(args) {
						return nil, &usageError{"--control needs a path", ""}
					}
					value = args[i]
				}
				c.path = value
				continue
			}
			if match == "" || hasValue {
				return nil, &usageError{"unknown option " + strconv.Quote(a), ""}
			}
			c.flag(match[0])
		case len(a) > 1 && a[0] == '-':
			for _, o := range []byte(a[1:]) {
				if !c.flag(o) {
					return nil, &usageError{"unknown option " + strconv.Quote("-"+string(rune(o))), ""}
				}
			}
		default:
			rest = append(rest, a)
		}
	}
	return rest, nil
}

func (c *call) flag(o byte) bool {
	switch o {
	case 'h':
		c.help = true
	case 'j':
		c.json = true
	case 'p':
		c.pretty = true
	default:
		return false
	}
	return true
}

// dispatch finds the command for the next word, or runs cmd if it has no further ones.
func (c *call) dispatch(cmd *command) error {
	c.cmd = cmd
	if cmd.name != "" {
		c.words += " " + cmd.name
	}
	if len(cmd.sub) == 0 {
		if c.help {
			c.printHelp(cmd)
			return nil
		}
		c.w.Pretty = c.pretty
		return cmd.run(c)
	}
	if len(c.args) == 0 {
		if c.help {
			c.printHelp(cmd)
			return nil
		}
		fmt.Fprint(c.tool.Stderr, helpText(cmd, c.words))
		return &usageError{"a command is missing", ""}
	}
	word := c.args[0]
	sub := lookup(cmd.sub, word, func(s *command) string { return s.name })
	if sub == nil {
		if c.help {
			c.printHelp(cmd)
			return nil
		}
		return c.usagef("unknown or ambiguous command %q", word)
	}
	c.args = c.args[1:]
	return c.dispatch(sub)
}

// lookup returns the only item whose name begins with word; a full match wins over longer names.
func lookup[T any](items []*T, word string, name func(*T) string) *T {
	var match *T
	for _, it := range items {
		switch n := name(it); {
		case n == word:
			return it
		case !strings.HasPrefix(n, word):
		case match != nil:
			return nil
		default:
			match = it
		}
	}
	return match
}

// option is a key word after the command, with a value or without.
type option struct {
	key   string
	value bool
	set   bool
	val   string
}

// options parses the remaining arguments: key words in any order, each abbreviated or not.
func (c *call) options(opts ...*option) error {
	for len(c.args) > 0 {
		word := c.args[0]
		o := lookup(opts, word, func(o *option) string { return o.key })
		if o == nil {
			return c.usagef("unknown or ambiguous option %q", word)
		}
		c.args = c.args[1:]
		o.set = true
		if o.value {
			if len(c.args) == 0 {
				return c.usagef("%s needs a value", o.key)
			}
			o.val, c.args = c.args[0], c.args[1:]
		}
	}
	return nil
}

func keyval(key string) *option { return &option{key: key, value: true} }
func key(key string) *option    { return &option{key: key} }

// word takes the next argument.
func (c *call) word(what string) (string, error) {
	if len(c.args) == 0 {
		return "", c.usagef("missing %s", what)
	}
	w := c.args[0]
	c.args = c.args[1:]
	return w, nil
}

// done refuses what is left over.
func (c *call) done() error {
	if len(c.args) > 0 {
		return c.usagef("unexpected %q", c.args[0])
	}
	return nil
}

func (c *call) number(what, s string, max uint64) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > max {
		return 0, c.usagef("%s %q: want a number from 0 to %d", what, s, max)
	}
	return uint32(n), nil
}

func (c *call) ip(what, s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return ip, c.usagef("%s %q: want an IPv4 or IPv6 address", what, s)
	}
	return ip, nil
}

func (c *call) port(o *option) (uint16, error) {
	if !o.set {
		return 0, nil
	}
	n, err := strconv.ParseUint(o.val, 10, 16)
	if err != nil || n == 0 {
		return 0, c.usagef("%s %q: want a UDP port from 1 to 65535", o.key, o.val)
	}
	return uint16(n), nil
}

// ask puts one question to the node, for a command that takes no further words.
func ask[T any](c *call, question func(api.Control, context.Context) (T, error)) (answer T, err error) {
	if err := c.done(); err != nil {
		return answer, err
	}
	return question(c.control(), c.ctx)
}

// listNames is a command that lists names, one a line.
func listNames[T any](what string, question func(api.Control, context.Context) ([]T, error), name func(T) string) func(*call) error {
	return func(c *call) error {
		all, err := ask(c, question)
		if err != nil {
			return err
		}
		c.answer(func() {
			for _, it := range all {
				c.printf("%s\n", name(it))
			}
		}, func(w *ipjson.Writer) {
			for _, it := range all {
				w.BeginObject()
				w.Field(what, name(it))
				w.EndObject()
			}
		})
		return nil
	}
}

// answer prints a table or a list: text builds the lines, json the array.
func (c *call) answer(text func(), json func(w *ipjson.Writer)) {
	if !c.json {
		text()
		return
	}
	c.w.BeginArray()
	json(&c.w)
	c.w.EndArray()
}

// one prints a single value: alone on a line, or as an object with one member.
func (c *call) one(name string, v any) {
	c.answer(func() { c.printf("%v\n", v) }, func(w *ipjson.Writer) {
		w.BeginObject()
		w.Field(name, v)
		w.EndObject()
	})
}
