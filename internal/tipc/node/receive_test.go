package node

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

func TestReceiveDrops(t *testing.T) {
	w := newWorld(t, 1)
	a, _ := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	data := func(change func(m wire.Msg)) []byte {
		b := (&host{addr: 2}).message(1, 9, wire.TypeDirect, wire.BasicHeaderSize, 1, 8)
		change(b.Msg)
		return b.Msg
	}
	for _, c := range []struct {
		name   string
		bearer int
		pkt    []byte
		count  func(s *Stats) *uint64
	}{
		{"nothing", 0, nil, func(s *Stats) *uint64 { return &s.Invalid }},
		{"23 octets", 0, make([]byte, 23), func(s *Stats) *uint64 { return &s.Invalid }},
		{"version 3", 0, data(func(m wire.Msg) { m[0] = m[0]&0x1f | 3<<5 }), func(s *Stats) *uint64 { return &s.Invalid }},
		{"size lies", 0, data(func(m wire.Msg) { m.SetSize(1000) }), func(s *Stats) *uint64 { return &s.Invalid }},
		{"bearer off", 1, data(func(m wire.Msg) {}), func(s *Stats) *uint64 { return &s.NoBearer }},
		{"bearer 3", 3, data(func(m wire.Msg) {}), func(s *Stats) *uint64 { return &s.NoBearer }},
		{"bearer -1", -1, data(func(m wire.Msg) {}), func(s *Stats) *uint64 { return &s.NoBearer }},
		{"for another node", 0, data(func(m wire.Msg) { m.SetDestNode(7) }), func(s *Stats) *uint64 { return &s.NotForUs }},
		{"from an unknown node", 0, data(func(m wire.Msg) { m.SetPrevNode(7) }), func(s *Stats) *uint64 { return &s.UnknownPeer }},
		{"from the own address", 0, data(func(m wire.Msg) { m.SetPrevNode(1) }), func(s *Stats) *uint64 { return &s.UnknownPeer }},
		{"broadcast of another cluster", 0, data(func(m wire.Msg) { m.SetNonSeq(true); m.SetMcNetID(4712) }), func(s *Stats) *uint64 { return &s.ForeignNet }},
		{"broadcast of an unknown node", 0, data(func(m wire.Msg) { m.SetNonSeq(true); m.SetPrevNode(9) }), func(s *Stats) *uint64 { return &s.UnknownPeer }},
	} {
		before := a.Stats()
		n := *c.count(&before)
		a.Receive(w.now, c.bearer, media(2, 0), c.pkt)
		after := a.Stats()
		if got := *c.count(&after); got != n+1 {
			t.Errorf("%s: counted %d times", c.name, got-n)
		}
	}
	if len(a.got) != 0 {
		t.Errorf("delivered: %v", a.got)
	}
	// Discovery is handed on.
	a.events = nil
	m := make(wire.Msg, wire.DscHeaderSize+16)
	wire.Init(m, 2, wire.UserLinkConfig, wire.TypeDscRequest, wire.DscHeaderSize, 0)
	m.SetNonSeq(true)
	m.SetSize(len(m))
	a.Receive(w.now, 0, media(2, 0), m)
	if !slices.Equal(a.events, []string{"discovery 0"}) {
		t.Errorf("discovery message: events %q", a.events)
	}
}

// No data may be taken before both ends have seen contact, or after one has lost it.
func TestNoDataOutsideContact(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.hear(a, b)
	p := a.find(2)
	for s := range numStates {
		if s == SelfUpPeerUp || s == FailingOver || s == Synching {
			continue
		}
		p.state = s
		a.Receive(w.now, 0, media(2, 0), b.message(1, 9, wire.TypeDirect, wire.BasicHeaderSize, 1, 8).Msg)
		if len(a.got) != 0 {
			t.Errorf("data was delivered in state %v", s)
		}
	}
}

// The peer that still believes in contact is refused until it has seen the loss.
func TestPeerLeavingIsRefused(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	w.cut = func(from, to *host, bearer int) bool { return true }
	a.BearerReset(w.now, 0)
	if got := a.peerState(2); got != SelfDownPeerLeaving {
		t.Fatalf("state %v after the own link was reset", got)
	}
	w.hear(a, b)
	n := a.Stats().BadState
	b.tapState(a)
	if a.Stats().BadState != n+1 || a.peerState(2) != SelfDownPeerLeaving {
		t.Errorf("STATE of the old contact was taken: %v", a.peerState(2))
	}
}

// tapState hands a STATE message of the old link to to, past the cut.
func (h *host) tapState(to *host) {
	m := make(wire.Msg, wire.IntHeaderSize)
	wire.Init(m, h.addr, wire.UserLinkProtocol, wire.TypeState, wire.IntHeaderSize, to.addr)
	m.SetRedundantLink(true)
	m.SetBcAckInvalid(true)
	to.Receive(h.w.now, 0, media(h.addr, 0), m)
}

func TestOwnNodeDelivery(t *testing.T) {
	w := newWorld(t, 1)
	a := w.add(1)
	depth, deepest := 0, 0
	left := 1000
	a.onMsg = func(m wire.Msg) { // each message causes the next: the stack must not grow
		depth++
		deepest = max(deepest, depth)
		if left > 0 {
			left--
			a.XmitBuf(w.now, a.message(1, 5, wire.TypeDirect, wire.BasicHeaderSize, uint32(1001-left), 8), 1, 0)
		}
		depth--
	}
	if err := a.XmitBuf(w.now, a.message(1, 5, wire.TypeDirect, wire.BasicHeaderSize, 1, 8), 0, 0); err != nil {
		t.Fatal(err)
	}
	got := a.got[source{1, 5}]
	if len(got) != 1001 || !increasing(got) || deepest != 1 {
		t.Errorf("%d messages, depth %d", len(got), deepest)
	}
}

func TestXmitUnreachable(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.hear(a, b)
	for _, addr := range []uint32{2, 77} {
		var q buf.Queue
		q.PushBack(a.message(addr, 5, wire.TypeDirect, wire.BasicHeaderSize, 1, 8))
		if err := a.Xmit(w.now, &q, addr, 0); err != ErrHostUnreach || !q.Empty() {
			t.Errorf("node %d: %v, %d left", addr, err, q.Len())
		}
	}
	var q buf.Queue
	if err := a.Xmit(w.now, &q, 2, 0); err != nil {
		t.Error(err)
	}
	w.run(2 * sec)
	q.PushBack(a.message(2, 5, wire.TypeDirect, wire.BasicHeaderSize, 1, 3000))
	if err := a.Xmit(w.now, &q, 2, 0); err != ErrMsgSize {
		t.Errorf("oversized: %v", err)
	}
}

// A congested sender is told, and woken up.
func TestCongestionAndWakeup(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	f := &flow{h: a, to: 2, port: 1000, size: func() int { return 1000 }}
	f.pump(10000)
	if !f.blocked || f.n > 50+200+1 {
		t.Fatalf("%d messages taken, blocked %v", f.n, f.blocked)
	}
	w.run(sec)
	if a.wakeup[1000] != 1 {
		t.Errorf("%d wake-ups", a.wakeup[1000])
	}
	f.pump(10)
	w.run(sec)
	f.check(b)
	// A sender that waits when the link goes down is woken up as well.
	w.cut = func(from, to *host, bearer int) bool { return true }
	f.pump(10000)
	if !f.blocked {
		t.Fatal("not congested")
	}
	w.run(5 * sec)
	if a.wakeup[1000] != 1 {
		t.Errorf("%d wake-ups after the loss of the link", a.wakeup[1000])
	}
}

// Random octets, and real packets with random damage, must neither panic nor stop the cluster for good.
func TestHostilePackets(t *testing.T) {
	for seed := range seeds(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			a, b, c := w.add(1, 0, 1), w.add(2, 0, 1), w.add(3, 0)
			w.run(3 * sec)
			r := rand.New(rand.NewPCG(seed, 5))
			busy := false
			w.tap = func(from, to *host, bearer int, m wire.Msg) {
				if busy || r.IntN(4) != 0 {
					return
				}
				busy = true
				x := slices.Clone(m)
				mutate(r, x)
				w.flying = slices.Insert(w.flying, 0, tipctest.Flight[*host]{At: w.now, From: from, To: to, Bearer: bearer, Pkt: x})
				busy = false
			}
			f, g := &flow{h: a, to: 2, port: 1000}, &mflow{h: a, port: 5, dests: all(2, 3), method: Method{Mandatory: true}}
			for range 300 {
				f.pump(5)
				if a.IsUp(2) && a.IsUp(3) {
					g.pump(2)
				}
				for range 5 {
					x := make([]byte, r.IntN(200))
					for i := range x {
						x[i] = byte(r.Uint32())
					}
					if len(x) > 32 && r.IntN(2) == 0 {
						binary.BigEndian.PutUint32(x, 2<<29|r.Uint32()&0x1fe00000&^(1<<20)|uint32(len(x)))
						binary.BigEndian.PutUint32(x[12:], uint32(1+r.IntN(4)))
						binary.BigEndian.PutUint32(x[28:], uint32(1+r.IntN(4)))
					}
					[]*host{a, b, c}[r.IntN(3)].Receive(w.now, r.IntN(3), media(2, 0), x)
				}
				w.run(sec / 50)
			}
			w.tap = nil
			w.run(20 * sec)
			for _, h := range []*host{a, b, c} { // what was injected with a future sequence number goes with the links
				for _, i := range h.bearers {
					h.BearerReset(w.now, i)
				}
			}
			w.run(60 * sec)
			for _, h := range []*host{a, b, c} {
				for _, p := range h.sorted {
					if p.state != SelfUpPeerUp {
						t.Fatalf("seed %d: node %d does not recover: %v to %d", seed, h.addr, p.state, p.addr)
					}
				}
			}
			for _, h := range []*host{a, b, c} {
				h.got, h.gotMc = map[source][]uint32{}, map[source][]uint32{}
			}
			f = &flow{h: a, to: 2, port: 1002}
			f.pump(20)
			g = &mflow{h: a, port: 6, dests: all(2, 3), method: Method{Mandatory: true}}
			g.pump(20)
			w.run(5 * sec)
			f.check(b)
			g.check(b, c)
		})
	}
}

func mutate(r *rand.Rand, x []byte) {
	for range 1 + r.IntN(3) {
		if len(x) > 0 {
			x[r.IntN(min(len(x), 64))] ^= 1 << r.IntN(8)
		}
	}
}

// FuzzReceive feeds sequences of packets, each with a length octet before it, to a node in contact with two others.
func FuzzReceive(f *testing.F) {
	seed := func(pkts ...[]byte) {
		var in []byte
		for _, p := range pkts {
			in = append(append(in, byte(min(len(p), 255))), p[:min(len(p), 255)]...)
		}
		f.Add(in)
	}
	w := newWorld(f, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	var seen [][]byte
	w.tap = func(from, to *host, bearer int, m wire.Msg) {
		if to == a && len(seen) < 60 {
			seen = append(seen, slices.Clone(m))
		}
	}
	w.run(3 * sec)
	for i := uint32(0); i < 5; i++ {
		b.XmitBuf(w.now, b.message(1, 9, wire.TypeDirect, wire.BasicHeaderSize, i, 50), 1, 0)
	}
	b.BearerReset(w.now, 0)
	w.run(sec)
	for _, p := range seen {
		seed(p)
	}
	seed(seen...)
	f.Fuzz(func(t *testing.T, in []byte) {
		w := newWorld(t, 1)
		a, _ := w.add(1, 0, 1), w.add(2, 0, 1)
		w.run(2 * sec)
		for i := 0; len(in) > 0 && i < 100; i++ {
			n := min(int(in[0]), len(in)-1)
			a.Receive(w.now, i&1, media(2, 0), in[1:1+n])
			in = in[1+n:]
			if i%8 == 7 {
				w.run(sec / 10)
			}
		}
		w.run(sec)
		if len(a.sorted) != 1 {
			t.Fatalf("%d peers", len(a.sorted))
		}
	})
}
