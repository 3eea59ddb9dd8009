package grammar

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"midplane/internal/api"
)

type call struct {
	Line[*call]
	did string
}

func tree() *Command[*call] {
	do := func(what string) func(*call) error {
		return func(c *call) error {
			c.did = what
			w, err := c.Word("a thing")
			c.did += " " + w
			return errors.Join(err, c.Done())
		}
	}
	return &Command[*call]{Args: "[OPTIONS]", Options: "\noptions: none\n", Short: "The tool", Sub: []*Command[*call]{
		{Name: "route", Alias: []string{"r"}, Short: "routes", Def: "show", Sub: []*Command[*call]{
			{Name: "show", Short: "show it", Args: "THING", Run: do("show")},
			{Name: "shut", Short: "shut it", Run: do("shut")},
		}},
		{Name: "rule", Short: "rules", Long: "More of it.", Args: "A or: key B", Run: do("rule")},
	}}
}

func TestDispatch(t *testing.T) {
	for line, want := range map[string]string{ // what is done; or help, with >; or an error
		"route show x":     "show x",
		"rou sho x":        "show x",
		"r show x":         "show x",
		"ru x":             "rule x",
		"ro x":             `unknown or ambiguous command "x"; usage: tool route COMMAND ...`,
		"route sh x":       `unknown or ambiguous command "sh"; usage: tool route COMMAND ...`,
		"x":                `unknown or ambiguous command "x"; usage: tool [OPTIONS] COMMAND ...`,
		"route":            "missing a thing; usage: tool route show THING",
		"rule x y":         `unexpected "y"; usage: tool rule A or: key B`,
		"":                 "a command is missing; usage: ",
		"help":             ">usage: tool [OPTIONS] COMMAND ...",
		"route help":       ">usage: tool route COMMAND ...",
		"-h":               ">usage: tool [OPTIONS] COMMAND ...",
		"-h route":         ">usage: tool route COMMAND ...",
		"-h route nothing": ">usage: tool route COMMAND ...",
		"-h route show":    ">usage: tool route show THING",
	} {
		c := &call{}
		c.Words = "tool"
		o := Options{Long: []string{"help"}, Flag: func(name string) bool { c.Asked = true; return name == "h" || name == "help" }}
		var err error
		if c.Args, err = o.Take(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		err = c.Dispatch(tree(), c, &out, &errs)
		got := c.did
		var usage *UsageError
		if errors.As(err, &usage) {
			got = usage.Text + "; usage: " + usage.Usage
		} else if out.Len() > 0 {
			got = ">" + strings.SplitN(out.String(), "\n", 2)[0]
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	for _, s := range []string{"\nThe tool.\n", "  route        routes\n", "\noptions: none\n"} {
		if !strings.Contains(tree().Help("tool"), s) {
			t.Errorf("help has not %q:\n%s", s, tree().Help("tool"))
		}
	}
	if got, want := tree().Manual(), "  route show THING\n  route shut\n  rule A or B"; got != want {
		t.Errorf("manual %q, want %q", got, want)
	}
	for words, want := range map[string]string{"": "route\troutes,rule\trules", "ro -j": "show\tshow it,shut\tshut it", "ro sh": "", "ru": ""} {
		if got := strings.Join(tree().Complete(strings.Fields(words)), ","); got != want {
			t.Errorf("after %q: %q, want %q", words, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	for line, want := range map[string]string{
		"a -j b --json":           "[a b] [json json]",
		"-jp a":                   "[a] [j p]",
		"--js a -p":               "[a] [json pretty]",
		"-json -c x a":            "[a] [json c=x]",
		"--control=x a -- -j b":   "[a -- -j b] [c=x]",
		"a -":                     "[a -] []",
		"--control":               "--control needs a value",
		"-control":                "--control needs a value",
		"--json=5":                `unknown option "--json=5"`,
		"--nosuch":                `unknown option "--nosuch"`,
		"-jx":                     `unknown option "-x"`,
		"-jä":                     `unknown option "-ä"`,
		"--=x":                    `unknown option "--=x"`,
		"---":                     `unknown option "---"`,
		"--control bad":           "bad value",
		"-p -p --pretty=no --jso": `unknown option "--pretty=no"`,
	} {
		taken := []string{}
		o := Options{
			Long: []string{"json", "pretty", "control"},
			Value: map[string]func(string) error{"control": func(s string) error {
				if s == "bad" {
					return &UsageError{Text: "bad value"}
				}
				taken = append(taken, "c="+s)
				return nil
			}},
			Flag: func(name string) bool {
				if !slices.Contains([]string{"j", "json", "p", "pretty"}, name) {
					return false
				}
				taken = append(taken, name)
				return true
			},
		}
		rest, err := o.Take(strings.Fields(line))
		got := fmt.Sprint(rest, " ", taken)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{nil, ExitOK, ""},
		{errors.New("refused"), ExitFailed, "error: refused\n"},
		{&UsageError{"wrong", "tool route"}, ExitUsage, "error: wrong\nusage: tool route\n"},
		{fmt.Errorf("line 3: %w", &UsageError{Text: "wrong"}), ExitUsage, "error: wrong\n"},
		{&api.NoDaemonError{Path: "/x", Err: errors.New("gone")}, ExitNoNode, ""},
	} {
		var b strings.Builder
		if code := Report(&b, c.err); code != c.code || c.text != "" && b.String() != c.text {
			t.Errorf("%v: exit %d, %q", c.err, code, b.String())
		}
	}
}
