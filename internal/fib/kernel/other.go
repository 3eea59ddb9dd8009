//go:build !linux

package kernel

import (
	"context"
	"iter"
	"net/netip"

	"midplane/fib"
	"midplane/internal/sys"
)

// Kernel needs Linux.
type Kernel struct{}

var errLinux = &sys.UnsupportedError{Feature: "FIBs in the kernel", MinKernel: "4.20"}

// Open returns a *sys.UnsupportedError.
func Open(Config) (*Kernel, error) { return nil, errLinux }

// Probe implements API.
func (*Kernel) Probe() []Probed {
	return []Probed{{VRF, errLinux}, {Rules, errLinux}, {Netns, errLinux}}
}

// Apply implements API.
func (*Kernel) Apply(context.Context, []FIB) (Report, error) { return Report{}, errLinux }

// Remove implements API.
func (*Kernel) Remove(context.Context) (Report, error) { return Report{}, errLinux }

// Recover implements API.
func (*Kernel) Recover(context.Context) (Report, error) { return Report{}, errLinux }

// FIBs implements API.
func (*Kernel) FIBs() []FIB { return nil }

// Close implements API.
func (*Kernel) Close() error { return nil }

// SyncRoutes implements API.
func (*Kernel) SyncRoutes(context.Context, fib.ID, iter.Seq[Route]) (SyncReport, error) {
	return SyncReport{}, errLinux
}

// UpdateRoutes implements API.
func (*Kernel) UpdateRoutes(context.Context, fib.ID, []Route, []netip.Prefix) error { return errLinux }

// Neighbours implements API.
func (*Kernel) Neighbours(fib.ID, string) ([]Neighbour, error) { return nil, errLinux }

// SetNeighbour implements API.
func (*Kernel) SetNeighbour(fib.ID, string, netip.Addr, MAC, bool) error { return errLinux }

// AddNeighbour implements API.
func (*Kernel) AddNeighbour(fib.ID, string, netip.Addr, MAC, bool) error { return errLinux }

// DeleteNeighbour implements API.
func (*Kernel) DeleteNeighbour(fib.ID, string, netip.Addr) error { return errLinux }

// FlushNeighbours implements API.
func (*Kernel) FlushNeighbours(fib.ID, string, bool) (int, error) { return 0, errLinux }

// Resolve implements API.
func (*Kernel) Resolve(NeighKey) error { return errLinux }

// WatchNeighbours implements API.
func (*Kernel) WatchNeighbours(context.Context, func(NeighEvent)) error { return errLinux }

// WatchDevices implements API.
func (*Kernel) WatchDevices(context.Context, func()) error { return errLinux }
