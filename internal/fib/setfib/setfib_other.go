//go:build !linux

package setfib

import (
	"context"
	"errors"

	"midplane/internal/fib/binding"
	"midplane/internal/sys"
)

var errLinux = &sys.UnsupportedError{Feature: "running a program in a FIB", MinKernel: "4.10"}

// ErrNone says that a process is in no FIB.
var ErrNone = errors.New("is in no FIB")

// Report says what Refresh did.
type Report struct {
	Updated        int
	Removed, Stale []string
}

// Exec is for Linux.
func Exec(binding.Binding, []string, []string, Options) error { return errLinux }

// Supervise is for Linux.
func Supervise(string) error { return errLinux }

// Identify is for Linux.
func Identify(string, int) (Membership, error) { return Membership{}, errLinux }

// Pids is for Linux.
func Pids(string, binding.Binding) ([]int, error) { return nil, errLinux }

// Refresh is for Linux.
func Refresh(string) (Report, error) { return Report{}, errLinux }

// Remove is for Linux.
func Remove(context.Context, string, binding.Binding, bool) error { return errLinux }
