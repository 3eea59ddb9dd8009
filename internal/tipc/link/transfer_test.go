package link

import (
	"fmt"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

func TestHandshake(t *testing.T) {
	p := newPipe(t, 1, options{})
	var order []string
	p.tap = func(from *end, bearer int, m wire.Msg) bool {
		if len(order) < 40 {
			s := fmt.Sprintf("%x %v", from.own, m.User())
			if m.User() == wire.UserLinkProtocol {
				s += fmt.Sprint(" ", m.Type())
			}
			order = append(order, s)
		}
		return true
	}
	p.up()
	p.run(2 * sec)
	a, b := p.ends[0].links[0], p.ends[1].links[0]
	if a.Name() != "node0:eth0-node1:eth0" || b.Name() != "node1:eth0-node0:eth0" {
		t.Errorf("names %q and %q", a.Name(), b.Name())
	}
	if a.peerSession != b.session || b.peerSession != a.session || !a.inSession {
		t.Error("sessions differ")
	}
	if !p.ends[0].rcv.IsUp() || p.ends[0].rcv.RcvNxt() != 1 {
		t.Error("broadcast start not agreed")
	}
	// RESET, ACTIVATE in answer to it, STATE, BCAST_PROTOCOL: the order seen between two kernels.
	first := func(s string) int {
		for i, o := range order {
			if o == s {
				return i
			}
		}
		return -1
	}
	r, act, st, bc := first("1001 LINK_PROTOCOL 1"), first("1002 LINK_PROTOCOL 2"), first("1001 LINK_PROTOCOL 0"), first("1001 BCAST_PROTOCOL")
	if r != 0 || act <= r || st <= act || bc != st+1 {
		t.Errorf("order of messages: %q", order)
	}
}

// Exactly once, in order, whatever the network does and however sizes and importances are mixed.
func TestLossyTransfer(t *testing.T) {
	seeds := uint64(48)
	if testing.Short() {
		seeds = 12
	}
	for seed := range seeds {
		o := options{eager: seed%2 == 1, maxWin: []int{50, 400, 8191}[seed%3]}
		if seed%4 == 3 {
			o.caps = wire.CapsAll &^ wire.CapGapAckBlock
		}
		p := newPipe(t, seed, o)
		p.up()
		p.loss[0] = []float64{0, 0.01, 0.05, 0.2}[seed%4]
		p.dup = float64(seed%3) * 0.05
		p.jitter = []mono.Time{0, 300_000, 5 * ms}[seed%3]
		size := func() int {
			switch p.r.IntN(20) {
			case 0:
				return p.r.IntN(66000)
			case 1:
				return p.r.IntN(4000)
			}
			return p.r.IntN(300)
		}
		for _, e := range p.ends {
			for _, l := range e.links[:1] { // begin near the wrap
				l.sndNxt -= uint16(seed * 40)
				l.checkpoint = l.sndNxt
			}
		}
		for i, e := range p.ends {
			e.links[0].rcvNxt = p.ends[1-i].links[0].sndNxt
			l := e.links[0]
			if !l.transmq.Empty() {
				t.Fatal("not idle")
			}
		}
		var ss []*sender
		for _, e := range p.ends {
			for k := range uint32(4) {
				ss = append(ss, &sender{e: e, port: 100 + k, imp: wire.User(k), size: size})
			}
		}
		for range 150 {
			for _, s := range ss {
				s.pump(p.r.IntN(8))
			}
			p.run(mono.Time(p.r.Int64N(int64(100 * ms))))
		}
		for range 200 {
			p.run(sec)
			if busy := func() bool {
				for _, e := range p.ends {
					if a, b := e.links[0].QueueLens(); a+b > 0 {
						return true
					}
				}
				return false
			}(); !busy {
				break
			}
		}
		for i, e := range p.ends {
			if e.downs > 0 {
				t.Fatalf("seed %d: link of %x failed %d times", seed, e.own, e.downs)
			}
			for _, s := range ss[i*4 : i*4+4] {
				tipctest.InOrder(t, fmt.Sprintf("seed %d, port %d of %x", seed, s.port, e.own), p.ends[1-i].got[s.port], s.n)
				if s.n < 50 {
					t.Fatalf("seed %d: only %d messages sent", seed, s.n)
				}
			}
			st := e.links[0].Stats()
			if st.BadAcks+st.BadMessages+st.DeferFull != 0 || e.links[0].IllegalEvents() != 0 {
				t.Errorf("seed %d: %+v", seed, st)
			}
			if p.loss[0] > 0 && st.Retransmitted == 0 {
				t.Errorf("seed %d: nothing was retransmitted", seed)
			}
		}
	}
}

// The sequence numbers go round more than once.
func TestSequenceWraps(t *testing.T) {
	p := newPipe(t, 5, options{maxWin: 400})
	p.up()
	p.loss[0] = 0.002
	s := &sender{e: p.ends[0], port: 1, size: func() int { return 700 }} // too large to be bundled in pairs
	for s.n < 140_000 {
		s.pump(300)
		p.run(ms)
	}
	p.run(10 * sec)
	tipctest.InOrder(t, "port 1", p.ends[1].got[1], s.n)
	if p.ends[0].downs+p.ends[1].downs > 0 {
		t.Error("link failed")
	}
}

func TestBroadcastLossy(t *testing.T) {
	for seed := range uint64(24) {
		o := options{}
		switch seed % 3 {
		case 1:
			o.caps = wire.CapsAll &^ wire.CapGapAckBlock
		case 2:
			o.caps = wire.CapsAll &^ (wire.CapGapAckBlock | wire.CapBcastStateNack)
		}
		p := newPipe(t, seed, o)
		p.up()
		p.loss[0] = float64(seed%4) * 0.03
		p.jitter = mono.Time(1+seed%3) * 200_000
		p.dup = 0.02
		size := func() int {
			if p.r.IntN(10) == 0 {
				return p.r.IntN(20000)
			}
			return p.r.IntN(1000)
		}
		var ss []*sender
		for _, e := range p.ends {
			ss = append(ss, &sender{e: e, bearer: -1, port: 100, size: size}, &sender{e: e, port: 200, size: size})
		}
		for range 100 {
			for _, s := range ss {
				s.pump(p.r.IntN(6))
			}
			p.run(mono.Time(p.r.Int64N(int64(200 * ms))))
		}
		for range 100 {
			p.run(sec)
			busy := false
			for _, e := range p.ends {
				busy = busy || !e.snd.transmq.Empty() || !e.links[0].transmq.Empty()
			}
			if !busy {
				break
			}
		}
		for i, e := range p.ends {
			what := fmt.Sprintf("seed %d, %x", seed, e.own)
			tipctest.InOrder(t, what+" broadcast", p.ends[1-i].gotMc, ss[2*i].n)
			tipctest.InOrder(t, what+" unicast", p.ends[1-i].got[200], ss[2*i+1].n)
			if e.downs > 0 || !e.snd.transmq.Empty() {
				t.Errorf("%s: %d failures, %d packets never acknowledged", what, e.downs, e.snd.transmq.Len())
			}
		}
	}
}

func TestNamesAreKeptApart(t *testing.T) {
	p := newPipe(t, 1, options{})
	p.up()
	e := p.ends[0]
	for n := range uint32(5) {
		b := dataBuf(e, wire.UserNameDistr, wire.TypePublication, 40, n+1, 20)
		xmit(t, e.links[0], b, port{e, 0, false}, p.now)
	}
	p.run(sec)
	tipctest.InOrder(t, "names", p.ends[1].names, 5)
	if len(p.ends[1].got) != 0 {
		t.Error("names among the socket messages")
	}
}

// A silent peer is given up after the tolerance, the link comes back by itself, and senders that waited are woken.
func TestSilenceAndRecovery(t *testing.T) {
	p := newPipe(t, 3, options{})
	p.up()
	a, b := p.ends[0], p.ends[1]
	s := &sender{e: a, port: 7, size: func() int { return 1400 }}
	p.loss[0] = 1
	s.pump(1000)
	if !s.waiting {
		t.Fatal("no congestion")
	}
	start := p.now
	for a.links[0].IsUp() && p.now < start+10*sec {
		p.run(50 * ms)
	}
	if d := p.now - start; d < 1500*ms || d > 3000*ms {
		t.Errorf("loss was noticed after %v", d)
	}
	if len(a.wakeups) != 1 || a.wakeups[0] != 7 {
		t.Errorf("woken: %v", a.wakeups)
	}
	p.run(2 * sec)
	p.loss[0] = 0
	p.run(10 * sec)
	if !a.links[0].IsUp() || !b.links[0].IsUp() {
		t.Fatalf("%v %v", a.links[0].state, b.links[0].state)
	}
	clear(b.got)
	s = &sender{e: a, port: 8}
	s.pump(10)
	p.run(sec)
	tipctest.InOrder(t, "after recovery", b.got[8], 10)
}

func TestPeerStopping(t *testing.T) {
	p := newPipe(t, 3, options{})
	p.up()
	a, b := p.ends[0], p.ends[1]
	a.links[0].Event(ResetEvt)
	a.links[0].Reset(p.now)
	stopping := false
	p.tap = func(from *end, _ int, m wire.Msg) bool { stopping = stopping || m.PeerStopping(); return true }
	a.links[0].BuildResetMsg(p.now, port{a, 0, false})
	p.run(10 * ms)
	if !stopping || b.downs != 1 {
		t.Errorf("stopping %v, downs %d", stopping, b.downs)
	}
}

func TestToleranceAndPriority(t *testing.T) {
	p := newPipe(t, 3, options{})
	p.up()
	a, b := p.ends[0], p.ends[1]
	a.links[0].SetTolerance(p.now, 800, port{a, 0, false})
	p.run(10 * ms)
	if b.links[0].Tolerance() != 800 || b.rcv.tolerance != 800 || b.downs != 0 {
		t.Errorf("tolerance %d", b.links[0].Tolerance())
	}
	a.links[0].SetPriority(p.now, 20, port{a, 0, false})
	p.run(10 * ms)
	if b.links[0].Priority() != 20 || b.downs != 1 {
		t.Errorf("priority %d, downs %d", b.links[0].Priority(), b.downs)
	}
	p.up()
	if a.links[0].Priority() != 20 {
		t.Error("priority lost")
	}
}

func TestSmallerMTUWins(t *testing.T) {
	p := newPipe(t, 3, options{mtu: 9000})
	b := p.ends[1].links[0]
	b.mtu, b.advertisedMTU = 1500, 1500
	p.up()
	if a := p.ends[0].links[0]; a.MTU() != 1500 || a.MSS() != 1428 || b.MTU() != 1500 {
		t.Errorf("MTU %d and %d", a.MTU(), b.MTU())
	}
}
