//go:build !midplane_safe

package fib

import (
	"net/netip"
	"unsafe"

	"midplane/internal/fib/image"
)

// addrBits is a netip.Addr from inside. The standard library promises nothing about it: layout is checked when the
// program starts, and slowKey does the same without it.
type addrBits struct {
	hi, lo uint64
	zone   unsafe.Pointer
}

var (
	layout = checkLayout()
	none   = zoneOf(netip.Addr{})
)

func zoneOf(a netip.Addr) unsafe.Pointer { return (*addrBits)(unsafe.Pointer(&a)).zone }

func checkLayout() bool {
	if unsafe.Sizeof(netip.Addr{}) != unsafe.Sizeof(addrBits{}) {
		return false
	}
	four, six := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("102:304:506:708:90a:b0c:d0e:f10")
	f, s := (*addrBits)(unsafe.Pointer(&four)), (*addrBits)(unsafe.Pointer(&six))
	return f.hi == 0 && f.lo == 0xffff01020304 && s.hi == 0x0102030405060708 && s.lo == 0x090a0b0c0d0e0f10 &&
		zoneOf(four) != zoneOf(six) && zoneOf(netip.Addr{}) != zoneOf(four) && zoneOf(netip.Addr{}) != zoneOf(six)
}

// mapped returns the bits of an address, IPv4 as IPv4 in IPv6; ok if it is one. It is for when layout is true.
func mapped(a netip.Addr) (hi, lo uint64, ok bool) {
	b := (*addrBits)(unsafe.Pointer(&a))
	return b.hi, b.lo, b.zone != none
}

// key is slowKey, without going through octets.
func key(a netip.Addr) (family uint32, k image.Key, ok bool) {
	if !layout {
		return slowKey(a)
	}
	b := (*addrBits)(unsafe.Pointer(&a))
	if b.hi == 0 && b.lo>>32 == 0xffff {
		return ipv4, image.Key{Hi: b.lo << 32}, true
	}
	return ipv6, image.Key{Hi: b.hi, Lo: b.lo}, b.zone != none
}

// fillBatch is slowFill, likewise.
func fillBatch(b *image.Batch, addrs []netip.Addr) (n int) {
	if !layout {
		return slowFill(b, addrs)
	}
	addrs = addrs[:min(len(addrs), image.Lanes)]
	family := uint32(ipv6)
	for i := range addrs {
		a := (*addrBits)(unsafe.Pointer(&addrs[i]))
		hi, lo, f := a.hi, a.lo, uint32(ipv6)
		if hi == 0 && lo>>32 == 0xffff {
			hi, lo, f = lo<<32, 0, ipv4
		} else if a.zone == none {
			break
		}
		if i == 0 {
			family = f
		} else if f != family {
			break
		}
		b.Hi[i], b.Lo[i] = hi, lo
		n++
	}
	b.Family, b.N = family, n
	return n
}
