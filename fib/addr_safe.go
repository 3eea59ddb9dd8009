//go:build midplane_safe

package fib

import (
	"net/netip"

	"midplane/internal/fib/image"
)

func key(a netip.Addr) (family uint32, k image.Key, ok bool) { return slowKey(a) }

func fillBatch(b *image.Batch, addrs []netip.Addr) (n int) { return slowFill(b, addrs) }
