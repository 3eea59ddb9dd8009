package node

import (
	"testing"

	"midplane/internal/tipc/wire"
)

func TestCheckDestEightCases(t *testing.T) {
	const addr = 2
	for _, c := range []struct {
		name                  string
		sameSig, sameAddr, up bool
		respond, dup          bool
		newSig, newAddr       bool
	}{
		{"all the same, up", true, true, true, false, false, false, false},
		{"all the same, down", true, true, false, true, false, false, false},
		{"other address, up", true, false, true, false, true, false, false},
		{"other address, down", true, false, false, true, false, false, true},
		{"other signature, up", false, true, true, false, false, true, false},
		{"other signature, down", false, true, false, true, false, true, false},
		{"both other, up", false, false, true, false, true, false, false},
		{"both other, down", false, false, false, true, false, true, true},
	} {
		w := newWorld(t, 1)
		a, b := w.add(1, 0), w.add(addr, 0)
		if c.up {
			w.run(2 * sec)
		} else {
			w.hear(a, b)
		}
		if a.IsUp(addr) != c.up {
			t.Fatalf("%s: up is %v", c.name, !c.up)
		}
		p := a.find(addr)
		d := Dest{Addr: addr, ID: identity(addr), Caps: wire.CapsAll, Signature: b.sig, Media: media(addr, 0)}
		if !c.sameSig {
			d.Signature++
		}
		if !c.sameAddr {
			d.Media = media(addr+100, 0)
		}
		respond, dup := a.CheckDest(w.now, d)
		if respond != c.respond || dup != c.dup {
			t.Errorf("%s: respond %v, duplicate %v", c.name, respond, dup)
		}
		if got := p.signature == uint32(d.Signature); got != (c.newSig || c.sameSig) {
			t.Errorf("%s: signature taken: %v", c.name, got)
		}
		if got := p.links[0].addr == d.Media; got != (c.newAddr || c.sameAddr) {
			t.Errorf("%s: address taken: %v", c.name, got)
		}
		if a.IsUp(addr) != c.up {
			t.Errorf("%s: link state changed", c.name)
		}
	}
}

func TestCheckDestNewPeer(t *testing.T) {
	w := newWorld(t, 1)
	a := w.add(1, 0)
	d := Dest{Addr: 2, ID: identity(2), Caps: wire.CapsAll &^ wire.CapBcastRcast, Signature: 5, NetHash: 9, Media: media(2, 0)}
	if respond, dup := a.CheckDest(w.now, d); !respond || dup {
		t.Errorf("new peer: respond %v, duplicate %v", respond, dup)
	}
	n, ok := a.Node(2)
	if !ok || n.Up || n.State != SelfDownPeerLeaving || n.Caps != d.Caps || n.NetHash != 9 || n.Links != 1 {
		t.Errorf("new peer: %+v", n)
	}
	if a.ClusterCaps() != d.Caps || a.Caps(2) != d.Caps || a.Caps(77) != wire.CapsAll {
		t.Error("capabilities are not those of the peer")
	}
	if id, ok := a.NodeID(2); !ok || id != d.ID {
		t.Error("identity is not the peer's")
	}
	for name, bad := range map[string]Dest{
		"own address":      {Addr: 1, ID: identity(1), Media: media(1, 0)},
		"address 0":        {Addr: 0, ID: identity(3), Media: media(3, 0)},
		"disabled bearer":  {Addr: 3, ID: identity(3), Bearer: 1, Media: media(3, 1)},
		"bearer too large": {Addr: 3, ID: identity(3), Bearer: 3, Media: media(3, 1)},
		"negative bearer":  {Addr: 3, ID: identity(3), Bearer: -1, Media: media(3, 1)},
	} {
		if respond, dup := a.CheckDest(w.now, bad); respond || dup {
			t.Errorf("%s: respond %v, duplicate %v", name, respond, dup)
		}
	}
	if _, ok := a.Node(3); ok {
		t.Error("a peer was made from a bad message")
	}
	// The same peer with more capabilities.
	d.Caps = wire.CapsAll
	a.CheckDest(w.now, d)
	if a.ClusterCaps() != wire.CapsAll {
		t.Error("capabilities did not follow the peer")
	}
}

func TestTwoLinksAtMost(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1, 2), w.add(2, 0, 1, 2)
	w.run(3 * sec)
	n, _ := a.Node(2)
	if n.Links != 2 || n.Working != 2 {
		t.Errorf("%d links, %d working", n.Links, n.Working)
	}
	_ = b
}

func TestOneIdentityTwoAddresses(t *testing.T) {
	w := newWorld(t, 1)
	a := w.add(1, 0)
	w.add(2, 0)
	w.run(2 * sec)
	d := Dest{Addr: 3, ID: identity(2), Caps: wire.CapsAll, Signature: 5, Media: media(3, 0)}
	if respond, dup := a.CheckDest(w.now, d); respond || !dup {
		t.Errorf("identity of a peer that is up: respond %v, duplicate %v", respond, dup)
	}
	// The peer is down and comes back under another address.
	d = Dest{Addr: 9, ID: identity(9), Caps: wire.CapsAll, Signature: 5, Media: media(9, 0)}
	a.CheckDest(w.now, d)
	d.Addr = 10
	if respond, _ := a.CheckDest(w.now, d); !respond {
		t.Error("the peer under its new address is not answered")
	}
	if _, ok := a.Node(9); ok {
		t.Error("the old address is still known")
	}
}

func TestTryAddr(t *testing.T) {
	w := newWorld(t, 1)
	a := w.add(1, 0)
	a.CheckDest(w.now, Dest{Addr: 2, ID: identity(2), Caps: wire.CapsAll, Media: media(2, 0)})
	other := identity(99)
	if got := a.TryAddr(identity(2), 2, 1); got != 0 {
		t.Errorf("a peer's own address: suggested %d", got)
	}
	if got := a.TryAddr(identity(2), 3, 1); got != 2 {
		t.Errorf("a known peer with another address: suggested %d", got)
	}
	for _, taken := range []uint32{1, 2} {
		got := a.TryAddr(other, taken, 1)
		if got == 0 || got == 1 || got == 2 {
			t.Errorf("address %d is taken: suggested %d", taken, got)
		}
	}
	if got := a.TryAddr(other, 7, 7); got == 0 || got == 7 {
		t.Errorf("an address on trial here: suggested %d", got)
	}
	if got := a.TryAddr(other, 8, 7); got != 0 {
		t.Errorf("free address: suggested %d", got)
	}
}

func TestTableIsBounded(t *testing.T) {
	w := newWorld(t, 1)
	w.noDsc = true
	a, b := w.add(1, 0), w.add(2, 0)
	a.cfg.MaxNodes = 4
	w.hear(a, b)
	w.hear(b, a)
	w.run(2 * sec)
	if !a.IsUp(2) {
		t.Fatal("no contact")
	}
	for i := range uint32(100) {
		w.now += 1000
		if respond, _ := a.CheckDest(w.now, Dest{Addr: 100 + i, ID: identity(100 + i), Caps: wire.CapsAll, Media: media(100+i, 0)}); !respond {
			t.Fatalf("newcomer %d got no place", i)
		}
		if n := len(a.sorted); n > 4 || len(a.byAddr) != n || len(a.byID) != n || a.timers.Len() != n {
			t.Fatalf("%d peers", n)
		}
	}
	if !a.IsUp(2) {
		t.Error("a peer that is up was evicted")
	}
	if _, ok := a.Node(199); !ok {
		t.Error("the newest peer was evicted")
	}
	if a.Stats().Evicted != 97 {
		t.Errorf("%d evictions", a.Stats().Evicted)
	}
	// Nobody can be evicted when all are up.
	a.cfg.MaxNodes = 1
	for _, n := range []uint32{197, 198, 199} {
		if err := a.PeerRemove(n); err != nil {
			t.Fatal(err)
		}
	}
	if respond, _ := a.CheckDest(w.now, Dest{Addr: 500, ID: identity(500), Media: media(500, 0)}); respond || a.Stats().TableFull != 1 {
		t.Error("the table grew beyond its bound")
	}
}

// TestStrangerDoesNotResetTheLink: another node with the identity of a peer has a session of its own, and begins its
// links with RESET messages like the peer after a restart.
func TestStrangerDoesNotResetTheLink(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(2 * sec)
	reset := func(from wire.MediaAddr) {
		for _, session := range []uint16{1, 1 << 14, 2 << 14, 3 << 14} { // one of them is newer than any
			m := make(wire.Msg, wire.IntHeaderSize+wire.IfNameSize)
			wire.Init(m, 2, wire.UserLinkProtocol, wire.TypeReset, wire.IntHeaderSize, 1)
			m.SetSize(len(m))
			m.SetSession(session)
			m.SetMaxPkt(1500)
			copy(m[wire.IntHeaderSize:], "eth0")
			a.Receive(w.now, 0, from, m)
		}
	}
	stranger := media(102, 0)
	if _, dup := a.CheckDest(w.now, Dest{Addr: 2, ID: identity(2), Caps: wire.CapsAll, Signature: b.sig + 1, Media: stranger}); !dup {
		t.Fatal("not seen as a duplicate")
	}
	reset(stranger)
	if !a.IsUp(2) || a.Stats().Stranger != 4 {
		t.Errorf("up %v after %d messages of the stranger", a.IsUp(2), a.Stats().Stranger)
	}
	reset(media(2, 0))
	if a.IsUp(2) {
		t.Error("the peer itself cannot reset the link")
	}
	// When the peer is gone the other one can have its place.
	if respond, dup := a.CheckDest(w.now, Dest{Addr: 2, ID: identity(2), Caps: wire.CapsAll, Signature: b.sig + 1, Media: stranger}); !respond || dup {
		t.Errorf("respond %v, duplicate %v", respond, dup)
	}
}
