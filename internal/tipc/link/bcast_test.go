package link

import (
	"testing"

	"pgregory.net/rapid"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// bcRig is a broadcast send link with the receive links of several peers.
type bcRig struct {
	snd  *Link
	rcv  []*Link
	uc   []*Link
	bcq  buf.Queue
	junk buf.Queue
}

func newBcRig(n int) *bcRig {
	g := &bcRig{}
	g.snd = NewBcastSender(BcastConfig{Own: 1, NetID: 4711, MTU: 1500, MinWin: 50, MaxWin: 50, Inputq: &g.bcq})
	for i := range n {
		r := NewBcastReceiver(BcastConfig{Own: 1, Peer: uint32(i + 2), PeerCaps: wire.CapsAll, MTU: 65535, MinWin: 50, MaxWin: 50, BcSnd: g.snd, Inputq: &g.junk, Namedq: &g.junk})
		u := New(Config{Own: 1, Peer: uint32(i + 2), MTU: 1500, MinWin: 50, MaxWin: 50, Tolerance: 1500, PeerCaps: wire.CapsAll, BcSnd: g.snd, BcRcv: r, Inputq: &g.junk, Namedq: &g.junk})
		u.state = Established
		g.rcv, g.uc = append(g.rcv, r), append(g.uc, u)
	}
	return g
}

func (g *bcRig) join(i int) {
	AddBcPeer(0, g.snd, g.uc[i], nil)
	g.rcv[i].state = Established
	g.rcv[i].bcPeerIsUp = true
}

func (g *bcRig) send(now mono.Time, out Output) error {
	b := buf.Get(1400)
	wire.Init(b.Msg, 1, wire.UserLow, wire.TypeMcast, wire.McastHeaderSize, 0)
	b.Msg.SetSize(1400)
	var q buf.Queue
	q.PushBack(b)
	return g.snd.Xmit(now, &q, out)
}

func TestBroadcastHeader(t *testing.T) {
	g := newBcRig(1)
	g.join(0)
	var out capture
	g.send(0, &out)
	if m := out.take(t); !m.NonSeq() || m.McNetID() != 4711 || m.SeqNo() != 1 || m.Ack() != 0 || m.BcastAck() != 0 {
		t.Errorf("%x", m[:44])
	}
}

// Whatever peers acknowledge, in whatever pieces, and whenever they come and go: a packet is freed exactly when all that
// were there when it was sent have it or are gone. The model keeps a set for each packet.
func TestBroadcastAckersAgainstModel(t *testing.T) {
	const peers = 4
	rapid.Check(t, func(t *rapid.T) {
		g := newBcRig(peers)
		g.snd.sndNxt = rapid.SampledFrom([]uint16{1, 65500}).Draw(t, "start")
		waiting := map[uint16]map[int]bool{} // packet: peers that have yet to acknowledge it
		joined := map[int]bool{}
		var now mono.Time
		forget := func(i int) {
			for _, s := range waiting {
				delete(s, i)
			}
			delete(joined, i)
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				if i := rapid.IntRange(0, peers-1).Draw(t, "peer"); !joined[i] {
					g.join(i)
					joined[i] = true
				}
			},
			"leave": func(t *rapid.T) {
				i := rapid.IntRange(0, peers-1).Draw(t, "peer")
				if !joined[i] {
					return
				}
				RemoveBcPeer(now, g.snd, g.rcv[i], nil)
				forget(i)
				if len(joined) == 0 {
					clear(waiting)
					if g.snd.State() != Reset {
						t.Fatal("send link is up without peers")
					}
				}
			},
			"send": func(t *rapid.T) {
				if len(joined) == 0 || g.snd.transmq.Len() >= 50 {
					return
				}
				n := g.snd.sndNxt
				if err := g.send(now, nil); err != nil {
					t.Fatal(err)
				}
				waiting[n] = map[int]bool{}
				for i := range joined {
					waiting[n][i] = true
				}
			},
			"ack": func(t *rapid.T) {
				i := rapid.IntRange(0, peers-1).Draw(t, "peer")
				if !joined[i] {
					return
				}
				r := g.rcv[i]
				reach := g.snd.sndNxt - 1 - r.acked
				acked := r.acked + rapid.Uint16Range(0, reach).Draw(t, "acked")
				gap := rapid.Uint16Range(0, 5).Draw(t, "gap")
				var blks []wire.GapAckBlock
				at := acked + gap
				if gap > 0 {
					for range rapid.IntRange(0, 3).Draw(t, "blocks") {
						k := wire.GapAckBlock{Ack: at + rapid.Uint16Range(1, 4).Draw(t, "run"), Gap: rapid.Uint16Range(1, 3).Draw(t, "missing")}
						if wire.SeqMore(k.Ack, g.snd.sndNxt-1) {
							break
						}
						blks = append(blks, k)
						at = k.Ack + k.Gap
					}
				}
				ga, _, _ := wire.ParseGapAck(wire.AppendGapAck(nil, blks, nil))
				now += 11 * ms
				if rc := r.BcAckReceive(now, acked, gap, ga, nil, nil); rc != 0 {
					t.Skip("given up")
				}
				has := func(n uint16) bool {
					if wire.SeqLessEq(n, acked) {
						return true
					}
					from := acked + gap
					for _, k := range blks {
						if wire.SeqMore(n, from) && wire.SeqLessEq(n, k.Ack) {
							return true
						}
						from = k.Ack + k.Gap
					}
					return false
				}
				for n, s := range waiting {
					if has(n) {
						delete(s, i)
					}
				}
			},
			"lie": func(t *rapid.T) { // acknowledgements of what was never sent change nothing
				i := rapid.IntRange(0, peers-1).Draw(t, "peer")
				if !joined[i] {
					return
				}
				before := g.snd.transmq.Len()
				g.rcv[i].BcAckReceive(now, g.snd.sndNxt+rapid.Uint16Range(0, 30000).Draw(t, "ahead"), 0, wire.GapAck{}, nil, nil)
				if g.snd.transmq.Len() != before {
					t.Fatal("freed")
				}
			},
			"": func(t *rapid.T) {
				want := 0
				for _, s := range waiting {
					if len(s) > 0 {
						want++
					}
				}
				if g.snd.transmq.Len() != want || g.snd.BcPeers() != len(joined) {
					t.Fatalf("%d packets kept, want %d; %d peers, want %d", g.snd.transmq.Len(), want, g.snd.BcPeers(), len(joined))
				}
				for b := g.snd.transmq.Front(); b != nil; b = b.Next() {
					if b.Ackers != len(waiting[b.Msg.SeqNo()]) {
						t.Fatalf("packet %d waits for %d, want %d", b.Msg.SeqNo(), b.Ackers, len(waiting[b.Msg.SeqNo()]))
					}
				}
			},
		})
	})
}

func TestBroadcastRetransmitsToOneAndGivesUp(t *testing.T) {
	g := newBcRig(2)
	g.join(0)
	g.join(1)
	for range 5 {
		g.send(0, nil)
	}
	var out capture
	nack := func(at mono.Time) (int, Events) {
		out.pkts = nil
		rc := g.rcv[0].BcAckReceive(at, 1, 2, wire.GapAck{}, nil, &out)
		return len(out.pkts), rc
	}
	for _, c := range []struct {
		at   mono.Time
		want int
	}{{9 * ms, 0}, {10 * ms, 2}, {19 * ms, 0}, {20 * ms, 2}} {
		if n, rc := nack(c.at); n != c.want || rc != 0 {
			t.Errorf("at %v: %d sent again, result %d", c.at, n, rc)
		}
	}
	if g.snd.Stats().RecvNacks != 4 || g.rcv[0].Stats().Retransmitted != 4 || g.snd.Stats().Retransmitted != 4 {
		t.Errorf("%+v", g.snd.Stats())
	}
	g.rcv[1].BcAckReceive(0, 5, 0, wire.GapAck{}, nil, nil)
	if _, rc := nack(16 * sec); rc != DownEvent || g.rcv[0].State() != Reset {
		t.Errorf("result %d, %v", rc, g.rcv[0].State())
	}
}

func TestBroadcastWindowAndWakeup(t *testing.T) {
	g := newBcRig(1)
	g.join(0)
	for i := range 150 {
		if err := g.send(0, nil); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if err := g.send(0, nil); err != ErrLinkCong {
		t.Fatalf("%v", err)
	}
	var out capture
	g.rcv[0].BcAckReceive(0, 30, 0, wire.GapAck{}, &out, nil)
	if len(out.pkts) != 30 || g.bcq.Len() != 1 || g.bcq.Front().Msg.OrigNode() != 0 {
		t.Errorf("%d sent, %d woken", len(out.pkts), g.bcq.Len())
	}
}

// Peers that do not read NACKs from STATE messages get them as broadcasts, but not from everybody at once.
func TestOldBroadcastNack(t *testing.T) {
	g := newBcRig(1)
	g.join(0)
	r := g.rcv[0]
	r.UpdateCaps(wire.CapsAll &^ wire.CapBcastStateNack)
	state := make(wire.Msg, 40)
	wire.Init(state, 2, wire.UserLinkProtocol, wire.TypeState, 40, 1)
	state.SetAck(1)
	r.rcvNxt = 11
	step := func(last uint16) int {
		var out capture
		state.SetLastBcast(last)
		r.BcSyncReceive(0, state, &out)
		if len(out.pkts) == 1 {
			m := wire.Msg(out.pkts[0])
			if m.User() != wire.UserBcastProtocol || !m.NonSeq() || m.BcgapAfter() != 10 || m.BcgapTo() != last || m.McNetID() != 0 {
				t.Errorf("%x", m)
			}
		}
		return len(out.pkts)
	}
	for i, c := range []struct {
		last uint16
		want int
	}{{10, 0}, {14, 0}, {14, 1}, {14, 0}, {14, 1}, {10, 0}, {40, 1}, {100, 0}} {
		if got := step(c.last); got != c.want {
			t.Errorf("step %d: %d", i, got)
		}
	}
	// The other end: a NACK for us, and one for somebody else that suppresses ours.
	for range 5 {
		g.send(0, nil)
	}
	nack := make(wire.Msg, 40)
	wire.Init(nack, 2, wire.UserBcastProtocol, wire.TypeState, 40, 1)
	nack.SetBcastAck(2)
	nack.SetBcgapTo(4)
	var out capture
	if r.BcNackReceive(20*ms, nack, &out); len(out.pkts) != 2 {
		t.Errorf("%d sent again", len(out.pkts))
	}
	nack.SetDestNode(77)
	nack.SetBcastAck(10)
	nack.SetBcgapTo(12)
	r.nackState = nackUnconditional
	if r.BcNackReceive(20*ms, nack, &out); r.nackState != nackSuppress {
		t.Error("not suppressed")
	}
}

func TestBcInit(t *testing.T) {
	for name, c := range map[string]struct {
		user wire.User
		typ  uint8
		caps wire.Caps
		next uint16
		up   bool
	}{
		"start":           {wire.UserBcastProtocol, 0, wire.CapsAll, 8, true},
		"RESET":           {wire.UserLinkProtocol, wire.TypeReset, wire.CapsAll, 1, false},
		"RESET, old peer": {wire.UserLinkProtocol, wire.TypeReset, 0, 8, false},
		"STATE, old peer": {wire.UserLinkProtocol, wire.TypeState, 0, 1, false},
	} {
		g := newBcRig(1)
		r := g.rcv[0]
		r.UpdateCaps(c.caps)
		m := make(wire.Msg, 40)
		wire.Init(m, 2, c.user, c.typ, 40, 1)
		m.SetLastBcast(7)
		r.BcInitReceive(m)
		if r.RcvNxt() != c.next || r.IsUp() != c.up {
			t.Errorf("%s: %d %v", name, r.RcvNxt(), r.IsUp())
		}
	}
}
