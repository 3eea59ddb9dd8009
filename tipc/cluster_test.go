package tipc_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"midplane/internal/tipc/bearer"
	"midplane/tipc"
)

// within bounds what a test waits for; it is long, since nothing is expected to take it.
const within = 120 * time.Second

// cluster starts n nodes on a Network in memory, and waits until they know each other.
func cluster(t testing.TB, n int) []*tipc.Node {
	t.Helper()
	var net tipc.Network
	nodes := make([]*tipc.Node, n)
	for i := range nodes {
		nodes[i] = start(t, tipc.Config{Identity: tipc.MustParseNodeID(fmt.Sprintf("node%d", i+1)), Bearers: []tipc.Bearer{tipc.Memory{Name: "m", Network: &net}}})
	}
	meet(t, nodes)
	return nodes
}

// udpCluster is cluster over UDP on loopback, each node with the others as unicast peers.
func udpCluster(t testing.TB, n int) []*tipc.Node {
	t.Helper()
	nodes := make([]*tipc.Node, n)
	var ports []netip.AddrPort
	for i := range nodes {
		u := tipc.UDP{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: tipc.AnyPort, PeerList: true, Remotes: ports}
		nodes[i] = start(t, tipc.Config{Identity: tipc.MustParseNodeID(fmt.Sprintf("node%d", i+1)), Bearers: []tipc.Bearer{u}})
		b, ok := nodes[i].Internals().Bearer("udp:u")
		if !ok {
			t.Fatal("no bearer")
		}
		for _, o := range nodes[:i] {
			ob, _ := o.Internals().Bearer("udp:u")
			if err := ob.(*bearer.UDP).AddPeer(b.Addr().IP); err != nil {
				t.Log("learnt already:", err)
			}
		}
		ports = append(ports, b.Addr().IP)
	}
	meet(t, nodes)
	return nodes
}

func start(t testing.TB, cfg tipc.Config) *tipc.Node {
	t.Helper()
	n, err := tipc.NewNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// meet waits until each node sees all.
func meet(t testing.TB, nodes []*tipc.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for _, n := range nodes {
		sub, err := n.Subscribe(tipc.ServiceRange{Type: tipc.NodeStateType, Upper: 1<<32 - 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for seen := map[uint32]bool{}; len(seen) < len(nodes); {
			ev, err := sub.NextContext(ctx)
			if err != nil {
				t.Fatalf("the nodes do not meet: %v sees %v: %v", n.Identity(), seen, err)
			}
			seen[ev.Service.Lower] = true
		}
		sub.Close()
	}
}

// published waits until n knows of a binding of r.
func published(t testing.TB, n *tipc.Node, r tipc.ServiceRange) {
	t.Helper()
	sub, err := n.Subscribe(r, &tipc.SubscribeConfig{Timeout: within})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if ev, err := sub.Next(); err != nil || ev.Kind != tipc.Published {
		t.Fatalf("%v is not published: %v, %v", r, ev, err)
	}
}

// pair connects two nodes, which may be the same.
func pair(t testing.TB, client, server *tipc.Node, typ tipc.SocketType) (c, s *tipc.Conn) {
	t.Helper()
	addr := tipc.ServiceAddr{Type: 4711, Instance: 7}
	l, err := server.Listen(addr, &tipc.SocketConfig{Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	published(t, client, addr.Range())
	accepted := make(chan *tipc.Conn, 1)
	go func() {
		s, err := l.AcceptConn()
		if err != nil {
			t.Error(err)
		}
		accepted <- s
	}()
	if c, err = client.Dial(addr, &tipc.SocketConfig{Type: typ}); err != nil {
		t.Fatal(err)
	}
	if s = <-accepted; s == nil {
		t.FailNow()
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c, s
}
