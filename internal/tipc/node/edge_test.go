package node

import (
	"slices"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// A sender that fills the broadcast link is told, and woken up when peers have acknowledged, and also when they go.
func TestBroadcastCongestion(t *testing.T) {
	w := newWorld(t, 1)
	a, b, c := w.add(1, 0), w.add(2, 0), w.add(3, 0)
	w.run(3 * sec)
	f := &mflow{h: a, port: 5, dests: all(2, 3), size: func() int { return 1000 }, method: Method{Mandatory: true}}
	f.pump(1000)
	if f.waiting != 1 || f.n > 50+100+1 {
		t.Fatalf("%d messages taken, waiting for %d links", f.n, f.waiting)
	}
	w.run(sec)
	if a.wakeup[5] != 1 {
		t.Fatalf("%d wake-ups", a.wakeup[5])
	}
	f.pump(1000)
	w.run(sec)
	f.check(b, c)
	w.cut = func(from, to *host, bearer int) bool { return true }
	f.pump(1000)
	if f.waiting != 1 {
		t.Fatal("not congested")
	}
	w.run(10 * sec)
	if a.wakeup[5] != 1 {
		t.Errorf("%d wake-ups after all peers went", a.wakeup[5])
	}
}

// Replicast reports each congested link, and each wakes the sender up.
func TestReplicastCongestion(t *testing.T) {
	w := newWorld(t, 1)
	a, b, c := w.add(1, 0), w.add(2, 0), w.add(3, 0)
	w.run(3 * sec)
	f := &mflow{h: a, port: 5, dests: all(2, 3), size: func() int { return 1000 }, method: Method{Rcast: true, Mandatory: true, Wish: true}}
	f.pump(1000)
	if f.waiting != 2 {
		t.Fatalf("waiting for %d links", f.waiting)
	}
	w.run(sec)
	if a.wakeup[5] != 2 {
		t.Errorf("%d wake-ups", a.wakeup[5])
	}
	f.check(b, c)
}

// Internal messages are never refused by congestion; when they overflow the link is reset and the sender is told.
func TestOverflowResetsLink(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(3 * sec)
	w.cut = func(from, to *host, bearer int) bool { return true }
	var err error
	n := 0
	for ; err == nil && n < 10000; n++ {
		m := buf.Get(wire.IntHeaderSize + 1000)
		wire.Init(m.Msg, 1, wire.UserNameDistr, wire.TypePublication, wire.IntHeaderSize, 2)
		m.Msg.SetSize(len(m.Msg))
		err = a.XmitBuf(w.now, m, 2, 0)
	}
	if err != ErrNoBufs || n < 500 {
		t.Fatalf("after %d messages: %v", n, err)
	}
	if a.IsUp(2) || a.XmitBuf(w.now, a.message(2, 5, wire.TypeDirect, wire.BasicHeaderSize, 1, 8), 2, 0) != ErrHostUnreach {
		t.Error("the link was not reset")
	}
	w.cut = nil
	w.run(5 * sec)
	if !a.IsUp(2) || !b.IsUp(1) {
		t.Error("no contact after the reset")
	}
}

// Both links were lost; the peer's end of one came up again and failed before ours did, so that only the peer started a
// failover onto the other link. It must get an answer, or it stays in NODE_FAILINGOVER.
func TestHalfFailover(t *testing.T) {
	for seed := range seeds(6) {
		w := newWorld(t, seed)
		a, b := w.add(1, 0, 1), w.add(2, 0, 1)
		// Link 0 comes up at node 2 only: what node 2 sends arrives as long as that is RESET.
		w.cut = func(from, to *host, bearer int) bool {
			if bearer == 1 {
				return true
			}
			p := b.find(1)
			return from == b && p != nil && p.links[0].link != nil && p.links[0].link.State() != link.Reset
		}
		for range 40 {
			w.run(sec / 10)
			if p := b.find(1); p != nil && p.links[0].link.IsUp() {
				break
			}
		}
		if a.IsUp(2) || !b.IsUp(1) {
			t.Fatalf("the start: node 1 up %v, node 2 up %v", a.IsUp(2), b.IsUp(1))
		}
		// Link 1 comes up at both ends, and node 2's end of link 0 dies.
		w.cut = func(from, to *host, bearer int) bool { return bearer == 0 }
		w.run(8 * sec)
		w.cut = nil
		settle(w, a, b)
		if count(b.events, "node down 1") != 0 {
			t.Fatalf("node 2 lost contact: %q", b.events)
		}
		f := &flow{h: a, to: 2, port: 1000}
		g := &flow{h: b, to: 1, port: 1001}
		f.pump(30)
		g.pump(30)
		w.run(2 * sec)
		f.check(b)
		g.check(a)
	}
}

// A link that is about to come up when its bearer is reset must not come up by a packet that is still on the way.
func TestResetWhileEstablishing(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.hear(a, b)
	w.hear(b, a)
	w.cut = func(from, to *host, bearer int) bool { return from == a }
	w.noDsc = true
	for range 50 {
		if w.run(sec / 50); a.find(2).links[0].link.IsEstablishing() {
			break
		}
	}
	if !a.find(2).links[0].link.IsEstablishing() {
		t.Fatal("the link does not establish")
	}
	a.resetLinks(w.now, a.find(2))
	if st := a.find(2).links[0].link; !st.IsReset() || st.IsEstablishing() || a.IsUp(2) {
		t.Errorf("link is %v", st.State())
	}
	w.cut, w.noDsc = nil, false
	w.run(5 * sec)
	if !a.IsUp(2) || !b.IsUp(1) {
		t.Error("no contact afterwards")
	}
}

func TestBearerProperties(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(3 * sec)
	if err := a.BearerSetTolerance(w.now, 0, 800); err != nil {
		t.Fatal(err)
	}
	if err := a.BearerSetMTU(0, 1400); err != nil {
		t.Fatal(err)
	}
	if err := a.BearerSetPriority(0, 7); err != nil {
		t.Fatal(err)
	}
	if err := a.BearerSetWindow(0, 77); err != nil {
		t.Fatal(err)
	}
	w.run(sec)
	la, _ := a.Link("node1:U0-node2:U0")
	lb, _ := b.Link("node2:U0-node1:U0")
	if la.Tolerance != 800 || lb.Tolerance != 800 || la.MTU != 1400 || la.Priority != 10 || la.MaxWindow != 50 || a.MTU(2, 0) != 1400-72 {
		t.Errorf("the link did not follow, or too much: %+v, %+v", la, lb)
	}
	a.BearerReset(w.now, 0)
	w.run(4 * sec)
	la, _ = a.Link("node1:U0-node2:U0")
	if la.Priority != 7 || la.Window != 50 || la.MaxWindow != 77 || la.MTU != 1400 {
		t.Errorf("the new link: %+v", la)
	}
	if got, ok := a.Bearer(0); !ok || got.MaxWin != 77 || got.Priority != 7 || a.BearerPlane(0) != 'A' {
		t.Errorf("bearer %+v", got)
	}
	if _, ok := a.Bearer(1); ok || a.BearerPlane(3) != 0 {
		t.Error("a bearer that is not there was found")
	}
	for name, err := range map[string]error{
		"tolerance": a.BearerSetTolerance(w.now, 0, 49), "MTU": a.BearerSetMTU(0, 99), "priority": a.BearerSetPriority(0, 32), "window": a.BearerSetWindow(0, 49),
	} {
		if err != ErrRange {
			t.Errorf("%s out of range: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"tolerance": a.BearerSetTolerance(w.now, 1, 500), "MTU": a.BearerSetMTU(1, 500), "priority": a.BearerSetPriority(1, 3), "window": a.BearerSetWindow(1, 50),
		"up": a.BearerSetUp(w.now, 1, true),
	} {
		if err != ErrBearer {
			t.Errorf("%s of no bearer: %v", name, err)
		}
	}
}

func TestClusterIdentity(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	if a.NetID() != wire.DefaultNetID || a.ID() != identity(1) {
		t.Errorf("cluster %d, identity %v", a.NetID(), a.ID())
	}
	for _, h := range []*host{a, b} {
		if err := h.SetNetID(99); err != nil {
			t.Fatal(err)
		}
	}
	w.run(3 * sec)
	var nets []uint32
	w.tap = func(from, to *host, bearer int, m wire.Msg) {
		if m.NonSeq() {
			nets = append(nets, m.McNetID())
		}
	}
	f := &mflow{h: a, port: 5, dests: all(2), method: Method{Mandatory: true}}
	f.pump(3)
	w.run(sec)
	f.check(b)
	if !slices.Equal(nets, []uint32{99, 99, 99}) {
		t.Errorf("broadcasts for clusters %v", nets)
	}
	if a.SetNetID(5) != ErrBusy {
		t.Error("the cluster was changed while peers are known")
	}
}

func TestConfigChecks(t *testing.T) {
	good := Config{Own: 1, Rand: func() uint32 { return 0 }, Out: new(batchOut), Up: new(nullUpcalls)}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no randomness": func(c *Config) { c.Rand = nil }, "no output": func(c *Config) { c.Out = nil },
		"no upcalls": func(c *Config) { c.Up = nil }, "negative bound": func(c *Config) { c.MaxNodes = -1 },
	} {
		c := good
		change(&c)
		if _, err := New(c); err != ErrConfig {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestModeNames(t *testing.T) {
	for m, want := range map[Mode]string{ModeBroadcast: "BROADCAST", ModeReplicast: "REPLICAST", ModeSelect: "AUTOSELECT", 3: "UNKNOWN"} {
		if m.String() != want {
			t.Errorf("%d: %q", m, m.String())
		}
	}
}

// All waiting upcalls are made, in order, also when the ring has to grow.
func TestActionsRing(t *testing.T) {
	var a actions
	next, want := uint32(0), uint32(0)
	for round := range 200 {
		for range round % 37 {
			a.push(action{id: next})
			next++
		}
		for range round % 31 {
			if x, ok := a.pop(); ok {
				if x.id != want {
					t.Fatalf("action %d came as number %d", x.id, want)
				}
				want++
			}
		}
	}
	for x, ok := a.pop(); ok; x, ok = a.pop() {
		if x.id != want {
			t.Fatalf("action %d came as number %d", x.id, want)
		}
		want++
	}
	if want != next {
		t.Fatalf("%d of %d actions", want, next)
	}
}

// What an upcall leaves on its queue does not come again.
func TestLeftoversAreReleased(t *testing.T) {
	up := &lazyUpcalls{}
	tab, err := New(Config{Own: 1, Rand: func() uint32 { return 0 }, Out: new(batchOut), Up: up})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tab.XmitBuf(0, buf.Get(wire.BasicHeaderSize), 1, 0)
	}
	if !slices.Equal(up.lens, []int{1, 1, 1}) {
		t.Errorf("queue lengths %v", up.lens)
	}
}

type lazyUpcalls struct {
	nullUpcalls
	lens []int
}

func (u *lazyUpcalls) Deliver(now mono.Time, q *buf.Queue) { u.lens = append(u.lens, q.Len()) }
