package node

import (
	"fmt"
	"slices"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

func TestTwoLinksShareTheLoad(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	w.run(3 * sec)
	if got := a.find(2).active; got[0] == got[1] || got[0] == noBearer {
		t.Fatalf("slots %v", got)
	}
	carried := map[uint32]int{}
	w.tap = func(from, to *host, bearer int, m wire.Msg) {
		if from == a && m.IsData() {
			carried[m.OrigPort()] |= 1 << bearer
		}
	}
	f, g := &flow{h: a, to: 2, port: 1000}, &flow{h: a, to: 2, port: 1001}
	f.pump(20)
	g.pump(20)
	w.run(sec)
	f.check(b)
	g.check(b)
	if carried[1000] == carried[1001] || carried[1000] == 3 || carried[1001] == 3 {
		t.Errorf("bearers by port: %v", carried)
	}
	for li := range a.Links(false) {
		if !li.Broadcast && !(li.Up && li.Active) {
			t.Errorf("link %s: up %v, active %v", li.Name, li.Up, li.Active)
		}
	}
}

func TestStandbyLink(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	a.BearerSetPriority(1, 5)
	b.BearerSetPriority(1, 5)
	w.run(3 * sec)
	if got := a.find(2).active; got != [2]int{0, 0} {
		t.Fatalf("slots %v", got)
	}
	f, g := &flow{h: a, to: 2, port: 1000}, &flow{h: a, to: 2, port: 1001}
	f.pump(20)
	g.pump(20)
	w.loss[0] = 1
	w.run(5 * sec)
	if got := a.find(2).active; got != [2]int{1, 1} {
		t.Fatalf("slots %v after the loss of the better link", got)
	}
	w.loss[0] = 0
	w.run(5 * sec)
	if got := a.find(2).active; got != [2]int{0, 0} {
		t.Fatalf("slots %v after the return of the better link", got)
	}
	f.pump(20)
	g.pump(20)
	w.run(sec)
	f.check(b)
	g.check(b)
	if slices.Contains(a.events, "node down 2") || slices.Contains(b.events, "node down 1") {
		t.Error("contact was lost")
	}
}

// The heart of the matter: two links, traffic both ways on both, links cut and healed at random under loss,
// duplication and reordering. As long as one link holds at any time nothing is lost, doubled or reordered.
func TestFailoverAndSynchUnderLoad(t *testing.T) {
	for seed := range seeds(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			a, b := w.add(1, 0, 1), w.add(2, 0, 1)
			w.run(3 * sec)
			w.jitter = []mono.Time{0, 200_000, 5_000_000}[seed%3]
			w.dup = float64(seed%4) * 0.02
			base := float64(seed%5) * 0.02
			w.loss = [MaxBearers]float64{base, base}
			size := func() int {
				if w.r.IntN(10) == 0 {
					return w.r.IntN(8000)
				}
				return w.r.IntN(200)
			}
			var flows []*flow
			for _, h := range []*host{a, b} {
				for port := uint32(1000); port < 1004; port++ {
					flows = append(flows, &flow{h: h, to: 3 - h.addr, port: port, short: port < 1002, size: size})
				}
			}
			for range 8 {
				victim := w.r.IntN(2)
				w.loss[victim] = 1
				how := w.r.IntN(3)
				if how == 1 { // one direction only
					w.loss[victim] = base
					w.cut = func(from, to *host, bearer int) bool { return from == a && bearer == victim }
				} else if how == 2 { // the operator
					w.loss[victim] = base
					h := []*host{a, b}[w.r.IntN(2)]
					h.BearerReset(w.now, victim)
				}
				downtime := 2 + w.r.IntN(40)
				for range downtime {
					for _, f := range flows {
						f.pump(w.r.IntN(12))
					}
					w.run(sec / 10)
				}
				w.loss[victim], w.cut = base, nil
				for range 1 + w.r.IntN(40) {
					for _, f := range flows {
						f.pump(w.r.IntN(12))
					}
					w.run(sec / 10)
				}
				w.run(3 * sec) // a loss that was healed at the last moment may still be noticed
				settle(w, a, b)
			}
			w.run(20 * sec)
			for _, h := range []*host{a, b} {
				if slices.Contains(h.events, "node down "+string('0'+rune(3-h.addr))) {
					t.Fatalf("node %d: contact was lost: %q", h.addr, h.events)
				}
				if h.Stats().IllegalEvent != 0 {
					t.Fatalf("node %d: %d illegal node events", h.addr, h.Stats().IllegalEvent)
				}
				if h.peerState(3-h.addr) != SelfUpPeerUp || h.find(3-h.addr).working != 2 {
					t.Fatalf("node %d: state %v, %d links", h.addr, h.peerState(3-h.addr), h.find(3-h.addr).working)
				}
			}
			for _, f := range flows {
				if f.lost {
					t.Fatalf("node %d lost its peer", f.h.addr)
				}
				f.check([]*host{b, a}[f.h.addr-1])
			}
		})
	}
}

// settle runs until both links work at both ends.
func settle(w *world, hosts ...*host) {
	for range 300 {
		w.run(sec / 10)
		ok := true
		for _, h := range hosts {
			for _, p := range h.sorted {
				ok = ok && p.working == 2 && p.state == SelfUpPeerUp
			}
		}
		if ok {
			return
		}
	}
	for _, h := range hosts {
		for _, p := range h.sorted {
			w.t.Logf("node %d -> %d: %v, working %d", h.addr, p.addr, p.state, p.working)
			for li := range h.Links(false) {
				w.t.Logf("  %s %s", li.Name, li.State)
			}
		}
	}
	w.t.Fatal("links do not settle")
}

// Both links fail at different times while data is in flight, and everything recovers.
func TestBothLinksLost(t *testing.T) {
	for seed := range seeds(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			a, b := w.add(1, 0, 1), w.add(2, 0, 1)
			w.run(3 * sec)
			f := &flow{h: a, to: 2, port: 1000}
			f.pump(100)
			w.loss[0] = 1
			w.run(mono.Time(w.r.Int64N(int64(4 * sec))))
			w.loss[1] = 1
			w.run(5 * sec)
			if a.IsUp(2) || b.IsUp(1) {
				t.Fatal("in contact without a link")
			}
			if n := count(a.events, "node down 2"); n != 1 {
				t.Fatalf("contact was lost %d times: %q", n, a.events)
			}
			w.loss = [MaxBearers]float64{}
			settle(w, a, b)
			a.events, b.events = nil, nil
			b.got = map[source][]uint32{}
			f = &flow{h: a, to: 2, port: 1000}
			f.pump(100)
			w.run(2 * sec)
			f.check(b)
		})
	}
}

func count(s []string, x string) (n int) {
	for _, e := range s {
		if e == x {
			n++
		}
	}
	return n
}

// A standby link with a smaller MTU has to carry the packets of the lost one: they are fragmented inside the tunnel.
func TestFailoverToSmallerMTU(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	for _, h := range []*host{a, b} {
		h.BearerSetMTU(0, 9000)
		h.BearerSetPriority(1, 5)
	}
	w.run(3 * sec)
	f := &flow{h: a, to: 2, port: 1000, size: func() int { return 8000 }}
	w.loss[0] = 1
	f.pump(30)
	w.run(10 * sec)
	f.check(b)
}

// A deliberately bad peer: tunnels in tunnels and impossible fragment counts must be harmless.
func TestHostileTunnels(t *testing.T) {
	inner := func(w *world, a *host) wire.Msg {
		b := a.message(2, 1000, wire.TypeDirect, wire.BasicHeaderSize, 1, 50)
		return b.Msg
	}
	for name, change := range map[string]func(m wire.Msg){
		"tunnel in tunnel":     func(m wire.Msg) { m.InnerHdr().SetUser(wire.UserTunnel) },
		"nof_fragms 65535":     func(m wire.Msg) { m.SetNofFragms(65535); m.SetFragmNo(1) },
		"fragm_no past nof":    func(m wire.Msg) { m.SetNofFragms(2); m.SetFragmNo(9) },
		"last without first":   func(m wire.Msg) { m.SetNofFragms(2); m.SetFragmNo(2) },
		"inner size lies":      func(m wire.Msg) { m.InnerHdr().SetSize(60000) },
		"inner header 4":       func(m wire.Msg) { m.InnerHdr().SetHdrsz(4) },
		"empty":                func(m wire.Msg) { m.SetSize(wire.IntHeaderSize) },
		"msgcnt 0":             func(m wire.Msg) { m.SetMsgCnt(0) },
		"msgcnt 65535":         func(m wire.Msg) { m.SetMsgCnt(65535) },
		"synch":                func(m wire.Msg) { m.SetType(wire.TypeSynch) },
		"synch, point far off": func(m wire.Msg) { m.SetType(wire.TypeSynch); m.SetSyncPt(40000) },
		"type 7":               func(m wire.Msg) { m.SetType(7) },
	} {
		for _, links := range [][]int{{0}, {0, 1}} {
			w := newWorld(t, 1)
			a, b := w.add(1, links...), w.add(2, links...)
			w.run(3 * sec)
			in := inner(w, a)
			m := buf.Get(wire.IntHeaderSize + len(in))
			wire.Init(m.Msg, 1, wire.UserTunnel, wire.TypeFailover, wire.IntHeaderSize, 2)
			m.Msg.SetSize(len(m.Msg))
			m.Msg.SetMsgCnt(1)
			copy(m.Msg.Data(), in)
			change(m.Msg)
			var q buf.Queue
			q.PushBack(m)
			a.find(2).links[0].link.Xmit(w.now, &q, &a.find(2).links[0])
			w.run(40 * sec)
			if a.peerState(2) != SelfUpPeerUp || b.peerState(1) != SelfUpPeerUp {
				t.Fatalf("%s, %d links: no recovery: %v %v", name, len(links), a.peerState(2), b.peerState(1))
			}
			a.got, b.got = map[source][]uint32{}, map[source][]uint32{}
			f := &flow{h: a, to: 2, port: 1000}
			f.pump(20)
			w.run(2 * sec)
			f.check(b)
		}
	}
}
