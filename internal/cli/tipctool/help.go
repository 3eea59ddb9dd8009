package tipctool

import (
	"fmt"
	"strings"
)

// command is a word of the grammar: with further words below it, or with something to run.
type command struct {
	name  string
	args  string // what follows, for the usage line
	short string
	long  string // further lines of help
	sub   []*command
	run   func(*call) error
}

// usage is the grammar of a command that is called by words.
func (cmd *command) usage(words string) string {
	switch {
	case len(cmd.sub) > 0 && cmd.name == "":
		return words + " [-h] [-j] [-p] [--control PATH] COMMAND ..."
	case len(cmd.sub) > 0:
		return words + " COMMAND ..."
	case cmd.args != "":
		return words + " " + cmd.args
	}
	return words
}

func helpText(cmd *command, words string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s\n", cmd.usage(words))
	if cmd.short != "" {
		fmt.Fprintf(&b, "\n%s.\n", cmd.short)
	}
	if len(cmd.sub) > 0 {
		b.WriteString("\ncommands (any unique beginning of a word will do):\n")
		for _, s := range cmd.sub {
			fmt.Fprintf(&b, "  %-12s %s\n", s.name, s.short)
		}
	}
	if cmd.name == "" {
		b.WriteString(`
options, anywhere on the line:
  -h, --help      explain the last command on the line
  -j, --json      answer in JSON
  -p, --pretty    indent the JSON
  --control PATH  control socket of the node to ask
`)
	}
	if cmd.long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(cmd.long))
	}
	return b.String()
}

func (c *call) printHelp(cmd *command) { c.text.WriteString(helpText(cmd, c.words)) }
