package tipc_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"midplane/tipc"
)

func packetConn(t testing.TB, n *tipc.Node, addr net.Addr, cfg *tipc.SocketConfig) *tipc.PacketConn {
	t.Helper()
	p, err := n.ListenPacket(addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	p.SetReadDeadline(time.Now().Add(within))
	return p
}

func TestPacketAnycastAndReply(t *testing.T) {
	for _, typ := range []tipc.SocketType{tipc.RDM, tipc.Datagram} {
		n := cluster(t, 2)
		addr := tipc.ServiceAddr{Type: 4711, Instance: 7}
		srv := packetConn(t, n[1], addr, &tipc.SocketConfig{Type: typ})
		cl := packetConn(t, n[0], nil, &tipc.SocketConfig{Type: typ})
		published(t, n[0], addr.Range())
		buf := make([]byte, tipc.MaxMessage)
		for _, size := range []int{1, 1400, tipc.MaxMessage} {
			msg := bytes.Repeat([]byte{byte(size)}, size)
			if k, err := cl.WriteTo(msg, addr); k != size || err != nil {
				t.Fatal(k, err)
			}
			k, info, err := srv.ReadMsg(buf)
			if err != nil || !bytes.Equal(buf[:k], msg) || info.From != cl.SocketAddr() || info.Dest != addr.Range() || info.Returned != 0 || info.Truncated {
				t.Fatalf("%d octets: %d, %+v, %v", size, k, info, err)
			}
			if _, err := srv.WriteTo(buf[:1], info.From); err != nil {
				t.Fatal(err)
			}
			k, from, err := cl.ReadFrom(buf)
			if k != 1 || err != nil || from != net.Addr(srv.SocketAddr()) {
				t.Fatal(k, from, err)
			}
		}
		if _, err := cl.WriteTo(make([]byte, tipc.MaxMessage+1), addr); !errors.Is(err, syscall.EMSGSIZE) {
			t.Error(err)
		}
	}
}

// A multicast reaches each socket bound in the range once, on all nodes, and no other.
func TestMulticast(t *testing.T) {
	n := cluster(t, 3)
	var in []*tipc.PacketConn
	for i := range 6 {
		in = append(in, packetConn(t, n[i%3], tipc.ServiceRange{Type: 4711, Lower: uint32(i), Upper: uint32(i + 1)}, nil))
	}
	out := packetConn(t, n[0], tipc.ServiceRange{Type: 4711, Lower: 100, Upper: 100}, nil)
	in[0].Bind(tipc.ServiceAddr{Type: 4711, Instance: 4}, 0) // bound twice in the range: still one message
	for i := range 6 {
		published(t, n[0], tipc.ServiceRange{Type: 4711, Lower: uint32(i), Upper: uint32(i + 1)})
	}
	if _, err := out.WriteTo([]byte("to all"), tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 4}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteTo([]byte("last"), tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 99}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for i, p := range in {
		want := []string{"to all", "last"}
		if i == 5 {
			want = want[1:]
		}
		for _, w := range want {
			k, info, err := p.ReadMsg(buf)
			if err != nil || string(buf[:k]) != w || info.From != out.SocketAddr() {
				t.Errorf("socket %d: %q, %+v, %v, want %q", i, buf[:k], info, err, w)
			}
		}
	}
}

// What cannot be delivered comes back with the reason and the data.
func TestReturnedMessage(t *testing.T) {
	n := cluster(t, 2)
	cl := packetConn(t, n[0], nil, &tipc.SocketConfig{ReturnUndelivered: true})
	gone := packetConn(t, n[1], nil, nil)
	to := gone.SocketAddr()
	gone.Close()
	if _, err := cl.WriteTo([]byte("anybody?"), to); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	k, info, err := cl.ReadMsg(buf)
	if err != nil || info.Returned != tipc.CodeNoPort || string(buf[:k]) != "anybody?" {
		t.Fatalf("%q, %+v, %v", buf[:k], info, err)
	}
	if _, err := cl.WriteTo([]byte("anybody?"), to); err != nil {
		t.Fatal(err)
	}
	var op *tipc.OpError
	if _, _, err := cl.ReadFrom(buf); !errors.As(err, &op) || !errors.Is(err, tipc.CodeNoPort) || op.Timeout() {
		t.Fatal(err)
	}
	if _, err := cl.WriteTo([]byte("x"), tipc.ServiceAddr{Type: 9999, Instance: 9}); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Error("nobody bound: ", err)
	}
}

func TestPacketDeadlinesAndClose(t *testing.T) {
	n := start(t, tipc.Config{})
	p, err := n.ListenPacket(tipc.ServiceAddr{Type: 4711, Instance: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	p.SetDeadline(time.Now().Add(-time.Second))
	if _, _, err := p.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if _, err := p.WriteTo(buf, p.LocalAddr()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	p.SetDeadline(time.Time{})
	if _, err := p.WriteTo(buf, p.LocalAddr()); err != nil {
		t.Error(err)
	}
	if k, from, err := p.ReadFrom(buf[:4]); k != 4 || from != p.LocalAddr() || err != nil {
		t.Error(k, from, err)
	}
	done := make(chan error)
	go func() { _, _, err := p.ReadFrom(buf); done <- err }()
	p.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := p.WriteTo(buf, tipc.ServiceAddr{Type: 4711, Instance: 1}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestBindAndUnbind(t *testing.T) {
	n := start(t, tipc.Config{})
	p := packetConn(t, n, nil, nil)
	a, b := tipc.ServiceAddr{Type: 4711, Instance: 1}, tipc.ServiceRange{Type: 4712, Lower: 5, Upper: 9}
	if err := errors.Join(p.Bind(a, tipc.NodeScope), p.Bind(b, tipc.ClusterScope)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []net.Addr{a, tipc.ServiceAddr{Type: 4712, Instance: 7}} {
		if _, err := p.WriteTo([]byte("x"), to); err != nil {
			t.Errorf("%v: %v", to, err)
		}
		if _, _, err := p.ReadFrom(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	if err := p.Unbind(a, tipc.NodeScope); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteTo([]byte("x"), a); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Error("unbound: ", err)
	}
	if err := p.Unbind(a, tipc.NodeScope); !errors.Is(err, syscall.EINVAL) {
		t.Error("not bound: ", err)
	}
	if err := p.Bind(tipc.ServiceAddr{Type: 63, Instance: 1}, 0); !errors.Is(err, syscall.EACCES) {
		t.Error("reserved: ", err)
	}
	if err := p.Bind(p.LocalAddr(), 0); !errors.Is(err, syscall.EINVAL) {
		t.Error("a socket address: ", err)
	}
}

func TestSubscribe(t *testing.T) {
	n := cluster(t, 2)
	r := tipc.ServiceRange{Type: 4711, Lower: 10, Upper: 20}
	sub, err := n[0].Subscribe(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	sub.SetDeadline(time.Now().Add(within))
	p := packetConn(t, n[1], tipc.ServiceRange{Type: 4711, Lower: 15, Upper: 30}, nil)
	packetConn(t, n[1], tipc.ServiceRange{Type: 4711, Lower: 21, Upper: 30}, nil)
	ev, err := sub.Next()
	if err != nil || ev.Kind != tipc.Published || ev.Socket != p.SocketAddr() || ev.Service.Lower != 15 {
		t.Fatal(ev, err)
	}
	p.Close()
	ev, err = sub.Next()
	if err != nil || ev.Kind != tipc.Withdrawn || ev.Socket != p.SocketAddr() {
		t.Fatal(ev, err)
	}

	// A node that is lost takes its bindings with it, and is itself reported.
	nodes, err := n[0].Subscribe(tipc.ServiceRange{Type: tipc.NodeStateType, Lower: uint32(n[1].Addr()), Upper: uint32(n[1].Addr())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nodes.Close()
	nodes.SetDeadline(time.Now().Add(within))
	q := packetConn(t, n[1], tipc.ServiceAddr{Type: 4711, Instance: 10}, nil)
	if ev, err := sub.Next(); err != nil || ev.Kind != tipc.Published || ev.Socket != q.SocketAddr() {
		t.Fatal(ev, err)
	}
	if ev, err := nodes.Next(); err != nil || ev.Kind != tipc.Published {
		t.Fatal(ev, err)
	}
	n[1].Close()
	for _, s := range []*tipc.Subscription{sub, nodes} {
		if ev, err := s.Next(); err != nil || ev.Kind != tipc.Withdrawn {
			t.Fatal(ev, err)
		}
	}
}

func TestSubscribeTimeout(t *testing.T) {
	n := start(t, tipc.Config{})
	r := tipc.ServiceRange{Type: 4711, Lower: 10, Upper: 20}
	sub, err := n.Subscribe(r, &tipc.SubscribeConfig{Timeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if ev, err := sub.Next(); err != nil || ev.Kind != tipc.TimedOut {
		t.Fatal(ev, err)
	}
	if _, err := sub.Next(); err == nil {
		t.Fatal("an event after the end")
	}
	for _, cfg := range []*tipc.SubscribeConfig{{Timeout: -1}, {Timeout: time.Microsecond}} {
		if _, err := n.Subscribe(r, cfg); !errors.Is(err, syscall.EINVAL) {
			t.Error(cfg.Timeout, err)
		}
	}
}
