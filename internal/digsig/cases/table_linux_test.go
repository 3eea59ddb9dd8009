package cases

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"midplane/internal/digsig/enforcer"
	. "midplane/internal/digsig/enforcer/enforcetest"
)

func TestMain(m *testing.M) { Main(m) }

// Verdicts of the table.
const (
	allow  = "A"
	deny   = "D"
	gap    = "G" // it ran: a gap that Status must tell
	detect = "G, detected"
	notHas = "not on this kernel"

	inGuest = "see the guest" // TestIntegrationTierFGuest
)

// line is one line of the printed table.
type line struct {
	number          int
	what, bed       string
	want, got, note string
}

// table collects what the cases gave.
type table struct {
	t       *testing.T
	lines   []line
	partial bool // it need not have all cases
}

func (x *table) add(number int, what, bed, want string, got string, note ...string) {
	x.lines = append(x.lines, line{number, what, bed, want, got, strings.Join(note, " ")})
}

// print prints the table, and fails for what is not as it should be. Every gap must be one that the status tells.
func (x *table) print(s *enforcer.Status) {
	told := map[int]bool{}
	for _, g := range s.Gaps {
		for _, c := range g.Cases {
			told[c] = true
		}
	}
	slices.SortStableFunc(x.lines, func(a, b line) int { return a.number - b.number })
	var b strings.Builder
	fmt.Fprintf(&b, "\n%4s  %-4s  %-62s %-9s %-12s %s\n", "case", "tier", "what", "on", "want", "got")
	seen := map[int]bool{}
	for _, l := range x.lines {
		seen[l.number] = true
		mark := ""
		if l.got != l.want {
			mark = "  <-- wrong"
			x.t.Errorf("case %d (%s, %s): got %s, want %s %s", l.number, l.what, l.bed, l.got, l.want, l.note)
		}
		if strings.HasPrefix(l.got, gap) && !told[l.number] {
			mark += "  <-- not told by status"
			x.t.Errorf("case %d (%s) is a gap that the status does not tell", l.number, l.what)
		}
		if l.note != "" {
			mark = "  " + l.note + mark
		}
		fmt.Fprintf(&b, "%4d  %-4s  %-62s %-9s %-12s %s%s\n", l.number, "F", l.what, l.bed, l.want, l.got, mark)
	}
	x.t.Log(b.String())
	if x.partial {
		return
	}
	for n := 1; n <= 54; n++ {
		if !seen[n] {
			x.t.Errorf("case %d is not there", n)
		}
	}
}

// ran tells an outcome in the words of the table.
func ran(o Outcome) string {
	switch {
	case o.Ran():
		return allow
	case o.Denied():
		return deny
	}
	return fmt.Sprintf("code %d, %v: %.100s", o.Code, o.Err, o.Output)
}

// gapIf is ran for what should not run and does.
func gapIf(o Outcome) string {
	if s := ran(o); s != allow {
		return s
	}
	return gap
}

// loaded tells by the trace that the library leaves whether it was loaded.
func loaded(o Outcome) string {
	switch {
	case strings.Contains(o.Output, "CONSTRUCTED"):
		return allow
	case o.Err == nil:
		return deny
	}
	return ran(o)
}
