//go:build !linux

package enter

import (
	"net/netip"

	"midplane/internal/fib/binding"
	"midplane/internal/sys"
)

var errLinux = &sys.UnsupportedError{Feature: "putting a socket into a FIB", MinKernel: "4.8"}

// Socket is for Linux.
func Socket(binding.Binding, string, int, netip.Addr) error { return errLinux }

// RoutePort is for Linux.
func RoutePort(binding.Binding, netip.Addr) (string, error) { return "", errLinux }
