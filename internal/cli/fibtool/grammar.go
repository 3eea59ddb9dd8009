package fibtool

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// command is a word of the grammar: with further words below it, or with something to run.
type command struct {
	name  string
	alias []string
	args  string // what follows, for the usage line
	short string
	long  string // further lines of help
	sub   []*command
	def   string // of sub, run when nothing follows
	run   func(*call) error
}

// usage is the grammar of a command that is called by words.
func (cmd *command) usage(words string) string {
	switch {
	case cmd == nil || cmd.name == "":
		return words + " [OPTIONS] COMMAND ..."
	case len(cmd.sub) > 0:
		return words + " COMMAND ..."
	case cmd.args != "":
		return words + " " + cmd.args
	}
	return words
}

const optionsText = `
options, anywhere on the line before --:
  -h, --help          explain the last command on the line
  -j, --json          answer in JSON
  -p, --pretty        indent the JSON
  -4, -6              only this family
  -d, --details       say more
  -o, --oneline       a route is one line
  -b, --batch FILE    run the commands of a file, a line each; - is standard input
  --force             with --batch: go on after errors
  --control PATH      control socket of the node to ask
`

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
		b.WriteString(optionsText)
	}
	if cmd.long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(cmd.long))
	}
	return b.String()
}

// dispatch finds the command for the next word, or runs cmd if it has no further ones.
func (c *call) dispatch(cmd *command) error {
	c.cmd = cmd
	if cmd.name != "" {
		c.words += " " + cmd.name
	}
	if c.help && (len(cmd.sub) == 0 || len(c.args) == 0) {
		c.printf("%s", helpText(cmd, c.words))
		return nil
	}
	if len(cmd.sub) == 0 {
		return cmd.run(c)
	}
	word := cmd.def
	if len(c.args) > 0 {
		word = c.args[0]
		c.args = c.args[1:]
	}
	if word == "" {
		fmt.Fprint(c.tool.Stderr, helpText(cmd, c.words))
		return &usageError{"a command is missing", ""}
	}
	if word == "help" {
		c.printf("%s", helpText(cmd, c.words))
		return nil
	}
	sub := find(cmd.sub, word)
	if sub == nil {
		return c.usagef("unknown or ambiguous command %q", word)
	}
	return c.dispatch(sub)
}

// find returns the only command whose name begins with word, or that has it for another name.
func find(all []*command, word string) *command {
	for _, s := range all {
		if s.name == word || slices.Contains(s.alias, word) {
			return s
		}
	}
	var match *command
	for _, s := range all {
		if strings.HasPrefix(s.name, word) {
			if match != nil {
				return nil
			}
			match = s
		}
	}
	return match
}

// peek returns the next word, "" if there is none.
func (c *call) peek() string {
	if len(c.args) == 0 {
		return ""
	}
	return c.args[0]
}

// word takes the next word.
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

// keyword is a key word and what it does with the words behind it.
type keyword struct {
	name  string
	alias []string
	take  func() error
}

// keywords takes key words in any order, each abbreviated or not, until the end. What is no key word goes to other, if
// there is one.
func (c *call) keywords(keys []keyword, other func(word string) error) error {
	seen := map[string]bool{}
	for len(c.args) > 0 {
		word := c.args[0]
		k := match(keys, word)
		if k == nil {
			if other == nil {
				return c.usagef("unknown or ambiguous key word %q: want %s", word, names(keys))
			}
			c.args = c.args[1:]
			if err := other(word); err != nil {
				return err
			}
			continue
		}
		if seen[k.name] && k.name != "nexthop" && k.name != "addr" && k.name != "dns" && k.name != "map" {
			return c.usagef("%s is given twice", k.name)
		}
		seen[k.name] = true
		c.args = c.args[1:]
		if err := k.take(); err != nil {
			return err
		}
	}
	return nil
}

func match(keys []keyword, word string) *keyword {
	var m *keyword
	for i := range keys {
		k := &keys[i]
		if k.name == word || slices.Contains(k.alias, word) {
			return k
		}
	}
	for i := range keys {
		k := &keys[i]
		if strings.HasPrefix(k.name, word) {
			if m != nil {
				return nil
			}
			m = k
		}
	}
	return m
}

func names(keys []keyword) string {
	var l []string
	for _, k := range keys {
		l = append(l, k.name)
	}
	if len(l) == 1 {
		return l[0]
	}
	return strings.Join(l[:len(l)-1], ", ") + " or " + l[len(l)-1]
}

// text is a key word with one word behind it.
func (c *call) text(name string, to *string, alias ...string) keyword {
	return keyword{name, alias, func() (err error) {
		*to, err = c.word("a value for " + name)
		return err
	}}
}

// flagword is a key word alone.
func (c *call) flagword(name string, to *bool) keyword {
	return keyword{name, nil, func() error { *to = true; return nil }}
}

// number is a key word with a number behind it.
func (c *call) number(name string, least, most uint64, to func(uint64), alias ...string) keyword {
	return keyword{name, alias, func() error {
		w, err := c.word("a value for " + name)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(w, 0, 64)
		if err != nil || n < least || n > most {
			return c.usagef("%s %q: want a number from %d to %d", name, w, least, most)
		}
		to(n)
		return nil
	}}
}

// which is the key word that names the FIB; ip(8) calls it table or vrf.
func (c *call) which(to *string) keyword { return c.text("fib", to, "table", "vrf") }

func (c *call) address(name, w string) (netip.Addr, error) {
	a, err := netip.ParseAddr(w)
	if err != nil {
		return a, c.usagef("%s %q: want an IPv4 or IPv6 address", name, w)
	}
	return a, nil
}

// prefix reads a prefix as ip(8) does: an address alone is a host, default is everything, and 10/8 is 10.0.0.0/8.
func (c *call) prefix(name, w string) (netip.Prefix, error) {
	switch w {
	case "default", "any", "all":
		if c.family == 6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), nil
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
	}
	bad := c.usagef("%s %q: want a prefix such as 192.0.2.0/24 or 2001:db8::/32, or default", name, w)
	text, bits, hasBits := strings.Cut(w, "/")
	if hasBits && !strings.Contains(text, ":") {
		for strings.Count(text, ".") < 3 {
			text += ".0"
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, bad
	}
	n := a.BitLen()
	if hasBits {
		if n, err = strconv.Atoi(bits); err != nil || n < 0 || n > a.BitLen() || len(bits) > 1 && bits[0] == '0' {
			return netip.Prefix{}, bad
		}
	}
	return netip.PrefixFrom(a, n), nil
}
