package sys

import (
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

// SetThreadCPUs binds the calling thread, which must be locked, to processors.
func SetThreadCPUs(cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	return unix.SchedSetaffinity(unix.Gettid(), &set)
}

// ThreadCPUs returns the processors that the calling thread may run on.
func ThreadCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(unix.Gettid(), &set); err != nil {
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

// SleepThread puts the calling thread to sleep, past the timers of the runtime.
func SleepThread(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&ts, nil) // a signal ends it early, which harms nobody
}

// SleepThreadHeld is SleepThread past the runtime: the goroutine keeps its P, and nothing has to be found for it when it wakes. Signals,
// of which the runtime sends one each 10 ms at the latest, end it early. It is for threads that must be on time, of programs with Ps to spare.
func SleepThreadHeld(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
