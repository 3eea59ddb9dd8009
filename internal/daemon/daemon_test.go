package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"midplane/internal/api"
	"midplane/internal/tipc/bearer"
	"midplane/tipc"
)

const within = 2 * time.Minute

var service = tipc.ServiceAddr{Type: 4711, Instance: 7}

// start runs a daemon, with a UDP bearer on loopback whose peers are the given daemons.
func start(t testing.TB, id string, peers ...*Daemon) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "mp") // short: it is for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u := tipc.UDP{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: tipc.AnyPort, PeerList: true}
	addr := func(d *Daemon) netip.AddrPort {
		b, ok := d.Node().Internals().Bearer("udp:u")
		if !ok {
			t.Fatal("no bearer")
		}
		return b.Addr().IP
	}
	for _, p := range peers {
		u.Remotes = append(u.Remotes, addr(p))
	}
	d, err := Start(Config{Identity: tipc.MustParseNodeID(id), Control: filepath.Join(dir, "control"), Bearers: []tipc.Bearer{u}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	for _, p := range peers {
		b, _ := p.Node().Internals().Bearer("udp:u")
		if err := b.(*bearer.UDP).AddPeer(addr(d)); err != nil {
			t.Log("learnt already:", err)
		}
	}
	return d
}

func open(t testing.TB, d *Daemon) *tipc.Node {
	t.Helper()
	n, err := tipc.Open(&tipc.OpenConfig{Control: d.Control()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// published waits until n knows a binding of r.
func published(t testing.TB, n *tipc.Node, r tipc.ServiceRange) tipc.Event {
	t.Helper()
	sub, err := n.Subscribe(r, &tipc.SubscribeConfig{Timeout: within})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ev, err := sub.Next()
	if err != nil || ev.Kind != tipc.Published {
		t.Fatalf("%v is not published: %v, %v", r, ev, err)
	}
	return ev
}

// Sockets of two clients, each in its own daemon, are net.Conns by x/net's own test.
func TestAttachedConn(t *testing.T) {
	a := start(t, "a")
	b := start(t, "b", a)
	na, nb := open(t, a), open(t, b)
	l, err := nb.Listen(service, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	published(t, na, service.Range())
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		done := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			c2 = c
			done <- err
		}()
		if c1, err = na.Dial(service, nil); err != nil {
			return nil, nil, nil, err
		}
		if err := <-done; err != nil {
			return nil, nil, nil, err
		}
		if c1.RemoteAddr() != c2.LocalAddr() || c1.LocalAddr() != c2.RemoteAddr() {
			t.Errorf("addresses: %v %v %v %v", c1.LocalAddr(), c1.RemoteAddr(), c2.LocalAddr(), c2.RemoteAddr())
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// An attached client has what the daemon's node has: errors with their codes, messages, multicast, events.
func TestAttachedSockets(t *testing.T) {
	d := start(t, "a")
	n := open(t, d)
	if err := d.Node().Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.Addr() != d.Node().Addr() || n.Addr() == 0 {
		t.Errorf("address %v, the daemon's is %v", n.Addr(), d.Node().Addr())
	}
	var op *tipc.OpError
	if _, err := n.Dial(service, nil); !errors.As(err, &op) || op.Op != "dial" || !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := n.Listen(tipc.ServiceAddr{Type: 2, Instance: 2}, nil); !errors.Is(err, syscall.EACCES) {
		t.Errorf("reserved: %v", err)
	}
	cfg := &tipc.SocketConfig{ReturnUndelivered: true}
	p, err := n.ListenPacket(service, cfg)
	if err != nil {
		t.Fatal(err)
	}
	// A socket of the daemon's own, and one of a client, are alike.
	q, err := d.Node().ListenPacket(service, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	msg := bytes.Repeat([]byte("m"), tipc.MaxMessage)
	if _, err := p.WriteTo(msg, tipc.ServiceRange{Type: 4711, Upper: 99}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, tipc.MaxMessage)
	for _, r := range []*tipc.PacketConn{p, q} {
		r.SetReadDeadline(time.Now().Add(within))
		k, info, err := r.ReadMsg(buf)
		if err != nil || !bytes.Equal(buf[:k], msg) || info.From != p.SocketAddr() || info.Dest != (tipc.ServiceRange{Type: 4711, Upper: 99}) {
			t.Fatal(k, info, err)
		}
	}
	gone := tipc.SocketAddr{Port: 1, Node: n.Addr()}
	if _, err := p.WriteTo([]byte("x"), gone); err != nil {
		t.Fatal(err)
	}
	if k, info, err := p.ReadMsg(buf); err != nil || info.Returned != tipc.CodeNoPort || string(buf[:k]) != "x" {
		t.Fatal(k, info, err)
	}
	sub, err := d.Node().Subscribe(service.Range(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	sub.SetDeadline(time.Now().Add(within))
	for range 2 {
		if ev, err := sub.Next(); err != nil || ev.Kind != tipc.Published {
			t.Fatal(ev, err)
		}
	}
	// The end of the client, here without closing its sockets one by one, withdraws what it bound.
	n.Close()
	if ev, err := sub.Next(); err != nil || ev.Kind != tipc.Withdrawn || ev.Socket != p.SocketAddr() {
		t.Fatal(ev, err)
	}
	if _, err := p.WriteTo([]byte("x"), service); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := n.ListenPacket(nil, nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// When the daemon stops, its clients' calls end.
func TestDaemonStops(t *testing.T) {
	d := start(t, "a")
	n := open(t, d)
	l, err := n.Listen(service, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.ListenPacket(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	go func() { _, err := l.Accept(); errs <- err }()
	go func() { _, _, err := p.ReadFrom(make([]byte, 1)); errs <- err }()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	if _, err := os.Stat(d.Control()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the control socket is left behind: ", err)
	}
	if _, err := tipc.Open(&tipc.OpenConfig{Control: d.Control()}); !errors.Is(err, fs.ErrNotExist) {
		t.Error("open: ", err)
	}
	n2, err := tipc.Open(&tipc.OpenConfig{Control: d.Control(), Embed: &tipc.Config{}})
	if err != nil {
		t.Fatal("embed: ", err)
	}
	defer n2.Close()
	if n2.Identity().IsZero() {
		t.Error("an embedded node has an identity")
	}
}

func TestControlSocketIsShared(t *testing.T) {
	d := start(t, "a")
	c := api.NewClient(d.Control())
	defer c.Close()
	n, err := c.Node(t.Context())
	if err != nil || n.Identity != tipc.MustParseNodeID("a") || n.NetID != 4711 {
		t.Fatal(n, err)
	}
	// Rubbish and silence disturb nobody.
	for _, text := range []string{"", "x", "TIPCATT1", "TIPCATT1\xff\xff\xff\xff\xff\xff\xff\xff", "NONSENSE NONSENSE\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"} {
		r, err := net.Dial("unix", d.Control())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		io.WriteString(r, text)
	}
	if _, err := c.Names(t.Context()); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(d.Control()); err != nil || fi.Mode().Perm() != 0o660 {
		t.Error(fi.Mode(), err)
	}
	if _, err := Start(Config{Control: d.Control()}, nil); err == nil {
		t.Error("two daemons at one socket")
	}
	if _, err := Start(Config{Control: filepath.Join(t.TempDir(), "c"), Bearers: []tipc.Bearer{tipc.Ethernet{Device: "nosuch0"}}}, nil); err == nil {
		t.Error("a device that is not there")
	}
}

// What the control interface says about links, names and sockets agrees with what the nodes do.
func TestControlTells(t *testing.T) {
	a := start(t, "a")
	b := start(t, "b", a)
	idB := tipc.MustParseNodeID("b")
	published(t, a.Node(), tipc.ServiceRange{Type: tipc.NodeStateType, Lower: uint32(idB.Addr()), Upper: uint32(idB.Addr())})
	l, err := b.Node().Listen(service, &tipc.SocketConfig{Type: tipc.SeqPacket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	published(t, a.Node(), service.Range())
	accepted := make(chan *tipc.Conn, 1) // TIPC completes a connection when it is accepted
	go func() {
		c, err := l.AcceptConn()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	conn, err := a.Node().Dial(service, &tipc.SocketConfig{Type: tipc.SeqPacket})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	srv := <-accepted
	defer srv.Close()
	big := make([]byte, 60000)
	for range 3 {
		if _, err := conn.Write(big); err != nil {
			t.Fatal(err)
		}
		if _, err := srv.Read(big); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	ca, cb := newControl(a.Node()), newControl(b.Node())
	links, err := ca.Links(ctx, false)
	if err != nil || len(links) != 2 || links[1].Name != "a:u-b:u" || !links[1].Up || !links[1].Active {
		t.Fatalf("%+v, %v", links, err)
	}
	if s := links[1].Stats; s.TxFragmented != 3 || s.TxFragments != 15 || s.RxStates == 0 {
		t.Errorf("%+v", s)
	}
	if all, _ := ca.Links(ctx, true); len(all) != 3 {
		t.Errorf("%d links with those of the broadcast", len(all))
	}
	if err := ca.ResetLink(ctx, "a:u-b:u"); err != nil {
		t.Error(err)
	}
	if links, _ = ca.Links(ctx, false); links[1].Stats.TxFragmented != 0 {
		t.Error("counters are not reset")
	}
	names, _ := ca.Names(ctx)
	found := false
	for _, n := range names {
		found = found || n.Range == service.Range() && n.Socket == l.SocketAddr() && *n.Identity == idB && n.Scope == tipc.ClusterScope
	}
	if !found {
		t.Errorf("%v", names)
	}
	socks, _ := ca.Sockets(ctx)
	found = false
	for _, s := range socks {
		found = found || s.Peer != nil && *s.Peer == srv.LocalAddr() && *s.Via == service && s.Type == tipc.SeqPacket
	}
	if !found {
		t.Errorf("%+v", socks)
	}
	if err := cb.SetLink(ctx, api.PropertySet{Name: "b:u-a:u", Property: api.Tolerance, Value: 3000}); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		if links, _ = ca.Links(ctx, false); links[1].Tolerance == 3000 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the peer's tolerance is %d", links[1].Tolerance)
		}
	}
	for _, p := range []api.PropertySet{
		{Name: "b:u-a:u", Property: api.Priority, Value: 32}, {Name: "b:u-a:u", Property: api.Tolerance, Value: 49},
		{Name: "b:u-a:u", Property: api.Window, Value: 49}, {Name: "b:u-a:u", Property: api.MTU, Value: 1500},
		{Name: "b:u-a:u", Property: "colour", Value: 1},
	} {
		if err := cb.SetLink(ctx, p); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%v: %v", p, err)
		}
	}
	if err := cb.SetLink(ctx, api.PropertySet{Name: "nosuch", Property: api.Priority, Value: 1}); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	idA := tipc.MustParseNodeID("a")
	if err := cb.RemovePeer(ctx, api.PeerRemove{Identity: &idA}); !errors.Is(err, syscall.EBUSY) {
		t.Error(err)
	}
	none := tipc.NodeAddr(5)
	if err := cb.RemovePeer(ctx, api.PeerRemove{Address: &none}); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	for i, err := range []error{cb.SetKey(ctx, api.KeySet{}), cb.FlushKeys(ctx)} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Error(i, err)
		}
	}
	// Bearers come and go, three at most, with the defaults of their medium.
	if err := ca.SetMedium(ctx, api.PropertySet{Name: "udp", Property: api.Priority, Value: 7}); err != nil {
		t.Error(err)
	}
	for i, want := range []error{nil, nil, syscall.EPERM} {
		err := ca.EnableBearer(ctx, api.BearerEnable{Media: "udp", Name: fmt.Sprint("v", i), LocalIP: "127.0.0.1", LocalPort: freePort(t), RemoteIP: "127.0.0.9"})
		if !errors.Is(err, want) {
			t.Errorf("bearer %d: %v, want %v", i+2, err, want)
		}
	}
	bearers, _ := ca.Bearers(ctx)
	if len(bearers) != 3 || bearers[1].Name != "udp:v0" || bearers[1].Priority != 7 || bearers[1].UDP.RemoteIP != "127.0.0.9" || bearers[0].Priority != 10 {
		t.Errorf("%+v", bearers)
	}
	if err := ca.DisableBearer(ctx, "udp:v1"); err != nil {
		t.Error(err)
	}
	if err := ca.DisableBearer(ctx, "udp:v1"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

// Identity, address and network id can be set until the node is in use.
func TestSetNode(t *testing.T) {
	dir, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	d, err := Start(Config{Control: filepath.Join(dir, "c")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, c := t.Context(), api.NewClient(d.Control())
	defer c.Close()
	id, netid, addr := tipc.MustParseNodeID("renamed"), uint32(5000), tipc.MustParseNodeAddr("1.1.7")
	for _, s := range []api.NodeSet{{Identity: &id}, {NetID: &netid}} {
		if err := c.SetNode(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c.Node(ctx); err != nil || n.Identity != id || n.NetID != netid {
		t.Errorf("%+v, %v", n, err)
	}
	if err := c.SetNode(ctx, api.NodeSet{Address: &addr}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Node(ctx); err != nil || n.Address != addr || n.NetID != netid {
		t.Errorf("%+v, %v", n, err)
	}
	if err := c.SetNode(ctx, api.NodeSet{}); !errors.Is(err, syscall.EINVAL) {
		t.Error("nothing: ", err)
	}
	// The node is as good as a new one.
	n := open(t, d)
	l, err := n.Listen(service, nil)
	if err != nil {
		t.Fatal(err)
	}
	published(t, n, service.Range())
	if err := c.SetNode(ctx, api.NodeSet{Identity: &id}); !errors.Is(err, syscall.EPERM) {
		t.Error("in use: ", err)
	}
	l.Close()
	n.Close()
	if err := c.EnableBearer(ctx, api.BearerEnable{Media: "udp", Name: "u", LocalIP: "127.0.0.1", LocalPort: freePort(t), RemoteIP: "127.0.0.9"}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetNode(ctx, api.NodeSet{NetID: &netid}); !errors.Is(err, syscall.EPERM) {
		t.Error("with a bearer: ", err)
	}
}

// freePort is a UDP port that was free a moment ago.
func freePort(t *testing.T) uint16 {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// What has no wire of its own works for attached sockets, too: pairs, first messages, peeking.
func TestAttachedMore(t *testing.T) {
	n := open(t, start(t, "a"))
	cfg := &tipc.SocketConfig{Type: tipc.SeqPacket}
	a, b, err := n.Pair(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, m := range []string{"one", "two"} {
		if _, err := a.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	buf := make([]byte, 10)
	for _, m := range []string{"one", "two"} {
		if k, err := b.Peek(buf); err != nil || string(buf[:k]) != m {
			t.Fatal(k, err)
		}
		if b.Queued() == 0 {
			t.Error("peeked and not queued")
		}
		if k, info, err := b.ReadMsg(buf[:2]); err != nil || string(buf[:k]) != m[:2] || !info.Truncated {
			t.Fatal(k, info, err)
		}
	}
	if _, err := b.Peek(buf); err != io.EOF {
		t.Error(err)
	}

	l, err := n.Listen(service, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.DialMessage(service, []byte("request"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if k, err := s.Read(buf); err != nil || string(buf[:k]) != "request" {
		t.Fatal(k, err)
	}
	if _, err := s.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(within))
	if k, err := c.Read(buf); err != nil || string(buf[:k]) != "answer" || c.RemoteAddr() != s.LocalAddr() {
		t.Fatal(k, err, c.RemoteAddr())
	}
	if _, err := n.DialMessage(tipc.ServiceAddr{Type: 9999, Instance: 1}, []byte("x"), cfg); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Error("nobody there: ", err)
	}
	p, err := n.ListenPacket(nil, &tipc.SocketConfig{Multicast: tipc.MulticastReplicast})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
}
