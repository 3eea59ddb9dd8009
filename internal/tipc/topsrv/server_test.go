package topsrv_test

import (
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/topsrv"
	"midplane/internal/tipc/wire"
)

// node is a node of a cluster without links: messages go from one socket table straight into another.
type node struct {
	*names.Table
	cluster map[uint32]*node
	socks   *socket.Table
	srv     *topsrv.Server
}

func (n *node) Xmit(now mono.Time, q *buf.Queue, dnode, _ uint32) error {
	if dnode == 0 {
		dnode = n.Own()
	}
	to := n.cluster[dnode]
	if to == nil {
		q.Purge()
		return socket.ErrHostUnreach
	}
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		to.socks.Receive(now, b)
	}
	return nil
}

func (n *node) Multicast(_ mono.Time, q *buf.Queue, _ *socket.Method, _ *socket.Dests) (int, error) {
	q.Purge()
	return 0, socket.ErrHostUnreach
}

func (n *node) FilterMcast(_, _ *buf.Queue)    {}
func (n *node) MTU(dnode, selector uint32) int { return wire.MaxMsgSize }
func (n *node) BcastMTU() int                  { return wire.MaxMsgSize }
func (n *node) Caps(uint32) wire.Caps          { return wire.CapsAll }

func (n *node) UnderWay(mono.Time, uint32, mono.Time, bool) bool { return false }

// net returns nodes 1 and 2; node 1 has a topology server.
func net(t testing.TB, cfg topsrv.Config) (a, b *node) {
	cluster := map[uint32]*node{}
	seed := uint32(1)
	for addr := uint32(1); addr <= 2; addr++ {
		n := &node{Table: names.NewTable(names.Config{Own: addr}), cluster: cluster}
		n.socks = socket.NewTable(n, socket.Config{Own: addr, Rand: func() uint32 { seed = seed*1664525 + 1013904223; return seed }})
		n.srv = topsrv.New(n.Table, n.socks, cfg)
		cluster[addr] = n
	}
	if err := cluster[1].srv.Start(0); err != nil {
		t.Fatal(err)
	}
	return cluster[1], cluster[2]
}

// settle does what a stack does after each call: it sorts the woken sockets and runs the server.
func (n *node) settle(now mono.Time) {
	for more := true; more; {
		more = false
		for _, x := range n.cluster {
			for k := x.socks.PopReady(); k != nil; k = x.socks.PopReady() {
				more = x.srv.Wake(k) || more
			}
			more = x.srv.Poll(now) || more
		}
	}
}

var topSrv = wire.ServiceRange{Type: 1, Lower: 1, Upper: 1}

// client connects a new socket of n to the server of node server (0: own node's).
func (n *node) client(t testing.TB, server uint32) *socket.Sock {
	t.Helper()
	k, err := n.socks.Create(0, socket.SeqPacket)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Connect(0, socket.Dest{Kind: socket.ServiceDest, Range: topSrv, Addr: wire.SocketAddr{Node: server}}); err != nil && err != socket.ErrInProgress {
		t.Fatal(err)
	}
	n.settle(0)
	if err := k.ConnectResult(); err != nil {
		t.Fatal(err)
	}
	return k
}

func (n *node) send(t testing.TB, k *socket.Sock, rec []byte) {
	t.Helper()
	if m, err := k.Send(0, rec, socket.Dest{}); err != nil || m != len(rec) {
		t.Fatalf("send: %d, %v", m, err)
	}
	n.settle(0)
}

// recv returns the next event; ok is false when there is none.
func (n *node) recv(t testing.TB, k *socket.Sock) (e wire.Event, ok bool) {
	t.Helper()
	var b [100]byte
	m, _, err := k.Recv(0, b[:], 0)
	if err == socket.ErrWouldBlock {
		return e, false
	}
	if err != nil || m != wire.EventSize {
		t.Fatalf("recv: %d, %v", m, err)
	}
	n.settle(0)
	e, _ = wire.ParseEvent(b[:], binary.LittleEndian)
	return e, true
}

var all = wire.Subscr{Range: sr(100, 0, 1<<20), Timeout: wire.WaitForever, Filter: wire.SubPorts}

// TestServer runs the service for a user of the same node and for one of another node.
func TestServer(t *testing.T) {
	for _, remote := range []bool{false, true} {
		a, n := net(t, topsrv.Config{})
		if !remote {
			n = a
		}
		publishAt := func(inst uint32) *names.Publication {
			p, err := a.Publish(0, sr(100, inst, inst), wire.ScopeNode, wire.SocketAddr{Port: inst, Node: 1}, inst)
			if err != nil {
				t.Fatal(err)
			}
			a.settle(0)
			return p
		}
		p := publishAt(5)
		k := n.client(t, 1)
		n.send(t, k, subscr(all, binary.LittleEndian))
		timed := all
		timed.Range.Type, timed.Timeout = 200, 1000
		n.send(t, k, subscr(timed, binary.LittleEndian))
		publishAt(6)
		a.Withdraw(0, p)
		a.settle(0)
		now := mono.Time(time.Second)
		a.Tick(now)
		a.settle(now)
		for i, want := range []wire.Event{
			{Kind: wire.EventPublished, Lower: 5, Upper: 5, Port: wire.SocketAddr{Port: 5, Node: 1}, Subscr: all},
			{Kind: wire.EventPublished, Lower: 6, Upper: 6, Port: wire.SocketAddr{Port: 6, Node: 1}, Subscr: all},
			{Kind: wire.EventWithdrawn, Lower: 5, Upper: 5, Port: wire.SocketAddr{Port: 5, Node: 1}, Subscr: all},
			{Kind: wire.EventTimeout, Lower: 0, Upper: 1 << 20, Subscr: timed},
		} {
			if e, ok := n.recv(t, k); !ok || e != want {
				t.Errorf("remote %v: event %d (-want +got):\n%s", remote, i, cmp.Diff(want, e))
			}
		}
		cancel := all
		cancel.Filter |= wire.SubCancel
		n.send(t, k, subscr(cancel, binary.LittleEndian))
		publishAt(7)
		if e, ok := n.recv(t, k); ok {
			t.Errorf("remote %v: after cancel: %+v", remote, e)
		}
		k.Close(0)
		a.settle(0)
		if st := a.srv.Stats(); st != (topsrv.Stats{Accepted: 1, Events: 4}) {
			t.Errorf("remote %v: %+v", remote, st)
		}
	}
}

// TestServerSynWithData: a connection request may carry the first subscription.
func TestServerSynWithData(t *testing.T) {
	a, b := net(t, topsrv.Config{})
	publish(t, a.Table, sr(100, 5, 5), 9)
	k, err := b.socks.Create(0, socket.SeqPacket)
	if err != nil {
		t.Fatal(err)
	}
	to := socket.Dest{Kind: socket.ServiceDest, Range: topSrv, Addr: wire.SocketAddr{Node: 1}}
	if _, err := k.Send(0, subscr(all, binary.LittleEndian), to); err != nil {
		t.Fatal(err)
	}
	a.settle(0)
	if e, ok := b.recv(t, k); !ok || e.Lower != 5 {
		t.Errorf("%+v %v", e, ok)
	}
}

// TestServerEndsSessions: what ends a session ends the connection, in order, and leaves nothing.
func TestServerEndsSessions(t *testing.T) {
	both := all
	both.Filter = 3
	for name, rec := range map[string][]byte{
		"27 octets":    make([]byte, 27),
		"both filters": subscr(both, binary.LittleEndian),
	} {
		a, b := net(t, topsrv.Config{})
		k, other := b.client(t, 1), b.client(t, 1)
		b.send(t, k, subscr(all, binary.LittleEndian))
		b.send(t, other, subscr(all, binary.LittleEndian))
		b.send(t, k, rec)
		var x [48]byte
		if _, _, err := k.Recv(0, x[:], 0); err != io.EOF {
			t.Errorf("%s: the user reads %v", name, err)
		}
		st := a.Stats()
		if s := a.srv.Stats(); s.Sessions != 1 || s.Rejected != 1 || st.Subscriptions != 1 {
			t.Errorf("%s: %+v, %d subscriptions", name, s, st.Subscriptions)
		}
		publish(t, a.Table, sr(100, 5, 5), 9)
		a.settle(0)
		if _, ok := b.recv(t, other); !ok {
			t.Errorf("%s: the other session ended too", name)
		}
		a.srv.Close(0)
		a.settle(0)
		if _, _, err := other.Recv(0, x[:], 0); err != io.EOF {
			t.Errorf("%s: at the server's end the user reads %v", name, err)
		}
		if st := a.Stats(); st.Subscriptions != 0 || a.srv.Sessions() != 0 || a.srv.Poll(0) {
			t.Errorf("%s: left: %+v", name, st)
		}
	}
}

func TestServerMaxSessions(t *testing.T) {
	a, b := net(t, topsrv.Config{MaxSessions: 2})
	k := b.client(t, 1)
	b.client(t, 1)
	third, err := b.socks.Create(0, socket.SeqPacket)
	if err != nil {
		t.Fatal(err)
	}
	third.Connect(0, socket.Dest{Kind: socket.ServiceDest, Range: topSrv, Addr: wire.SocketAddr{Node: 1}})
	a.settle(0)
	if third.State() == socket.Established {
		t.Error("the third user is connected")
	}
	k.Close(0)
	a.settle(0)
	b.client(t, 1)
	if s := a.srv.Stats(); s.Sessions != 2 || s.Refused != 1 || s.Accepted != 3 {
		t.Errorf("%+v", s)
	}
}

// TestServerSlowUser: events wait while the connection is congested, and all arrive when the user reads on.
func TestServerSlowUser(t *testing.T) {
	const n = 3000
	a, b := net(t, topsrv.Config{})
	k := b.client(t, 1)
	b.send(t, k, subscr(all, binary.LittleEndian))
	for i := range uint32(n) {
		if _, err := a.Publish(0, sr(100, i, i), wire.ScopeNode, wire.SocketAddr{Port: 1, Node: 1}, i); err != nil {
			t.Fatal(err)
		}
		a.settle(0)
	}
	if a.Stats().QueuedEvents == 0 {
		t.Fatal("the connection was never congested")
	}
	for i := range uint32(n) {
		if e, ok := b.recv(t, k); !ok || e.Lower != i {
			t.Fatalf("event %d: %+v %v", i, e, ok)
		}
	}
	if q := a.Stats().QueuedEvents; q != 0 {
		t.Errorf("%d events left", q)
	}
}

// TestServerOverflow: a user who never reads loses the connection, not the server its memory.
func TestServerOverflow(t *testing.T) {
	a, b := net(t, topsrv.Config{MaxEvents: 100})
	k := b.client(t, 1)
	b.send(t, k, subscr(all, binary.LittleEndian))
	for i := range uint32(2000) {
		if _, err := a.Publish(0, sr(100, i, i), wire.ScopeNode, wire.SocketAddr{Port: 1, Node: 1}, i); err != nil {
			t.Fatal(err)
		}
		a.settle(0)
		if q := a.Stats().QueuedEvents; q > 100 {
			t.Fatalf("%d events queued", q)
		}
	}
	if s := a.srv.Stats(); s.Overflow != 1 || s.Sessions != 0 || a.Stats().Subscriptions != 0 {
		t.Errorf("%+v", s)
	}
}

// TestServerFlood: a user who sends without pause does not keep others from being served in the same Poll.
func TestServerFlood(t *testing.T) {
	a, b := net(t, topsrv.Config{})
	flood, other := b.client(t, 1), b.client(t, 1)
	rec := subscr(all, binary.LittleEndian)
	for range 100 {
		if _, err := flood.Send(0, rec, socket.Dest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Send(0, rec, socket.Dest{}); err != nil {
		t.Fatal(err)
	}
	for k := a.socks.PopReady(); k != nil; k = a.socks.PopReady() {
		a.srv.Wake(k)
	}
	a.srv.Poll(0)
	if n := a.Stats().Subscriptions; n != 26 {
		t.Errorf("%d subscriptions after the first round, want 25 and 1", n)
	}
	a.settle(0)
	if n := a.Stats().Subscriptions; n != 101 {
		t.Errorf("%d subscriptions in the end", n)
	}
}

// TestServerStart: without a socket there is no server, and then Poll and Close do nothing.
func TestServerStart(t *testing.T) {
	_, b := net(t, topsrv.Config{})
	b.socks = socket.NewTable(b, socket.Config{Own: 2, Rand: func() uint32 { return 1 }, MaxSockets: 1})
	if _, err := b.socks.Create(0, socket.RDM); err != nil {
		t.Fatal(err)
	}
	srv := topsrv.New(b.Table, b.socks, topsrv.Config{})
	if err := srv.Start(0); err != socket.ErrTooMany {
		t.Errorf("start: %v", err)
	}
	if srv.Poll(0) {
		t.Error("did something")
	}
	srv.Close(0)
}

// TestServerLostNode: a user whose node is lost loses its session.
func TestServerLostNode(t *testing.T) {
	a, b := net(t, topsrv.Config{})
	k := b.client(t, 1)
	b.send(t, k, subscr(all, binary.LittleEndian))
	delete(a.cluster, 2)
	a.socks.NodeDown(0, 2)
	a.settle(0)
	if a.srv.Sessions() != 0 || a.Stats().Subscriptions != 0 {
		t.Errorf("%d sessions, %d subscriptions", a.srv.Sessions(), a.Stats().Subscriptions)
	}
}

// TestWakeForeign: sockets of others are not the server's.
func TestWakeForeign(t *testing.T) {
	a, b := net(t, topsrv.Config{})
	k, _ := a.socks.Create(0, socket.RDM)
	for _, owner := range []any{nil, "engine", b.srv} {
		k.Owner = owner
		if a.srv.Wake(k) {
			t.Errorf("took a socket owned by %v", owner)
		}
	}
	if a.srv.Poll(0) {
		t.Error("did something")
	}
}
