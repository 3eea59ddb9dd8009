package sim

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// Profile is how a segment treats datagrams. The zero value delivers each at once.
type Profile struct {
	Media     wire.MediaType // MediaUDP (also for 0) or MediaEth: what addresses look like
	MTU       int            // largest datagram; 0: 14000 for UDP, 1500 for Ethernet
	Loss      float64        // probability that a datagram is lost
	Dup       float64        // probability that it arrives twice
	Reorder   float64        // probability that it is held back, so that later ones overtake it
	ReorderBy time.Duration  // by up to this
	Delay     time.Duration  // of every datagram
	Jitter    time.Duration  // and up to so much more; does not reorder
	Bandwidth int64          // octets per second that a host can send; 0: no limit
	Queue     time.Duration  // what does not get onto the segment within this is lost; 0: no limit
}

// Segment is one network that hosts are attached to with the bearer of the same number.
type Segment struct {
	Profile
	id    int
	paths [][]path // [from][to]
	busy  []mono.Time
}

// path is one direction between two hosts of a segment.
type path struct {
	cut         int       // faults that block it now
	lastArrival mono.Time // of what was sent last
	lastRx      mono.Time // when a datagram of their link, when up, was last handed to the receiver
	drops       [16]mono.Time
	nDrops      int
	sent, lost  uint64
}

func (p *path) drop(now mono.Time) {
	p.lost++
	p.drops[p.nDrops%len(p.drops)] = now
	p.nDrops++
}

// dropsSince counts the losses since t, up to the 16 latest.
func (p *path) dropsSince(t mono.Time) (n int) {
	for i := range min(p.nDrops, len(p.drops)) {
		if p.drops[i] >= t {
			n++
		}
	}
	return n
}

// maxDelay is the longest that a datagram that arrives may have been under way, without the wait for bandwidth.
func (s *Segment) maxDelay() time.Duration { return s.Delay + s.Jitter + s.ReorderBy + s.Queue }

const broadcastMAC = 0xff

// addr is the media address of a host on the segment.
func (s *Segment) addr(host int) wire.MediaAddr {
	if s.Media == wire.MediaEth {
		return wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte{2, 0, 0, byte(s.id), byte(host >> 8), byte(host)}}
	}
	ip := netip.AddrFrom4([4]byte{10, byte(s.id), byte(host >> 8), byte(host)})
	return wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(ip, wire.UDPPort)}
}

// broadcastAddr is the media address of all hosts.
func (s *Segment) broadcastAddr() wire.MediaAddr {
	if s.Media == wire.MediaEth {
		const b = broadcastMAC
		return wire.MediaAddr{Media: wire.MediaEth, Broadcast: true, MAC: [6]byte{b, b, b, b, b, b}}
	}
	return wire.MediaAddr{
		Media: wire.MediaUDP, Broadcast: true,
		IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{228, 0, 18, 103}), wire.UDPPort),
	}
}

// hostOf is the host with that address, -1: none.
func (s *Segment) hostOf(a wire.MediaAddr) int {
	i := -1
	switch a.Media {
	case wire.MediaEth:
		i = int(a.MAC[4])<<8 | int(a.MAC[5])
	case wire.MediaUDP:
		if !a.IP.Addr().Is4() {
			return -1
		}
		ip := a.IP.Addr().As4()
		i = int(ip[2])<<8 | int(ip[3])
	}
	if i < 0 || i >= len(s.paths) || a != s.addr(i) {
		return -1
	}
	return i
}

// packet is a datagram under way.
type packet struct {
	seg, from int
	data      []byte
}

// transmit puts a datagram of host from on segment seg.
func (w *World) transmit(from, seg int, dst wire.MediaAddr, pkt []byte) {
	if seg >= len(w.segs) {
		w.Failf("host %d sends on bearer %d", from, seg)
		return
	}
	s := w.segs[seg]
	w.stats.Sent++
	w.stats.SentOctets += uint64(len(pkt))
	w.note(noteSend, from, seg, pkt)
	if len(pkt) > s.MTU {
		w.Failf("host %d sends %d octets on segment %d with MTU %d", from, len(pkt), seg, s.MTU)
		return
	}
	var wait mono.Time // until it is on the wire
	if s.Bandwidth > 0 {
		start := max(s.busy[from], w.now)
		wait = start - w.now
		if s.Queue > 0 && time.Duration(wait) > s.Queue {
			wait = -1
		} else {
			s.busy[from] = start + mono.Time(int64(len(pkt)+42)*int64(time.Second)/s.Bandwidth)
			wait = s.busy[from] - w.now
		}
	}
	if dst.Broadcast {
		for to := range w.hosts {
			if to != from {
				w.send(s, from, to, wait, pkt)
			}
		}
		return
	}
	to := s.hostOf(dst)
	if to < 0 {
		w.Failf("host %d sends to %v on segment %d", from, dst, seg)
		return
	}
	w.send(s, from, to, wait, pkt)
}

// send decides the fate of a datagram to one host.
func (w *World) send(s *Segment, from, to int, wait mono.Time, pkt []byte) {
	p := &s.paths[from][to]
	p.sent++
	if p.cut > 0 || wait < 0 || w.chance(s.Loss) {
		p.drop(w.now)
		w.stats.Lost++
		w.note(noteLost, to, s.id, nil)
		return
	}
	w.arrive(s, p, from, to, wait, pkt)
	if w.chance(s.Dup) {
		w.arrive(s, p, from, to, wait, pkt)
	}
}

func (w *World) arrive(s *Segment, p *path, from, to int, wait mono.Time, pkt []byte) {
	at := w.now + wait + mono.Time(s.Delay)
	if s.Jitter > 0 {
		at += mono.Time(w.net.Int64N(int64(s.Jitter)))
	}
	if w.chance(s.Reorder) && s.ReorderBy > 0 {
		at += mono.Time(w.net.Int64N(int64(s.ReorderBy)))
	} else {
		at = max(at, p.lastArrival)
		p.lastArrival = at
	}
	w.events.push(event{at: at, kind: evDeliver, host: int32(to), inst: w.hosts[to].inst, pkt: w.newPacket(s.id, from, pkt)})
}

// Cut blocks the path from one host to another on a segment, or with on = false lifts that. Cuts nest.
func (w *World) Cut(seg, from, to int, on bool) {
	if on {
		w.segs[seg].paths[from][to].cut++
	} else {
		w.segs[seg].paths[from][to].cut--
	}
}

func (w *World) chance(p float64) bool { return p > 0 && w.net.Float64() < p }

// packetPool keeps datagrams for reuse, by size.
type packetPool [3][]*packet

var packetSizes = [len(packetPool{})]int{256, 2048, 66100}

func (w *World) newPacket(seg, from int, data []byte) *packet {
	c := 0
	for len(data) > packetSizes[c] {
		c++
	}
	var p *packet
	if l := w.pool[c]; len(l) > 0 {
		p = l[len(l)-1]
		w.pool[c] = l[:len(l)-1]
	} else {
		p = &packet{data: make([]byte, 0, packetSizes[c])}
	}
	p.seg, p.from = seg, from
	p.data = append(p.data[:0], data...)
	return p
}

func (w *World) freePacket(p *packet) {
	for c, n := range packetSizes {
		if cap(p.data) == n {
			w.pool[c] = append(w.pool[c], p)
		}
	}
}

// newRand makes one of the independent random sources that follow from a seed.
func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
