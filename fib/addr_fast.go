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
	n, b.Family = fill4(b, addrs), ipv4
	if n == 0 {
		n, b.Family = fill6(b, addrs), ipv6
	}
	b.N = n
	return n
}

// fill4 and fill6 take those of one family; addrs are as many as fit.
func fill4(b *image.Batch, addrs []netip.Addr) int {
	for i := range addrs {
		a := (*addrBits)(unsafe.Pointer(&addrs[i]))
		if a.hi != 0 || a.lo>>32 != 0xffff {
			return i
		}
		b.Hi[i&(image.Lanes-1)] = a.lo << 32
	}
	return len(addrs)
}

func fill6(b *image.Batch, addrs []netip.Addr) int {
	for i := range addrs {
		a := (*addrBits)(unsafe.Pointer(&addrs[i]))
		if a.hi == 0 && (a.zone == none || a.lo>>32 == 0xffff) { // no address has other bits than 0
			return i
		}
		b.Hi[i&(image.Lanes-1)] = a.hi
	}
	return len(addrs)
}
