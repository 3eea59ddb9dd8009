package node

import (
	"math/rand/v2"
	"slices"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// What follows was found by internal/sim.

// A receiver whose binding the sender does not know sees both SYN messages of each change all the same, so that it
// waits for none.
func TestSwitchReachesUnknownReceivers(t *testing.T) {
	w := newWorld(t, 1)
	var hosts []*host
	for a := uint32(1); a <= 4; a++ {
		hosts = append(hosts, w.add(a, 0))
	}
	w.run(4 * sec)
	f := &mflow{h: hosts[0], port: 5}
	for _, dests := range [][]uint32{{2, 3, 4}, {2}, {2, 3, 4}, {3}, {2, 3, 4}} {
		f.dests = all(dests...)
		f.pump(3)
		w.run(sec)
	}
	if f.sw != 4 {
		t.Errorf("%d switches", f.sw)
	}
	f.check(hosts[1:]...)
	for _, h := range hosts {
		if !h.defq.Empty() {
			t.Errorf("node %d: %d messages wait for a twin", h.addr, h.defq.Len())
		}
	}
}

// A receiver that the sender does not know yet gets broadcasts only, and so one twin of a change. What is sent when it is
// known is in order and complete all the same.
func TestFilterJoinsInTheMiddle(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := &mcastSender{node: 1, port: 7}
		var defq buf.Queue
		last, known := uint32(0), uint32(0)
		arrive := func(w int) {
			if len(s.way[w]) == 0 {
				return
			}
			var q buf.Queue
			q.PushBack(s.way[w][0])
			s.way[w] = s.way[w][1:]
			FilterMcast(99, &defq, &q)
			for b := q.PopFront(); b != nil; b = q.PopFront() {
				if b.Msg.DataSize() == 0 {
					t.Fatalf("seed %d: an empty twin was delivered", seed)
				}
				if n := b.Msg.Word(11); n >= known && known > 0 {
					if last++; n != last {
						t.Fatalf("seed %d: message %d delivered instead of %d, known since %d", seed, n, last, known)
					}
				}
				b.Release()
			}
		}
		act := func(changes int) {
			switch r.IntN(4) {
			case 0:
				s.send(s.rcast != (changes > 0))
			case 1:
				s.send(s.rcast)
			default:
				arrive(r.IntN(2))
			}
		}
		s.rcast = r.IntN(2) == 0
		for range r.IntN(10) {
			act(0)
		}
		s.send(!s.rcast)
		for range r.IntN(10) {
			act(0)
		}
		s.way[1] = nil
		known, last = s.n+1, s.n
		for range r.IntN(40) {
			act(1)
		}
		s.send(!s.rcast)
		for len(s.way[0])+len(s.way[1]) > 0 {
			arrive(r.IntN(2))
		}
		if last != s.n || !defq.Empty() {
			t.Fatalf("seed %d: %d of %d, %d wait", seed, last, s.n, defq.Len())
		}
	}
}

// A peer that was restarted while one of the links to it seems to be up does not come back on the other link before the
// first one is lost, so that contact is lost in between.
func TestRestartIsNotOverlooked(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	w.run(4 * sec)
	if !a.IsUp(2) {
		t.Fatal("no contact")
	}
	p := a.find(2)
	other := p.links[1].addr
	a.CheckDest(w.now, Dest{Bearer: 0, Addr: 2, ID: p.id, Caps: p.caps, Signature: uint16(p.signature) + 1, Media: p.links[0].addr})
	if !p.suspect {
		t.Fatal("no suspicion after another signature")
	}
	a.linkDown(w.now, p, 0, false)
	w.run(2 * sec)
	if p.suspect || !a.IsUp(2) || !b.IsUp(1) || p.links[1].addr != other {
		t.Errorf("a link that is heard is not trusted: %+v", p.info())
	}
	li, err := a.LinkName(2, 0)
	if err != nil {
		t.Fatal(err)
	}
	if l, _ := a.Link(li); !l.Up {
		t.Error("the other link did not come back")
	}
	p.suspect = true
	a.linkDown(w.now, p, 0, false)
	a.linkDown(w.now, p, 1, false)
	if p.suspect {
		t.Error("suspicion outlives the contact")
	}
}

// Somebody else who uses a peer's address, or says so, keeps no link of the peer down.
func TestDuplicateMakesNoSuspicion(t *testing.T) {
	w := newWorld(t, 1)
	a, _ := w.add(1, 0, 1), w.add(2, 0, 1)
	w.run(4 * sec)
	p := a.find(2)
	_, duplicate := a.CheckDest(w.now, Dest{Bearer: 0, Addr: 2, ID: p.id, Caps: p.caps, Signature: uint16(p.signature) + 1, Media: media(3, 0)})
	if !duplicate || p.suspect {
		t.Errorf("duplicate %v, suspect %v", duplicate, p.suspect)
	}
}

// A node that loses a peer waits until the peer has lost it too: what the peer said when contact was made, that it had
// none yet, does not count later.
func TestLossWaitsForThePeersLoss(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	var late []byte
	w.tap = func(from, to *host, bearer int, m wire.Msg) {
		if late == nil && from == b && bearer == 1 && !m.NonSeq() && m.Type() == wire.TypeActivate {
			late = append(late, m...)
		}
	}
	w.run(4 * sec)
	if wire.Msg(late).PeerNodeIsUp() {
		t.Fatal("the first ACTIVATE of link 1 was sent in contact")
	}
	a.Receive(w.now, 1, media(2, 1), late)
	w.loss[1] = 1
	w.run(5 * sec / 2)
	w.loss = [MaxBearers]float64{1, 0}
	w.noDsc = true
	b.events = nil
	a.BearerSetUp(w.now, 0, false) // link 0, the last one, and the peer is not told
	a.BearerSetUp(w.now, 0, true)
	w.run(sec / 2)
	if a.peerState(2) != SelfDownPeerLeaving || a.IsUp(2) || !b.IsUp(1) {
		t.Errorf("states %v and %v before the peer noticed", a.peerState(2), b.peerState(1))
	}
	w.run(4 * sec)
	if want := []string{"node down 1", "link down 1 0", "node up 1", "link up 1 1"}; !slices.Equal(b.events, want) {
		t.Errorf("the peer saw %q", b.events)
	}
	if a.peerState(2) != SelfUpPeerUp {
		t.Errorf("state %v", a.peerState(2))
	}
}

// A peer that has lost contact first, and said so on the link that is not up, comes back on it at once when contact is
// lost here as well: the handshake on that link starts again, as the peer must hear first that it was lost.
func TestContactAfterThePeersLoss(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	w.run(4 * sec)
	w.loss[1] = 1
	w.run(5 * sec / 2)
	w.loss = [MaxBearers]float64{1, 0}
	w.noDsc = true
	a.events, b.events = nil, nil
	b.BearerSetUp(w.now, 0, false)
	w.run(4 * sec)
	want := []string{"node down 1", "link down 1 0", "node up 1", "link up 1 1"}
	if !slices.Equal(b.events, want) {
		t.Errorf("the peer saw %q", b.events)
	}
	want = []string{"node down 2", "link down 2 0", "node up 2", "link up 2 1"}
	if !slices.Equal(a.events, want) {
		t.Errorf("the node saw %q", a.events)
	}
}

// A link whose other end came up, failed over and was made anew, all before this end was up, comes up although the new
// end's session may look older than the one that was heard.
func TestLinkMadeAnewAfterHalfFailover(t *testing.T) {
	for seed := range seeds(20) {
		w := newWorld(t, seed)
		a, b := w.add(1, 0, 1), w.add(2, 0, 1)
		w.run(4 * sec)
		w.loss[1] = 1
		w.run(5 * sec / 2)
		w.loss[1] = 0
		until := func(what string, cond func() bool) {
			for range 200 {
				if cond() {
					return
				}
				w.run(sec / 100)
			}
			t.Fatalf("seed %d: not %s", seed, what)
		}
		until("establishing", func() bool { return a.find(2).links[1].link.IsEstablishing() })
		w.cut = func(from, to *host, bearer int) bool { return from == b && bearer == 1 }
		until("up at the peer", func() bool { return b.find(1).links[1].link.IsUp() })
		b.BearerSetUp(w.now, 1, false)
		w.run(sec / 10)
		w.cut = nil
		b.BearerSetUp(w.now, 1, true)
		w.run(4 * sec)
		for _, h := range []*host{a, b} {
			if l := h.find(3 - h.addr).links[1].link; l == nil || !l.IsUp() {
				t.Errorf("seed %d: the link is down at node %d", seed, h.addr)
			}
		}
	}
}

// What a peer sent may be under way while links miss something, but not for ever; in calm it is known soon that it is not.
func TestUnderWay(t *testing.T) {
	w := newWorld(t, 1)
	a, _ := w.add(1, 0, 1), w.add(2, 0, 1)
	w.run(4 * sec)
	expect := func(what string, since mono.Time, want, bcast bool) {
		t.Helper()
		if a.UnderWay(w.now, 2, since, false) != want || a.UnderWay(w.now, 2, since, true) != bcast {
			t.Errorf("%s after %v: %v %v", what, w.now-since, !want, !bcast)
		}
	}
	since := w.now
	w.run(5 * sec)
	expect("calm", since, true, true)
	w.run(2 * sec)
	expect("calm", since, false, true)
	w.run(24 * sec)
	expect("calm", since, false, false)
	for name, cut := range map[string]func(from, to *host, bearer int) bool{
		"a dead link":   func(from, to *host, bearer int) bool { return bearer == 1 },
		"a silent link": func(from, to *host, bearer int) bool { return bearer == 0 && from.addr == 2 && w.now/sec%2 == 0 },
	} {
		w.cut = cut
		since = w.now
		w.run(12 * sec)
		expect(name, since, true, true)
		w.run(19 * sec)
		expect(name, since, false, false)
		w.cut = nil
		w.run(8 * sec)
		expect(name+" that lives again", since, false, false)
	}
	if a.UnderWay(w.now, 77, w.now, true) {
		t.Error("something of an unknown node is under way")
	}
}
