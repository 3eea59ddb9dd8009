package worker

import (
	"errors"
	"math"
	"runtime"
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
	for range 3 {
		if n := grow(); n > pages/10 {
			t.Errorf("%d page faults for %d pages that were to be there", n, pages*3/4)
		}
		runtime.GC()
	}
	h.Release()
	if _, err := TakeHeap(math.MaxInt64, true); !errors.Is(err, ErrNoMemory) {
		t.Errorf("more than there is: %v", err)
	}
}
