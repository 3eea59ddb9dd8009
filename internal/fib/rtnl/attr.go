package rtnl

import (
	"encoding/binary"
	"net/netip"
)

var order = binary.NativeEndian

func align(n int) int { return (n + 3) &^ 3 }

// attr splits the first attribute off a chain. The padding of the last one may lack.
func attr(b []byte) (typ int, value, rest []byte, err error) {
	if len(b) < attrHeaderSize {
		return 0, nil, nil, refuse(BadAttribute, "octets after the attributes", len(b), "none")
	}
	n := int(order.Uint16(b))
	if n < attrHeaderSize || n > len(b) {
		return 0, nil, nil, refuse(BadAttribute, "rta_len", n, "4 to what is left of the message")
	}
	return int(order.Uint16(b[2:])) & attrTypeMask, b[attrHeaderSize:n], b[min(align(n), len(b)):], nil
}

func u32(v []byte, field string, to *uint32) error {
	if len(v) != 4 {
		return refuse(BadSize, field, len(v), "4 octets")
	}
	*to = order.Uint32(v)
	return nil
}

func u16(v []byte, field string, to *uint16) error {
	if len(v) != 2 {
		return refuse(BadSize, field, len(v), "2 octets")
	}
	*to = order.Uint16(v)
	return nil
}

// address reads an address of a family, which must be one of the two.
func address(v []byte, family uint8, field string, to *netip.Addr) error {
	switch {
	case family == FamilyIPv4 && len(v) == 4:
		*to = netip.AddrFrom4([4]byte(v))
	case family == FamilyIPv6 && len(v) == 16:
		*to = netip.AddrFrom16([16]byte(v))
	case family == FamilyIPv4:
		return refuse(BadSize, field, len(v), "4 octets")
	case family == FamilyIPv6:
		return refuse(BadSize, field, len(v), "16 octets")
	default:
		return refuse(BadFamily, field, int(family), "AF_INET or AF_INET6")
	}
	return nil
}

// via reads struct rtvia: a gateway of a family of its own.
func via(v []byte, to *netip.Addr) error {
	if len(v) < 2 {
		return refuse(BadSize, "RTA_VIA", len(v), "6 or 18 octets")
	}
	f := order.Uint16(v)
	if f > 255 {
		return refuse(BadFamily, "rtvia_family", int(f), "AF_INET or AF_INET6")
	}
	return address(v[2:], uint8(f), "RTA_VIA", to)
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return FamilyIPv4
	}
	return FamilyIPv6
}

func appendAttr(b []byte, typ int, value []byte) []byte {
	b = order.AppendUint16(b, uint16(attrHeaderSize+len(value)))
	b = order.AppendUint16(b, uint16(typ))
	b = append(b, value...)
	return append(b, 0, 0, 0)[:len(b)+align(len(value))-len(value)]
}

func appendU32(b []byte, typ int, v uint32) []byte {
	b = order.AppendUint16(b, attrHeaderSize+4)
	b = order.AppendUint16(b, uint16(typ))
	return order.AppendUint32(b, v)
}

func appendU16(b []byte, typ int, v uint16) []byte {
	b = order.AppendUint16(b, attrHeaderSize+2)
	b = order.AppendUint16(b, uint16(typ))
	b = order.AppendUint16(b, v)
	return append(b, 0, 0)
}

func appendAddr(b []byte, typ int, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return appendAttr(b, typ, v[:])
	}
	v := a.As16()
	return appendAttr(b, typ, v[:])
}

// openAttr begins an attribute whose size closeAttr fills in.
func openAttr(b []byte, typ int) ([]byte, int) {
	at := len(b)
	b = order.AppendUint16(b, 0)
	return order.AppendUint16(b, uint16(typ)), at
}

func closeAttr(b []byte, at int) error {
	n := len(b) - at
	if n > 1<<16-1 {
		return refuse(TooMany, "attribute", n, "up to 65,535 octets")
	}
	order.PutUint16(b[at:], uint16(n))
	return nil
}
