package sys

import (
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetThreadNice sets the niceness of the calling thread alone, which must be locked (runtime.LockOSThread). Without
// privilege it only goes up.
func SetThreadNice(nice int) error {
	return unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice)
}

// ThreadNice returns the niceness of the calling thread.
func ThreadNice() (int, error) {
	p, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	return 20 - p, err // the system call's own scale (kernel/sys.c:getpriority)
}

// SetThreadRealtime gives the calling thread alone, which must be locked, a real-time priority, 1 to 99 (SCHED_RR, sched(7)). It takes
// CAP_SYS_NICE, or a limit RLIMIT_RTPRIO of as much. Threads and processes that it starts do not inherit it.
func SetThreadRealtime(priority int) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: uint32(priority),
	}, 0)
}

// ThreadRealtime returns the real-time priority of the calling thread, 0 when it has none.
func ThreadRealtime() (int, error) {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return 0, err
	}
	return int(a.Priority), nil
}

// SetThreadSlice asks for a time slice of the calling thread's own, 0.1 to 100 ms (since Linux 6.12; kernels before that take it and do nothing):
// when several threads wait for a processor, one with a shorter slice has it earlier, and for a shorter time. Its share stays (kernel/sched/fair.c:update_deadline).
// It takes no privilege. The thread must be locked. It fails for one with a policy that has no such slice (real-time, idle). Threads and processes
// that it starts do not inherit it, unless the niceness is negative, which they would lose with it.
func SetThreadSlice(d time.Duration) error {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	if a.Policy != unix.SCHED_NORMAL && a.Policy != unix.SCHED_BATCH {
		return fmt.Errorf("time slice of a thread with scheduling policy %d: %w", a.Policy, unix.EOPNOTSUPP)
	}
	if a.Nice >= 0 {
		a.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	}
	a.Runtime = uint64(d)
	return unix.SchedSetAttr(0, a, 0)
}

// ThreadSlice returns the time slice of the calling thread; 0 where the kernel does not tell.
func ThreadSlice() (time.Duration, error) {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return 0, err
	}
	return time.Duration(a.Runtime), nil
}

// SetThreadCPUs binds the calling thread, which must be locked, to processors.
func SetThreadCPUs(cpus []int) error { return SetCPUsOf(0, cpus) }

// ThreadCPUs returns the processors that the calling thread may run on.
func ThreadCPUs() ([]int, error) { return CPUsOf(0) }

// SetCPUsOf binds a thread of this process to processors; 0 is the calling thread.
func SetCPUsOf(tid int, cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	return unix.SchedSetaffinity(tid, &set)
}

// CPUsOf returns the processors that a thread of this process may run on, in order; 0 is the calling thread.
func CPUsOf(tid int) ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(tid, &set); err != nil {
		return nil, err
	}
	var cpus []int
	for c := 0; len(cpus) < set.Count(); c++ {
		if set.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	return cpus, nil
}

// Threads returns the threads of this process. One that starts or ends meanwhile may be among them or not.
func Threads() ([]int, error) {
	d, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	var tids []int
	for _, e := range d {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}

// SleepThread puts the calling thread to sleep. With keep it does so past the runtime: the goroutine keeps its P, and nothing has to be
// found for it when it wakes; signals, of which the runtime sends one after 10 ms at the latest unless it is told not to
// (GODEBUG=asyncpreemptoff=1), end it early. That is for threads that must be on time, in programs with Ps to spare.
func SleepThread(d time.Duration, keep bool) {
	ts := unix.NsecToTimespec(int64(d))
	if keep {
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
		return
	}
	_ = unix.Nanosleep(&ts, nil)
}
