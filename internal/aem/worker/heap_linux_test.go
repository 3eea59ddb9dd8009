package worker

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func faults(t *testing.T) int64 {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Minflt
}

var kept []byte

// The runtime keeps what was in use at the end of the last collection, times the goal after it by the goal before: of what is there
// beforehand all has to be in use, and the goal no more than that.
func TestPrefaultIsKept(t *testing.T) {
	const budget, env = 128 << 20, "TEST_PREFAULT"
	if os.Getenv(env) != "" {
		if _, err := TakeHeap(budget, true); err != nil {
			t.Fatal(err)
		}
		runtime.GC() // by its end the lines of those before are written
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPrefaultIsKept$")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOGC=") }), env+"=1", "GODEBUG=gctrace=1")
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	// gc 3 @0.05s 1%: ... ms clock, ... ms cpu, 129->129->1 MB, 135 MB goal, ...
	var n [3]int
	for _, l := range regexp.MustCompile(`, (\d+)->\d+->(\d+) MB, (\d+) MB goal`).FindAllStringSubmatch(out.String(), -1) {
		if len(l[1]) > 2 { // 100 MB and more: the last one of a full heap
			for i, text := range l[1:] {
				n[i], _ = strconv.Atoi(text)
			}
		}
	}
	if used, stayed, goal := n[0], n[1], n[2]; used < 120 || stayed > 10 || goal > 140 {
		t.Errorf("%d MB were in use, %d stayed, and the goal before was %d, want 128, 0 and hardly more than 128:\n%s", used, stayed, goal, out.String())
	}
}

// What the heap grows to afterwards is there already, also after collections.
func TestPrefault(t *testing.T) {
	if v := gogc(); v != defaultPercent {
		t.Skipf("GOGC is %d here", v)
	}
	t.Setenv("GOGC", "")
	const budget = 128 << 20
	grow := func() (pages int64) {
		before := faults(t)
		for range budget / (1 << 20) * 3 / 4 {
			kept = make([]byte, 1<<20) // which writes zeros
		}
		return faults(t) - before
	}
	const pages = budget / 4096
	h, err := TakeHeap(budget, true)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	for range 8 { // and collections come when the budget is used up
		if n := grow(); n > pages/10 {
			t.Errorf("%d page faults for %d pages that were to be there", n, pages*3/4)
		}
	}
	for range 3 { // or somebody asks for one
		if n := grow(); n > pages/10 {
			t.Errorf("%d page faults for %d pages that were to be there", n, pages*3/4)
		}
		runtime.GC()
	}
	h.Release()
	kept = nil
	runtime.GC()
	if _, err := TakeHeap(math.MaxInt64, true); !errors.Is(err, ErrNoMemory) {
		t.Errorf("more than there is: %v", err)
	}
}
