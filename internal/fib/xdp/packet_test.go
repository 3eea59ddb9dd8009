//go:build linux && amd64

package xdp

import (
	"encoding/binary"
	"net/netip"

	"midplane/internal/fib/flowhash"
)

// packet describes a frame; the zero value of a field is what an ordinary one has.
type packet struct {
	dmac, smac   [6]byte
	tags         []uint32 // TPID << 16 | VLAN
	src, dst     string
	proto        byte // 17
	sport, dport uint16
	ttl          byte // 64
	length       int  // of the payload behind the ports
	version      byte
	options      []byte // IPv4
	fragment     uint16 // flags and offset
	badSum       uint16 // what the checksum is wrong by
	total        int    // what the length field is wrong by
	ether        uint16
	hopByHop     bool // IPv6: options that every router looks at
}

var testSource = [6]byte{2, 0, 0, 0, 0, 0x99}

func (p packet) flow() flowhash.Flow {
	f := flowhash.Flow{Src: netip.MustParseAddr(p.src), Dst: netip.MustParseAddr(p.dst), Protocol: p.proto, SrcPort: p.sport, DstPort: p.dport}
	if f.Protocol == 0 {
		f.Protocol = flowhash.UDP
	}
	if !flowhash.HasPorts(f.Protocol) || p.fragment&0x3fff != 0 {
		f.SrcPort, f.DstPort = 0, 0
	}
	return f
}

func (p packet) bytes() []byte {
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	if p.proto == 0 {
		p.proto = flowhash.UDP
	}
	if p.ttl == 0 {
		p.ttl = 64
	}
	be := binary.BigEndian
	payload := make([]byte, 4+4+p.length)
	be.PutUint16(payload, p.sport)
	be.PutUint16(payload[2:], p.dport)
	be.PutUint16(payload[4:], uint16(len(payload)))
	var head []byte
	ether := uint16(0x0800)
	if dst.Is4() {
		head = make([]byte, 20, 60)
		head = append(head, p.options...)
		head[0] = 0x40 | byte(len(head)/4)
		be.PutUint16(head[2:], uint16(len(head)+len(payload)+p.total))
		be.PutUint16(head[6:], p.fragment)
		head[8], head[9] = p.ttl, p.proto
		copy(head[12:], src.AsSlice())
		copy(head[16:], dst.AsSlice())
		if p.version != 0 {
			head[0] = head[0]&0xf | p.version<<4
		}
		be.PutUint16(head[10:], slowChecksum(head)+p.badSum)
	} else {
		ether = 0x86dd
		head = make([]byte, 40)
		head[0] = 0x60
		if p.version != 0 {
			head[0] = p.version << 4
		}
		be.PutUint16(head[4:], uint16(len(payload)+p.total))
		head[6], head[7] = p.proto, p.ttl
		if p.hopByHop {
			head[6] = 0
		}
		copy(head[8:], src.AsSlice())
		copy(head[24:], dst.AsSlice())
	}
	if p.ether != 0 {
		ether = p.ether
	}
	if p.smac == ([6]byte{}) {
		p.smac = testSource
	}
	f := append(append([]byte{}, p.dmac[:]...), p.smac[:]...)
	for _, t := range p.tags {
		f = be.AppendUint32(f, t)
	}
	f = be.AppendUint16(f, ether)
	return append(append(f, head...), payload...)
}

// slowChecksum is RFC 791's, over a header whose checksum field counts as zero.
func slowChecksum(head []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(head); i += 2 {
		if i != 10 {
			sum += uint32(binary.BigEndian.Uint16(head[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
