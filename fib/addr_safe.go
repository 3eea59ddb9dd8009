//go:build midplane_safe

package fib

import (
	"net/netip"

	"midplane/internal/fib/image"
)

func key(a netip.Addr) (family uint32, k image.Key, ok bool) { return slowKey(a) }
