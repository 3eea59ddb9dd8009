package text

import (
	"path"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFields(t *testing.T) {
	for line, want := range map[string][]string{
		"a b":            {"a", "b"},
		"  a   b ":       {"a", "b"},
		`a "b c" d`:      {"a", "b c", "d"},
		`"" x`:           {"", "x"},
		`a "\"\\"`:       {"a", `"\`},
		`a "b`:           nil,
		`a "b"c`:         nil,
		`a b"c"`:         nil,
		`a "b\n"`:        nil,
		`a "b\`:          nil,
		"word\twith tab": nil,
	} {
		got, err := Fields(line)
		if (err != nil) != (want == nil) || (err == nil && !reflect.DeepEqual(got, want)) {
			t.Errorf("%q: %q, %v: want %q", line, got, err, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := strings.ReplaceAll(rapid.String().Draw(t, "s"), "\n", "")
		if got, err := Fields("x " + Quote(s)); err != nil || len(got) != 2 || got[1] != s {
			t.Fatalf("%q: %q, %v", s, got, err)
		}
	})
}

func TestLines(t *testing.T) {
	var got []string
	err := Lines([]byte("head\n# comment\n\n\t\n  \na b\nc"), "head", func(f []string) error { got = append(got, strings.Join(f, "|")); return nil })
	if err != nil || !reflect.DeepEqual(got, []string{"a|b", "c"}) {
		t.Error(got, err)
	}
	for _, s := range []string{"", "other\n", "head\n\xff", "head\n" + strings.Repeat("x", MaxLine+1), "head\n\"x"} {
		if err := Lines([]byte(s), "head", func([]string) error { return nil }); err == nil {
			t.Errorf("%.20q is taken", s)
		}
	}
}

// Without a slash and with neither brackets nor backslashes, path.Match says the same.
func TestMatchAgainstPath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab]{0,10}`).Draw(t, "string")
		want, err := path.Match(p, s)
		if err != nil {
			t.Fatal(err)
		}
		if got := Match(p, s); got != want {
			t.Fatalf("%q on %q: %v", p, s, got)
		}
	})
	if !Match("/etc/*", "/etc/a/b") || Match("/etc/*", "/usr/etc/a") {
		t.Error("slashes")
	}
	if Match(strings.Repeat("*a", 1000)+"b", strings.Repeat("a", 4000)) {
		t.Error("matched")
	}
}
