package stack_test

import (
	"encoding/binary"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

// capturedFrames returns the TIPC messages that one kernel sent to the other, or to all, in the Ethernet capture.
func capturedFrames(t testing.TB, from uint32) (out [][]byte) {
	t.Helper()
	for _, f := range tipctest.Capture(t, tipctest.Ethernet) {
		if f.Msg.PrevNode() == from {
			out = append(out, f.Msg)
		}
	}
	if len(out) < 20 {
		t.Fatalf("%d frames", len(out))
	}
	return out
}

// A script of FuzzStackPackets is a list of items. Each begins with an octet:
//
//	0x00-0x3f  let n+1 times 10 ms pass
//	0x40-0x7f  a packet as it stands, from address n
//	0x80-0xff  a packet with the mad peer's session and sequence number put right
//
// Packets follow with their length in two octets.
const (
	opRaw = 0x40
	opSay = 0x80
)

func appendItem(script []byte, op byte, pkt []byte) []byte {
	script = append(script, op)
	script = binary.BigEndian.AppendUint16(script, uint16(len(pkt)))
	return append(script, pkt...)
}

// FuzzStackPackets plays packets and pauses to a whole node that has a peer, sockets of all types and a subscriber. It
// must not panic, hang or answer without bound, and afterwards it must still take up contact with an honest node. The
// seeds are what one Linux kernel said to another; the nodes here have the same addresses.
func FuzzStackPackets(f *testing.F) {
	const target, mad = 2, 3
	frames := capturedFrames(f, addrOf(mad))
	for i := 0; i < len(frames); i += 12 {
		var asIs, right []byte
		for _, p := range frames[i:min(i+12, len(frames))] {
			asIs = appendItem(asIs, opRaw|mad, p)
			right = appendItem(right, opSay, p)
			if wire.Msg(p).User() == wire.UserLinkProtocol {
				right = append(right, 10)
			}
		}
		f.Add(asIs)
		f.Add(right)
	}
	for n := range 3 { // handshakes of nodes that do not exist
		var s []byte
		k := 9 + n
		s = appendItem(s, opRaw|byte(k), dsc(k, wire.TypeDscRequest, 1))
		s = appendItem(s, opRaw|byte(k), hello(addrOf(k), addrOf(target), wire.TypeReset, 5))
		s = appendItem(s, opRaw|byte(k), hello(addrOf(k), addrOf(target), wire.TypeActivate, 5))
		s = appendItem(append(s, 63), opRaw|byte(k), raw(addrOf(k), addrOf(target), wire.UserNameDistr, 0, wire.IntHeaderSize,
			nameItems(item(uint32(n), 1, 2, 3)), func(m wire.Msg) { m.SetBulk(); m.SetSeqNo(1) }))
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 64<<10 {
			t.Skip("too long")
		}
		w := newWorld(t, 11)
		a, m := w.add(target), w.add(mad)
		w.meet()
		l := a.socket(socket.Stream)
		l.Listen(0)
		a.bound(socket.RDM, rangeOf(4711, 0, 10))
		a.bound(socket.Dgram, rangeOf(4711, 5, 20))
		client, _ := m.connect(socket.Stream, l, a)
		sub := a.socket(socket.SeqPacket)
		sub.Connect(w.now, socket.Dest{Kind: socket.ServiceDest, Range: rangeOf(1, 1, 1)})
		a.flush()
		sub.Send(w.now, subscription(binary.LittleEndian, 0, 0, ^uint32(0), wire.SubPorts), socket.Dest{})
		a.flush()

		// What the mad peer said last about its session.
		var last wire.Msg
		w.mangle = func(from *host, _ wire.MediaAddr, pkt []byte) [][]byte {
			if from == m && wire.Msg(pkt).User() == wire.UserLinkProtocol {
				last = append(last[:0], pkt...)
			}
			return [][]byte{pkt}
		}
		w.run(400 * time.Millisecond)

		packets, pauses, before := 0, 0, a.sent
		for len(script) > 0 && packets < 500 && pauses < 100 {
			op := script[0]
			script = script[1:]
			if op < opRaw {
				pauses++
				w.run(time.Duration(op+1) * 10 * time.Millisecond)
				continue
			}
			if len(script) < 2 {
				break
			}
			n := min(int(binary.BigEndian.Uint16(script)), len(script)-2)
			p := append([]byte(nil), script[2:2+n]...)
			script = script[2+n:]
			packets++
			if op < opSay {
				a.inject(busAddr(int(op-opRaw)), p)
				continue
			}
			v, err := wire.Validate(p)
			if err != nil {
				continue
			}
			v.SetPrevNode(m.addr())
			if !v.IsShort() {
				v.SetDestNode(a.addr())
			}
			switch v.User() {
			case wire.UserLinkConfig:
				a.inject(m.at, v)
			case wire.UserLinkProtocol:
				if len(last) >= wire.IntHeaderSize && v.Hdrsz() >= wire.IntHeaderSize {
					v.SetSession(last.Session())
					v.SetSeqNo(last.SeqNo() + 1)
					if op&1 != 0 {
						v.SetAck(last.Ack())
						v.SetBcastAck(last.BcastAck())
					}
				}
				a.inject(m.at, v)
			default:
				if v.Size() > busMTU {
					continue
				}
				if v.Hdrsz() >= wire.ShortHeaderSize && op&2 != 0 {
					v.SetDestPort(l.Port())
					v.SetOrigPort(client.Port())
				}
				if v.NonSeq() {
					v.SetNonSeq(false)
					m.shout(v)
				} else {
					m.say(a, v)
				}
			}
		}
		w.run(3 * time.Second)
		if n := a.sent - before; n > 1000+100*packets {
			t.Errorf("%d packets were answered with %d", packets, n)
		}
		if n := a.s.Distributor().Stats().DeferredNow; n > 1<<16 {
			t.Errorf("%d name items deferred", n)
		}
		last = nil
		w.mangle = nil
		honest := w.add(7)
		for k := 0; !a.up(honest) || !honest.up(a); k++ {
			if k == 100 {
				t.Fatal("no contact with an honest node any more")
			}
			w.run(100 * time.Millisecond)
		}
		client.Close(w.now)
		l.Close(w.now)
		a.s.Shutdown(w.now)
		a.flush()
	})
}

// FuzzTwoStacks connects two good nodes by a bad line. Each octet of the script says what happens to a packet:
//
//	0x00-0x7f  nothing
//	0x80-0x9f  it is lost
//	0xa0-0xaf  it comes twice
//	0xb0-0xcf  it comes late, by up to 32 packet times
//	0xd0-0xdf  octets of the user's data behind the first 8 change
//	0xe0-0xff  with anything set: any octet changes; else nothing
//
// Behind its end the script starts again, for 2 s of traffic. As long as headers stay as they are, each message must be
// delivered once, in order and with its length, up to the point where the connection broke.
func FuzzTwoStacks(f *testing.F) {
	f.Add([]byte{0}, false)
	f.Add([]byte{0, 0x80, 0, 0, 0xa0, 0, 0xb5, 0, 0xc1, 0, 0, 0xd3}, false)
	f.Add([]byte{0, 0x80, 0x90, 0, 0xcf, 0xcf, 0xcf}, false)
	f.Add([]byte{0xbf, 0, 0xb1, 0xa1, 0, 0, 0, 0xd0, 0, 0xc0}, true)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0xe1, 0, 0, 0xff, 0, 0, 0xe7, 0xd1}, true)
	f.Add([]byte{0, 0, 0xe0, 0xf0, 0xea, 0xe3}, true)
	f.Fuzz(func(t *testing.T, script []byte, anything bool) {
		if len(script) > 1<<12 {
			t.Skip("too long")
		}
		w := newWorld(t, 12)
		a, b := w.add(1), w.add(2)
		w.meet()
		n := &numbered{t: t, a: a, b: b}
		l := b.socket(socket.SeqPacket)
		l.Listen(0)
		n.from, n.to = a.connect(socket.SeqPacket, l, b)
		n.rdmTo = b.bound(socket.RDM, rangeOf(9000, 1, 1))
		n.rdm = a.socket(socket.RDM)
		n.rdm.SetDestDroppable(true)
		w.run(50 * time.Millisecond)

		pos := 0
		w.mangle = func(from *host, _ wire.MediaAddr, pkt []byte) [][]byte {
			if len(script) == 0 {
				return [][]byte{pkt}
			}
			op := script[pos%len(script)]
			pos++
			switch {
			case op >= 0xe0:
				if anything {
					pkt[(int(op)*37+pos*13)%len(pkt)] ^= op | 1
				}
			case op >= 0xd0:
				m := wire.Msg(pkt)
				if d := m.Data(); m.IsData() && len(d) > 8 {
					d[8+pos%(len(d)-8)] ^= op
				}
			case op >= 0xb0:
				to := a
				if from == a {
					to = b
				}
				w.late(flight{w.now + delay*mono.Time(op-0xb0+1), to, from.at, append([]byte(nil), pkt...)})
				return nil
			case op >= 0xa0:
				return [][]byte{pkt, pkt}
			case op >= 0x80:
				return nil
			}
			return [][]byte{pkt}
		}
		for range 400 {
			n.pump(anything)
			w.run(5 * time.Millisecond)
		}
		w.mangle = nil
		for k := 0; !a.up(b) || !b.up(a); k++ {
			if k == 2000 {
				t.Fatal("no contact any more on a good line")
			}
			n.pump(anything)
			w.run(100 * time.Millisecond)
		}
		for range 1000 {
			n.stop = true
			n.pump(anything)
			w.run(5 * time.Millisecond)
			if n.recvd == n.sent {
				break
			}
		}
		if !anything && !n.broken && n.recvd != n.sent {
			t.Errorf("%d messages of %d arrived, and the connection lives: %+v, %+v", n.recvd, n.sent, n.from.Info(), n.to.Info())
		}
	})
}

// late puts a packet on the bus that arrives in its own time.
func (w *world) late(f flight) {
	i := len(w.flying)
	for i > 0 && w.flying[i-1].at > f.at {
		i--
	}
	w.flying = append(w.flying, flight{})
	copy(w.flying[i+1:], w.flying[i:])
	w.flying[i] = f
}

// numbered is traffic whose order and boundaries can be seen though the content of messages was changed.
type numbered struct {
	t              testing.TB
	a, b           *host
	from, to       *socket.Sock
	rdm, rdmTo     *socket.Sock
	sent, recvd    uint32
	rdmSent, rdmIn uint32
	broken, stop   bool
	buf            [4000]byte
}

// lengthOf is the length of message number i; some need fragments.
func lengthOf(i uint32) int { return 8 + int(i*i*31%500) + int(i%17/16)*3000 }

func (n *numbered) pump(anything bool) {
	n.t.Helper()
	now := n.a.w.now
	if !n.stop && !n.broken {
		p := n.buf[:lengthOf(n.sent)]
		binary.BigEndian.PutUint32(p, n.sent)
		switch _, err := n.from.Send(now, p, socket.Dest{}); err {
		case nil:
			n.sent++
		case socket.ErrWouldBlock:
		default:
			n.broken = true
		}
		binary.BigEndian.PutUint32(p, n.rdmSent)
		if _, err := n.rdm.Send(now, p[:lengthOf(n.rdmSent)%600+8], service(9000, 1)); err == nil {
			n.rdmSent++
		}
	}
	for {
		m, _, err := n.to.Recv(now, n.buf[:], 0)
		if err == socket.ErrWouldBlock {
			break
		}
		if err != nil {
			n.broken = true
			break
		}
		if got := binary.BigEndian.Uint32(n.buf[:]); !anything && (got != n.recvd || m != lengthOf(got)) {
			n.t.Fatalf("message %d of %d octets, want %d of %d", got, m, n.recvd, lengthOf(n.recvd))
		}
		n.recvd++
	}
	for {
		m, info, err := n.rdmTo.Recv(now, n.buf[:], 0)
		if err != nil {
			break
		}
		got := binary.BigEndian.Uint32(n.buf[:])
		if !anything && (got < n.rdmIn || got >= n.rdmSent || m != lengthOf(got)%600+8 || info.Err != wire.CodeOK) {
			n.t.Fatalf("datagram %d of %d octets after %d, code %v", got, m, n.rdmIn, info.Err)
		}
		n.rdmIn = got + 1
	}
	n.a.flush()
	n.b.flush()
}
