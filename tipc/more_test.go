package tipc_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"midplane/tipc"
)

func TestPair(t *testing.T) {
	n := start(t, tipc.Config{})
	for _, typ := range []tipc.SocketType{tipc.Stream, tipc.SeqPacket} {
		a, b, err := n.Pair(&tipc.SocketConfig{Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		if a.RemoteAddr() != b.LocalAddr() || b.RemoteAddr() != a.LocalAddr() || a.Type() != typ {
			t.Error("the ends do not fit")
		}
		if _, err := a.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 10)
		if k, err := b.Read(buf); err != nil || string(buf[:k]) != "hello" {
			t.Error(k, err)
		}
		a.Close()
		if _, err := b.Read(buf); err != io.EOF {
			t.Error(err)
		}
		b.Close()
	}
	if _, _, err := n.Pair(&tipc.SocketConfig{Type: tipc.RDM}); !errors.Is(err, syscall.EINVAL) {
		t.Error("connectionless: ", err)
	}
	n.Close()
	if _, _, err := n.Pair(nil); !errors.Is(err, net.ErrClosed) {
		t.Error("closed node: ", err)
	}
}

// The first message travels with the request for a connection; the rest is a connection like any other.
func TestDialMessage(t *testing.T) {
	n := cluster(t, 2)
	addr := tipc.ServiceAddr{Type: 4711, Instance: 7}
	cfg := &tipc.SocketConfig{Type: tipc.SeqPacket}
	l, err := n[1].Listen(addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	published(t, n[0], addr.Range())
	c, err := n[0].DialMessage(addr, []byte("request"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	buf := make([]byte, 100)
	if k, err := s.Read(buf); err != nil || string(buf[:k]) != "request" {
		t.Fatal(k, err)
	}
	if _, err := s.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(within))
	if k, err := c.Read(buf); err != nil || string(buf[:k]) != "answer" {
		t.Fatal(k, err)
	}
	if c.RemoteAddr() != s.LocalAddr() || c.LocalAddr() != s.RemoteAddr() {
		t.Error(c.RemoteAddr(), s.LocalAddr())
	}
	if _, err := c.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Read(buf); err != nil || string(buf[:k]) != "more" {
		t.Fatal(k, err)
	}

	nobody := tipc.ServiceAddr{Type: 9999, Instance: 1}
	if _, err := n[0].DialMessage(nobody, []byte("x"), cfg); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Error("nobody there: ", err)
	}
	if _, err := n[0].DialMessage(addr, nil, cfg); !errors.Is(err, syscall.EINVAL) {
		t.Error("no message: ", err)
	}
	gone := tipc.SocketAddr{Port: 1, Node: n[1].Addr()}
	c, err = n[0].DialMessage(gone, []byte("x"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(within))
	if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error("refused: ", err)
	}
}

func TestPeekAndQueued(t *testing.T) {
	n := start(t, tipc.Config{})
	p := packetConn(t, n, nil, nil)
	for _, m := range []string{"first", "second"} {
		if _, err := p.WriteTo([]byte(m), p.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	if p.Queued() != 2 {
		t.Errorf("%d queued", p.Queued())
	}
	buf := make([]byte, 100)
	for range 2 {
		if k, info, err := p.PeekMsg(buf); err != nil || string(buf[:k]) != "first" || info.From != p.SocketAddr() {
			t.Fatal(k, info, err)
		}
	}
	if k, info, err := p.PeekMsg(buf[:2]); k != 2 || !info.Truncated || err != nil {
		t.Error(k, info, err)
	}
	for _, m := range []string{"first", "second"} {
		if k, _, err := p.ReadMsg(buf); err != nil || string(buf[:k]) != m {
			t.Fatal(k, err)
		}
	}
	if p.Queued() != 0 {
		t.Errorf("%d queued", p.Queued())
	}
	p.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, _, err := p.PeekMsg(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}

	a, b, err := n.Pair(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	a.Write([]byte("stream"))
	if k, err := b.Peek(buf[:3]); err != nil || string(buf[:k]) != "str" {
		t.Error(k, err)
	}
	if b.Queued() == 0 {
		t.Error("nothing queued")
	}
	if k, err := b.Read(buf); err != nil || string(buf[:k]) != "stream" {
		t.Error(k, err)
	}
}

// A socket's own choice of how multicast travels changes nothing for the receivers.
func TestMulticastMethod(t *testing.T) {
	n := cluster(t, 3)
	r := tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 9}
	in := []*tipc.PacketConn{packetConn(t, n[1], tipc.ServiceAddr{Type: 4711, Instance: 1}, nil), packetConn(t, n[2], tipc.ServiceAddr{Type: 4711, Instance: 2}, nil)}
	for i := range uint32(2) {
		published(t, n[0], tipc.ServiceAddr{Type: 4711, Instance: i + 1}.Range())
	}
	buf := make([]byte, 10)
	for _, m := range []tipc.MulticastMethod{tipc.MulticastAuto, tipc.MulticastBroadcast, tipc.MulticastReplicast} {
		out := packetConn(t, n[0], nil, &tipc.SocketConfig{Multicast: m})
		for i := range byte(5) {
			if _, err := out.WriteTo([]byte{i}, r); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range in {
			for i := range byte(5) {
				if k, info, err := p.ReadMsg(buf); err != nil || k != 1 || buf[0] != i || info.From != out.SocketAddr() {
					t.Fatal(m, k, buf[0], info, err)
				}
			}
		}
	}
	if _, err := n[0].ListenPacket(nil, &tipc.SocketConfig{Multicast: 3}); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
}

func TestPeersAndLinks(t *testing.T) {
	n := cluster(t, 2)
	peers, links := n[0].Peers(), n[0].Links()
	if len(peers) != 1 || !peers[0].Up || peers[0].Addr != n[1].Addr() || peers[0].Identity != n[1].Identity() {
		t.Errorf("%+v", peers)
	}
	if len(links) != 1 || links[0].Name != "node1:m-node2:m" || links[0].Bearer != "eth:m" || links[0].Peer != n[1].Addr() ||
		!links[0].Up || !links[0].Active || links[0].Tolerance != 1500*time.Millisecond || links[0].Priority != 10 {
		t.Errorf("%+v", links)
	}
}
