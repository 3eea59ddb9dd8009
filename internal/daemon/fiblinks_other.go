//go:build !linux

package daemon

import (
	"context"
	"net"

	"midplane/internal/sys"
)

// listDevices lists the devices of this host.
func listDevices(space string) (map[string]uint32, error) {
	if space != "" {
		return nil, &sys.UnsupportedError{Feature: "network namespaces"}
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	m := make(map[string]uint32, len(all))
	for _, i := range all {
		m[i.Name] = uint32(i.Index)
	}
	return m, nil
}

// watchDevices is for Linux: elsewhere a device is looked up when it is named.
func watchDevices(context.Context, func()) error { return nil }
