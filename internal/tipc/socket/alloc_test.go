package socket

import (
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// direct joins two Tables without delay: what one sends the other has received when Xmit returns.
type direct struct {
	node
	peer *direct
	mtu  int
	r    msg.Reassembler
}

func (n *direct) Xmit(now mono.Time, q *buf.Queue, dnode, selector uint32) error {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		if b.Msg.User() == wire.UserFragmenter {
			whole, _ := n.r.Append(b.Msg)
			b.Release()
			if b = whole; b == nil {
				continue
			}
		}
		if dnode == n.addr {
			n.Receive(now, b)
		} else {
			n.peer.Receive(now, b)
		}
	}
	return nil
}

func (n *direct) MTU(dnode, selector uint32) int {
	if dnode == n.addr {
		return wire.MaxMsgSize
	}
	return n.mtu
}

// directPair makes two nodes; mtu is between them.
func directPair(t testing.TB, mtu int) (a, b *direct) {
	w := newWorld(t, 1, 2)
	a, b = &direct{node: *w.nodes[1], mtu: mtu}, &direct{node: *w.nodes[2], mtu: mtu}
	a.peer, b.peer = b, a
	for i, n := range []*direct{a, b} {
		port := uint32(100 * (i + 1))
		n.Table = NewTable(n, Config{Own: n.addr, Rand: func() uint32 { port++; return port }})
	}
	return a, b
}

// exchange is a way to send and receive n octets once.
func exchange(t testing.TB, typ Type, n int, local bool) func() {
	a, b := directPair(t, 13928)
	if local {
		b = a
	}
	w := a.w
	var c, s *Sock
	to := Dest{}
	if typ.Connected() {
		l := b.listener(typ, 1000, 1)
		c = a.create(typ)
		if err := c.Connect(w.now, service(1000, 1)); err != ErrInProgress {
			t.Fatal(err)
		}
		var err error
		if s, err = l.Accept(w.now); err != nil {
			t.Fatal(err)
		}
		c.SetNoDelay(true)
	} else {
		c, s = a.create(typ), b.create(typ)
		to = Dest{Kind: SocketDest, Addr: s.LocalAddr()}
	}
	p, q := make([]byte, n), make([]byte, n)
	return func() {
		if k, err := c.Send(w.now, p, to); k != n || err != nil {
			t.Fatal(k, err)
		}
		for got := 0; got < n; {
			k, _, err := s.Recv(w.now, q, 0)
			if err != nil {
				t.Fatal(err)
			}
			got += k
		}
		for b.PopReady() != nil || a.PopReady() != nil {
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets at random under the race detector")
	}
	for _, typ := range []Type{Stream, SeqPacket, RDM, Dgram} {
		for _, size := range []int{1, 64, 1000, 5000, 66000} {
			for _, local := range []bool{false, true} {
				f := exchange(t, typ, size, local)
				for range 100 {
					f()
				}
				if n := testing.AllocsPerRun(500, f); n != 0 {
					t.Errorf("type %v, %d octets, local %v: %v allocations", typ, size, local, n)
				}
			}
		}
	}
}

// Streams with Nagle's algorithm do not allocate either.
func TestNoAllocationsNagle(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets at random under the race detector")
	}
	a, b := directPair(t, 13928)
	l := b.listener(Stream, 1000, 1)
	c := a.create(Stream)
	c.Connect(a.w.now, service(1000, 1))
	s, err := l.Accept(a.w.now)
	if err != nil {
		t.Fatal(err)
	}
	p, q := make([]byte, 64), make([]byte, 70000)
	f := func() {
		for range 100 {
			if k, err := c.Send(a.w.now, p, Dest{}); k != 64 || err != nil {
				t.Fatal(k, err)
			}
		}
		for err := error(nil); err == nil; {
			_, _, err = s.Recv(a.w.now, q, 0)
		}
		for b.PopReady() != nil || a.PopReady() != nil {
		}
	}
	f()
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchmark(b *testing.B, typ Type, size int) {
	f := exchange(b, typ, size, false)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func BenchmarkStream64(b *testing.B)  { benchmark(b, Stream, 64) }
func BenchmarkStream64K(b *testing.B) { benchmark(b, Stream, 1<<16) }
func BenchmarkRDM64(b *testing.B)     { benchmark(b, RDM, 64) }
func BenchmarkRDM64K(b *testing.B)    { benchmark(b, RDM, 1<<16) }
