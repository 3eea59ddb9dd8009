package engine

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/sockif"
)

// countingBearer counts who read its packets: a leader looks, the goroutine waits.
type countingBearer struct {
	bearer.Bearer
	bearer.Reader
	looked, waited atomic.Int64
}

func (c *countingBearer) Readers() []bearer.Reader { return []bearer.Reader{c} }

func (c *countingBearer) ReadBatch(p []bearer.Packet) (int, error) {
	n, err := c.Reader.ReadBatch(p)
	c.waited.Add(int64(n))
	return n, err
}

func (c *countingBearer) TryReadBatch(p []bearer.Packet) (int, error) {
	n, err := c.Reader.TryReadBatch(p)
	c.looked.Add(int64(n))
	return n, err
}

// leadingPair is two nodes, whose first's bearer is counted.
func leadingPair(t *testing.T) (a, b *Engine, c *countingBearer) {
	var hub bearer.Hub
	a, b = newEngine(t, "a", nil), newEngine(t, "b", &hub)
	p := hub.Open("eth:m")
	c = &countingBearer{Bearer: p, Reader: p.Readers()[0]}
	if err := a.EnableBearer(c, linkDefaults); err != nil {
		t.Fatal(err)
	}
	linked(t, a, b)
	return a, b, c
}

func echo(s *Socket) {
	buf := make([]byte, 66000)
	for {
		n, _, err := s.Recv(buf)
		if err != nil {
			return
		}
		if _, err := s.Send(buf[:n], sockif.Dest{}); err != nil {
			return
		}
	}
}

func turns(t *testing.T, c *Socket, n int) {
	t.Helper()
	buf := make([]byte, 64)
	for range n {
		if _, err := c.Send(buf, sockif.Dest{}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Recv(buf); err != nil {
			t.Fatal(err)
		}
	}
}

// The receiver reads the answers itself, and when it no longer does, the goroutine does so again, soon.
func TestReceiverLeads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		a, b, count := leadingPair(t)
		defer a.Close()
		defer b.Close()
		c, s := connect(t, a, b, sockif.SeqPacket)
		go echo(s)
		turns(t, c, 1000)
		// How many depends on how fast the other end's goroutines are.
		if l, w := count.looked.Load(), count.waited.Load(); l < 50 {
			t.Errorf("%d packets were read by the receiver, %d by the goroutine", l, w)
		}
		// The receiver does something else. What comes for others is handled all the same.
		to, from := newSocket(t, a, sockif.RDM), newSocket(t, b, sockif.RDM)
		for range 3 {
			start := time.Now()
			if _, err := from.Send([]byte("x"), sockif.Dest{Kind: sockif.SocketDest, Addr: to.LocalAddr()}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := to.Recv(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d > 3*guardTime {
				t.Errorf("it took %v", d)
			}
			turns(t, c, 100)
		}
		c.Close()
	})
}

// With two receivers waiting nobody leads: one would hold up the other.
func TestNobodyLeadsForTwo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		a, b, count := leadingPair(t)
		defer a.Close()
		defer b.Close()
		c, s := connect(t, a, b, sockif.SeqPacket)
		idle, _ := connect(t, a, b, sockif.SeqPacket)
		go echo(s)
		go idle.Recv(make([]byte, 1))
		synctest.Wait()
		before := count.looked.Load()
		turns(t, c, 100)
		if n := count.looked.Load() - before; n != 0 {
			t.Errorf("%d packets were read by a receiver", n)
		}
		c.Close()
		idle.Close()
	})
}

// A leader that looks in vain does not do so for ever: its own deadline and Close end the call.
func TestLeaderGivesUp(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := leadingPair(t)
		defer b.Close()
		c, s := connect(t, a, b, sockif.SeqPacket)
		go echo(s)
		turns(t, c, 200)
		start := time.Now()
		c.SetReadDeadline(start.Add(time.Second))
		if _, _, err := c.Recv(make([]byte, 1)); err == nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		c.SetReadDeadline(time.Time{})
		turns(t, c, 200)
		done := make(chan error)
		go func() { _, _, err := c.Recv(make([]byte, 1)); done <- err }()
		synctest.Wait()
		a.Close()
		if err := <-done; err == nil {
			t.Error("no error from a closed node")
		}
	})
}
