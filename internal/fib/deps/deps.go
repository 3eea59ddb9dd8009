//go:build deps

// Package deps keeps modules in go.mod until the packages that use them are there.
package deps

import (
	_ "github.com/cilium/ebpf"
	_ "github.com/cilium/ebpf/cmd/bpf2go"
	_ "github.com/cilium/ebpf/link"
	_ "github.com/gaissmai/bart"
	_ "github.com/mdlayher/netlink"
	_ "github.com/osrg/gobgp/v4/pkg/server"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/vishvananda/netlink"
)
