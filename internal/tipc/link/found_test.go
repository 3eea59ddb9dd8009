package link

import (
	"encoding/binary"
	"fmt"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// A link that holds packets back fails itself: they are delivered on the other link, before what comes through the
// tunnel. Found by internal/sim.
func TestFailoverOfAHoldingLink(t *testing.T) {
	tnl, e := testLink()
	l, le := testLink()
	tnl.state, l.state = Established, Established
	var out capture
	seq := func(e *end, l *Link, user wire.User, typ uint8, h int, n uint32, data []byte) wire.Msg {
		b := dataBuf(e, user, typ, h, n, len(data))
		copy(b.Msg.Data(), data)
		b.Msg.SetOrigNode(e.peer)
		b.Msg.SetPrevNode(e.peer)
		b.Msg.SetDestNode(e.own)
		b.Msg.SetSeqNo(l.rcvNxt)
		return b.Msg
	}
	data := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	l.SetHold()
	for n := uint32(1); n <= 3; n++ {
		l.Receive(0, seq(le, l, wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, n, data(n)), &out)
	}
	if l.Held() != 3 || !le.inputq[0].Empty() {
		t.Fatalf("%d held", l.Held())
	}
	l.TunnelPrepare(0, tnl, wire.TypeFailover, &out)
	l.Reset(0)
	if !e.inputq[0].Empty() {
		t.Fatal("delivered before the tunnel has come so far")
	}
	for n := uint32(3); n <= 4; n++ { // the first of these was received before
		inner := seq(le, l, wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, n, data(n))
		inner.SetSeqNo(uint16(n))
		outer := seq(e, tnl, wire.UserTunnel, wire.TypeFailover, wire.IntHeaderSize, 0, inner)
		outer.SetOrigPort(0) // no fragment
		if rc := tnl.Receive(0, outer, &out); rc != 0 {
			t.Errorf("events %d", rc)
		}
	}
	var got []uint32
	for b := e.inputq[0].PopFront(); b != nil; b = e.inputq[0].PopFront() {
		got = append(got, binary.BigEndian.Uint32(b.Msg.Data()))
	}
	if fmt.Sprint(got) != "[1 2 3 4]" {
		t.Errorf("delivered %v", got)
	}
	tnl.failoverHeld.PushBack(buf.Get(60))
	tnl.Reset(0)
	if !tnl.failoverHeld.Empty() {
		t.Error("Reset leaves what was held")
	}
}

// After the failover of a link with a large window, internal messages wait behind the tunnel instead of resetting the
// link. Found by internal/sim.
func TestInternalMessagesBehindATunnel(t *testing.T) {
	tnl, e := testLink()
	l, le := testLink()
	tnl.state, l.state = Established, Established
	l.SetQueueLimits(50, 500)
	l.window = 500
	for n := range uint32(400) {
		xmit(t, l, dataBuf(le, wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, n, 100), nil, 0)
	}
	if tnl.backlog[wire.SystemImportance].limit >= 350 {
		t.Fatal("the limit is too high for this test")
	}
	var out capture
	l.TunnelPrepare(0, tnl, wire.TypeFailover, &out)
	send := func() error {
		var q buf.Queue
		q.PushBack(dataBuf(e, wire.UserConnManager, 0, wire.IntHeaderSize, 1, 4))
		return tnl.Xmit(0, &q, &out)
	}
	if err := send(); err != nil {
		t.Fatalf("behind a tunnel: %v", err)
	}
	err := error(nil)
	for range 60000 {
		if err = send(); err != nil {
			break
		}
	}
	if err != ErrNoBufs {
		t.Errorf("no limit: %v", err)
	}
}

// A packet of the former session that comes late does not bring a link up again: it acknowledges what this session has
// not sent. Found by internal/sim.
func TestLatePacketDoesNotBringUp(t *testing.T) {
	l, e := testLink()
	l.state = Establishing
	for ack, want := range []Events{UpEvent, 0, 0} {
		b := dataBuf(e, wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 1, 4)
		b.Msg.SetSeqNo(3)
		b.Msg.SetAck(uint16(ack))
		if rc := l.Receive(0, b.Msg, nil); rc != want {
			t.Errorf("acknowledgement %d: events %d", ack, rc)
		}
	}
}

// A link knows when something is missing, or may be.
func TestBehind(t *testing.T) {
	for name, change := range map[string]func(*Link){
		"announced": func(l *Link) { l.announced = l.rcvNxt + 1 },
		"silent":    func(l *Link) { l.silent = 2 },
		"deferred":  func(l *Link) { l.deferq.insert(0, nil, buf.Get(60)) },
	} {
		l, _ := testLink()
		if l.Behind() {
			t.Error("a new link is behind")
		}
		if change(l); !l.Behind() {
			t.Error(name)
		}
		if l.Reset(0); l.Behind() {
			t.Errorf("%s: after Reset", name)
		}
	}
}

// A broadcast from before contact was made anew is not taken for the one that gets its number later. Found by
// internal/sim.
func TestStaleBroadcastIsDropped(t *testing.T) {
	g := newBcRig(1)
	g.join(0)
	r := g.rcv[0]
	r.inputq = new(buf.Queue)
	receive := func(now mono.Time, seqno uint16, data byte) {
		m := make(wire.Msg, wire.McastHeaderSize+1)
		wire.Init(m, 2, wire.UserLow, wire.TypeMcast, wire.McastHeaderSize, 0)
		m.SetSize(len(m))
		m.SetSeqNo(seqno)
		m[len(m)-1] = data
		r.Receive(now, m, nil)
	}
	state := func(now mono.Time, last uint16) {
		m := make(wire.Msg, 40)
		wire.Init(m, 2, wire.UserLinkProtocol, wire.TypeState, 40, 1)
		m.SetRedundantLink(true)
		m.SetAck(1)
		m.SetLastBcast(last)
		r.BcSyncReceive(now, m, nil)
	}
	receive(0, 4, 'x') // stale
	receive(0, 3, 'c') // overtook the others
	state(1400*ms, 2)
	state(1600*ms, 3)
	for i, c := range "abd" {
		receive(1700*ms, []uint16{1, 2, 4}[i], byte(c))
	}
	var got []byte
	for b := r.inputq.PopFront(); b != nil; b = r.inputq.PopFront() {
		got = append(got, b.Msg[len(b.Msg)-1])
	}
	if string(got) != "abcd" || r.deferq.octets != 0 {
		t.Errorf("%q, and %d octets kept", got, r.deferq.octets)
	}
}
