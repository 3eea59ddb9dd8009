package fib

import (
	"encoding/binary"
	"net/netip"

	"midplane/internal/fib/image"
)

// Families of an image.
const (
	ipv4 = 0
	ipv6 = 1
)

// slowKey makes the key of an address; IPv4 in IPv6 is IPv4. The zero Addr has none.
func slowKey(a netip.Addr) (family uint32, k image.Key, ok bool) {
	switch {
	case a.Is4() || a.Is4In6():
		b := a.As4()
		return ipv4, image.Key{Hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}, true
	case a.IsValid():
		b := a.As16()
		return ipv6, image.Key{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}, true
	}
	return ipv6, image.Key{}, false
}

// addrOf is the reverse of slowKey.
func addrOf(family uint32, k image.Key) netip.Addr {
	if family == ipv4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(k.Hi>>32))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.Hi)
	binary.BigEndian.PutUint64(b[8:], k.Lo)
	return netip.AddrFrom16(b)
}

func prefixOf(family uint32, k image.Key, n uint) netip.Prefix {
	return netip.PrefixFrom(addrOf(family, k), int(n))
}

// prefixKey checks and masks a prefix.
func prefixKey(p netip.Prefix) (family uint32, k image.Key, n uint, err error) {
	if !p.IsValid() || p.Addr().Is4In6() {
		return 0, k, 0, &FieldError{"prefix", p.String(), "an IPv4 or IPv6 prefix, such as 192.0.2.0/24"}
	}
	family, k, _ = slowKey(p.Masked().Addr())
	return family, k, uint(p.Bits()), nil
}

// slowFill takes addresses of one family into a batch, as many as there are in a row and fit, and returns how many.
func slowFill(b *image.Batch, addrs []netip.Addr) (n int) {
	for ; n < image.Lanes && n < len(addrs); n++ {
		family, k, ok := slowKey(addrs[n])
		if !ok || (n > 0 && b.Family != family) {
			break
		}
		b.Family, b.Hi[n] = family, k.Hi
	}
	b.N = n
	return n
}
