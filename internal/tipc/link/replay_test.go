package link

import (
	"bytes"
	"slices"
	"testing"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

// One link stands in for one of the two kernels: it gets the frames that the other kernel sent, sends the data that its
// kernel sent, and must put the same frames on the wire, octet for octet. Acknowledgements are not compared, they depend
// on how far reception had got, nor are the octets behind an interface name, which the kernel leaves undefined.
func TestReplayOfTheKernels(t *testing.T) {
	const node2, node3 = 0x5c6f6465, 0x5d6f6465
	for _, own := range []uint32{node2, node3} {
		peer := uint32(node2 + node3 - own)
		frames := tipctest.Capture(t, tipctest.Ethernet)
		var session uint16
		for _, f := range frames {
			if m := f.Msg; m.User() == wire.UserLinkProtocol && m.PrevNode() == own {
				session = m.Session()
				break
			}
		}
		e := &end{p: &pipe{t: t}, own: own, peer: peer, got: map[uint32][]uint32{}}
		e.snd = NewBcastSender(BcastConfig{Own: own, NetID: 4711, MTU: 3584, MinWin: 50, MaxWin: 50, Inputq: &e.bcq})
		e.rcv = NewBcastReceiver(BcastConfig{Own: own, NetID: 4711, Peer: peer, PeerCaps: wire.CapsAll, MTU: 65535, MinWin: 50, MaxWin: 50,
			BcSnd: e.snd, Inputq: &e.mcq, Namedq: &e.namedq})
		l := New(Config{Own: own, Peer: peer, IfName: "eth0", Plane: 'A', Session: session - 1, MTU: 1500, Priority: 10, Tolerance: 1500,
			MinWin: 50, MaxWin: 8191, PeerCaps: wire.CapsAll, BcSnd: e.snd, BcRcv: e.rcv, Inputq: &e.inputq[0], Namedq: &e.namedq})
		l.Reset(0)
		l.Event(ResetEvt)

		out := &capture{}
		compared, delivered, octets := 0, 0, 0
		for i, f := range frames {
			m := f.Msg
			switch {
			case m.User() == wire.UserLinkConfig:
			case m.PrevNode() == own:
				if len(out.pkts) == 0 {
					e.produce(l, m, out)
				}
				if len(out.pkts) == 0 {
					t.Fatalf("%x, frame %d: nothing sent, want %x", own, i, m)
				}
				got := wire.Msg(out.pkts[0])
				out.pkts = out.pkts[1:]
				want := slices.Clone(m)
				for _, c := range []wire.Msg{got, want} {
					c.SetAck(0)
					if c.User() != wire.UserLinkProtocol {
						c.SetBcastAck(0)
					} else if c.Type() != wire.TypeState && len(c) >= 56 {
						clear(c[40+len("eth0"):])
					} else if c.Type() == wire.TypeState {
						c.SetBcastAck(0)
					}
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%x, frame %d:\n%x, want\n%x", own, i, got, want)
				}
				compared++
			default:
				if m.NonSeq() {
					e.rcv.Receive(0, slices.Clone(m), nil)
				} else {
					if m.User() == wire.UserLinkProtocol && m.Type() == wire.TypeState && !m.BcAckInvalid() {
						ga, _ := e.rcv.GapAck(m, false)
						e.rcv.BcAckReceive(0, m.BcastAck(), m.BcGap(), ga, out, out)
						e.rcv.BcSyncReceive(0, m, out)
					}
					rc := l.Receive(0, slices.Clone(m), out)
					if rc&DownEvent != 0 {
						t.Fatalf("%x, frame %d: link down", own, i)
					}
					if rc&UpEvent != 0 {
						l.Event(EstablishEvt)
						l.BuildStateMsg(0, out)
						AddBcPeer(0, e.snd, l, out)
					}
				}
				for _, q := range []*buf.Queue{&e.inputq[0], &e.namedq, &e.mcq} {
					for b := q.PopFront(); b != nil; b = q.PopFront() {
						delivered++
						octets += b.Msg.DataSize()
					}
				}
			}
		}
		st := l.Stats()
		if st.BadAcks+st.BadMessages+st.Duplicates+l.IllegalEvents() != 0 || !l.transmq.Empty() || !e.snd.transmq.Empty() {
			t.Errorf("%x: %+v", own, st)
		}
		t.Logf("%x: %d frames sent as the kernel did, %d messages of %d octets received", own, compared, delivered, octets)
		if own == node2 && octets < 200_004 || compared < 30 {
			t.Errorf("%x: %d octets received, %d frames compared", own, octets, compared)
		}
	}
}

// produce makes l send what its kernel sent as m.
func (e *end) produce(l *Link, m wire.Msg, out Output) {
	if m.User() == wire.UserLinkProtocol {
		l.buildProtoMsg(0, protoMsg{typ: m.Type(), probe: m.Probe(), reply: m.IsKeepalive() && !m.Probe(), gap: m.SeqGap(), stopping: m.PeerStopping()}, out)
		return
	}
	b := buf.Copy(m)
	b.Msg.SetWord(2, 0)
	b.Msg.SetBcastAck(0)
	var q buf.Queue
	q.PushBack(b)
	if m.NonSeq() {
		b.Msg.SetNonSeq(false)
		b.Msg.SetMcNetID(0)
		e.snd.Xmit(0, &q, out)
		return
	}
	l.Xmit(0, &q, out)
}
