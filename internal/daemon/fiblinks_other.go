//go:build !linux

package daemon

import (
	"context"
	"net"
	"net/netip"

	"midplane/internal/sys"
)

// listDevices lists the devices of this host.
func listDevices(space string) ([]device, error) {
	if space != "" {
		return nil, &sys.UnsupportedError{Feature: "network namespaces"}
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var l []device
	for _, i := range all {
		d := device{name: i.Name, index: uint32(i.Index)}
		addrs, _ := i.Addrs() // one that went meanwhile has none
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				d.addrs = append(d.addrs, p)
			}
		}
		l = append(l, d)
	}
	return l, nil
}

// watchDevices is for Linux: elsewhere a device is looked up when it is named.
func watchDevices(context.Context, func()) error { return nil }
