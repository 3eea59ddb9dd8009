//go:build linux

package interop

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/internal/mono"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
	"midplane/tipc"
)

// A medium says how a node of either kind joins the network on its device number nic.
type medium struct {
	name  string
	guest func(g *lab.Guest, nic int)
	ours  func(h *lab.Host, nic int) tipc.Bearer
}

var media = []medium{
	// Linux binds a bearer with multicast to any address, so each needs a port of its own.
	{"udp", func(g *lab.Guest, nic int) {
		port := strconv.Itoa(tipc.DefaultUDPPort + nic)
		g.EnableUDP(nic, "localport", port, "remoteport", port)
	}, func(h *lab.Host, nic int) tipc.Bearer {
		port := tipc.DefaultUDPPort + nic
		return tipc.UDP{Name: fmt.Sprintf("u%d", nic), LocalIP: h.Addr(nic), LocalPort: port, RemotePort: port}
	}},
	{"eth", func(g *lab.Guest, nic int) { g.EnableEth(nic) }, func(h *lab.Host, nic int) tipc.Bearer {
		return tipc.Ethernet{Device: fmt.Sprintf("eth%d", nic)}
	}},
	{"udp6", func(g *lab.Guest, nic int) { g.EnableUDP6(nic) }, func(h *lab.Host, nic int) tipc.Bearer {
		return tipc.UDP{Name: fmt.Sprintf("v%d", nic), LocalIP: h.Addr6(nic), Device: fmt.Sprintf("eth%d", nic)}
	}},
}

// cluster is some guests and some nodes of ours on one network.
type cluster struct {
	t       *testing.T
	net     *lab.Network
	guests  []*lab.Guest
	hosts   []*lab.Host
	nodes   []*tipc.Node
	capture *lab.Capture
}

// newCluster boots guests and starts nodes of ours that join over nics devices each.
func newCluster(t *testing.T, m medium, guests, ours, nics int) *cluster {
	t.Helper()
	lab.Require(t)
	c := &cluster{t: t, net: lab.NewNetwork(t)}
	c.guests = c.net.Guests(guests, lab.GuestConfig{NICs: nics})
	for i := range ours {
		h := c.net.Host(nics)
		c.hosts = append(c.hosts, h)
		c.nodes = append(c.nodes, c.start(h, m, fmt.Sprintf("ours%d", i+1), nics))
	}
	c.capture = c.net.Capture(0)
	for _, g := range c.guests {
		for nic := range nics {
			m.guest(g, nic)
		}
	}
	return c
}

// start starts a node of ours in host h.
func (c *cluster) start(h *lab.Host, m medium, identity string, nics int) *tipc.Node {
	c.t.Helper()
	var bearers []tipc.Bearer
	for nic := range nics {
		bearers = append(bearers, m.ours(h, nic))
	}
	id, err := tipc.ParseNodeID(identity)
	if err != nil {
		c.t.Fatal(err)
	}
	var n *tipc.Node
	err = h.Do(func() (err error) {
		n, err = tipc.NewNode(tipc.Config{Identity: id, Bearers: bearers})
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { n.Close() })
	return n
}

// waitUp waits until each node, of either kind, sees all others, and returns how long that took.
func (c *cluster) waitUp() time.Duration {
	c.t.Helper()
	start := time.Now()
	others := len(c.guests) + len(c.nodes) - 1
	for _, n := range c.nodes {
		waitPeers(c.t, n, others)
	}
	for _, g := range c.guests {
		g.WaitPeers(others)
	}
	return time.Since(start)
}

// waitPeers waits until n has that many peers up, and returns how long that took.
func waitPeers(t *testing.T, n *tipc.Node, count int) time.Duration {
	t.Helper()
	took, ok := lab.Until(20*time.Second, func() bool { return peersUp(n) == count })
	if !ok {
		t.Fatalf("our node %v has %d peers up, want %d: %v", n.Addr(), peersUp(n), count, n.Peers())
	}
	return took
}

func peersUp(n *tipc.Node) (up int) {
	for _, p := range n.Peers() {
		if p.Up {
			up++
		}
	}
	return up
}

// A publication as both kinds of node know it.
type publication struct{ typ, lower, upper, port, node uint32 }

func ours(n *tipc.Node) (all []publication) {
	n.Internals().Do(func(_ mono.Time, s *stack.Stack) {
		for p := range s.Names().Publications() {
			if p.Range.Type != tipc.LinkStateType && p.Range.Type != wire.TopologyType { // known to their own node only
				all = append(all, publication{p.Range.Type, p.Range.Lower, p.Range.Upper, p.Addr.Port, p.Addr.Node})
			}
		}
	})
	return sorted(all)
}

func theirs(g *lab.Guest) (all []publication) {
	for _, p := range g.NameTable() {
		if p.Type != tipc.LinkStateType && p.Type != wire.TopologyType {
			all = append(all, publication{p.Type, p.Lower, p.Upper, p.Port, p.Node})
		}
	}
	return sorted(all)
}

func sorted(all []publication) []publication {
	slices.SortFunc(all, func(a, b publication) int {
		return cmp.Or(cmp.Compare(a.typ, b.typ), cmp.Compare(a.lower, b.lower), cmp.Compare(a.upper, b.upper), cmp.Compare(a.node, b.node), cmp.Compare(a.port, b.port))
	})
	return all
}

// waitNamesEqual waits until all nodes have the same name table.
func (c *cluster) waitNamesEqual() {
	c.t.Helper()
	var want []publication
	var diff string
	_, ok := lab.Until(10*time.Second, func() bool {
		diff = ""
		want = ours(c.nodes[0])
		for i, n := range c.nodes[1:] {
			if got := ours(n); !slices.Equal(got, want) {
				diff = fmt.Sprintf("our node %d has %v, node 0 has %v", i+1, got, want)
			}
		}
		for _, g := range c.guests {
			if got := theirs(g); !slices.Equal(got, want) {
				diff = fmt.Sprintf("%s has %v, our node has %v", g.Name, got, want)
			}
		}
		return diff == "" && len(want) >= len(c.nodes)+len(c.guests)
	})
	if !ok {
		c.t.Fatalf("name tables differ: %s (%d entries)", diff, len(want))
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
