package tipc_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"midplane/tipc"
)

// A stream is a net.Conn by x/net's own test.
func TestNettestConn(t *testing.T) {
	for name, nodes := range map[string]func(testing.TB) (a, b *tipc.Node){
		"one node": func(t testing.TB) (a, b *tipc.Node) { n := start(t, tipc.Config{}); return n, n },
		"memory":   func(t testing.TB) (a, b *tipc.Node) { n := cluster(t, 2); return n[0], n[1] },
		"udp":      func(t testing.TB) (a, b *tipc.Node) { n := udpCluster(t, 2); return n[0], n[1] },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := nodes(t)
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				c, s := pair(t, a, b, tipc.Stream)
				return c, s, func() { c.Close(); s.Close() }, nil
			})
		})
	}
}

func TestStreamBulk(t *testing.T) {
	n := udpCluster(t, 2)
	c, s := pair(t, n[0], n[1], tipc.Stream)
	const total = 8 << 20
	rnd := rand.NewChaCha8([32]byte{1})
	sum := make(chan []byte, 1)
	go func() {
		h := sha256.New()
		io.CopyN(io.MultiWriter(c, h), rnd, total)
		c.Close()
		sum <- h.Sum(nil)
	}()
	h := sha256.New()
	got, err := io.Copy(h, s)
	if right := bytes.Equal(h.Sum(nil), <-sum); err != nil || got != total || !right {
		t.Fatalf("%d of %d octets, %v, sum right: %v", got, total, err, right)
	}
}

func TestSeqPacketKeepsBoundaries(t *testing.T) {
	n := cluster(t, 2)
	c, s := pair(t, n[0], n[1], tipc.SeqPacket)
	sizes := []int{1, 40, 1400, 14000, 65536, tipc.MaxMessage}
	go func() {
		for _, size := range sizes {
			if _, err := c.Write(bytes.Repeat([]byte{byte(size)}, size)); err != nil {
				t.Error(err)
			}
		}
	}()
	buf := make([]byte, tipc.MaxMessage+1)
	for _, size := range sizes {
		k, err := s.Read(buf)
		if err != nil || k != size || buf[k-1] != byte(size) {
			t.Fatalf("%d octets of %d, %v", k, size, err)
		}
	}
	if _, err := c.Write(buf); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("too large: %v", err)
	}
	if _, err := c.Write([]byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	if k, info, err := s.ReadMsg(buf[:4]); k != 4 || err != nil || !info.Truncated || info.From != c.LocalAddr() {
		t.Errorf("cut message: %d, %+v, %v", k, info, err)
	}
	if c.LocalAddr() != s.RemoteAddr() || s.LocalAddr() != c.RemoteAddr() {
		t.Error("addresses of the ends differ")
	}
}

func TestDialErrors(t *testing.T) {
	n := start(t, tipc.Config{})
	nobody := tipc.ServiceAddr{Type: 9999, Instance: 1}
	_, err := n.Dial(nobody, nil)
	var op *tipc.OpError
	if !errors.As(err, &op) || op.Op != "dial" || op.Addr != net.Addr(nobody) || !(errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ECONNREFUSED)) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := n.Dial(tipc.ServiceRange{Type: 9999, Upper: 1}, nil); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a range: %v", err)
	}
	if _, err := n.Dial(nobody, &tipc.SocketConfig{Type: tipc.RDM}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("connectionless type: %v", err)
	}
	if _, err := n.Listen(tipc.ServiceAddr{Type: 1, Instance: 1}, nil); !errors.Is(err, syscall.EACCES) {
		t.Errorf("reserved type: %v", err)
	}
	// A socket that is not there refuses.
	p := packetConn(t, n, nil, nil)
	gone := p.SocketAddr()
	p.Close()
	if _, err := n.Dial(gone, nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused: %v", err)
	}
}

// Losing the peer's node breaks a connection without any keep-alive; closing it in order ends it with EOF.
func TestPeerLoss(t *testing.T) {
	n := cluster(t, 2)
	c, _ := pair(t, n[0], n[1], tipc.Stream)
	c2, s2 := pair(t, n[0], n[1], tipc.Stream)
	s2.Close()
	c2.SetReadDeadline(time.Now().Add(within))
	if _, err := c2.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("orderly end: %v", err)
	}
	n[1].Internals().Abort()
	c.SetReadDeadline(time.Now().Add(within))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || !errors.Is(err, tipc.CodeNoNode) {
		t.Errorf("lost node: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write after the loss: %v", err)
	}
}

func TestListenerDeadlineAndClose(t *testing.T) {
	n := start(t, tipc.Config{})
	l, err := n.Listen(tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 9}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.Addr() != net.Addr(tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 9}) {
		t.Error(l.Addr())
	}
	l.SetDeadline(time.Now().Add(time.Millisecond))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	l.SetDeadline(time.Time{})
	done := make(chan error)
	go func() { _, err := l.Accept(); done <- err }()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error("second Close: ", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := n.Listen(tipc.ServiceAddr{Type: 4711}, nil); !errors.Is(err, net.ErrClosed) {
		t.Error("on a closed node: ", err)
	}
}

// Many goroutines share connections and nodes.
func TestConcurrentUse(t *testing.T) {
	n := cluster(t, 3)
	addr := tipc.ServiceAddr{Type: 4711, Instance: 7}
	for _, s := range n[:2] {
		l, err := s.Listen(addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		}()
	}
	published(t, n[2], addr.Range())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c, err := n[2].Dial(addr, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 100)
			for range 20 {
				if _, err := c.Write(buf); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
