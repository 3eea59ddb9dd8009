//go:build !linux

package probe

import (
	"midplane/internal/digsig/gaps"
	"midplane/internal/sys"
)

// Host is an error: enforcement needs Linux.
func Host() (gaps.Host, error) {
	return gaps.Host{}, &sys.UnsupportedError{Feature: "enforcement of signatures", MinKernel: "5.0"}
}
