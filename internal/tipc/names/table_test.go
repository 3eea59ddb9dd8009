package names

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"midplane/internal/tipc/wire"
)

const own, peerA, peerB = 0x5c6f6465, 0x5d6f6465, 0x5e6f6465

func sr(typ, lower, upper uint32) wire.ServiceRange {
	return wire.ServiceRange{Type: typ, Lower: lower, Upper: upper}
}

func mustPublish(t testing.TB, tab *Table, r wire.ServiceRange, scope wire.Scope, port, key uint32) *Publication {
	t.Helper()
	p, err := tab.Publish(0, r, scope, wire.SocketAddr{Port: port, Node: tab.Own()}, key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustRemote(t testing.TB, tab *Table, r wire.ServiceRange, node, port, key uint32) {
	t.Helper()
	if err := tab.insertRemote(r, wire.SocketAddr{Port: port, Node: node}, key); err != nil {
		t.Fatal(err)
	}
}

// TestFirstRangeWins shows which of several matching ranges a lookup takes: the one with the smallest lower bound, of
// equal ones the one created last.
func TestFirstRangeWins(t *testing.T) {
	tab := NewTable(Config{Own: own})
	for i, r := range []wire.ServiceRange{sr(100, 5, 5), sr(100, 1, 20), sr(100, 1, 10), sr(100, 3, 6)} {
		mustPublish(t, tab, r, wire.ScopeCluster, uint32(i+1), 1)
	}
	for _, c := range []struct{ inst, port uint32 }{{5, 3}, {3, 3}, {10, 3}, {11, 2}, {20, 2}} {
		for range 3 { // the others never get a turn
			if a, ok := tab.Lookup(100, c.inst, 0); !ok || a.Port != c.port {
				t.Errorf("instance %d: port %d %v, want %d", c.inst, a.Port, ok, c.port)
			}
		}
	}
	if _, ok := tab.Lookup(100, 21, 0); ok {
		t.Error("found an instance beyond all ranges")
	}
	if _, ok := tab.Lookup(101, 5, 0); ok {
		t.Error("found an unknown type")
	}
}

func TestRoundRobin(t *testing.T) {
	tab := NewTable(Config{Own: own})
	mustPublish(t, tab, sr(100, 1, 1), wire.ScopeCluster, 1, 1)
	mustRemote(t, tab, sr(100, 1, 1), peerA, 2, 1)
	mustPublish(t, tab, sr(100, 1, 1), wire.ScopeNode, 3, 1)
	look := func(node uint32, n int) (ports []uint32) {
		for range n {
			a, _ := tab.Lookup(100, 1, node)
			ports = append(ports, a.Port)
		}
		return
	}
	if d := cmp.Diff([]uint32{3, 2, 1, 3, 2}, look(0, 5)); d != "" {
		t.Errorf("everywhere (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]uint32{3, 1, 3, 1}, look(own, 4)); d != "" {
		t.Errorf("this node (-want +got):\n%s", d)
	}
	if a, ok := tab.Lookup(100, 1, peerA); !ok || a != (wire.SocketAddr{Node: peerA}) {
		t.Errorf("lookup at another node: %v %v", a, ok)
	}
}

// TestLegacyClosestFirst: with a Z.C.N address a local binding is preferred, and domains are matched.
func TestLegacyClosestFirst(t *testing.T) {
	const own = 1<<24 | 2<<12 | 3
	tab := NewTable(Config{Own: own, LegacyAddr: true})
	mustPublish(t, tab, sr(100, 1, 1), wire.ScopeCluster, 1, 1)
	mustRemote(t, tab, sr(100, 1, 1), own+1, 2, 1)
	for range 3 {
		if a, _ := tab.Lookup(100, 1, 0); a.Port != 1 {
			t.Errorf("took port %d, not the local one", a.Port)
		}
	}
	for _, domain := range []uint32{1<<24 | 2<<12, 1 << 24} {
		if a, ok := tab.Lookup(100, 1, domain); !ok || a.Port == 0 {
			t.Errorf("domain %x: %v %v", domain, a, ok)
		}
	}
	if a, _ := tab.Lookup(100, 1, 1<<24|3<<12); a.Port != 0 {
		t.Errorf("looked up in a foreign domain: %v", a)
	}
}

func TestPublishErrors(t *testing.T) {
	tab := NewTable(Config{Own: own})
	a := wire.SocketAddr{Port: 1, Node: own}
	mustPublish(t, tab, sr(100, 1, 2), wire.ScopeCluster, 1, 5)
	for _, c := range []struct {
		r    wire.ServiceRange
		key  uint32
		want error
	}{
		{sr(100, 2, 1), 1, ErrRange},
		{sr(100, 1, 2), 5, ErrDuplicate},
		{sr(100, 1, 2), 6, nil}, // another key is another binding
		{sr(100, 1, 3), 5, nil},
	} {
		if _, err := tab.Publish(0, c.r, wire.ScopeNode, a, c.key); err != c.want {
			t.Errorf("%v key %d: %v, want %v", c.r, c.key, err, c.want)
		}
	}
}

// TestPublishLimit: sockets get 65,534 bindings, the names of the protocol do not count.
func TestPublishLimit(t *testing.T) {
	tab := NewTable(Config{Own: own})
	for i := range uint32(MaxPublications - 1) {
		mustPublish(t, tab, sr(100, i, i), wire.ScopeCluster, 1, i)
	}
	if _, err := tab.Publish(0, sr(100, 0, 1), wire.ScopeNode, wire.SocketAddr{Port: 1, Node: own}, 1); err != ErrTooMany {
		t.Errorf("one more: %v", err)
	}
	var p *Publication
	for _, typ := range []uint32{NodeState, TopSrv, LinkState} {
		p = mustPublish(t, tab, sr(typ, 1, 1), wire.ScopeNode, 0, 1)
	}
	tab.Withdraw(0, p)
	if _, err := tab.Publish(0, sr(100, 0, 1), wire.ScopeNode, wire.SocketAddr{Port: 1, Node: own}, 1); err != ErrTooMany {
		t.Errorf("withdrawing {2,1,1} made room: %v", err)
	}
	for p = range tab.Publications() {
		if p.Range.Type == 100 {
			break
		}
	}
	tab.Withdraw(0, p)
	tab.Withdraw(0, p) // again: nothing happens
	mustPublish(t, tab, sr(100, 0, 1), wire.ScopeNode, 1, 1)
	if s := tab.Stats(); s.Local != MaxPublications+1 || s.RefusedLocal != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestRemoteLimits(t *testing.T) {
	tab := NewTable(Config{Own: own, MaxRemote: 10, MaxRemotePerNode: 7})
	for i := range uint32(9) {
		err := tab.insertRemote(sr(100, i, i), wire.SocketAddr{Port: 1, Node: peerA}, 1)
		if (err == nil) != (i < 7) {
			t.Errorf("peer A, publication %d: %v", i, err)
		}
	}
	for i := range uint32(9) {
		err := tab.insertRemote(sr(100, i, i), wire.SocketAddr{Port: 1, Node: peerB}, 1)
		if (err == nil) != (i < 3) {
			t.Errorf("peer B, publication %d: %v", i, err)
		}
	}
	if s := tab.Stats(); s.Publications != 10 || s.RefusedRemote != 8 || s.Ranges != 7 {
		t.Errorf("stats %+v", s)
	}
	tab.purge(peerA)
	tab.purge(peerB)
	if s := tab.Stats(); s.Publications != 0 || s.Ranges != 0 || s.Services != 0 || len(tab.remote) != 0 || len(tab.index) != 0 {
		t.Errorf("something is left: %+v", s)
	}
}

// TestSetOwn: bindings made before the node has an address follow it, and stay local.
func TestSetOwn(t *testing.T) {
	tab := NewTable(Config{})
	p := mustPublish(t, tab, sr(100, 1, 1), wire.ScopeCluster, 1, 2)
	if a, ok := tab.Lookup(100, 1, 0); !ok || a != (wire.SocketAddr{Port: 1}) {
		t.Errorf("standalone: %v %v", a, ok)
	}
	mustRemote(t, tab, sr(100, 1, 1), own, 1, 2) // somebody who has the address that will be ours
	tab.SetOwn(own)
	if p.Addr.Node != own || tab.Len() != 1 {
		t.Errorf("node %x, %d publications", p.Addr.Node, tab.Len())
	}
	if a, ok := tab.Lookup(100, 1, own); !ok || a != (wire.SocketAddr{Port: 1, Node: own}) {
		t.Errorf("after: %v %v", a, ok)
	}
	if _, err := tab.Publish(0, sr(100, 1, 1), wire.ScopeCluster, wire.SocketAddr{Port: 1, Node: own}, 2); err != ErrDuplicate {
		t.Errorf("same binding again: %v", err)
	}
	tab.Withdraw(0, p)
	if tab.Len() != 0 || len(tab.index) != 0 {
		t.Error("not withdrawn")
	}
}

// TestListingOrder is the order of `tipc nametable show`: hash chain, newest type, range, list.
func TestListingOrder(t *testing.T) {
	tab := NewTable(Config{Own: own})
	for i, r := range []wire.ServiceRange{sr(100, 7, 7), sr(100+hashSize, 1, 1), sr(1, 1, 1), sr(100, 2, 9), sr(100, 7, 7), sr(100, 2, 3), sr(0, own, own)} {
		mustPublish(t, tab, r, wire.ScopeNode, uint32(i), 1)
	}
	var got []uint32
	for p := range tab.Publications() {
		got = append(got, p.Addr.Port)
	}
	if want := []uint32{6, 2, 1, 5, 3, 4, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	n := 0
	for range tab.Publications() {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("stopped after %d", n)
	}
}

// TestManyDistinct makes the multicast lookups leave the linear search for duplicates.
func TestManyDistinct(t *testing.T) {
	tab := NewTable(Config{Own: own})
	var want []uint32
	for i := range uint32(300) {
		mustPublish(t, tab, sr(100, i%5, i%7+5), wire.ScopeCluster, i%100+1, i+1)
		mustRemote(t, tab, sr(100, i%5, i%7+5), i%150+1, 1, i+1)
	}
	for i := range uint32(150) {
		want = append(want, i+1)
	}
	for range 2 {
		ports := tab.AppendMulticastPorts(nil, sr(100, 0, 100), ScopeAny)
		slices.Sort(ports)
		if !slices.Equal(ports, want[:100]) {
			t.Errorf("ports %v", ports)
		}
		nodes, local := tab.AppendMulticastNodes(nil, sr(100, 0, 100))
		slices.Sort(nodes)
		if !slices.Equal(nodes, want) || !local {
			t.Errorf("nodes %v %v", nodes, local)
		}
	}
}

func TestGroupMembers(t *testing.T) {
	tab := NewTable(Config{Own: own})
	mustPublish(t, tab, sr(100, 2, 2), wire.ScopeCluster, 1, 1)
	mustPublish(t, tab, sr(100, 3, 3), wire.ScopeNode, 2, 1)
	mustRemote(t, tab, sr(100, 1, 1), peerA, 3, 1)
	type member struct{ Port, Inst uint32 }
	var got []member
	tab.GroupMembers(100, wire.ScopeCluster, func(a wire.SocketAddr, inst uint32) bool {
		got = append(got, member{a.Port, inst})
		return true
	})
	if d := cmp.Diff([]member{{3, 1}, {1, 2}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	tab.GroupMembers(101, wire.ScopeCluster, func(wire.SocketAddr, uint32) bool { t.Error("member of nothing"); return false })
}

func TestLookupDoesNotAllocate(t *testing.T) {
	tab := NewTable(Config{Own: own})
	for i := range uint32(1000) {
		mustPublish(t, tab, sr(100+i%10, i, i+20), wire.ScopeCluster, i, 1)
		mustRemote(t, tab, sr(100+i%10, i, i+20), peerA, i, 1)
	}
	buf := make([]uint32, 0, 1024)
	var i uint32
	if n := testing.AllocsPerRun(1000, func() {
		i++
		if _, ok := tab.Lookup(100+i%10, i%1000, 0); !ok {
			t.Fatal("not found")
		}
		tab.Lookup(100+i%10, i%1000, own)
		buf = tab.AppendMulticastPorts(buf[:0], sr(100, 0, 200), ScopeAny)
		buf, _ = tab.AppendMulticastNodes(buf[:0], sr(100, 0, 200))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
