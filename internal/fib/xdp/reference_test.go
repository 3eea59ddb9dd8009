//go:build linux && amd64

package xdp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/flowhash"
)

// reference decides about a frame as the program must, slowly and plainly: what is said of it, and the frame that leaves.
// The port and its device have no tags.
func (r *router) reference(frame []byte, fibOf func(tags []uint32) uint32) (why Reason, out []byte) {
	be := binary.BigEndian
	rest := frame[12:]
	var tags []uint32
	for len(tags) < 2 && len(rest) >= 2 && (be.Uint16(rest) == 0x8100 || be.Uint16(rest) == 0x88a8) {
		if len(rest) < 6 {
			return Malformed, nil
		}
		tags = append(tags, be.Uint32(rest))
		rest = rest[4:]
	}
	id := fibOf(tags)
	if id == 0 {
		return NoPort, nil
	}
	ether, p := be.Uint16(rest), rest[2:]
	if ether != 0x800 && ether != 0x86dd {
		return EtherType, nil
	}
	if [6]byte(frame[:6]) != r.macs[0] {
		return OtherHost, nil
	}
	var src, dst netip.Addr
	var length, ttl int
	flow := flowhash.Flow{}
	var l4 []byte
	if ether == 0x800 {
		if len(p) < 20 || p[0]>>4 != 4 || p[0]&15 < 5 {
			return Malformed, nil
		}
		head := int(p[0]&15) * 4
		length, ttl = int(be.Uint16(p[2:])), int(p[8])
		if length < head || length > len(p) {
			return Malformed, nil
		}
		if head > 20 {
			return Options, nil
		}
		if got, want := be.Uint16(p[10:]), slowChecksum(p[:20]); got != want && !(want == 0 && got == 0xffff) { // both are zero
			return Malformed, nil
		}
		src, dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		flow.Protocol = p[9]
		if be.Uint16(p[6:])&0x3fff == 0 {
			l4 = p[20:]
		}
	} else {
		if len(p) < 40 || p[0]>>4 != 6 {
			return Malformed, nil
		}
		length, ttl = int(be.Uint16(p[4:]))+40, int(p[7])
		if length > len(p) {
			return Malformed, nil
		}
		if p[6] == 0 {
			return Options, nil
		}
		src, dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		flow.Protocol = p[6]
		l4 = p[40:]
	}
	if special(src) || special(dst) {
		return Address, nil
	}
	flow.Src, flow.Dst = src, dst
	if len(l4) >= 4 && flowhash.HasPorts(flow.Protocol) {
		flow.SrcPort, flow.DstPort = be.Uint16(l4), be.Uint16(l4[2:])
	}
	t, _ := r.set.Table(fib.ID(id))
	hop := r.set.Resolve(t, dst, flowhash.Hash(0, flow))
	switch hop.Type {
	case fib.Local:
		return Local, nil
	case fib.Blackhole:
		return Blackhole, nil
	case fib.Prohibit:
		return Prohibit, nil
	case fib.Unreachable:
		if hop.ID != 0 {
			return Unreachable, nil
		}
		return NoRoute, nil
	}
	if ttl <= 1 {
		return TTL, nil
	}
	to := hop.Gateway
	if !to.IsValid() {
		to = dst
	}
	mac, ok := map[string][6]byte{"192.0.2.9": macA, "10.2.0.7": macB, "2001:db8:9::9": macA, "2001:db8:2::7": macB}[to.String()]
	link := 1
	if hop.FIB == 20 {
		mac, link = macB, 2
	}
	if !ok || hop.Device != r.links[link] {
		return NoNeighbour, nil
	}
	if length > 1500 {
		return TooBig, nil
	}
	out = append(append(append([]byte{}, mac[:]...), r.macs[link][:]...), rest...)
	if ether == 0x800 {
		h := out[14:]
		h[8]--
		be.PutUint16(h[10:], slowChecksum(h[:20]))
	} else {
		out[14+7]--
	}
	return Forwarded, out
}

// Frames with some octets wrong, cut or added: the program does what the reference says, to the last octet.
func TestIntegrationMutatedFrames(t *testing.T) {
	r := newTestRouter(t)
	fibOf := func(tags []uint32) uint32 {
		for _, tag := range tags {
			if tag&0xfff != 0 || tag>>16 == 0x88a8 {
				return 0
			}
		}
		return 10
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	v4 := []string{"10.1.2.3", "10.2.0.7", "10.2.0.8", "10.3.0.1", "10.4.0.1", "10.5.0.1", "10.20.1.1", "10.21.0.1", "10.30.0.1", "10.31.0.1", "10.32.0.1", "10.33.0.1", "172.16.0.1", "224.0.0.5", "127.0.0.1"}
	v6 := []string{"2001:db8:1::5", "2001:db8:2::7", "2001:db8:30::1", "2001:db8:31::1", "2001:db8:32::1", "2001:db8:33::1", "2001:db8:ffff::1", "ff02::1", "fe80::1"}
	seen := map[Reason]int{}
	r.in(t, func() error {
		before, err := r.Stats(10)
		if err != nil {
			return err
		}
		none, err := r.Stats(0)
		if err != nil {
			return err
		}
		for i := range 60000 {
			p := packet{dmac: r.macs[0], src: "198.51.100.1", dst: v4[rnd.IntN(len(v4))], ttl: byte(1 + rnd.IntN(255)), proto: []byte{1, 6, 17, 132}[rnd.IntN(4)], length: rnd.IntN(30)}
			if rnd.IntN(3) == 0 {
				p.src, p.dst = "2001:db8:99::1", v6[rnd.IntN(len(v6))]
			}
			if rnd.IntN(4) == 0 {
				p.tags = []uint32{0x81000000 | uint32(rnd.IntN(8))<<13}
			}
			frame := p.bytes()
			for range rnd.IntN(4) {
				switch rnd.IntN(3) {
				case 0:
					frame[rnd.IntN(len(frame))] ^= 1 << rnd.IntN(8)
				case 1:
					frame[rnd.IntN(len(frame))] = byte(rnd.Uint32())
				default:
					frame = frame[:max(14, len(frame)-rnd.IntN(8))]
				}
			}
			if rnd.IntN(2) == 0 && len(frame) >= 34 && len(p.tags) == 0 && frame[12] == 8 { // with a right checksum the rest matters
				binary.BigEndian.PutUint16(frame[24:], slowChecksum(frame[14:34]))
			}
			why, want := r.reference(frame, fibOf)
			seen[why]++
			action, out, err := r.give(frame, r.links[0])
			if err != nil {
				return err
			}
			ok := action == pass && bytes.Equal(out, frame)
			switch why {
			case Forwarded:
				ok = action == redirect && bytes.Equal(out, want)
			case Blackhole:
				ok = action == drop
			}
			if !ok {
				return fmt.Errorf("frame %d, %x: action %d, the reference says %v\n got %x\nwant %x", i, frame, action, why, out, want)
			}
		}
		after, err := r.Stats(10)
		if err != nil {
			return err
		}
		noneAfter, err := r.Stats(0)
		if err != nil {
			return err
		}
		for why := range after.Packets {
			n := after.Packets[why] - before.Packets[why] + noneAfter.Packets[why] - none.Packets[why]
			if n != uint64(seen[Reason(why)]) && Reason(why) != MissLost {
				t.Errorf("%v: counted %d, the reference %d", Reason(why), n, seen[Reason(why)])
			}
		}
		return nil
	})
	for _, why := range []Reason{Forwarded, NoPort, EtherType, OtherHost, Malformed, Options, Address, TTL, Local, NoRoute, Blackhole, Unreachable, Prohibit, NoNeighbour} {
		if seen[why] < 20 {
			t.Errorf("%v: only %d frames", why, seen[why])
		}
	}
}
