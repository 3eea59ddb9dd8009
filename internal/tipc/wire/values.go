package wire

import (
	"encoding/binary"
	"net/netip"
)

// ServiceRange is a range of service addresses: a type and the instances Lower to Upper, both included.
type ServiceRange struct {
	Type, Lower, Upper uint32
}

// SocketAddr is a socket's address: a port on a node. Node 0 means this node.
type SocketAddr struct {
	Port, Node uint32
}

// NodeID is a 128-bit node identity.
type NodeID [NodeIDSize]byte

// MediaType is the kind of carrier below a link, with the kernel's numbers (TIPC_MEDIA_TYPE_xxx).
type MediaType uint8

// Media.
const (
	MediaNone MediaType = 0
	MediaEth  MediaType = 1
	MediaIB   MediaType = 2
	MediaUDP  MediaType = 3
)

// String returns the name that the tipc tool uses.
func (t MediaType) String() string {
	switch t {
	case MediaEth:
		return "eth"
	case MediaIB:
		return "ib"
	case MediaUDP:
		return "udp"
	}
	return "media" + itoa(uint32(t))
}

// MediaAddr is the address of a node on a bearer. It is comparable; the zero value is no address.
type MediaAddr struct {
	Media     MediaType
	Broadcast bool           // all nodes that the bearer reaches
	MAC       [6]byte        // MediaEth
	IP        netip.AddrPort // MediaUDP
}

// IsZero reports whether a is no address.
func (a MediaAddr) IsZero() bool { return a == MediaAddr{} }

// String gives the form that users know: MAC or IP:port.
func (a MediaAddr) String() string {
	switch a.Media {
	case MediaEth:
		const hex = "0123456789abcdef"
		b := make([]byte, 0, 17)
		for i, x := range a.MAC {
			if i > 0 {
				b = append(b, ':')
			}
			b = append(b, hex[x>>4], hex[x&15])
		}
		return string(b)
	case MediaUDP:
		return a.IP.String()
	}
	return "none"
}

// PutMediaInfo writes a as the 32-octet media address field of discovery messages: media type at octet 3, the address
// from octet 4 on; for UDP the address family as an EtherType, the port, then 4 or 16 octets
// (net/tipc/udp_media.c tipc_udp_addr2msg, eth_media.c tipc_eth_addr2msg). f must hold 32 octets.
func PutMediaInfo(f []byte, a MediaAddr) {
	f = f[:MediaInfoSize]
	clear(f)
	f[3] = byte(a.Media)
	switch a.Media {
	case MediaEth:
		copy(f[4:], a.MAC[:])
	case MediaUDP:
		ip := a.IP.Addr().Unmap()
		binary.BigEndian.PutUint16(f[6:], a.IP.Port())
		if ip.Is4() {
			binary.BigEndian.PutUint16(f[4:], 0x0800)
			b := ip.As4()
			copy(f[8:], b[:])
		} else {
			binary.BigEndian.PutUint16(f[4:], 0x86dd)
			b := ip.As16()
			copy(f[8:], b[:])
		}
	}
}

// ParseMediaInfo reads the media address field of a discovery message. ok is false when the field is short, its media
// is unknown, or the address cannot be one node's: a multicast, broadcast or zero address.
func ParseMediaInfo(f []byte) (a MediaAddr, ok bool) {
	if len(f) < MediaInfoSize {
		return a, false
	}
	a.Media = MediaType(f[3])
	switch a.Media {
	case MediaEth:
		copy(a.MAC[:], f[4:])
		if a.MAC[0]&1 != 0 || a.MAC == [6]byte{} {
			return MediaAddr{}, false
		}
		return a, true
	case MediaUDP:
		port := binary.BigEndian.Uint16(f[6:])
		var ip netip.Addr
		switch binary.BigEndian.Uint16(f[4:]) {
		case 0x0800:
			ip = netip.AddrFrom4([4]byte(f[8:12]))
		case 0x86dd:
			ip = netip.AddrFrom16([16]byte(f[8:24]))
		default:
			return MediaAddr{}, false
		}
		if port == 0 || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return MediaAddr{}, false
		}
		a.IP = netip.AddrPortFrom(ip, port)
		return a, true
	}
	return MediaAddr{}, false
}
