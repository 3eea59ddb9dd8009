package tipctool

import (
	"slices"
	"strings"
	"testing"
)

func TestManual(t *testing.T) {
	m := "\n" + Manual() + "\n"
	for _, want := range []string{"\n  node list\n", "\n  link get tolerance link LINK\n", "\n  peer remove identity NODEID\n", "\n  bearer enable [domain DOMAIN] [priority PRIORITY] media { udp name"} {
		if !strings.Contains(m, want) {
			t.Errorf("no %q in %s", want, m)
		}
	}
}

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"":              "bearer,link,media,nametable,node,peer,socket",
		"-j peer":       "remove",
		"lin stat":      "reset,show",
		"node list":     "",
		"nosuch":        "",
		"link get link": "",
	} {
		var words []string
		for _, c := range Complete(strings.Fields(line)) {
			word, short, _ := strings.Cut(c, "\t")
			if short == "" {
				t.Errorf("%q has no description", word)
			}
			words = append(words, word)
		}
		slices.Sort(words)
		if got := strings.Join(words, ","); got != want {
			t.Errorf("after %q: %q, want %q", line, got, want)
		}
	}
}
