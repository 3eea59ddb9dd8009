package worker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// ErrHeapTaken says that the collector's pace belongs to somebody else.
var ErrHeapTaken = errors.New("GOGC was set already")

// ErrNoMemory says that a budget is more than the machine and the process's cgroups have left.
var ErrNoMemory = errors.New("too little memory")

// LeastHeap is the smallest budget: below it the runtime's own pace is the better one.
const LeastHeap = 16 << 20

const (
	defaultPercent = 100     // runtime: GOGC without the variable
	heapMinimum    = 4 << 20 // runtime/mgcpacer.go:defaultHeapMinimum, of GOGC=100
)

var heap single[Heap]

// Heap is the collector's pace (GOGC), taken from the runtime: the heap grows to a budget before it is collected. There is one at a
// time in a process.
type Heap struct {
	budget uint64
	set    int // the value that GOGC has by us
}

// TakeHeap lets the heap grow to budget octets, at least LeastHeap, or to twice what lives, whichever is more. It refuses when
// the environment, the program or another executor has set GOGC. It stops the world for a moment, as do Release and
// collections that find that what lives has changed by more than an eighth.
//
// With prefault it first gets the budget's memory from the kernel, in huge pages where it may. The runtime keeps it as long as
// collections come when the budget is used up: see fill.
func TakeHeap(budget uint64, prefault bool) (*Heap, error) {
	heap.Lock()
	defer heap.Unlock()
	switch {
	case heap.taken != nil:
		return nil, fmt.Errorf("%w, by another executor of this process", ErrHeapTaken)
	case os.Getenv("GOGC") != "":
		return nil, fmt.Errorf("%w, by the environment: GOGC=%s", ErrHeapTaken, os.Getenv("GOGC"))
	}
	if prefault {
		if m, ok := Memory(); ok && budget > m {
			return nil, fmt.Errorf("%w: of %d octets to get there are %d", ErrNoMemory, budget, m)
		}
	}
	h := &Heap{budget: budget, set: percent(budget, living())}
	if was := debug.SetGCPercent(h.set); was != defaultPercent {
		debug.SetGCPercent(was)
		return nil, fmt.Errorf("%w, by the program: it is %d", ErrHeapTaken, was)
	}
	heap.taken = h
	if prefault {
		h.fill()
	}
	h.watch()
	return h, nil
}

// fill gets the budget's memory. At the end of each collection the runtime sets how much it keeps: what was in use then, times the new goal
// by the goal before, and a tenth (runtime/mgcscavenge.go:gcPaceScavenger); the rest goes back to the kernel little by little. So
// all of it is in use, and hardly less than the goal, when the collection comes that finds it free, and none comes after that until the
// goal is the budget; one that somebody else's allocations made come in between is made up for. The caller holds the lock.
func (h *Heap) fill() {
	to := h.set
	for range 4 {
		b := make([]byte, h.budget-min(h.budget, living()))
		populate(b)
		if !h.change(5) {
			return
		}
		runtime.GC() // b lives
		runtime.KeepAlive(b)
		before := cycles()
		runtime.GC()
		if !h.change(to) || cycles() == before+1 {
			return
		}
	}
}

// percent returns the value of GOGC with which a heap, of which live octets live, is collected when it has budget octets.
func percent(budget, live uint64) int {
	switch {
	case live > budget/2:
		return defaultPercent
	case live < heapMinimum: // which the runtime raises by the same factor
		return int(budget * 100 / heapMinimum)
	}
	return int((budget - live) * 100 / live)
}

// touch writes to each page of b, of which nothing is in use yet, so that the kernel gives memory for it.
func touch(b []byte) {
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 0
	}
}

// living returns what the last collection found to be alive.
func living() uint64 { return number("/gc/heap/live:bytes") }

// cycles returns how many collections there were.
func cycles() uint64 { return number("/gc/cycles/total:gc-cycles") }

// number reads one of the runtime's metrics, 0 if it does not have it.
func number(name string) uint64 {
	s := [1]metrics.Sample{{Name: name}}
	metrics.Read(s[:])
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}

// sentinel is not tiny, so that nothing else keeps it alive (runtime.AddCleanup).
type sentinel struct{ _ [32]byte }

// watch lets collected be called after the next collection.
func (h *Heap) watch() {
	runtime.AddCleanup(new(sentinel), (*Heap).collected, h)
}

func (h *Heap) collected() {
	heap.Lock()
	defer heap.Unlock()
	if heap.taken != h {
		return
	}
	if p := percent(h.budget, living()); max(p, h.set)-min(p, h.set) > h.set/8 && !h.change(p) {
		return
	}
	h.watch()
}

// change sets GOGC, unless somebody else has set it since: then it is theirs. The caller holds the lock.
func (h *Heap) change(to int) bool {
	if was := debug.SetGCPercent(to); was != h.set {
		debug.SetGCPercent(was)
		return false
	}
	h.set = to
	return true
}

// Release gives the pace back to the runtime. When somebody else has set it meanwhile, theirs stays.
func (h *Heap) Release() {
	heap.Lock()
	defer heap.Unlock()
	if heap.taken == h {
		h.change(defaultPercent)
		heap.taken = nil
	}
}
