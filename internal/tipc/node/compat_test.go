package node

import (
	"fmt"
	"slices"
	"testing"

	"midplane/internal/tipc/wire"
)

// Peers of any age: each capability missing alone, all missing, and the old and the new end in both places. Everything
// but what the capability is about must work the same.
func TestMissingCapabilities(t *testing.T) {
	sets := []wire.Caps{0, wire.CapSynBit, wire.CapsAll &^ (wire.CapTunnelEnhanced | wire.CapGapAckBlock | wire.CapMcastRbctl)}
	for bit := range 12 {
		sets = append(sets, wire.CapsAll&^(1<<bit))
	}
	for _, caps := range sets {
		t.Run(fmt.Sprintf("%03x", uint16(caps)), func(t *testing.T) {
			for seed := range seeds(6) {
				w := newWorld(t, seed)
				a, b, c := w.add(1, 0, 1), w.add(2, 0, 1), w.add(3, 0, 1)
				a.wcaps, b.wcaps = caps, caps
				if seed%2 == 1 {
					c.wcaps = caps
				}
				w.run(5 * sec)
				w.loss = [MaxBearers]float64{0.03, 0.03}
				// Without TUNNEL_ENHANCED a message as large as the MTU does not fit a tunnel packet of the other link.
				f := &flow{h: a, to: 2, port: 1000, size: func() int { return w.r.IntN(1000) }}
				g := &mflow{h: a, port: 5, dests: all(2, 3), size: func() int { return w.r.IntN(1000) }, method: Method{Mandatory: true}}
				for i := range 80 {
					switch i {
					case 20:
						w.loss[seed%2] = 1
					case 45:
						w.loss[seed%2] = 0.03
					}
					f.pump(w.r.IntN(6))
					g.pump(w.r.IntN(4))
					w.run(sec / 10)
				}
				w.run(20 * sec)
				if count(a.events, "node down 2")+count(a.events, "node down 3") > 0 {
					t.Fatalf("contact was lost: %q", a.events)
				}
				f.check(b)
				g.check(b, c)
				if want := caps&wire.CapBcastRcast != 0; (a.bc.canRcast && b.bc.canRcast) != want {
					t.Errorf("replicast possible: %v", !want)
				}
				if n := a.Stats().IllegalEvent + b.Stats().IllegalEvent; n != 0 {
					t.Errorf("%d illegal node events", n)
				}
			}
		})
	}
}

// No bearer reaches all peers: a broadcast goes out on each.
func TestBroadcastOverTwoBearers(t *testing.T) {
	for seed := range seeds(4) {
		w := newWorld(t, seed)
		a, b, c, d := w.add(1, 0, 1), w.add(2, 0), w.add(3, 1), w.add(4, 0, 1)
		w.run(5 * sec)
		if a.bc.primary != noBearer || d.bc.primary != noBearer || b.bc.primary != 0 || c.bc.primary != 1 {
			t.Fatalf("primary bearers %d %d %d %d", a.bc.primary, b.bc.primary, c.bc.primary, d.bc.primary)
		}
		w.loss = [MaxBearers]float64{0.05, 0.05}
		f := &mflow{h: a, port: 5, dests: all(2, 3, 4), method: Method{Mandatory: true}}
		for range 50 {
			f.pump(10)
			w.run(sec / 20)
		}
		w.run(20 * sec)
		f.check(b, c, d)
		if f.n < 200 {
			t.Fatalf("only %d messages", f.n)
		}
	}
}

// The two ends of a parity choose different bearers when both reach everybody.
func TestPrimaryBearer(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	w.run(5 * sec)
	if a.bc.primary != 0 || b.bc.primary != 1 {
		t.Errorf("primary bearers %d and %d", a.bc.primary, b.bc.primary)
	}
	w.loss[0] = 1
	w.run(5 * sec)
	if a.bc.primary != 1 || b.bc.primary != 1 {
		t.Errorf("primary bearers %d and %d with one bearer left", a.bc.primary, b.bc.primary)
	}
}

// What a peer's end of a link can take, and what the bearer is told later, limits multicasts, which may travel over that link.
func TestBroadcastMTUOfLink(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	if err := b.BearerSetMTU(0, 1300); err != nil {
		t.Fatal(err)
	}
	w.run(3 * sec)
	if a.BcastMTU() != 1300-72 || b.BcastMTU() != 1300-72 {
		t.Errorf("MTUs %d and %d, want the smaller node's", a.BcastMTU(), b.BcastMTU())
	}
	if err := a.BearerSetMTU(0, 1200); err != nil {
		t.Fatal(err)
	}
	if a.BcastMTU() != 1200-72 {
		t.Errorf("MTU %d after it was set", a.BcastMTU())
	}
}

// The smallest MTU of the bearers in use limits broadcasts, and comes back when nobody is left.
func TestBroadcastMTU(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	if a.BcastMTU() != sendMTU-72 {
		t.Errorf("MTU %d without peers", a.BcastMTU())
	}
	w.run(3 * sec)
	if a.BcastMTU() != 1500-72 {
		t.Errorf("MTU %d", a.BcastMTU())
	}
	b.dead = true
	w.run(5 * sec)
	if a.BcastMTU() != sendMTU-72 {
		t.Errorf("MTU %d after the last peer went", a.BcastMTU())
	}
	if err := a.SetBcastWindow(1); err != nil || a.BcastWindow() != bcastMinWindow {
		t.Errorf("window %d, %v", a.BcastWindow(), err)
	}
	if a.SetBcastWindow(8192) != ErrRange || a.SetBcastWindow(-1) != ErrRange {
		t.Error("window out of range accepted")
	}
}

// Links of a large cluster are supervised by ring monitoring, and the loss of a node is still seen by all.
func TestRingMonitoring(t *testing.T) {
	const n = 9
	w := newWorld(t, 1)
	var hosts []*host
	for a := uint32(1); a <= n; a++ {
		h := w.add(a, 0)
		if err := h.SetMonitorThreshold(4); err != nil || h.MonitorThreshold() != 4 {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	w.run(10 * sec)
	for _, h := range hosts {
		nodes, _, active := h.Monitor(0).Info()
		if nodes != n || !active {
			t.Fatalf("node %d: monitor of %d nodes, active %v", h.addr, nodes, active)
		}
		for _, o := range hosts {
			if o != h && !h.IsUp(o.addr) {
				t.Fatalf("node %d does not see %d", h.addr, o.addr)
			}
		}
	}
	hosts[4].dead = true
	w.run(30 * sec)
	for _, h := range hosts {
		if h == hosts[4] {
			continue
		}
		for _, o := range hosts {
			if o != h && h.IsUp(o.addr) == o.dead {
				t.Errorf("node %d sees %d up: %v", h.addr, o.addr, !o.dead)
			}
		}
	}
	if hosts[0].SetMonitorThreshold(0) != ErrRange || hosts[0].Monitor(1) != nil || hosts[0].Monitor(-1) != nil {
		t.Error("monitor arguments are not checked")
	}
}

func TestInfo(t *testing.T) {
	w := newWorld(t, 1)
	a, _, _ := w.add(10, 0, 1), w.add(30, 0), w.add(20, 0, 1)
	w.run(4 * sec)
	var names, all []string
	for li := range a.Links(false) {
		names = append(names, li.Name)
	}
	for li := range a.Links(true) {
		all = append(all, li.Name)
	}
	if want := []string{"broadcast-link", "node10:U0-node20:U0", "node10:U1-node20:U1", "node10:U0-node30:U0"}; !slices.Equal(names, want) {
		t.Errorf("links %q", names)
	}
	if want := []string{"broadcast-link", "node10:U0-node20:U0", "node10:U1-node20:U1", "broadcast-link:node20", "node10:U0-node30:U0",
		"broadcast-link:node30"}; !slices.Equal(all, want) {
		t.Errorf("links with broadcast %q", all)
	}
	var addrs []uint32
	for ni := range a.Nodes() {
		addrs = append(addrs, ni.Addr)
		if !ni.Up || ni.ID != identity(ni.Addr) {
			t.Errorf("%+v", ni)
		}
	}
	if !slices.Equal(addrs, []uint32{20, 30}) {
		t.Errorf("nodes %v", addrs)
	}
	for range a.Nodes() {
		break
	}
	for range a.Links(true) {
		break
	}
	for _, name := range all {
		if _, err := a.Link(name); err != nil {
			t.Errorf("link %s: %v", name, err)
		}
		if err := a.ResetLinkStats(name); err != nil {
			t.Errorf("reset %s: %v", name, err)
		}
	}
	if _, err := a.Link("x"); err != ErrNoLink || a.ResetLinkStats("x") != ErrNoLink {
		t.Error("an unknown link was found")
	}
	for _, c := range []struct {
		addr   uint32
		bearer int
	}{{20, -1}, {20, 2}, {20, 3}, {99, 0}} {
		if _, err := a.LinkName(c.addr, c.bearer); err != ErrNoLink {
			t.Errorf("name of %v: %v", c, err)
		}
	}
	if err := a.SetLinkWindow("node10:U0-node20:U0", 100); err != nil {
		t.Error(err)
	}
	if li, _ := a.Link("node10:U0-node20:U0"); li.MaxWindow != 100 || li.Window != 50 {
		t.Errorf("window %d of %d", li.Window, li.MaxWindow)
	}
	if a.SetLinkWindow("node10:U0-node20:U0", 49) != ErrRange || a.SetLinkPriority(w.now, "node10:U0-node20:U0", 32) != ErrRange {
		t.Error("property out of range accepted")
	}
}

func TestIDString(t *testing.T) {
	for want, id := range map[string]wire.NodeID{
		"":                                 {},
		"node1":                            {'n', 'o', 'd', 'e', '1'},
		"A.b:c_d-e@f":                      {'A', '.', 'b', ':', 'c', '_', 'd', '-', 'e', '@', 'f'},
		"0123456789abcdef":                 {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'},
		"0200a1b2c3d4":                     {2, 0, 0xa1, 0xb2, 0xc3, 0xd4},
		"ff":                               {0xff},
		"01":                               {1},
		"1":                                {0x10}, // trailing zeros go, the last digit's too
		"000102030405060708090a0b0c0d0e0f": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		"612f":                             {'a', '/'},
	} {
		if got := IDString(id); got != want {
			t.Errorf("% x: %q, want %q", id, got, want)
		}
	}
	if got := nodeName(wire.NodeID{0, 1, 2, 3, 4, 5, 6, 7, 8}, 0xabc); got != "abc" {
		t.Errorf("long identity in a link's name: %q", got)
	}
}
