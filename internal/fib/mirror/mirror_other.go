//go:build !linux

package mirror

import (
	"context"
	"iter"

	"midplane/internal/fib/diff"
	"midplane/internal/fib/rtnl"
	"midplane/internal/sys"
)

// Mirror does not exist here.
type Mirror struct{}

func unsupported() error { return &sys.UnsupportedError{Feature: "rtnetlink", MinKernel: "Linux 4.20"} }

// New returns a *sys.UnsupportedError.
func New(c Config) (*Mirror, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return nil, unsupported()
}

// Run returns a *sys.UnsupportedError.
func (m *Mirror) Run(context.Context) error { return unsupported() }

// Status returns nothing.
func (m *Mirror) Status() Status { return Status{} }

// Flush does nothing.
func (m *Mirror) Flush() {}

// Resync does nothing.
func (m *Mirror) Resync() {}

// Table returns a *sys.UnsupportedError.
func Table(string, uint32, ...func(*rtnl.Route) bool) diff.Source {
	return func(yield func(diff.Route, error) bool) { yield(diff.Route{}, unsupported()) }
}

var _ iter.Seq2[diff.Route, error] = Table("", 0)
