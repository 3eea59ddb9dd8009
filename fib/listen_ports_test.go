package fib

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"midplane/internal/fib/binding"
)

var (
	_ net.Listener   = (*PortListener)(nil)
	_ net.PacketConn = (*PortPacketConn)(nil)
)

// patience bounds what is waited for.
const patience = 2 * time.Minute

// newTestListener has two sockets of loopback in the place of two ports.
func newTestListener(t *testing.T) (*PortListener, []string) {
	t.Helper()
	var members []member[net.Listener]
	var addrs []string
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		l, err := net.Listen("tcp4", host+":0")
		if err != nil {
			t.Skipf("no second loopback address: %v", err)
		}
		members = append(members, member[net.Listener]{host, l})
		addrs = append(addrs, l.Addr().String())
	}
	l := newPortListener(members)
	t.Cleanup(func() { _ = l.Close() })
	return l, addrs
}

func TestPortListenerAcceptsFromEach(t *testing.T) {
	l, addrs := newTestListener(t)
	var clients []net.Conn
	for range 3 {
		for _, a := range addrs {
			c, err := net.DialTimeout("tcp4", a, patience)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients = append(clients, c)
		}
	}
	seen := map[string]bool{}
	for range clients {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		seen[c.RemoteAddr().String()] = true
		_ = c.Close()
	}
	for _, c := range clients {
		if !seen[c.LocalAddr().String()] {
			t.Errorf("connection from %v was not accepted", c.LocalAddr())
		}
	}
}

func TestPortListenerEnds(t *testing.T) {
	l, addrs := newTestListener(t)
	if err := l.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	var ne net.Error
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("past deadline: %v", err)
	}
	// A deadline that is set while somebody waits holds for him too, and so does its removal.
	_ = l.SetDeadline(time.Time{})
	result := make(chan error, 1)
	go func() { _, err := l.Accept(); result <- err }()
	_ = l.SetDeadline(time.Now().Add(time.Hour))
	_ = l.SetDeadline(time.Now().Add(time.Millisecond))
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline while waiting: %v", err)
	}
	_ = l.SetDeadline(time.Time{})
	// A connection that nobody asked for is closed with the listener.
	c, err := net.DialTimeout("tcp4", addrs[0], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c2, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c2.Close()
	go func() { _, err := l.Accept(); result <- err }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept while it closes: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	for _, a := range addrs {
		if c, err := net.DialTimeout("tcp4", a, patience); err == nil {
			_ = c.Close()
			t.Errorf("%s is still listened to", a)
		}
	}
}

func TestPortListenerCloseWhileConnectionsCome(t *testing.T) {
	l, addrs := newTestListener(t)
	var wg sync.WaitGroup
	for range 4 {
		for _, a := range addrs {
			wg.Go(func() {
				c, err := net.DialTimeout("tcp4", a, patience)
				if err != nil {
					return // it came too late
				}
				defer c.Close()
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("a connection stays open: %v", err)
				}
			})
		}
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_ = c.Close()
	wg.Wait()
}

func newTestPacketConn(t *testing.T) (*PortPacketConn, []net.Addr) {
	t.Helper()
	var members []member[net.PacketConn]
	var addrs []net.Addr
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		c, err := net.ListenPacket("udp4", host+":0")
		if err != nil {
			t.Skipf("no second loopback address: %v", err)
		}
		members = append(members, member[net.PacketConn]{host, c})
		addrs = append(addrs, c.LocalAddr())
	}
	c := newPortPacketConn(binding.Binding{FIB: 1, Backend: binding.Rules}, members)
	t.Cleanup(func() { _ = c.Close() })
	return c, addrs
}

func TestPortPacketConnReadsFromEach(t *testing.T) {
	c, addrs := newTestPacketConn(t)
	client, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	big := bytes.Repeat([]byte("x"), 9000)
	want := map[string]int{}
	for i, a := range addrs {
		for k := range 3 {
			b := big[:1+1000*i+k]
			want[string(b)]++
			if _, err := client.WriteTo(b, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	buffer := make([]byte, maxDatagram)
	for range 6 {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			t.Fatal(err)
		}
		if from.String() != client.LocalAddr().String() {
			t.Errorf("from %v", from)
		}
		want[string(buffer[:n])]--
	}
	for text, n := range want {
		if n != 0 {
			t.Errorf("%d packets of %d octets too few", n, len(text))
		}
	}
	// What does not fit is lost, as with a socket.
	if _, err := client.WriteTo([]byte("abcdef"), addrs[0]); err != nil {
		t.Fatal(err)
	}
	if n, _, err := c.ReadFrom(buffer[:3]); n != 3 || err != nil || string(buffer[:3]) != "abc" {
		t.Errorf("into 3 octets: %d %q, %v", n, buffer[:n], err)
	}
}

func TestPortPacketConnEnds(t *testing.T) {
	c, addrs := newTestPacketConn(t)
	_ = c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, _, err := c.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past deadline: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	result := make(chan error, 1)
	go func() { _, _, err := c.ReadFrom(nil); result <- err }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read while it closes: %v", err)
	}
	if _, err := c.WriteTo(nil, addrs[0]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

// closer is a socket that knows whether it was closed.
type closer struct {
	number int
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

func TestForPortsTakesOneNumberForAll(t *testing.T) {
	addr := func(c closer) net.Addr { return &net.TCPAddr{Port: c.number} }
	closed := 0
	attempt := 0
	var asked []string
	open := func(port, address string) (closer, error) {
		asked = append(asked, port+" "+address)
		if port == "a" {
			attempt++
			return closer{1000 + attempt, &closed}, nil
		}
		if attempt < 3 { // the number is free at a, taken at b
			return closer{}, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
		}
		return closer{1000 + attempt, &closed}, nil
	}
	l, err := forPorts([]string{"a", "b"}, ":0", open, addr)
	if err != nil || len(l) != 2 || l[0].socket.number != l[1].socket.number || closed != 2 {
		t.Errorf("%+v, %v, %d closed", l, err, closed)
	}
	if want := "a :0,b :1001,a :0,b :1002,a :0,b :1003"; join(asked) != want {
		t.Errorf("asked for %s", join(asked))
	}
	attempt, closed, asked = 0, 0, nil
	if l, err := forPorts([]string{"a", "b"}, "192.0.2.1:80", open, addr); !errors.Is(err, syscall.EADDRINUSE) || l != nil || closed != 1 || attempt != 1 {
		t.Errorf("a number that is asked for is not tried again: %v, %d closed, %d attempts", err, closed, attempt)
	}
	never := func(port, address string) (closer, error) {
		if port == "a" {
			return closer{1, &closed}, nil
		}
		return closer{}, syscall.EADDRINUSE
	}
	closed = 0
	if _, err := forPorts([]string{"a", "b"}, ":0", never, addr); !errors.Is(err, syscall.EADDRINUSE) || closed != portAttempts {
		t.Errorf("no number is free: %v after %d attempts", err, closed)
	}
}

func join(l []string) string { return string(bytes.Join(octets(l), []byte(","))) }

func octets(l []string) (b [][]byte) {
	for _, s := range l {
		b = append(b, []byte(s))
	}
	return b
}
