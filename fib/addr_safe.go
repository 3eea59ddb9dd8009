//go:build midplane_safe

package fib

import (
	"encoding/binary"
	"net/netip"

	"midplane/internal/fib/image"
)

func key(a netip.Addr) (family uint32, k image.Key, ok bool) { return slowKey(a) }

func fillBatch(b *image.Batch, addrs []netip.Addr) (n int) { return slowFill(b, addrs) }

const layout = true

func mapped(a netip.Addr) (hi, lo uint64, ok bool) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), a.IsValid()
}
