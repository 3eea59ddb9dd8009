//go:build !linux

package enforcer

import (
	"context"

	"midplane/internal/sys"
)

// Main does nothing here.
func Main() {}

// Run fails: fanotify is of Linux.
func Run(context.Context, Config) error { return &sys.UnsupportedError{Feature: "enforcement (Linux)"} }

// Check fails: it reads /proc of Linux.
func Check(context.Context, CheckConfig) (*CheckReport, error) {
	return nil, &sys.UnsupportedError{Feature: "the look at what runs (Linux)"}
}
