// Package grammar is that of iproute2's commands: words of a tree of commands, each of which may be cut short as long as it
// is the only one, options anywhere between them, and what is wrong with a line said with the usage of the command that was
// recognised.
package grammar

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"midplane/internal/api"
)

// Exit codes.
const (
	ExitOK     = 0
	ExitFailed = 1 // the node refused, or output could not be written
	ExitUsage  = 2 // the command line is wrong
	ExitNoNode = 3 // nothing answers at the control socket
)

// UsageError is a mistake in the command line.
type UsageError struct {
	Text  string
	Usage string // of the command, if one was recognised
}

// Error implements error.
func (e *UsageError) Error() string { return e.Text }

// Report says what went wrong, and returns the exit code for it.
func Report(w io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	var usage *UsageError
	if errors.As(err, &usage) {
		fmt.Fprintf(w, "error: %s\n", usage.Text)
		if usage.Usage != "" {
			fmt.Fprintf(w, "usage: %s\n", usage.Usage)
		}
		return ExitUsage
	}
	fmt.Fprintf(w, "error: %v\n", err)
	var absent *api.NoDaemonError
	if errors.As(err, &absent) {
		return ExitNoNode
	}
	return ExitFailed
}

// Command is a word of the grammar: with further words below it, or with something to run. The first of a tree has no name.
type Command[C any] struct {
	Name    string
	Alias   []string
	Args    string // what follows, for the usage line
	Short   string
	Long    string // further lines of help
	Options string // further ones of the first: its options
	Sub     []*Command[C]
	Def     string // of Sub, run when nothing follows
	Run     func(C) error
}

// Usage is the grammar of a command that is called by words.
func (cmd *Command[C]) Usage(words string) string {
	if cmd == nil {
		return words + " COMMAND ..."
	}
	if cmd.Args != "" {
		words += " " + cmd.Args
	}
	if len(cmd.Sub) > 0 {
		words += " COMMAND ..."
	}
	return words
}

// Help explains a command that is called by words.
func (cmd *Command[C]) Help(words string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s\n", cmd.Usage(words))
	if cmd.Short != "" {
		fmt.Fprintf(&b, "\n%s.\n", cmd.Short)
	}
	if len(cmd.Sub) > 0 {
		b.WriteString("\ncommands (any unique beginning of a word will do):\n")
		for _, s := range cmd.Sub {
			fmt.Fprintf(&b, "  %-12s %s\n", s.Name, s.Short)
		}
	}
	b.WriteString(cmd.Options)
	if cmd.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	return b.String()
}

// Find returns the command below this one that word means, nil if there is none or more than one.
func (cmd *Command[C]) Find(word string) *Command[C] {
	return Lookup(cmd.Sub, word, func(s *Command[C]) []string { return append([]string{s.Name}, s.Alias...) })
}

// Lookup returns the item that word means: one that has it for a name or, if there is none, the only one whose first name
// begins with it.
func Lookup[T any](items []*T, word string, names func(*T) []string) *T {
	for _, it := range items {
		if slices.Contains(names(it), word) {
			return it
		}
	}
	var match *T
	for _, it := range items {
		if strings.HasPrefix(names(it)[0], word) {
			if match != nil {
				return nil
			}
			match = it
		}
	}
	return match
}

// Manual lists every command with its arguments, a line each, indented by two spaces.
func (cmd *Command[C]) Manual() string {
	var b strings.Builder
	var walk func(words string, cmd *Command[C])
	walk = func(words string, cmd *Command[C]) {
		if len(cmd.Sub) == 0 {
			args := strings.Join(strings.Fields(cmd.Args), " ")
			b.WriteString(strings.TrimRight("  "+words+" "+strings.ReplaceAll(args, " or: key ", " or "), " ") + "\n")
		}
		for _, s := range cmd.Sub {
			walk(strings.TrimSpace(words+" "+s.Name), s)
		}
	}
	walk("", cmd)
	return strings.TrimSuffix(b.String(), "\n")
}

// Complete returns what may follow the words of a command, each with a tab and its description behind; nothing when it is
// an argument.
func (cmd *Command[C]) Complete(words []string) (next []string) {
	for _, w := range words {
		if strings.HasPrefix(w, "-") {
			continue
		}
		if cmd = cmd.Find(w); cmd == nil {
			return nil
		}
	}
	for _, s := range cmd.Sub {
		next = append(next, s.Name+"\t"+s.Short)
	}
	return next
}
