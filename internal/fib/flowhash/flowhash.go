// Package flowhash is the hash by which the packets of one flow take one member of a group: the same in the Go library
// and in the XDP forwarder (internal/fib/xdp/bpf/resolve.h), so that both send a flow the same way.
package flowhash

import (
	"encoding/binary"
	"net/netip"
)

// Protocols (IANA) whose ports belong to the flow.
const (
	TCP     = 6
	UDP     = 17
	DCCP    = 33
	SCTP    = 132
	UDPLite = 136
)

// Flow is what the packets of a flow have in common. Both addresses are of one family; with others the hash has no
// meaning, but it is still the same each time.
type Flow struct {
	Src, Dst         netip.Addr // IPv4 in IPv6 is taken for IPv6
	Protocol         uint8      // IPv4's protocol, IPv6's next header
	SrcPort, DstPort uint16     // 0 without ports, and in fragments: all fragments of a packet go the same way
}

// HasPorts says whether a protocol has ports, in the first four octets behind the header.
func HasPorts(protocol uint8) bool {
	switch protocol {
	case TCP, UDP, DCCP, SCTP, UDPLite:
		return true
	}
	return false
}

// Hash returns the hash. Machines one after the other should have different seeds: if the first has divided flows by
// the hash, the second would else see only flows that hash alike, and use one member of each group. Safe for concurrent
// use; it does not allocate.
func Hash(seed uint64, f Flow) uint32 {
	// Words are the octets of the packet, read with the first as the lowest, as the forwarder loads them.
	var h uint64
	if f.Src.Is4() && f.Dst.Is4() {
		s, d := f.Src.As4(), f.Dst.As4()
		h = mix(seed, uint64(binary.LittleEndian.Uint32(d[:]))<<32|uint64(binary.LittleEndian.Uint32(s[:])))
	} else {
		s, d := f.Src.As16(), f.Dst.As16()
		h = mix(seed, binary.LittleEndian.Uint64(s[:8]))
		h = mix(h, binary.LittleEndian.Uint64(s[8:]))
		h = mix(h, binary.LittleEndian.Uint64(d[:8]))
		h = mix(h, binary.LittleEndian.Uint64(d[8:]))
	}
	ports := [4]byte{byte(f.SrcPort >> 8), byte(f.SrcPort), byte(f.DstPort >> 8), byte(f.DstPort)}
	h = mix(h, uint64(f.Protocol)<<32|uint64(binary.LittleEndian.Uint32(ports[:])))
	return uint32(h * 0xd6e8feb86659fd93 >> 32)
}

func mix(h, w uint64) uint64 {
	h = (h ^ w) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}
