package fpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"midplane/fib"
	"midplane/internal/fib/rtnl"
	"midplane/internal/lab"
)

// start serves a Session on loopback.
func start(t *testing.T, c Config) (*Server, *fib.Set, string) {
	t.Helper()
	set, err := fib.New(&fib.Config{Size: 16 << 20, MaxFIBs: 64, MaxNextHops: 1024})
	if err != nil {
		t.Fatal(err)
	}
	c.Feed.Create = true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := NewServer(NewSession(set, c))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		set.Close()
	})
	return v, set, l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(lab.Patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// answered reads one answer.
func answered(t *testing.T, c net.Conn) (flags uint32) {
	t.Helper()
	h := make([]byte, headerSize)
	if _, err := io.ReadFull(c, h); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, int(binary.BigEndian.Uint16(h[2:]))-headerSize)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	var d rtnl.Decoder
	m, _, err := d.Next(b)
	if err != nil {
		t.Fatal(err)
	}
	return m.Route.Flags
}

// closed fails the test unless the peer closes the connection.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n != 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Fatalf("%d octets, %v: not closed", n, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestServerAnswersAndCloses(t *testing.T) {
	v, _, addr := start(t, Config{})
	c := dial(t, addr)
	for i := range byte(5) { // an octet at a time
		for _, o := range frame(add(fmt.Sprintf("10.%d.0.0/16", i), 1)) {
			send(t, c, []byte{o})
		}
		if f := answered(t, c); f != rtnl.RouteOffload {
			t.Fatalf("flags %#x", f)
		}
	}
	send(t, c, []byte("GET / HTTP/1.1\r\n\r\n"))
	closed(t, c)
	if err := v.LastError(); err != nil && !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
	c = dialServed(t, v, addr) // and is ready for the next
	send(t, c, frame(add("10.9.0.0/16", 1)))
	if f := answered(t, c); f != rtnl.RouteOffload {
		t.Fatalf("flags %#x", f)
	}
	if n, _ := v.Counters(); n.BadVersion != 1 || n.Connects != 2 || n.Feed.Routes != 6 {
		t.Errorf("%+v", n)
	}
	v.Resync()
	closed(t, c)
}

// dialServed connects until the connection is the one that is served: that of before may not be over yet.
func dialServed(t *testing.T, v *Server, addr string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(lab.Patience); time.Now().Before(deadline); {
		was, _ := v.Counters()
		c := dial(t, addr)
		hello := append(frame(object(&rtnl.NextHop{ID: 1, Family: rtnl.FamilyIPv4, Device: 1})), frame(add("10.9.0.0/16", 9))...)
		if _, err := c.Write(hello); err != nil {
			continue // refused before we wrote
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
			var rest [4]byte
			if _, err := io.ReadFull(c, rest[:3]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint16(rest[1:]))-headerSize); err != nil {
				t.Fatal(err)
			}
			return c
		}
		if is, _ := v.Counters(); is.Connects > was.Connects {
			t.Fatal("closed after it was accepted")
		}
	}
	t.Fatal("not served")
	return nil
}

func TestSecondClientIsRefused(t *testing.T) {
	v, _, addr := start(t, Config{})
	first := dial(t, addr)
	send(t, first, frame(add("10.0.0.0/8", 1)))
	answered(t, first)
	for range 3 {
		second := dial(t, addr)
		closed(t, second)
	}
	send(t, first, frame(add("10.0.0.0/8", 2)))
	answered(t, first)
	if c, refused := v.Counters(); refused != 3 || c.Connects != 1 || c.Feed.Replaced != 1 {
		t.Errorf("%d refused, %+v", refused, c)
	}
}

func TestHalfAFrameThenSilence(t *testing.T) {
	v, set, addr := start(t, Config{Partial: 50 * time.Millisecond})
	c := dial(t, addr)
	send(t, c, frame(add("10.0.0.0/8", 1)))
	answered(t, c)
	send(t, c, frame(add("11.0.0.0/8", 1))[:20])
	closed(t, c)
	dialServed(t, v, addr)
	if n, _ := v.Counters(); n.BadPartial != 1 || n.Cut != 1 {
		t.Errorf("%+v", n)
	}
	tab, _ := set.Table(254)
	if _, ok := tab.Get(netip.MustParsePrefix("10.0.0.0/8")); !ok {
		t.Error("the route went with the connection")
	}
}

// A peer that only sends is held back by TCP, for it does not read its answers: little is kept for it.
func TestFloodWithoutReading(t *testing.T) {
	v, _, addr := start(t, Config{})
	c := dial(t, addr)
	one := frame(add("10.0.0.0/8", 1))
	many := bytes.Repeat(one, 1<<20/len(one))
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for sent < 1<<30 {
		n, err := c.Write(many)
		sent += n
		if isTimeout(err) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if sent >= 1<<30 {
		t.Fatal("1 GB was taken from a peer that reads nothing")
	}
	var n Counters
	if _, ok := lab.Until(lab.Patience, func() bool { n, _ = v.Counters(); return n.Feed.Routes == 1 }); !ok {
		t.Fatalf("%+v", n)
	}
	v.mu.Lock()
	kept := cap(v.s.in) + cap(v.s.out)
	v.mu.Unlock()
	if kept > 4*readSize {
		t.Errorf("%d octets are kept, %+v", kept, n)
	}
	// Once it reads, all goes on.
	go io.Copy(io.Discard, c)
	if err := c.SetWriteDeadline(time.Now().Add(lab.Patience)); err != nil {
		t.Fatal(err)
	}
	rest := len(one) - sent%len(one)
	send(t, c, append(bytes.Clone(one[len(one)-rest:]), frame(add("11.0.0.0/8", 1))...))
	if _, ok := lab.Until(lab.Patience, func() bool { n, _ = v.Counters(); return n.Feed.Routes == 2 }); !ok {
		t.Fatalf("%+v", n)
	}
}
