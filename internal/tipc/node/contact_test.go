package node

import (
	"fmt"
	"slices"
	"testing"

	"midplane/internal/tipc/wire"
)

func TestContact(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	for _, h := range []*host{a, b} {
		other := 3 - h.addr
		if !h.IsUp(other) || h.peerState(other) != SelfUpPeerUp {
			t.Fatalf("node %d: state %v", h.addr, h.peerState(other))
		}
		if want := []string{"node up " + string('0'+rune(other)), "link up " + string('0'+rune(other)) + " 0"}; !slices.Equal(h.events, want) {
			t.Errorf("node %d: events %q", h.addr, h.events)
		}
		if h.bcl.BcPeers() != 1 || h.bc.dests[0] != 1 || h.bc.primary != 0 || h.find(other).working != 1 {
			t.Errorf("node %d: broadcast layer: %d peers, %+v", h.addr, h.bcl.BcPeers(), h.bc)
		}
	}
	if !a.IsUp(1) || a.IsUp(77) {
		t.Error("the own node must be up, an unknown one must not")
	}
	if a.MTU(2, 0) != 1500-72 || a.MTU(77, 0) != wire.MaxMsgSize || a.MTU(1, 0) != wire.MaxMsgSize {
		t.Errorf("MTU %d", a.MTU(2, 0))
	}
	f := &flow{h: a, to: 2, port: 1000}
	f.pump(20)
	g := &flow{h: b, to: 1, port: 1001, short: true}
	g.pump(20)
	w.run(sec)
	f.check(b)
	g.check(a)
}

// Each loss of contact is seen once at each end, and so is each return.
func TestLossOfContact(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	for range 5 {
		a.events, b.events = nil, nil
		w.loss[0] = 1
		w.run(5 * sec)
		if a.IsUp(2) || b.IsUp(1) {
			t.Fatal("still in contact")
		}
		w.loss[0] = 0
		w.run(5 * sec)
		for _, h := range []*host{a, b} {
			other := string('0' + rune(3-h.addr))
			want := []string{"node down " + other, "link down " + other + " 0", "node up " + other, "link up " + other + " 0"}
			if !slices.Equal(h.events, want) {
				t.Fatalf("node %d: events %q", h.addr, h.events)
			}
		}
	}
}

// One direction fails: both ends must lose contact, and no end may take data before the other has seen the loss.
func TestOneWayLoss(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	w.cut = func(from, to *host, bearer int) bool { return from == a }
	w.run(5 * sec)
	if a.IsUp(2) || b.IsUp(1) {
		t.Fatalf("in contact: %v %v", a.peerState(2), b.peerState(1))
	}
	w.cut = nil
	w.run(5 * sec)
	if a.peerState(2) != SelfUpPeerUp || b.peerState(1) != SelfUpPeerUp {
		t.Fatalf("not in contact: %v %v", a.peerState(2), b.peerState(1))
	}
}

func TestPeerRestart(t *testing.T) {
	for seed := range seeds(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			a, b := w.add(1, 0), w.add(2, 0)
			w.run(2 * sec)
			f := &flow{h: a, to: 2, port: 1000}
			f.pump(10)
			w.run(sec)
			f.check(b)
			a.events = nil
			b.start() // at once, so that node 1 has not noticed
			w.run(6 * sec)
			if a.peerState(2) != SelfUpPeerUp || b.peerState(1) != SelfUpPeerUp {
				t.Fatalf("not in contact: %v %v", a.peerState(2), b.peerState(1))
			}
			if want := []string{"node down 2", "link down 2 0", "node up 2", "link up 2 0"}; !slices.Equal(a.events, want) {
				t.Fatalf("events %q", a.events)
			}
			if a.find(2).signature != uint32(b.sig) {
				t.Error("the new instance's signature was not taken")
			}
			f = &flow{h: a, to: 2, port: 1000}
			f.pump(10)
			w.run(sec)
			f.check(b)
		})
	}
}

func TestForgotten(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	b.dead = true
	w.run(10 * sec)
	if a.IsUp(2) {
		t.Fatal("still in contact")
	}
	w.run(285 * sec)
	if _, ok := a.Node(2); !ok {
		t.Fatal("forgotten too early")
	}
	w.run(20 * sec)
	if _, ok := a.Node(2); ok || a.timers.Len() != 0 || len(a.sorted) != 0 || len(a.byID) != 0 {
		t.Fatal("not forgotten after 300 s")
	}
	// It can come back.
	b.start()
	w.run(3 * sec)
	if !a.IsUp(2) {
		t.Fatal("no contact after the return")
	}
}

func TestPeerRemove(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	for addr, want := range map[uint32]error{1: ErrOwnNode, 2: ErrBusy, 3: ErrNoNode} {
		if err := a.PeerRemove(addr); err != want {
			t.Errorf("remove %d: %v", addr, err)
		}
	}
	b.dead = true
	w.run(5 * sec)
	if err := a.PeerRemove(2); err != nil {
		t.Fatal(err)
	}
	if _, ok := a.Node(2); ok {
		t.Error("still known")
	}
}

func TestTolerance(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	name, err := a.LinkName(2, 0)
	if err != nil || name != "node1:U0-node2:U0" {
		t.Fatalf("name %q, %v", name, err)
	}
	if err := a.SetLinkTolerance(w.now, name, 200); err != nil {
		t.Fatal(err)
	}
	w.run(sec)
	l, err := b.Link("node2:U0-node1:U0")
	if err != nil || l.Tolerance != 200 {
		t.Errorf("the peer has tolerance %d, %v", l.Tolerance, err)
	}
	if got := a.find(2).interval; got != 50 {
		t.Errorf("timer interval %d ms", got)
	}
	b.dead = true
	w.run(sec / 2)
	if a.IsUp(2) {
		t.Error("the loss was not noticed within twice the tolerance")
	}
	for _, v := range []int{49, 30001} {
		if a.SetLinkTolerance(w.now, name, v) == nil {
			t.Errorf("tolerance %d accepted", v)
		}
	}
	if a.SetLinkTolerance(w.now, "nobody", 1000) != ErrNoLink {
		t.Error("tolerance of an unknown link set")
	}
}

func TestPriorityChangeResetsLink(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	if err := a.SetLinkPriority(w.now, "node1:U0-node2:U0", 20); err != nil {
		t.Fatal(err)
	}
	w.run(4 * sec)
	la, _ := a.Link("node1:U0-node2:U0")
	lb, _ := b.Link("node2:U0-node1:U0")
	if la.Priority != 20 || lb.Priority != 20 || !la.Up || !lb.Up {
		t.Errorf("priorities %d and %d, up %v %v", la.Priority, lb.Priority, la.Up, lb.Up)
	}
	if !slices.Contains(b.events, "node down 1") {
		t.Error("the peer did not reset the link")
	}
}

func TestBearerDisableAndReset(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	if err := a.BearerReset(w.now, 0); err != nil {
		t.Fatal(err)
	}
	if n, _ := a.Node(2); n.Up || n.Links != 0 {
		t.Errorf("after reset: %+v", n)
	}
	w.run(4 * sec)
	if !a.IsUp(2) || !b.IsUp(1) {
		t.Fatal("no contact after a bearer reset")
	}
	if err := a.BearerDisable(w.now, 0); err != nil {
		t.Fatal(err)
	}
	w.run(sec / 10)
	if b.IsUp(1) {
		t.Error("the peer was not told")
	}
	if a.bc.dests[0] != 0 || a.bcl.BcPeers() != 0 {
		t.Error("the broadcast layer still counts the peer")
	}
	if a.BearerDisable(w.now, 0) != ErrBearer || a.BearerReset(w.now, 3) != ErrBearer || a.BearerReset(w.now, -1) != ErrBearer {
		t.Error("a bearer that is not there was found")
	}
	if err := a.BearerEnable(w.now, 0, testBearer(0)); err != nil {
		t.Fatal(err)
	}
	if a.BearerEnable(w.now, 0, testBearer(0)) != ErrInUse {
		t.Error("a bearer was enabled twice")
	}
	w.run(4 * sec)
	if !a.IsUp(2) || !b.IsUp(1) {
		t.Fatal("no contact after enabling the bearer again")
	}
	// Carrier loss.
	a.BearerSetUp(w.now, 0, false)
	w.run(4 * sec)
	if a.IsUp(2) || b.IsUp(1) {
		t.Error("in contact without a carrier")
	}
	a.BearerSetUp(w.now, 0, true)
	w.run(4 * sec)
	if !a.IsUp(2) || !b.IsUp(1) {
		t.Error("no contact after the carrier came back")
	}
}

func TestBearerEnableChecks(t *testing.T) {
	w := newWorld(t, 1)
	a := w.add(1)
	for name, change := range map[string]func(*Bearer){
		"no colon":        func(b *Bearer) { b.Name = "udp" },
		"no interface":    func(b *Bearer) { b.Name = "udp:" },
		"no media":        func(b *Bearer) { b.Name = ":U" },
		"long interface":  func(b *Bearer) { b.Name = "udp:1234567890123456" },
		"MTU 99":          func(b *Bearer) { b.MTU = 99 },
		"MTU 65536":       func(b *Bearer) { b.MTU = 65536 },
		"min MTU 50":      func(b *Bearer) { b.MinMTU = 50 },
		"priority -1":     func(b *Bearer) { b.Priority = -1 },
		"priority 32":     func(b *Bearer) { b.Priority = 32 },
		"tolerance 49":    func(b *Bearer) { b.Tolerance = 49 },
		"tolerance high":  func(b *Bearer) { b.Tolerance = 30001 },
		"window 0":        func(b *Bearer) { b.MinWin, b.MaxWin = 0, 0 },
		"window 8192":     func(b *Bearer) { b.MaxWin = 8192 },
		"windows swapped": func(b *Bearer) { b.MinWin = 60 },
	} {
		b := testBearer(0)
		change(&b)
		if a.BearerEnable(w.now, 0, b) == nil {
			t.Errorf("%s accepted", name)
		}
	}
	if a.BearerEnable(w.now, 3, testBearer(0)) != ErrBearer || a.BearerEnable(w.now, -1, testBearer(0)) != ErrBearer {
		t.Error("bearer number out of range accepted")
	}
}

func TestSetOwn(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(0, 0), w.add(2, 0)
	d := Dest{Addr: 2, ID: identity(2), Caps: wire.CapsAll, Media: media(2, 0)}
	if respond, _ := a.CheckDest(w.now, d); respond {
		t.Error("a peer was taken before the own address was known")
	}
	if a.SetOwn(0, identity(1)) == nil {
		t.Error("address 0 accepted")
	}
	if err := a.SetOwn(1, identity(1)); err != nil || a.Own() != 1 {
		t.Fatal(err)
	}
	a.addr = 1
	w.run(2 * sec)
	if !a.IsUp(2) || !b.IsUp(1) {
		t.Error("no contact")
	}
	if a.SetOwn(3, identity(3)) != ErrBusy {
		t.Error("the address was changed while peers are known")
	}
}
