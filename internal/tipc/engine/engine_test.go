package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

var service = wire.ServiceRange{Type: 4711, Lower: 7, Upper: 7}

var toService = sockif.Dest{Kind: sockif.ServiceDest, Range: service}

func newEngine(t testing.TB, id string, hub *bearer.Hub) *Engine {
	t.Helper()
	cfg := Config{}
	copy(cfg.ID[:], id)
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if hub != nil {
		if err := e.EnableBearer(hub.Open("eth:m"), linkDefaults); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

var linkDefaults = stack.Bearer{Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: 8191}

func newSocket(t testing.TB, e *Engine, typ sockif.Type) *Socket {
	t.Helper()
	s, err := e.Socket(typ, sockif.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Socket)
}

// linked waits for contact between two engines. In a bubble the time is not real.
func linked(t testing.TB, es ...*Engine) {
	t.Helper()
	for _, e := range es {
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
			up := 0
			e.Do(func(_ mono.Time, s *stack.Stack) {
				for n := range s.Nodes().Nodes() {
					if n.Up {
						up++
					}
				}
			})
			if up == len(es)-1 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("no contact")
			}
		}
	}
}

func connect(t testing.TB, a, b *Engine, typ sockif.Type) (c, s *Socket) {
	t.Helper()
	l := newSocket(t, b, typ)
	defer l.Close()
	if err := errors.Join(l.Listen(0), l.Bind(service, wire.ScopeCluster)); err != nil {
		t.Fatal(err)
	}
	known := func() (ok bool) {
		a.Do(func(_ mono.Time, s *stack.Stack) { _, ok = s.Names().Lookup(4711, 7, 0) })
		return ok
	}
	for end := time.Now().Add(2 * time.Minute); !known(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the binding does not arrive")
		}
	}
	c = newSocket(t, a, typ)
	accepted := make(chan sockif.Socket, 1)
	go func() {
		s, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- s
	}()
	if err := c.Connect(context.Background(), toService); err != nil {
		t.Fatal(err)
	}
	s, _ = (<-accepted).(*Socket)
	if s == nil {
		t.FailNow()
	}
	return c, s
}

// Two nodes in virtual time: contact, a connection, and the loss of a node within the tolerance.
func TestTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub bearer.Hub
		start := time.Now()
		a, b := newEngine(t, "a", &hub), newEngine(t, "b", &hub)
		linked(t, a, b)
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("contact took %v", d)
		}
		c, s := connect(t, a, b, sockif.Stream)
		go c.Send([]byte("hello"), sockif.Dest{})
		buf := make([]byte, 10)
		if n, _, err := s.Recv(buf); err != nil || string(buf[:n]) != "hello" {
			t.Fatal(n, err)
		}
		start = time.Now()
		b.Abort()
		if _, _, err := c.Recv(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 500*time.Millisecond || d > 2500*time.Millisecond { // the kernel counts 5 to 6 quarters of the tolerance
			t.Errorf("the loss was noticed after %v", d)
		}
		if _, _, err := s.Recv(buf); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		a.Close()
	})
}

// A node that stops in order is gone for its peers at once.
func TestCloseTellsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub bearer.Hub
		a, b := newEngine(t, "a", &hub), newEngine(t, "b", &hub)
		linked(t, a, b)
		c, _ := connect(t, a, b, sockif.SeqPacket)
		start := time.Now()
		go b.Close()
		if _, _, err := c.Recv(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		up := true
		for end := time.Now().Add(time.Second); up && time.Now().Before(end); time.Sleep(time.Millisecond) {
			a.Do(func(_ mono.Time, s *stack.Stack) {
				for n := range s.Nodes().Nodes() {
					up = n.Up
				}
			})
		}
		if up || time.Since(start) > 200*time.Millisecond {
			t.Errorf("up %v after %v", up, time.Since(start))
		}
		a.Close()
	})
}

// Blocked calls end with their deadline, their context, their socket or their node, each with its error.
func TestBlockedCallsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, "a", nil)
		c, s := connect(t, e, e, sockif.SeqPacket)
		buf := make([]byte, 60000)
		fill := func() error {
			for {
				if _, err := c.Send(buf, sockif.Dest{}); err != nil {
					return err
				}
			}
		}
		recv := func() error { _, _, err := c.Recv(buf); return err }
		for name, call := range map[string]func() error{"recv": recv, "send": fill} {
			start := time.Now()
			c.SetReadDeadline(start.Add(time.Second))
			c.SetWriteDeadline(start.Add(time.Second))
			if err := call(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		}
		c.SetReadDeadline(time.Time{})
		c.SetWriteDeadline(time.Time{})
		errs := make(chan error, 4)
		for range 2 {
			go func() { errs <- fill() }()
			go func() { errs <- recv() }()
		}
		synctest.Wait()
		c.Close()
		for range 4 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Error("close: ", err)
			}
		}

		l := newSocket(t, e, sockif.Stream)
		l.Listen(0)
		go func() { _, err := l.Accept(); errs <- err }()
		go func() {
			for {
				if _, _, err := s.Recv(buf); err != nil {
					errs <- err
					return
				}
			}
		}()
		if err := <-errs; err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Error("peer closed: ", err)
		}
		synctest.Wait()
		e.Close()
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Error("node closed: ", err)
		}
		if _, err := e.Socket(sockif.RDM, sockif.Options{}); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := e.Close(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// Connect to a listener that never accepts ends with the context or the socket's own time limit.
func TestConnectGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, "a", nil)
		defer e.Close()
		l := newSocket(t, e, sockif.Stream)
		if err := errors.Join(l.Listen(0), l.Bind(service, wire.ScopeCluster)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		c := newSocket(t, e, sockif.Stream)
		if err := c.Connect(ctx, toService); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		start = time.Now()
		c = newSocket(t, e, sockif.Stream)
		if err := c.Connect(t.Context(), toService); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) < 7*time.Second || time.Since(start) > 9*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// gateBearer counts batches, and holds the first one back until it is let go.
type gateBearer struct {
	bearer.Bearer
	hold    chan struct{}
	entered chan struct{}
	mu      sync.Mutex
	batches []int
}

func (g *gateBearer) WriteBatch(b *buf.Batch, id int) error {
	g.mu.Lock()
	g.batches = append(g.batches, b.Len())
	first := len(g.batches) == 1
	g.mu.Unlock()
	if first {
		close(g.entered)
		<-g.hold
	}
	return g.Bearer.WriteBatch(b, id)
}

// While one goroutine sends, the datagrams of others gather, and go out together.
func TestBatchesGrowWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub bearer.Hub
		a, b := newEngine(t, "a", nil), newEngine(t, "b", &hub)
		defer a.Close()
		defer b.Close()
		g := &gateBearer{Bearer: hub.Open("eth:g"), hold: make(chan struct{}), entered: make(chan struct{}), batches: []int{0}}
		if err := a.EnableBearer(g, linkDefaults); err != nil {
			t.Fatal(err)
		}
		linked(t, a, b)
		dst := newSocket(t, b, sockif.RDM)
		var socks []*Socket
		for range 20 {
			socks = append(socks, newSocket(t, a, sockif.RDM))
		}
		g.mu.Lock()
		g.batches = nil
		g.mu.Unlock()
		to := sockif.Dest{Kind: sockif.SocketDest, Addr: dst.LocalAddr()}
		first := make(chan error)
		go func() { _, err := socks[0].Send([]byte("x"), to); first <- err }()
		<-g.entered
		for _, s := range socks[1:] {
			if _, err := s.Send([]byte("x"), to); err != nil { // does not wait for the sender
				t.Fatal(err)
			}
		}
		close(g.hold)
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		for range socks {
			if _, _, err := dst.Recv(buf); err != nil {
				t.Fatal(err)
			}
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.batches) < 2 || g.batches[1] < len(socks)-1 {
			t.Errorf("batches %v", g.batches)
		}
	})
}

// No wakeup is lost between many senders and receivers; a lost one would hang the bubble.
func TestNoLostWakeups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub bearer.Hub
		a, b := newEngine(t, "a", &hub), newEngine(t, "b", &hub)
		defer a.Close()
		defer b.Close()
		linked(t, a, b)
		var wg sync.WaitGroup
		for range 8 {
			c, s := connect(t, a, b, sockif.SeqPacket)
			wg.Go(func() { // echo
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
			})
			wg.Go(func() {
				defer c.Close()
				buf := make([]byte, 30000)
				var in sync.WaitGroup
				in.Go(func() {
					got := make([]byte, 66000)
					for range 100 {
						if _, _, err := c.Recv(got); err != nil {
							t.Error(err)
							return
						}
					}
				})
				for i := range 100 {
					if _, err := c.Send(buf[:1+i*299], sockif.Dest{}); err != nil {
						t.Error(err)
						break
					}
				}
				in.Wait()
			})
		}
		wg.Wait()
	})
}

func TestDisableBearer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub bearer.Hub
		a, b := newEngine(t, "a", &hub), newEngine(t, "b", &hub)
		defer a.Close()
		defer b.Close()
		linked(t, a, b)
		if err := a.EnableBearer(hub.Open("eth:m"), linkDefaults); err == nil {
			t.Error("the same bearer twice")
		}
		start := time.Now()
		if err := a.DisableBearer("eth:m"); err != nil {
			t.Fatal(err)
		}
		for up := true; up; time.Sleep(time.Millisecond) {
			b.Do(func(_ mono.Time, s *stack.Stack) {
				for n := range s.Nodes().Nodes() {
					up = n.Up
				}
			})
			if time.Since(start) > 200*time.Millisecond {
				t.Fatal("the peer was not told")
			}
		}
		if err := a.DisableBearer("eth:m"); !errors.Is(err, stack.ErrNoBearer) {
			t.Error(err)
		}
		if err := a.EnableBearer(hub.Open("eth:m"), linkDefaults); err != nil {
			t.Error(err)
		}
		linked(t, a, b)
	})
}

// Messages cost no memory in steady state, from the sender's call to the receiver's.
func TestNoAllocationPerMessage(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	t.Run("one node", func(t *testing.T) {
		e := newEngine(t, "x", nil)
		defer e.Close()
		noAllocations(t, e, e)
	})
	t.Run("two nodes", func(t *testing.T) {
		var hub bearer.Hub
		a, b := newEngine(t, "a", &hub), newEngine(t, "b", &hub)
		defer a.Close()
		defer b.Close()
		linked(t, a, b)
		noAllocations(t, a, b)
	})
}

func noAllocations(t *testing.T, x, y *Engine) {
	for _, typ := range []sockif.Type{sockif.Stream, sockif.SeqPacket, sockif.RDM} {
		for _, size := range []int{64, 1400} {
			var c, s *Socket
			var to, back sockif.Dest
			if typ.Connected() {
				c, s = connect(t, x, y, typ)
			} else {
				c, s = newSocket(t, x, typ), newSocket(t, y, typ)
				to = sockif.Dest{Kind: sockif.SocketDest, Addr: s.LocalAddr()}
				back = sockif.Dest{Kind: sockif.SocketDest, Addr: c.LocalAddr()}
			}
			go func() {
				buf := make([]byte, 66000)
				for {
					n, _, err := s.Recv(buf)
					if err != nil {
						return
					}
					if _, err := s.Send(buf[:n], back); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, size)
			roundTrip := func() {
				if _, err := c.Send(buf, to); err != nil {
					t.Fatal(err)
				}
				if _, _, err := c.Recv(buf); err != nil {
					t.Fatal(err)
				}
			}
			for range 2000 {
				roundTrip()
			}
			runtime.GC()
			for range 100 {
				roundTrip()
			}
			// The collector may empty pools meanwhile: that is not a cost of messages.
			if n := testing.AllocsPerRun(2000, roundTrip); n >= 0.5 {
				t.Errorf("type %d, %d octets: %.2f allocations a round trip", typ, size, n)
			}
			c.Close()
			s.Close()
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	b.Run("one node", func(b *testing.B) {
		e := newEngine(b, "x", nil)
		defer e.Close()
		roundTrips(b, e, e)
	})
	b.Run("memory", func(b *testing.B) {
		var hub bearer.Hub
		x, y := newEngine(b, "a", &hub), newEngine(b, "b", &hub)
		defer x.Close()
		defer y.Close()
		linked(b, x, y)
		roundTrips(b, x, y)
	})
}

func roundTrips(b *testing.B, x, y *Engine) {
	c, s := connect(b, x, y, sockif.SeqPacket)
	go func() {
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
	}()
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Send(buf, sockif.Dest{}); err != nil {
			b.Fatal(err)
		}
		if _, _, err := c.Recv(buf); err != nil {
			b.Fatal(err)
		}
	}
}
