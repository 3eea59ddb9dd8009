package model

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// spin checks table.pml with some definitions, and returns whether it found a violation, and what pan wrote.
func spin(t *testing.T, defs ...string) (violated bool, states, out string) {
	t.Helper()
	source, err := filepath.Abs("table.pml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		c := exec.Command(name, args...)
		c.Dir = dir
		b, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, b)
		}
		return string(b)
	}
	run("spin", append(append([]string{"-a"}, defs...), source)...)
	run("cc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c")
	out = run("./pan", "-m100000")
	errors := regexp.MustCompile(`errors: (\d+)`).FindStringSubmatch(out)
	if errors == nil || strings.Contains(out, "max search depth too small") {
		t.Fatalf("pan did not finish:\n%s", out)
	}
	s := regexp.MustCompile(`(\d+) states, stored`).FindStringSubmatch(out)
	if s == nil {
		t.Fatalf("pan did not say how many states:\n%s", out)
	}
	return errors[1] != "0", s[1], out
}

func needSpin(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"spin", "cc"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
				t.Fatalf("%s is needed (Debian packages spin and gcc)", tool)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
}

// The protocol as it is keeps its promise, for all orders of all steps.
func TestProtocol(t *testing.T) {
	needSpin(t)
	for _, defs := range [][]string{
		{"-DOPS=4"},
		{"-DOPS=3", "-DBUFFER=4"},
		{"-DOPS=4", "-DTRIES=1"},
		{"-DREADERS=2", "-DOPS=2"},
		{"-DOPS=3", "-DHANDLE_FIRST"},
	} {
		t.Run(strings.Join(defs, " "), func(t *testing.T) {
			violated, states, out := spin(t, defs...)
			if violated {
				t.Errorf("violated:\n%s", out)
			}
			if len(states) < 5 {
				t.Errorf("only %s states: the model does nothing", states)
			}
			t.Log(states, "states")
		})
	}
}

// Each rule of the protocol is needed, and the model sees it when one is broken.
func TestMutations(t *testing.T) {
	needSpin(t)
	answer, outside := regexp.MustCompile(`assertion violated \(\(best<16\)`), regexp.MustCompile(`assertion violated .*<16\)\) \(at`)
	for _, m := range []struct {
		name, what string
		want       *regexp.Regexp
	}{
		{"NO_BUMP", "memory is used again without a new epoch", answer},
		{"LATE_BUMP", "the epoch is changed after memory was used again", answer},
		{"PUBLISH_FIRST", "a block is published before it is filled", answer},
		{"UNORDERED", "stores arrive in another order than they were made", answer},
		{"DEF_NO_BUMP", "a def is changed in place without a new epoch", answer},
		{"DEFAULT_NO_BUMP", "a default route is changed in place without a new epoch", answer},
		{"TWO_WORDS", "the root and the default route are two words", answer},
		{"HANDLE_FIRST NO_REMOVE_BUMP", "memory goes to another FIB without a new epoch", answer},
		{"HANDLE_FIRST EPOCH_RESET", "the epoch of a descriptor begins at 0 again with a new FIB", answer},
		{"NO_HANDLE", "a lookup does not ask whether its FIB was removed", answer},
		{"NO_SECOND", "a lookup does not load the epoch again", answer},
		{"EARLY_SECOND", "a lookup loads the epoch again before its last word", answer},
		{"NO_MASK", "references are followed unbounded", outside},
	} {
		t.Run(m.name, func(t *testing.T) {
			violated, states, out := spin(t, strings.Fields("-D"+strings.ReplaceAll(m.name, " ", " -D"))...)
			if !violated || !m.want.MatchString(out) {
				t.Errorf("the model does not see that %s:\n%s", m.what, out)
			}
			t.Logf("%s: seen after %s states", m.what, states)
		})
	}
}
