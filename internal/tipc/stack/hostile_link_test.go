package stack_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// The link protocol: sessions, acknowledgements, what STATE, RESET and ACTIVATE carry.

// mangledState has the mad node send STATE messages that f has changed, for a while.
func mangledState(f func(e *env, i int, m wire.Msg) wire.Msg) func(*env, int) {
	return func(e *env, i int) {
		n := 0
		e.mangle(isState, func(m wire.Msg) wire.Msg {
			n++
			return f(e, i, m)
		})
		// Let the mad node have something to say: it is probed.
		e.n.run(400 * time.Millisecond)
		e.w.mangle = nil
		if n == 0 {
			e.fatalf("no STATE message was sent")
		}
	}
}

// record replaces what is behind the header.
func record(m wire.Msg, b []byte) wire.Msg {
	m = append(m[:wire.IntHeaderSize:wire.IntHeaderSize], b...)
	m.SetSize(len(m))
	return m
}

func be16(v ...uint16) (b []byte) {
	for _, x := range v {
		b = binary.BigEndian.AppendUint16(b, x)
	}
	return b
}

// state is a case of changed STATE messages. The answers are those to 400 ms of honest traffic too.
func state(counts string, f func(e *env, i int, m wire.Msg) wire.Msg) attack {
	return attack{by: "peer", do: mangledState(f), times: 3, answers: 4000, counts: counts}
}

// monitorRecord appends a domain record to a STATE message with an empty gap-ack record.
func monitorRecord(length, gen, ack, members uint16, present int) func(e *env, i int, m wire.Msg) wire.Msg {
	return func(_ *env, i int, m wire.Msg) wire.Msg {
		b := append([]byte{0, 4, 0, 0}, be16(length, gen+uint16(i), ack, members)...)
		b = append(b, bytes.Repeat([]byte{0xff}, 8)...) // all members up
		for k := range present {
			b = binary.BigEndian.AppendUint32(b, uint32(k+1))
		}
		return record(m, b)
	}
}

// monitored has the ring monitoring of the attacked node switched on for the case.
func monitored(at attack) attack {
	do := at.do
	at.do = func(e *env, i int) {
		if i == 0 {
			if err := e.a.s.Nodes().SetMonitorThreshold(1); err != nil {
				e.fatalf("%v", err)
			}
		}
		do(e, i)
	}
	at.check = func(e *env) {
		nodes := 0
		for p := range e.a.s.Nodes().Monitor(0).Peers() {
			nodes++
			if len(p.Members) > 64 {
				e.t.Errorf("domain of %x has %d members", p.Addr, len(p.Members))
			}
		}
		if nodes != 3 {
			e.t.Errorf("%d nodes are monitored", nodes)
		}
	}
	return at
}

func monitorCase(name string, f func(e *env, i int, m wire.Msg) wire.Msg) hostile {
	plain := state("link.RecvStates", f)
	on := monitored(state("link.RecvStates", f))
	on.by = "peer, monitoring active"
	return hostile{name, []attack{plain, on}}
}

// session is a RESET or ACTIVATE in the mad node's name with a session number dist from the present one, which whoever
// listens on the bus knows. Linux ignores it.
func session(typ uint8, dist uint16) attack {
	return attack{by: "spoof", answers: 4000, do: func(e *env, _ int) {
		now, ok := e.session(e.m)
		if !ok {
			e.fatalf("no session was heard")
		}
		e.a.inject(e.m.at, hello(e.m.addr(), e.a.addr(), typ, now+dist))
	}}
}

// session returns the session number that h uses towards the attacked node.
func (e *env) session(h *host) (s uint16, ok bool) {
	e.w.mangle = func(from *host, dst wire.MediaAddr, pkt []byte) [][]byte {
		if m := wire.Msg(pkt); from == h && dst == e.a.at && m.User() == wire.UserLinkProtocol {
			s, ok = m.Session(), true
		}
		return [][]byte{pkt}
	}
	e.n.run(400 * time.Millisecond)
	e.w.mangle = nil
	return s, ok
}

// joiner is a node that is written by hand: it makes itself known and opens a link, with what change makes of its
// RESET.
func joiner(n int, e *env, change ...func(wire.Msg)) {
	e.a.inject(busAddr(n), dsc(n, wire.TypeDscRequest, uint16(n)))
	e.a.inject(busAddr(n), hello(addrOf(n), e.a.addr(), wire.TypeReset, 100, change...))
	e.a.inject(busAddr(n), hello(addrOf(n), e.a.addr(), wire.TypeActivate, 100, change...))
}

// isUp says whether the attacked node has contact with a handwritten one.
func isUp(e *env, n int) bool { return e.a.s.Nodes().IsUp(addrOf(n)) }

// neverUp checks that a handwritten node's RESET or ACTIVATE was refused, and that this was counted.
func neverUp(e *env, n int) {
	e.t.Helper()
	if isUp(e, n) {
		e.fatalf("the link came up")
	}
	for li := range e.a.s.Nodes().Links(false) {
		if li.Peer == addrOf(n) && li.Stats.BadMessages > 0 {
			return
		}
	}
	e.fatalf("the refusal was not counted")
}

var hostileLink = []hostile{
	{"UserUnknown", []attack{
		{by: "peer", do: sayAll(one(func(e *env) wire.Msg { return raw(e.m.addr(), e.a.addr(), 4, 0, 40, nil) })), counts: "link.BadMessages"},
		{by: "stranger", do: strange(one(func(e *env) wire.Msg { return raw(e.m.addr(), e.a.addr(), 4, 0, 40, nil) })), counts: "node.UnknownPeer"},
	}},
	{"NotForThisNode", []attack{
		{by: "spoof", counts: "node.NotForUs", do: func(e *env, _ int) {
			e.a.inject(e.m.at, raw(e.m.addr(), e.b.addr(), wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, nil))
		}},
	}},
	{"SequenceFarAway", []attack{
		{by: "spoof", do: func(e *env, i int) {
			for _, d := range []uint16{9000, 20000, 32767, 32768, 40000, 65535} {
				e.a.inject(e.m.at, data(e.m, e.a, wire.TypeDirect, 1, 0xdead, []byte("x"), func(m wire.Msg) {
					m.SetSeqNo(d)
					m.SetBcAckInvalid(true)
				}))
			}
		}, counts: "link.Duplicates"},
	}},
	{"DeferredWithoutEnd", []attack{ // whoever leaves one out and sends all that follow
		{by: "spoof", times: 1, answers: 2000, heap: 40 << 20, do: func(e *env, _ int) {
			for k := range uint16(8000) {
				e.a.inject(e.m.at, data(e.m, e.a, wire.TypeDirect, 1, 0xdead, make([]byte, 1000), func(m wire.Msg) {
					m.SetSeqNo(200 + k)
					m.SetDestDroppable(true)
				}))
			}
		}, counts: "link.DeferredRecv", fails: false, check: func(e *env) {
			// What was made up must not be delivered as long as the true ones are missing; the link repairs or restarts.
			e.n.run(20 * time.Second)
		}},
	}},
	{"AcknowledgesWhatWasNotSent", []attack{
		state("link.BadAcks", func(_ *env, _ int, m wire.Msg) wire.Msg { m.SetAck(m.Ack() + 1000); return m }),
		{by: "spoof", counts: "link.BadAcks", do: func(e *env, i int) {
			s := e.a.socket(socket.RDM)
			s.Send(e.w.now, []byte("to be acknowledged"), socket.Dest{Kind: socket.SocketDest, Addr: wire.SocketAddr{Port: 0xdead, Node: e.m.addr()}})
			e.a.inject(e.m.at, data(e.m, e.a, wire.TypeDirect, 1, 0xdead, nil, func(m wire.Msg) {
				li, _ := e.a.link(e.m)
				m.SetSeqNo(uint16(li.Stats.RecvPkts) + 50)
				m.SetAck(30000)
				m.SetDestDroppable(true)
			}))
			s.Close(e.w.now)
			e.a.flush()
		}},
	}},
	{"BroadcastAckOfWhatWasNotSent", []attack{
		state("bcast.BadAcks", func(_ *env, _ int, m wire.Msg) wire.Msg { m.SetBcastAck(m.BcastAck() + 1000); return m }),
		{by: "peer, in data", counts: "bcast.BadAcks", answers: 1000, do: func(e *env, i int) {
			if i == 0 {
				e.n.run(time.Second) // before, acknowledgements do not count
			}
			e.mangle(func(m wire.Msg) bool { return m.IsData() }, func(m wire.Msg) wire.Msg { m.SetBcastAck(m.BcastAck() + 1000); return m })
			e.m.say(e.a, inner(e, nil))
			e.w.run(time.Millisecond)
			e.w.mangle = nil
		}},
	}},
	{"BroadcastNeverAcknowledged", []attack{{by: "peer", times: 1, fails: true, answers: 1 << 20, do: func(e *env, _ int) {
		// The broadcast link gives the one up that does not acknowledge, and all others get everything.
		st := uint16(0)
		e.mangle(func(m wire.Msg) bool { return !m.NonSeq() }, func(m wire.Msg) wire.Msg {
			if st == 0 {
				st = m.BcastAck()
			}
			m.SetBcastAck(st)
			return m
		})
		for k := 0; e.downs == 0; k++ {
			if k == 600 {
				e.fatalf("the node that never acknowledges broadcasts is still there after 60 s")
			}
			e.n.run(100 * time.Millisecond)
		}
		e.w.mangle = nil
	}}}},
	{"LastAckerLeaves", []attack{{by: "peer", times: 3, answers: 1 << 20, fails: true, do: func(e *env, _ int) {
		// Broadcasts wait for one node only, and that one is gone.
		dead := e.m
		dead.dead = true
		for k := 0; e.a.up(dead); k++ {
			if k == 100 {
				e.fatalf("a dead node is not missed")
			}
			e.n.run(100 * time.Millisecond)
		}
		dead.dead = false
		dead.start()
	}}}},
	{"BroadcastNackWithoutSense", []attack{
		{by: "spoof", do: func(e *env, i int) { // of the old kind: gap before and behind what there is
			for _, g := range [][2]uint16{{0, 0xffff}, {0xffff, 0}, {30000, 29000}, {1, 1}} {
				e.a.inject(e.m.at, raw(e.m.addr(), e.a.addr(), wire.UserBcastProtocol, wire.TypeState, wire.IntHeaderSize, nil, func(m wire.Msg) {
					m.SetNonSeq(true)
					m.SetMcNetID(wire.DefaultNetID)
					m.SetBcastAck(g[0])
					m.SetBcgapAfter(g[0])
					m.SetBcgapTo(g[1])
				}))
			}
		}, answers: 400},
		{by: "stranger", counts: "node.UnknownPeer", do: strange(one(func(e *env) wire.Msg {
			return raw(e.m.addr(), e.a.addr(), wire.UserBcastProtocol, wire.TypeState, wire.IntHeaderSize, nil, func(m wire.Msg) { m.SetNonSeq(true) })
		}))},
		{by: "foreign cluster", counts: "node.ForeignNet", do: func(e *env, _ int) {
			e.a.inject(e.m.at, raw(e.m.addr(), e.a.addr(), wire.UserBcastProtocol, wire.TypeState, wire.IntHeaderSize, nil, func(m wire.Msg) {
				m.SetNonSeq(true)
				m.SetMcNetID(99)
			}))
		}},
	}},

	{"GapAckLengthBeyondPacket", []attack{state("node.BadGapAck", func(_ *env, _ int, m wire.Msg) wire.Msg {
		return record(m, []byte{0xff, 0xff, 1, 1})
	})}},
	{"GapAckCountsBeyondLength", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		return record(m, []byte{0, 4, 255, 255})
	})}},
	{"GapAckLengthBelowCounts", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		return record(m, append([]byte{0, 8, 2, 0}, be16(1, 1, 2, 1)...))
	})}},
	{"GapAckBroadcastBeyondRecord", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		m.SetSeqGap(10)
		return record(m, append([]byte{0, 12, 0, 200}, be16(1, 1, 2, 1)...))
	})}},
	{"GapAckCutOff", []attack{state("link.RecvStates", func(_ *env, i int, m wire.Msg) wire.Msg {
		return record(m, []byte{0, 4, 0, 0}[:i])
	})}},
	{"GapAckOutOfOrder", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		m.SetSeqGap(5)
		m.SetBcGap(5)
		b, u := m.BcastAck(), m.Ack()
		return record(m, wire.AppendGapAck(nil,
			[]wire.GapAckBlock{{Ack: b + 30, Gap: 1}, {Ack: b + 10, Gap: 50}, {Ack: b - 10, Gap: 3}},
			[]wire.GapAckBlock{{Ack: u + 30, Gap: 1}, {Ack: u + 10, Gap: 50}, {Ack: u - 10, Gap: 3}}))
	})}},
	{"GapAckOverlapping", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		m.SetSeqGap(0x1fff)
		m.SetBcGap(0x3ff)
		b, u := m.BcastAck(), m.Ack()
		var blocks, ub []wire.GapAckBlock
		for k := range uint16(255) {
			blocks = append(blocks, wire.GapAckBlock{Ack: b + k/2, Gap: 0xffff})
			ub = append(ub, wire.GapAckBlock{Ack: u + k/2, Gap: 0xffff})
		}
		return record(m, wire.AppendGapAck(nil, blocks[:100], ub[:100]))
	})}},
	{"GapAckOfWhatWasNotSent", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		m.SetSeqGap(3)
		m.SetBcGap(3)
		return record(m, wire.AppendGapAck(nil, []wire.GapAckBlock{{Ack: m.BcastAck() + 20000, Gap: 7}}, []wire.GapAckBlock{{Ack: m.Ack() + 20000, Gap: 7}}))
	})}},
	{"StateForOldSession", []attack{state("", func(_ *env, _ int, m wire.Msg) wire.Msg {
		m.SetSession(m.Session() - 1)
		return m
	})}},
	{"StateAheadOfAnySent", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		m.SetNextSent(m.NextSent() + 3000) // asks for what was never sent
		return m
	})}},
	{"StateOfBroadcastAheadOfAnySent", []attack{state("link.RecvStates", func(_ *env, _ int, m wire.Msg) wire.Msg {
		m.SetLastBcast(m.LastBcast() + 40)
		return m
	})}},
	{"TolerancePriorityOutOfRange", []attack{state("link.RecvStates", func(e *env, _ int, m wire.Msg) wire.Msg {
		m.SetLinkTolerance(65535)
		m.SetLinkPrio(0)
		return m
	})}},
	{"PriorityFlips", []attack{{by: "peer", times: 3, answers: 8000, fails: true, do: func(e *env, i int) {
		mangledState(func(_ *env, _ int, m wire.Msg) wire.Msg { m.SetLinkPrio(uint32(20 + i)); return m })(e, i)
	}}}},

	monitorCase("MonitorMembersAbove64", monitorRecord(16+4*70, 5, 0, 70, 70)), // CVE-2022-0435
	monitorCase("MonitorMembersHuge", monitorRecord(16, 5, 0, 0xffff, 0)),
	monitorCase("MonitorLengthNotMembers", monitorRecord(16+4*3, 5, 0, 2, 3)),
	monitorCase("MonitorLengthBeyondPacket", monitorRecord(16+4*64, 5, 0, 64, 2)),
	monitorCase("MonitorCutOff", func(_ *env, _ int, m wire.Msg) wire.Msg { return record(m, append([]byte{0, 4, 0, 0}, 0, 16, 0, 1)) }),
	monitorCase("MonitorStrangers", monitorRecord(16+4*64, 5, 0, 64, 64)),
	monitorCase("MonitorSaysItselfAndUs", func(e *env, i int, m wire.Msg) wire.Msg {
		b := append([]byte{0, 4, 0, 0}, be16(16+12, uint16(9+i), 0, 3)...)
		b = append(b, make([]byte, 8)...) // all down
		for _, a := range []uint32{e.a.addr(), e.b.addr(), e.m.addr()} {
			b = binary.BigEndian.AppendUint32(b, a)
		}
		return record(m, b)
	}),

	{"ResetOfStaleSession", []attack{session(wire.TypeReset, 0), session(wire.TypeReset, 0xffff), session(wire.TypeReset, 0x8001)}},
	{"ActivateOfStaleSession", []attack{session(wire.TypeActivate, 0xffff), session(wire.TypeActivate, 0x8001)}},
	{"ActivateOfPresentSession", []attack{session(wire.TypeActivate, 0)}},
	{"ResetByStranger", []attack{{by: "stranger", counts: "node.UnknownPeer", do: func(e *env, i int) {
		e.a.inject(busAddr(99), hello(0x1234_5678, e.a.addr(), uint8(1+i%2), uint16(i)))
	}}}},
	{"LinkProtocolTypeUnknown", []attack{{by: "spoof", do: func(e *env, i int) {
		e.a.inject(e.m.at, hello(e.m.addr(), e.a.addr(), uint8(3+i%5), uint16(i)))
	}}}},
	{"MaxPacketZero", []attack{{by: "joiner", do: func(e *env, i int) {
		joiner(100+i, e, func(m wire.Msg) { m.SetMaxPkt(0) })
		neverUp(e, 100+i)
	}}}},
	{"MaxPacketTiny", []attack{{by: "joiner", do: func(e *env, i int) {
		joiner(100+i, e, func(m wire.Msg) { m.SetMaxPkt(4 * (1 + i)) })
		neverUp(e, 100+i)
	}}}},
	{"MaxPacketSmallest", []attack{{by: "joiner", times: 1, answers: 200, do: func(e *env, i int) {
		// CVE-2023-1390: two small packets, and the node comes up with a list of names to send, whatever is on it.
		for k := range 30 {
			e.a.bound(socket.RDM, rangeOf(8000, uint32(k), uint32(k)))
		}
		joiner(100+i, e, func(m wire.Msg) { m.SetMaxPkt(100) })
		if !isUp(e, 100+i) {
			e.fatalf("no link")
		}
	}, grows: 30}}},
	{"NodeUpWithNothingToSay", []attack{{by: "joiner", do: func(e *env, i int) { // the same without any name
		joiner(100+i, e)
		if !isUp(e, 100+i) {
			e.fatalf("no link")
		}
	}, check: func(e *env) {
		e.n.run(3 * time.Second)
		for i := range 20 {
			if isUp(e, 100+i) {
				e.t.Errorf("node %d never said a word again, and is still up", i)
			}
		}
	}}}},
	{"InterfaceNameWithoutEnd", []attack{{by: "joiner", do: func(e *env, i int) {
		joiner(100+i, e, func(m wire.Msg) {
			for k := wire.IntHeaderSize; k < len(m); k++ {
				m[k] = "A\x00\xff\n%"[i%5]
			}
		})
		name, err := e.a.s.Nodes().LinkName(addrOf(100+i), 0)
		if err != nil || len(name) >= wire.LinkNameSize {
			e.fatalf("link name %q, %v", name, err)
		}
		for _, c := range name {
			if c < ' ' || c > '~' {
				e.fatalf("link name %q", name)
			}
		}
	}}}},
	{"ResetWithoutInterfaceName", []attack{{by: "joiner", do: func(e *env, i int) {
		for _, typ := range []uint8{wire.TypeReset, wire.TypeActivate} {
			e.a.inject(busAddr(100+i), dsc(100+i, wire.TypeDscRequest, 1))
			m := hello(addrOf(100+i), e.a.addr(), typ, 100)[:wire.IntHeaderSize+i%wire.IfNameSize]
			m.SetSize(len(m))
			e.a.inject(busAddr(100+i), m)
		}
		neverUp(e, 100+i)
	}}}},
	{"RandomPadding", []attack{{by: "peer", times: 3, answers: 4000, counts: "link.RecvPkts", do: func(e *env, _ int) {
		// Linux 6.1 really sends octets behind the message.
		e.mangle(func(wire.Msg) bool { return true }, func(m wire.Msg) wire.Msg {
			for range 1 + e.w.r.IntN(60) {
				m = append(m, byte(e.w.r.Uint32()))
			}
			return m
		})
		s := e.m.socket(socket.RDM)
		got := e.a.bound(socket.RDM, rangeOf(9000, 1, 1))
		e.n.run(20 * time.Millisecond)
		for k := range 50 {
			want := fmt.Sprint("message ", k)
			if _, err := s.Send(e.w.now, []byte(want), service(9000, 1)); err != nil {
				e.fatalf("%v", err)
			}
			e.m.flush()
			e.n.run(5 * time.Millisecond)
			b := make([]byte, 100)
			if n, _, err := got.Recv(e.w.now, b, 0); err != nil || string(b[:n]) != want {
				e.fatalf("%q, %v, want %q", b[:n], err, want)
			}
		}
		s.Close(e.w.now)
		got.Close(e.w.now)
		e.a.flush()
		e.m.flush()
		e.w.mangle = nil
	}}}},
	{"CutOffAnywhere", []attack{{by: "spoof", times: 1, answers: 4000, counts: "node.Invalid", do: func(e *env, _ int) {
		// Every packet that the mad node sends, at each of its first 100 lengths: the size it gives is then a lie.
		var heard [][]byte
		e.mangle(func(wire.Msg) bool { return true }, func(m wire.Msg) wire.Msg {
			heard = append(heard, append([]byte(nil), m...))
			return m
		})
		e.n.run(500 * time.Millisecond)
		e.w.mangle = nil
		for _, p := range heard[:min(len(heard), 20)] {
			for n := range min(len(p), 100) {
				e.a.inject(e.m.at, p[:n])
			}
		}
	}}}},
	{"HeaderFieldsLie", []attack{{by: "spoof", times: 1, answers: 4000, counts: "node.Invalid", do: func(e *env, _ int) {
		m := inner(e, make([]byte, 100))
		for _, f := range []func(wire.Msg){
			func(m wire.Msg) { m.SetHdrsz(0) }, func(m wire.Msg) { m.SetHdrsz(20) }, func(m wire.Msg) { m.SetSize(0) },
			func(m wire.Msg) { m.SetSize(23) }, func(m wire.Msg) { m.SetSize(1<<17 - 1) }, func(m wire.Msg) { m.SetSize(len(m) + 1) },
			func(m wire.Msg) { m[0] = 0x20 | m[0]&0x1f }, func(m wire.Msg) { m[0] |= 0xe0 },
		} {
			c := append(wire.Msg(nil), m...)
			f(c)
			before := e.a.s.Nodes().Stats().Invalid
			e.a.inject(e.m.at, c)
			if e.a.s.Nodes().Stats().Invalid != before+1 {
				e.fatalf("taken: %x", []byte(c[:24]))
			}
		}
		for n := range 24 {
			e.a.inject(e.m.at, make([]byte, n))
		}
	}}}},
}
