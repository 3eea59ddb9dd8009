package fibtool

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"midplane/internal/cli/grammar"
)

type command = grammar.Command[*call]

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
	for len(c.Args) > 0 {
		word := c.Args[0]
		k := match(keys, word)
		if k == nil {
			if other == nil {
				return c.Wrongf("unknown or ambiguous key word %q: want %s", word, names(keys))
			}
			c.Args = c.Args[1:]
			if err := other(word); err != nil {
				return err
			}
			continue
		}
		if seen[k.name] && k.name != "nexthop" && k.name != "addr" && k.name != "dns" && k.name != "map" {
			return c.Wrongf("%s is given twice", k.name)
		}
		seen[k.name] = true
		c.Args = c.Args[1:]
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
		*to, err = c.Word("a value for " + name)
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
		w, err := c.Word("a value for " + name)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(w, 0, 64)
		if err != nil || n < least || n > most {
			return c.Wrongf("%s %q: want a number from %d to %d", name, w, least, most)
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
		return a, c.Wrongf("%s %q: want an IPv4 or IPv6 address", name, w)
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
	bad := c.Wrongf("%s %q: want a prefix such as 192.0.2.0/24 or 2001:db8::/32, or default", name, w)
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
