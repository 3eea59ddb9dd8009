// Package sys holds the system calls that the standard library lacks, and how
// a missing kernel feature is reported. Nothing above it makes system calls by
// number.
package sys

import (
	"errors"
	"fmt"
)

// UnsupportedError says that the running system lacks a feature.
// errors.Is(err, errors.ErrUnsupported) is true for it.
type UnsupportedError struct {
	Feature   string // what was asked for
	MinKernel string // the first Linux that has it, "" when no Linux version is the reason
	Err       error  // what the system said, may be nil
}

// Error names the feature and what it needs.
func (e *UnsupportedError) Error() string {
	s := e.Feature + " is not supported here"
	if e.MinKernel != "" {
		s = fmt.Sprintf("%s, it needs Linux %s", s, e.MinKernel)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the system's own error.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Is makes the error one of errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }
