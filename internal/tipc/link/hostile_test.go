package link

import (
	"encoding/binary"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/monitor"
	"midplane/internal/tipc/wire"
)

// upLink is a link that is up, with a session, 20 packets under way and some out of order.
func upLink(mon bool) (*Link, *end) {
	l, e := testLink()
	l.state, l.inSession, l.peerSession = Established, true, 77
	e.rcv.state, e.rcv.bcPeerIsUp = Established, true
	e.snd.ackers = 1
	if mon {
		l.mon = monitor.New(0, l.own, 1)
	}
	var q buf.Queue
	for range 20 {
		q.PushBack(dataBuf(e, wire.UserLow, wire.TypeDirect, 32, 1, 20))
		l.Xmit(0, &q, nil)
	}
	for range 10 {
		q.PushBack(dataBuf(e, wire.UserLow, wire.TypeMcast, 44, 1, 20))
		e.snd.Xmit(0, &q, nil)
	}
	return l, e
}

// from makes a packet of the peer.
func from(e *end, user wire.User, typ uint8, data []byte) wire.Msg {
	m := make(wire.Msg, 40+len(data))
	wire.Init(m, e.peer, user, typ, 40, e.own)
	m.SetSize(len(m))
	copy(m[40:], data)
	return m
}

func inner(e *end, user wire.User, size int) wire.Msg {
	m := make(wire.Msg, max(size, 44))
	wire.Init(m, e.peer, user, wire.TypeDirect, 32, e.own)
	m.SetSize(len(m))
	return m
}

// Packets that no correct peer sends must not be delivered, and must not do more than reset the link.
func TestHostilePackets(t *testing.T) {
	type c struct {
		name  string
		m     func(e *end, l *Link) wire.Msg
		down  bool // the link fails
		count func(s Stats) uint64
	}
	bad := func(s Stats) uint64 { return s.BadMessages }
	acks := func(s Stats) uint64 { return s.BadAcks }
	dup := func(s Stats) uint64 { return s.Duplicates }
	seq := func(l *Link, m wire.Msg) wire.Msg { m.SetSeqNo(l.rcvNxt); return m }
	tunnel := func(in wire.Msg) func(e *end, l *Link) wire.Msg {
		return func(e *end, l *Link) wire.Msg { return seq(l, from(e, wire.UserTunnel, wire.TypeFailover, in)) }
	}
	e0 := &end{own: 0x5d6f6465, peer: 0x5c6f6465}
	nested := func(outer, in wire.User) func(e *end, l *Link) wire.Msg {
		return func(e *end, l *Link) wire.Msg {
			m := seq(l, from(e, outer, 0, inner(e, in, 60)))
			m.SetMsgCnt(1)
			return m
		}
	}
	state := func(f func(l *Link, m wire.Msg)) func(e *end, l *Link) wire.Msg {
		return func(e *end, l *Link) wire.Msg {
			m := from(e, wire.UserLinkProtocol, wire.TypeState, []byte{0, 4, 0, 0})
			m.SetSession(77)
			m.SetSeqNo(l.rcvNxtState)
			f(l, m)
			return m
		}
	}
	for _, k := range []c{
		{name: "last fragment first", m: func(e *end, l *Link) wire.Msg {
			return seq(l, from(e, wire.UserFragmenter, wire.TypeLastFragment, make([]byte, 100)))
		}, down: true},
		{name: "empty first fragment", m: func(e *end, l *Link) wire.Msg { return seq(l, from(e, wire.UserFragmenter, 0, nil)) }, down: true},
		{name: "fragment type 5", m: func(e *end, l *Link) wire.Msg { return seq(l, from(e, wire.UserFragmenter, 5, nil)) }, down: true},
		{name: "empty bundle", m: func(e *end, l *Link) wire.Msg { return seq(l, from(e, wire.UserBundler, 0, nil)) }},
		{name: "bundle of zeros", m: func(e *end, l *Link) wire.Msg { return seq(l, from(e, wire.UserBundler, 0, make([]byte, 500))) }},
		{name: "bundle in a bundle", m: nested(wire.UserBundler, wire.UserBundler), count: bad},
		{name: "fragment in a bundle", m: nested(wire.UserBundler, wire.UserFragmenter), count: bad},
		{name: "tunnel in a bundle", m: nested(wire.UserBundler, wire.UserTunnel), count: bad},
		{name: "link protocol in a bundle", m: nested(wire.UserBundler, wire.UserLinkProtocol), count: bad},
		{name: "wakeup in a bundle", m: nested(wire.UserBundler, wire.UserSockWakeup), count: bad},
		{name: "wakeup from outside", m: func(e *end, l *Link) wire.Msg { return seq(l, from(e, wire.UserSockWakeup, 0, nil)) }, count: bad},
		{name: "top server from outside", m: func(e *end, l *Link) wire.Msg { return seq(l, from(e, wire.UserTopSrv, 0, nil)) }, count: bad},
		{name: "user 4", m: func(e *end, l *Link) wire.Msg { return seq(l, from(e, 4, 0, nil)) }, count: bad},
		{name: "empty tunnel", m: tunnel(nil), count: bad},
		{name: "tunnel of zeros", m: tunnel(make(wire.Msg, 100)), count: bad},
		{name: "tunnel in a tunnel", m: tunnel(inner(e0, wire.UserTunnel, 60)), count: bad},
		{name: "65535 fragments", m: func(e *end, l *Link) wire.Msg {
			m := tunnel(inner(e, 0, 60))(e, l)
			m.SetNofFragms(65535)
			m.SetFragmNo(2)
			return m
		}, down: true},
		{name: "behind the window", m: func(e *end, l *Link) wire.Msg {
			m := inner(e, 0, 60)
			m.SetSeqNo(l.rcvNxt - 1)
			return m
		}, count: dup},
		{name: "beyond the window", m: func(e *end, l *Link) wire.Msg {
			m := inner(e, 0, 60)
			m.SetSeqNo(l.rcvNxt + MaxWindow + 1)
			return m
		}, count: dup},
		{name: "data acknowledges what was never sent", m: func(e *end, l *Link) wire.Msg {
			m := seq(l, from(e, wire.UserBundler, 0, nil))
			m.SetAck(l.sndNxt)
			return m
		}, count: acks},
		{name: "STATE acknowledges what was never sent", m: state(func(l *Link, m wire.Msg) { m.SetAck(l.sndNxt + 5) }), count: acks},
		{name: "gap-ack record longer than the message", m: state(func(l *Link, m wire.Msg) { m[41] = 5 }), count: bad},
		{name: "gap-ack record of 64 kB", m: state(func(l *Link, m wire.Msg) { m[40], m[42] = 0xff, 0xff }), count: bad},
		{name: "gap-ack counts lie", m: state(func(l *Link, m wire.Msg) { m[42], m[43] = 9, 9 })},
		{name: "RESET with max_pkt 0", m: func(e *end, l *Link) wire.Msg {
			m := from(e, wire.UserLinkProtocol, wire.TypeReset, make([]byte, 16))
			m.SetSession(78)
			return m
		}},
		{name: "RESET without interface name", m: func(e *end, l *Link) wire.Msg {
			m := from(e, wire.UserLinkProtocol, wire.TypeReset, make([]byte, 15))
			m.SetSession(78)
			m.SetMaxPkt(1500)
			return m
		}},
		{name: "RESET of an old session", m: func(e *end, l *Link) wire.Msg {
			m := from(e, wire.UserLinkProtocol, wire.TypeReset, make([]byte, 16))
			m.SetSession(76)
			m.SetMaxPkt(1500)
			return m
		}},
		{name: "link protocol type 7", m: func(e *end, l *Link) wire.Msg { return from(e, wire.UserLinkProtocol, 7, nil) }},
	} {
		l, e := upLink(false)
		before := l.transmq.Len()
		m := k.m(e, l)
		if _, err := wire.Validate(m); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		var out capture
		rc := l.Receive(5*ms, m, &out)
		if (rc&DownEvent != 0) != k.down || l.IsUp() == k.down {
			t.Errorf("%s: result %d, %v", k.name, rc, l.State())
		}
		if k.count != nil && k.count(l.Stats()) != 1 {
			t.Errorf("%s: not counted: %+v", k.name, l.Stats())
		}
		if n := l.inputq.Len() + l.namedq.Len() + e.mcq.Len(); n != 0 {
			t.Errorf("%s: %d delivered", k.name, n)
		}
		if l.transmq.Len() != before && !k.down {
			t.Errorf("%s: freed %d", k.name, before-l.transmq.Len())
		}
	}
}

func TestInterfaceNameOfThePeer(t *testing.T) {
	for in, want := range map[string]string{
		"eth0":             "eth0",
		"0123456789abcdef": "0123456789abcdef", // no NUL
		"a b\x01\xff\x7f":  "a?b???",
		"":                 "",
		"x\x00garbage":     "x",
	} {
		l, e := testLink()
		data := make([]byte, 16)
		copy(data, in)
		m := from(e, wire.UserLinkProtocol, wire.TypeReset, data)
		m.SetMaxPkt(1500)
		l.Receive(0, m, nil)
		if got := l.Name(); got != "node3:U-node2:"+want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// A peer that keeps one packet back and floods us with the rest fills no more than the documented bound.
func TestDeferredIsBounded(t *testing.T) {
	l, e := upLink(false)
	big := inner(e, 0, 60000)
	for round := range uint16(3) {
		for n := range uint16(MaxWindow + 100) {
			big.SetSeqNo(l.rcvNxt + 1 + n + round)
			l.Receive(0, big, nil)
		}
	}
	if n := l.deferq.octets; n > maxDeferred+1<<17 || l.Stats().DeferFull == 0 {
		t.Errorf("%d octets kept", n)
	}
	small := inner(e, 0, 60)
	l, _ = upLink(false)
	for n := range uint16(MaxWindow + 100) {
		small.SetSeqNo(l.rcvNxt + 1 + n)
		l.Receive(0, small, nil)
	}
	if n := l.deferq.q.Len(); n > MaxWindow {
		t.Errorf("%d packets kept", n)
	}
	for n := uint16(1); n < 20000; n++ {
		in := inner(e, 0, 2000)
		in.SetSeqNo(n)
		m := from(e, wire.UserTunnel, wire.TypeFailover, in)
		m.SetSeqNo(l.rcvNxt)
		l.Receive(0, m, nil)
	}
	if n := l.failoverDefq.octets; n > maxDeferred+1<<17 {
		t.Errorf("%d octets kept for a failover", n)
	}
}

// FuzzReceive feeds an endpoint that is up with packets, some made plausible so that they get past the first checks.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 30, 0x40, 0x20, 0, 30})
	for _, typ := range []byte{0, 1, 2} {
		for user := range byte(16) {
			f.Add([]byte{0xff, user, typ, 60, 0xff, user, typ, 200, 0xff, user ^ 3, typ, 90})
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 1 {
			return
		}
		l, e := upLink(data[0]&1 != 0)
		if data[0]&2 != 0 {
			l.SetHold()
		}
		if data[0]&4 != 0 {
			l.state = Establishing
		}
		if data[0]&8 != 0 {
			l.SetBundleEager(true)
		}
		if data[0]&16 != 0 {
			l.UpdateCaps(0)
			e.rcv.UpdateCaps(0)
		}
		out := &checkOutput{t: t}
		now := mono.Time(1)
		for data = data[1:]; len(data) >= 4; {
			how, user, typ, n := data[0], data[1], data[2], int(data[3])*5
			data = data[4:]
			n = min(n, len(data))
			pkt := make([]byte, 40, 40+n)
			pkt = append(pkt, data[:n]...)
			data = data[n:]
			m := wire.Msg(pkt)
			if how&1 != 0 { // plausible header
				wire.Init(m, e.peer, wire.User(user&15), typ&7, 40, e.own)
				m.SetSize(len(m))
				m.SetSession(77)
				if len(m) > 60 {
					copy(m[32:40], m[40:48])
					m.SetWord(2, binary.BigEndian.Uint32(m[48:]))
					m.SetWord(4, binary.BigEndian.Uint32(m[52:]))
				}
			} else if n >= 40 {
				m = m[40:]
			}
			if how&2 != 0 {
				m.SetSeqNo(l.rcvNxt)
				if m.User() == wire.UserLinkProtocol {
					m.SetSeqNo(l.rcvNxtState)
				}
			}
			if how&4 != 0 && len(m) >= 72 { // plausible contents
				in := m[40:]
				wire.Init(in, e.peer, wire.User(user>>4), typ>>3, 32, e.own)
				in.SetSize(min(len(in), int(how)*8+32))
				in.SetSeqNo(l.dropPoint)
			}
			if how&8 != 0 {
				m.SetAck(l.sndNxt - 1 - uint16(typ))
			}
			m, err := wire.Validate(m)
			if err != nil {
				continue
			}
			now += mono.Time(how) * ms
			if how&16 != 0 {
				var q buf.Queue
				e.p = &pipe{t: t}
				e.message(l, 5, wire.User(typ&3), wire.TypeDirect, 1, int(user)*100, &q)
				l.Xmit(now, &q, out)
			}
			var rc Events
			switch {
			case how&32 != 0 && m.User() == wire.UserBcastProtocol:
				rc = e.rcv.BcNackReceive(now, m, out)
			case how&32 != 0:
				if how&2 != 0 {
					m.SetSeqNo(e.rcv.rcvNxt)
				}
				rc = e.rcv.Receive(now, m, nil)
			default:
				if m.User() == wire.UserLinkProtocol {
					if ga, ok := e.rcv.GapAck(m, false); ok {
						e.rcv.BcAckReceive(now, m.BcastAck(), m.BcGap(), ga, out, out)
						e.rcv.BcSyncReceive(now, m, out)
					}
					e.rcv.BcInitReceive(m)
				}
				l.ValidateMsg(m)
				if how&8 != 0 {
					rc = l.ReceiveBuf(now, buf.Copy(m), out)
				} else {
					rc = l.Receive(now, m, out)
				}
			}
			if rc&UpEvent != 0 {
				l.Event(EstablishEvt)
			}
			if how&64 != 0 {
				rc |= l.Timeout(now, out)
			}
			if how&128 != 0 && typ == 9 {
				rc |= l.ReleaseHold()
			}
			for _, q := range []*buf.Queue{l.inputq, l.namedq, &e.mcq} {
				for b := q.PopFront(); b != nil; b = q.PopFront() {
					if v, err := wire.Validate(b.Msg); err != nil || len(v) != len(b.Msg) {
						t.Fatalf("delivered %x: %v", b.Msg, err)
					}
					switch b.Msg.User() {
					case wire.UserBundler, wire.UserFragmenter, wire.UserTunnel, wire.UserLinkProtocol:
						t.Fatalf("delivered a %v", b.Msg.User())
					}
					b.Release()
				}
			}
			checkLink(t, l)
			checkLink(t, e.rcv)
			checkLink(t, e.snd)
			if rc&DownEvent != 0 {
				l.Event(ResetEvt)
				l.Reset(now)
				l.BuildResetMsg(now, out)
			}
		}
	})
}

type checkOutput struct{ t *testing.T }

func (o *checkOutput) Send(pkt []byte, own *buf.Buf) {
	if m, err := wire.Validate(pkt); err != nil || len(m) != len(pkt) {
		o.t.Fatalf("sent %x: %v", pkt, err)
	}
}

// checkLink tests what must always hold.
func checkLink(t *testing.T, l *Link) {
	n := 0
	var last uint16
	for b := l.transmq.Front(); b != nil; b = b.Next() {
		seqno := b.Msg.SeqNo()
		if n > 0 && !wire.SeqMore(seqno, last) || !wire.SeqLess(seqno, l.sndNxt) {
			t.Fatalf("packet %d behind %d, next %d", seqno, last, l.sndNxt)
		}
		last = seqno
		n++
	}
	if n > MaxWindow+1 || l.state >= numStates || l.pending != nil && l.pending != l.transmq.Back() {
		t.Fatal("transmit queue")
	}
	var levelsLen [levels]int
	for b := l.backlogq.Front(); b != nil; b = b.Next() {
		levelsLen[importance(b.Msg)]++
	}
	for i, lv := range l.backlog {
		if lv.len != levelsLen[i] {
			t.Fatalf("importance %d: %d packets, counted as %d", i, levelsLen[i], lv.len)
		}
	}
	octets := 0
	for b := l.deferq.q.Front(); b != nil; b = b.Next() {
		if !wire.SeqMore(b.Msg.SeqNo(), l.rcvNxt) {
			t.Fatalf("%d deferred, next is %d", b.Msg.SeqNo(), l.rcvNxt)
		}
		octets += b.Cap()
	}
	if octets != l.deferq.octets {
		t.Fatal("octets deferred")
	}
}
