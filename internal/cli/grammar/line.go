package grammar

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Line is a command line that is being read.
type Line[C any] struct {
	Args  []string    // what is left
	Cmd   *Command[C] // as far as it was recognised
	Words string      // how Cmd is called
	Asked bool        // for help

	JSON, Pretty bool // how to answer
}

// Flag takes the options that all tools have: h, j, p and their long names. It says whether it was one.
func (l *Line[C]) Flag(name string) bool {
	switch name {
	case "h", "help":
		l.Asked = true
	case "j", "json":
		l.JSON = true
	case "p", "pretty":
		l.Pretty = true
	default:
		return false
	}
	return true
}

// Wrongf makes an error of what is wrong with the line.
func (l *Line[C]) Wrongf(format string, args ...any) error {
	return &UsageError{fmt.Sprintf(format, args...), l.Cmd.Usage(l.Words)}
}

// Peek returns the next word, "" if there is none.
func (l *Line[C]) Peek() string {
	if len(l.Args) == 0 {
		return ""
	}
	return l.Args[0]
}

// Word takes the next word.
func (l *Line[C]) Word(what string) (string, error) {
	if len(l.Args) == 0 {
		return "", l.Wrongf("missing %s", what)
	}
	w := l.Args[0]
	l.Args = l.Args[1:]
	return w, nil
}

// Done refuses what is left over.
func (l *Line[C]) Done() error {
	if len(l.Args) > 0 {
		return l.Wrongf("unexpected %q", l.Args[0])
	}
	return nil
}

// Dispatch finds the command for the next words and runs it. Help that was asked for goes to out; that of a line without
// a command, which is an error, to errs.
func (l *Line[C]) Dispatch(cmd *Command[C], call C, out, errs io.Writer) error {
	for {
		l.Cmd = cmd
		if cmd.Name != "" {
			l.Words += " " + cmd.Name
		}
		help := func() error { _, err := io.WriteString(out, cmd.Help(l.Words)); return err }
		switch {
		case len(cmd.Sub) == 0 && l.Asked:
			return help()
		case len(cmd.Sub) == 0:
			return cmd.Run(call)
		case len(l.Args) == 0 && l.Asked:
			return help()
		}
		word := cmd.Def
		if len(l.Args) > 0 {
			word, l.Args = l.Args[0], l.Args[1:]
		}
		if word == "" {
			fmt.Fprint(errs, cmd.Help(l.Words))
			return &UsageError{Text: "a command is missing"}
		}
		sub := cmd.Find(word)
		if sub == nil && (word == "help" || l.Asked) {
			return help()
		}
		if sub == nil {
			return l.Wrongf("unknown or ambiguous command %q", word)
		}
		cmd = sub
	}
}

// Options are those that may stand anywhere on a line.
type Options struct {
	Long  []string                      // long names, in the order in which one that is cut short is looked for
	Value map[string]func(string) error // of these, those with a value
	Flag  func(name string) bool        // takes one without: a letter, or a long name; false: there is none
}

// Take takes the options out of the line, up to "--", and returns the rest, "--" with it.
func (o *Options) Take(args []string) (rest []string, err error) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return append(rest, args[i:]...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
		match := ""
		for _, n := range o.Long {
			if name != "" && strings.HasPrefix(n, name) {
				match = n
				break
			}
		}
		if take := o.Value[match]; take != nil {
			if !hasValue {
				if i++; i == len(args) {
					return nil, &UsageError{Text: "--" + match + " needs a value"}
				}
				value = args[i]
			}
			if err := take(value); err != nil {
				return nil, err
			}
			continue
		}
		if match != "" && !hasValue {
			o.Flag(match)
			continue
		}
		if strings.HasPrefix(a, "--") || hasValue {
			return nil, &UsageError{Text: "unknown option " + strconv.Quote(a)}
		}
		for _, letter := range name {
			if !o.Flag(string(letter)) {
				return nil, &UsageError{Text: "unknown option " + strconv.Quote("-"+string(letter))}
			}
		}
	}
	return rest, nil
}
