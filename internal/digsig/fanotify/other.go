//go:build !linux

package fanotify

import (
	"errors"

	"midplane/internal/sys"
)

// Group is a fanotify group. There are none here.
type Group struct{}

// ErrGone says that an event has been answered, or that who waited was killed.
var ErrGone = errors.New("fanotify: no such event waits")

// Open fails.
func Open() (*Group, error) { return nil, &sys.UnsupportedError{Feature: "fanotify (Linux)"} }
