package discover

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"midplane/internal/tipc/wire"
)

// AddrOf is the address that follows from an identity: the exclusive or of its four 32-bit words, or, should that be
// 0, their inclusive or (net/tipc/core.h hash128to32). It is 0 only for the zero identity.
func AddrOf(id wire.NodeID) uint32 {
	var x, o uint32
	for i := 0; i < len(id); i += 4 {
		w := binary.BigEndian.Uint32(id[i:])
		x ^= w
		o |= w
	}
	if x == 0 {
		return o
	}
	return x
}

// IDOfAddr is the identity of a node that was given an address only: the address in hexadecimal characters
// (net/tipc/addr.c tipc_set_node_addr). It also stands for peers too old to have an identity (discover.c
// tipc_disc_rcv).
func IDOfAddr(addr uint32) (id wire.NodeID) {
	strconv.AppendUint(id[:0], uint64(addr), 16)
	return id
}

// IDOfMAC is the identity that a node takes from its first Ethernet bearer when it was given none
// (net/tipc/bearer.c tipc_enable_l2_media).
func IDOfMAC(mac [6]byte) (id wire.NodeID) {
	copy(id[:], mac[:])
	return id
}

// IDOfIP is the identity that a node takes from its first UDP bearer when it was given none: the octets of the local
// address (net/tipc/udp_media.c tipc_udp_enable).
func IDOfIP(ip netip.Addr) (id wire.NodeID) {
	copy(id[:], ip.Unmap().AsSlice())
	return id
}

// Masks of a legacy address <Z.C.N>: 8 bits zone, 12 cluster, 12 node (include/uapi/linux/tipc.h).
const (
	nodeMask        = 0x00000fff
	zoneMask        = 0xff000000
	zoneClusterMask = 0xfffff000
)

// InScope reports whether addr lies in domain: 0 holds all nodes, an address itself, and in a legacy cluster <Z.C.0>
// and <Z.0.0> hold those of that cluster and zone (net/tipc/addr.c tipc_in_scope).
func InScope(legacy bool, domain, addr uint32) bool {
	if domain == 0 || domain == addr {
		return true
	}
	return legacy && (domain == addr&zoneClusterMask || domain == addr&zoneMask)
}
