package engine

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"midplane/internal/tipc/sockif"
)

// leading makes a receiver of c that waits by reading packets itself, and returns when it does.
func leading(t *testing.T, e *Engine, c, s *Socket) (result chan error) {
	t.Helper()
	buf := make([]byte, 10)
	for range 100 {
		go s.Send(make([]byte, 10), sockif.Dest{})
		if _, _, err := c.Recv(buf); err != nil {
			t.Fatal(err)
		}
		result = make(chan error, 1)
		go func() { _, _, err := c.Recv(make([]byte, 10)); result <- err }()
		for range 20 {
			e.mu.Lock()
			led := c.via != nil && c.via.user == c
			e.mu.Unlock()
			if led {
				return result
			}
			time.Sleep(100 * time.Microsecond)
		}
		s.Send(make([]byte, 10), sockif.Dest{})
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the receiver does not lead")
	return nil
}

// A user who reads packets himself notices all the same what else ends his wait.
func TestLeaderIsKicked(t *testing.T) {
	a, b := udpPair(t, 0)
	kicks := func() uint64 { p, _ := a.Bearer("udp:u"); return p.Stats().RxEmpty }
	for _, test := range []struct {
		name string
		do   func(c *Socket) error
		want error
	}{
		{"deadline", func(c *Socket) error { return c.SetReadDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		{"deadline in the past", func(c *Socket) error { return c.SetReadDeadline(time.Now().Add(-time.Second)) }, os.ErrDeadlineExceeded},
		{"close", (*Socket).Close, net.ErrClosed},
	} {
		c, s := connect(t, a, b, sockif.SeqPacket)
		result := leading(t, a, c, s)
		before := kicks()
		if err := test.do(c); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if kicks() == before {
			t.Errorf("%s: the wait ended without a kick", test.name)
		}
		s.Close()
	}
	c, s := connect(t, a, b, sockif.SeqPacket)
	result := leading(t, a, c, s)
	a.Close()
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// Packets are read although the user who led the reader last does something else.
func TestVacantReaderIsTakenOver(t *testing.T) {
	a, b := udpPair(t, 0)
	c, s := connect(t, a, b, sockif.SeqPacket)
	result := leading(t, a, c, s)
	if _, err := s.Send([]byte("x"), sockif.Dest{}); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	// Nobody receives on a now. That its engine reads shows in new connections.
	c2, s2 := connect(t, a, b, sockif.Stream)
	defer c2.Close()
	defer s2.Close()
	// And two receivers at the same time, of which only one can lead.
	r1 := make(chan error, 1)
	go func() { _, _, err := c.Recv(make([]byte, 10)); r1 <- err }()
	r2 := make(chan error, 1)
	go func() { _, _, err := c2.Recv(make([]byte, 10)); r2 <- err }()
	if _, err := s2.Send([]byte("y"), sockif.Dest{}); err != nil {
		t.Fatal(err)
	}
	if err := <-r2; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Send([]byte("z"), sockif.Dest{}); err != nil {
		t.Fatal(err)
	}
	if err := <-r1; err != nil {
		t.Fatal(err)
	}
}
