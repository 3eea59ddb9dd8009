//go:build !linux

package worker

import (
	"errors"
	"fmt"
	"runtime"
)

// Dedicate locks the calling goroutine to its thread for good. Niceness and processors of one thread are Linux's.
func Dedicate(nice int, cpus []int) error {
	runtime.LockOSThread()
	if nice != 0 || len(cpus) > 0 {
		return fmt.Errorf("niceness and processors of a thread: %w", errors.ErrUnsupported)
	}
	return nil
}

// Bind fails: processors of one thread are Linux's.
func Bind([]int) error {
	return fmt.Errorf("processors of a thread: %w", errors.ErrUnsupported)
}

// Realtime fails: a thread's priority is Linux's.
func Realtime(int) error {
	return fmt.Errorf("real-time priority of a thread: %w", errors.ErrUnsupported)
}

// ShortSlice fails: a thread's time slice is Linux's.
func ShortSlice() error {
	return fmt.Errorf("time slice of a thread: %w", errors.ErrUnsupported)
}

func populate(b []byte) { touch(b) }

// CheckCPUs refuses any processor: there is no way to ask for one.
func CheckCPUs(cpus []int) error {
	if len(cpus) > 0 {
		return fmt.Errorf("processors of a thread: %w", errors.ErrUnsupported)
	}
	return nil
}

func affinity() int { return runtime.NumCPU() }

// Isolation is Linux's.
type Isolation struct{ All, Kept []int }

// Isolate fails: processors of one thread are Linux's.
func Isolate([]int) (*Isolation, error) { return nil, Bind(nil) }

// Release does nothing.
func (*Isolation) Release() {}
