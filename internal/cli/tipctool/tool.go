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
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/grammar"
	"midplane/internal/cli/ipjson"
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
	c := &call{ctx: ctx, tool: t, path: t.Control}
	c.Words = t.Name
	o := grammar.Options{
		Long:  []string{"help", "json", "pretty", "control"},
		Value: map[string]func(string) error{"control": func(s string) error { c.path = s; return nil }},
		Flag:  c.Flag,
	}
	rest, err := o.Take(args)
	if err == nil {
		c.Args = slices.DeleteFunc(rest, func(a string) bool { return a == "--" })
		c.w.Pretty = c.Pretty
		err = c.Dispatch(root, c, &c.text, t.Stderr)
	}
	if err == nil {
		err = c.flush()
	}
	return grammar.Report(t.Stderr, err)
}

// call is one command under way.
type call struct {
	grammar.Line[*call]
	ctx  context.Context
	tool *Tool
	path string
	node api.Control
	text strings.Builder
	w    ipjson.Writer
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

// option is a key word after the command, with a value or without.
type option struct {
	key   string
	value bool
	set   bool
	val   string
}

func (o *option) names() []string { return []string{o.key} }

// options parses the remaining arguments: key words in any order, each abbreviated or not.
func (c *call) options(opts ...*option) error {
	for len(c.Args) > 0 {
		word := c.Args[0]
		o := grammar.Lookup(opts, word, (*option).names)
		if o == nil {
			return c.Wrongf("unknown or ambiguous option %q", word)
		}
		c.Args = c.Args[1:]
		o.set = true
		if o.value {
			if len(c.Args) == 0 {
				return c.Wrongf("%s needs a value", o.key)
			}
			o.val, c.Args = c.Args[0], c.Args[1:]
		}
	}
	return nil
}

func keyval(key string) *option { return &option{key: key, value: true} }
func key(key string) *option    { return &option{key: key} }

func (c *call) number(what, s string, max uint64) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > max {
		return 0, c.Wrongf("%s %q: want a number from 0 to %d", what, s, max)
	}
	return uint32(n), nil
}

func (c *call) ip(what, s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return ip, c.Wrongf("%s %q: want an IPv4 or IPv6 address", what, s)
	}
	return ip, nil
}

func (c *call) port(o *option) (uint16, error) {
	if !o.set {
		return 0, nil
	}
	n, err := strconv.ParseUint(o.val, 10, 16)
	if err != nil || n == 0 {
		return 0, c.Wrongf("%s %q: want a UDP port from 1 to 65535", o.key, o.val)
	}
	return uint16(n), nil
}

// ask puts one question to the node, for a command that takes no further words.
func ask[T any](c *call, question func(api.Control, context.Context) (T, error)) (answer T, err error) {
	if err := c.Done(); err != nil {
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
	if !c.JSON {
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
