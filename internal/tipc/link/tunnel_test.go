package link

import (
	"fmt"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

// failover does what a node does when it loses link 0 (net/tipc/node.c __tipc_node_link_down).
func (e *end) failover() {
	l, tnl := e.links[0], e.links[1]
	l.Event(FailureEvt)
	l.TunnelPrepare(e.p.now, tnl, wire.TypeFailover, port{e, 1, false})
	l.Reset(e.p.now)
	l.Event(ResetEvt)
	l.Event(FailoverBeginEvt)
	e.drain()
}

// Two pairs of links; the first pair is lost in the middle of heavy traffic with packets unacknowledged, out of order,
// half reassembled and waiting. Everything arrives over the second, in order, once, and before what is sent later.
func TestFailover(t *testing.T) {
	for seed := range uint64(40) {
		o := options{links: 2, eager: seed%2 == 1}
		if seed%5 == 4 {
			o.caps = wire.CapsAll &^ wire.CapGapAckBlock
		}
		p := newPipe(t, seed, o)
		p.up()
		p.jitter = []mono.Time{0, ms, 20 * ms}[seed%3]
		p.dup = 0.02
		size := func() int {
			if p.r.IntN(6) == 0 {
				return p.r.IntN(20000)
			}
			return p.r.IntN(200)
		}
		if seed%4 == 0 { // the tunnel's MTU is smaller
			for _, e := range p.ends {
				e.links[0].SetMTU(4000)
			}
		}
		var ss []*sender
		for _, e := range p.ends {
			ss = append(ss, &sender{e: e, bearer: 0, port: 10, size: size}, &sender{e: e, bearer: 0, port: 11, imp: wire.UserCritical, size: size},
				&sender{e: e, bearer: 1, port: 12, size: size})
		}
		p.loss[0], p.loss[1] = 0.1, 0.02
		for range 20 {
			for _, s := range ss {
				s.pump(p.r.IntN(6))
			}
			p.run(mono.Time(p.r.Int64N(int64(5 * ms))))
		}
		p.loss[0] = 1
		for range 3 {
			for _, s := range ss {
				s.pump(30)
			}
			p.run(ms)
		}
		for _, f := range p.flying {
			if f.Bearer == 0 {
				p.flying = nil // the wire is cut
				break
			}
		}
		for _, e := range p.ends {
			e.failover()
		}
		for _, s := range ss { // what waited was woken
			s.bearer = 1
		}
		for range 5 {
			for _, s := range ss {
				s.pump(5)
			}
			p.run(500 * ms)
		}
		for range 60 {
			p.run(sec)
			if p.ends[0].links[1].transmq.Empty() && p.ends[1].links[1].transmq.Empty() {
				break
			}
		}
		for i, e := range p.ends {
			for _, s := range ss[3*i : 3*i+3] {
				tipctest.InOrder(t, fmt.Sprintf("seed %d, port %d of %x", seed, s.port, e.own), p.ends[1-i].got[s.port], s.n)
			}
			l := p.ends[1-i].links[1]
			if e.downs > 0 || l.failoverDefq.octets != 0 || !l.failoverReasm.Empty() || !l.reasmTnl.Empty() {
				t.Errorf("seed %d: %d failures; left over: %d octets", seed, e.downs, l.failoverDefq.octets)
			}
			if st := l.Stats(); st.BadMessages != 0 {
				t.Errorf("seed %d: %d bad messages", seed, st.BadMessages)
			}
		}
	}
}

// A packet that does not fit the tunnel: fragments for peers that know them, otherwise none at all.
func TestTunnelTooSmall(t *testing.T) {
	for _, enhanced := range []bool{true, false} {
		l, e := testLink()
		tnl, _ := testLink()
		l.state, tnl.state = Established, Established
		tnl.SetMTU(1500)
		if !enhanced {
			tnl.UpdateCaps(wire.CapsAll &^ wire.CapTunnelEnhanced)
		}
		xmit(t, l, dataBuf(e, wire.UserLow, wire.TypeDirect, 32, 9, 5000), nil, 0)
		var out capture
		l.TunnelPrepare(0, tnl, wire.TypeFailover, &out)
		if !enhanced {
			if len(out.pkts) != 0 {
				t.Errorf("%d packets", len(out.pkts))
			}
			continue
		}
		if len(out.pkts) != 5 {
			t.Fatalf("%d packets", len(out.pkts))
		}
		var r msg.Reassembler
		for i, p := range out.pkts {
			m := wire.Msg(p)
			if m.User() != wire.UserTunnel || m.Type() != wire.TypeFailover || m.MsgCnt() != 5 || m.SeqNo() != uint16(i+1) {
				t.Errorf("packet %d: %x", i, m[:40])
			}
			if i == 4 { // the dummy
				in := m.InnerHdr()
				if m.NofFragms() != 0 || in.ErrCode() != wire.CodeNoPort || in.Size() != 32 || in.SeqNo() != 2 {
					t.Errorf("dummy: %x", m)
				}
				break
			}
			if m.NofFragms() != 4 || int(m.FragmNo()) != i+1 {
				t.Errorf("fragment %d: %d of %d", i, m.FragmNo(), m.NofFragms())
			}
			typ := []uint8{wire.TypeFirstFragment, wire.TypeFragment, wire.TypeFragment, wire.TypeLastFragment}[i]
			if b, err := r.AppendTyped(m, typ); err != nil || (b != nil) != (i == 3) || b != nil && tipctest.Number(b.Msg) != 9 {
				t.Errorf("fragment %d: %v", i, err)
			}
		}
	}
}

func TestSynch(t *testing.T) {
	old, e := testLink()
	l, _ := testLink()
	old.state, l.state = Established, Established
	old.peerBearer = 2
	fill(t, old, e, wire.UserLow, 50+30)
	var out capture
	old.TunnelPrepare(0, l, wire.TypeSynch, &out)
	m := out.take(t)
	if m.User() != wire.UserTunnel || m.Type() != wire.TypeSynch || m.Size() != 40 || m.SyncPt() != 80 || m.SeqNo() != 1 || m.BearerID() != 2 {
		t.Errorf("%x", m)
	}
	if a, b := old.QueueLens(); a != 50 || b != 30 {
		t.Errorf("the old link changed: %d %d", a, b)
	}
	// Old peers get copies of everything.
	l, _ = testLink()
	l.state = Established
	l.SetQueueLimits(200, 200)
	l.UpdateCaps(wire.CapsAll &^ wire.CapTunnelEnhanced)
	old.TunnelPrepare(0, l, wire.TypeSynch, &out)
	if len(out.pkts) != 81 {
		t.Fatalf("%d packets", len(out.pkts))
	}
	for i, p := range out.pkts {
		m := wire.Msg(p)
		if m.Type() != wire.TypeSynch || m.MsgCnt() != 81 || m.InnerHdr().SeqNo() != uint16(i+1) {
			t.Fatalf("packet %d: %x", i, m[:80])
		}
	}
	old.TunnelPrepare(0, nil, wire.TypeSynch, &out) // harmless
}

func TestFailoverPrepare(t *testing.T) {
	l, _ := testLink()
	l.state = Established
	b := buf.Get(32)
	b.Msg.SetSeqNo(5)
	l.failoverDefq.insert(0, b.Msg, b)
	var out capture
	l.FailoverPrepare(0, &out)
	m := out.take(t)
	if m.User() != wire.UserTunnel || m.Type() != wire.TypeFailover || m.MsgCnt() != 1 || m.Size() != 72 || m.InnerHdr().ErrCode() != wire.CodeNoPort {
		t.Errorf("%x", m)
	}
	if l.dropPoint != 1 || l.failoverDefq.octets != 0 || !l.failoverDefq.q.Empty() {
		t.Error("not ready for the peer's tunnel")
	}
	// The peer's own dummy is dropped: its number is before the drop point.
	p := m
	p.SetSeqNo(l.rcvNxt)
	if rc := l.Receive(0, p, nil); rc != 0 || !l.inputq.Empty() || l.dropPoint != 1 {
		t.Errorf("result %d, %d delivered", rc, l.inputq.Len())
	}
}
