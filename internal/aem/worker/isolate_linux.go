package worker

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"midplane/internal/sys"
)

// ErrCPUsTaken says that another executor of this process keeps processors.
var ErrCPUsTaken = errors.New("another executor of this process keeps processors for its loops")

var isolation single[Isolation]

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
	err = moveThreads(func(tid int, may []int) []int {
		to := without(may, cpus)
		if len(to) == len(may) || len(to) == 0 {
			return nil
		}
		if !slices.Equal(may, all) {
			i.special[tid] = [2][]int{may, to}
		}
		return to
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
	_ = moveThreads(func(tid int, may []int) []int {
		switch was, ok := i.special[tid]; {
		case ok && slices.Equal(may, was[1]):
			return was[0]
		case slices.Equal(may, i.rest):
			return i.All
		}
		return nil
	})
}

// moveThreads asks for each thread of the process, of which it tells where it may run, where it is to run, nil for no change, until none
// moves any more: one that was not moved yet may have started another. It gives up after a hundred times, for the process's cgroup may
// forbid it.
func moveThreads(to func(tid int, may []int) []int) error {
	moved := true
	for tries := 0; moved && tries < 100; tries++ {
		moved = false
		tids, err := sys.Threads()
		if err != nil {
			return err
		}
		for _, tid := range tids {
			may, err := sys.CPUsOf(tid)
			if err == nil {
				if cpus := to(tid, may); cpus != nil {
					moved, err = true, sys.SetCPUsOf(tid, cpus)
				}
			}
			if err != nil && !errors.Is(err, syscall.ESRCH) { // it ended
				return err
			}
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
