package worker

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"midplane/internal/sys"
)

// ErrCPUsTaken says that another executor of this process keeps processors.
var ErrCPUsTaken = errors.New("another executor of this process keeps processors for its loops")

var isolation struct {
	sync.Mutex
	taken *Isolation
}

// Isolation keeps processors free of the threads of this process, but for those that bind themselves (Bind, Dedicate). There is one at a
// time in a process.
type Isolation struct {
	All  []int // that the process may run on
	Kept []int

	rest    []int
	special map[int][2][]int // threads that were bound otherwise: to what before, and now
}

// Isolate moves all threads of the process from processors, which must be some of those that it may run on, and not all. Threads that are
// bound to these alone stay. Threads that start later are children of those that were moved, and inherit where they may run: the
// runtime never starts one from a thread that a goroutine is locked to (runtime/proc.go:newm1).
func Isolate(cpus []int) (*Isolation, error) {
	if err := CheckCPUs(cpus); err != nil {
		return nil, err
	}
	isolation.Lock()
	defer isolation.Unlock()
	if isolation.taken != nil {
		return nil, ErrCPUsTaken
	}
	all, err := sys.ThreadCPUs()
	if err != nil {
		return nil, err
	}
	i := &Isolation{All: all, Kept: slices.Clone(cpus), rest: without(all, cpus), special: map[int][2][]int{}}
	if len(i.rest) == 0 {
		return nil, fmt.Errorf("of processors %v none is left for the rest of the process", all)
	}
	err = eachThread(func(tid int, may []int) (moved bool, err error) {
		to := without(may, cpus)
		if len(to) == len(may) || len(to) == 0 {
			return false, nil
		}
		if !slices.Equal(may, all) {
			i.special[tid] = [2][]int{may, to}
		}
		return true, sys.SetCPUsOf(tid, to)
	})
	if err != nil {
		i.giveBack()
		return nil, err
	}
	isolation.taken = i
	return i, nil
}

// Release lets all threads run where they might before. Threads that somebody else has bound since stay where they are.
func (i *Isolation) Release() {
	isolation.Lock()
	defer isolation.Unlock()
	if isolation.taken == i {
		isolation.taken = nil
		i.giveBack()
	}
}

func (i *Isolation) giveBack() {
	_ = eachThread(func(tid int, may []int) (moved bool, err error) {
		if was, ok := i.special[tid]; ok && slices.Equal(may, was[1]) {
			return true, sys.SetCPUsOf(tid, was[0])
		}
		if !slices.Equal(may, i.rest) {
			return false, nil
		}
		return true, sys.SetCPUsOf(tid, i.All)
	})
}

// eachThread calls f for all threads of the process with where they may run, until it moves none any more: one that was not moved yet
// may have started another. It gives up after a hundred times, for the process's cgroup may forbid what f wants.
func eachThread(f func(tid int, may []int) (moved bool, err error)) error {
	again := true
	for tries := 0; again && tries < 100; tries++ {
		again = false
		tids, err := sys.Threads()
		if err != nil {
			return err
		}
		for _, tid := range tids {
			may, err := sys.CPUsOf(tid)
			moved := false
			if err == nil {
				moved, err = f(tid, may)
			}
			if err != nil && !errors.Is(err, syscall.ESRCH) { // it ended
				return err
			}
			again = again || moved
		}
	}
	return nil
}

// allowed returns the processors that the calling thread may run on, and those that are kept from it.
func allowed() ([]int, error) {
	may, err := sys.ThreadCPUs()
	isolation.Lock()
	defer isolation.Unlock()
	if i := isolation.taken; err == nil && i != nil && slices.Equal(may, i.rest) {
		return i.All, nil
	}
	return may, err
}

func without(cpus, some []int) []int {
	return slices.DeleteFunc(slices.Clone(cpus), func(c int) bool { return slices.Contains(some, c) })
}
