package stack_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// bus joins stacks by a network without faults: what one sends the others get after a millisecond, in virtual time.
type bus struct {
	t     *testing.T
	now   mono.Time
	nodes []*stack.Stack
	queue []frame
}

type frame struct {
	at   mono.Time
	to   int
	src  wire.MediaAddr
	data []byte
}

func macOf(i int) wire.MediaAddr {
	return wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte{2, 0, 0, 0, 0, byte(i + 1)}}
}

var broadcast = wire.MediaAddr{Media: wire.MediaEth, Broadcast: true, MAC: [6]byte{255, 255, 255, 255, 255, 255}}

func newBus(t *testing.T, n int) *bus {
	b := &bus{t: t, now: mono.Time(time.Second)}
	for i := range n {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		s, err := stack.New(b.now, stack.Config{ID: wire.NodeID{'n', byte('1' + i)}, Rand: r.Uint32})
		if err != nil {
			t.Fatal(err)
		}
		b.nodes = append(b.nodes, s)
		_, err = s.BearerEnable(b.now, stack.Bearer{Name: "eth:e0", MTU: 1500, Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: 8191,
			Addr: macOf(i), Broadcast: broadcast})
		if err != nil {
			t.Fatal(err)
		}
		b.flush(i)
	}
	return b
}

// flush puts what node i sent on the bus.
func (b *bus) flush(i int) {
	b.nodes[i].Settle(b.now)
	full := b.nodes[i].TakeOutput(&buf.Batch{})
	if full == nil {
		return
	}
	for k, d := range full.Datagrams {
		for j := range b.nodes {
			if j != i && (d.Dst.Broadcast || d.Dst == macOf(j)) {
				b.queue = append(b.queue, frame{b.now.Add(time.Millisecond), j, macOf(i), bytes.Clone(full.Bytes(k))})
			}
		}
	}
}

// run advances time until done reports true or the limit passes.
func (b *bus) run(limit time.Duration, done func() bool) {
	b.t.Helper()
	end := b.now.Add(limit)
	for !done() {
		next := end
		if len(b.queue) > 0 {
			next = next.Min(b.queue[0].at)
		}
		for _, s := range b.nodes {
			next = next.Min(s.Deadline())
		}
		if next >= end {
			for i, s := range b.nodes {
				b.t.Logf("node %d: address %x, deadline %v, discovery %+v, nodes %+v", i, s.Addr(), s.Deadline(), s.Discovery().Stats(), s.Nodes().Stats())
			}
			b.t.Fatalf("not done by %v, %d frames under way", b.now, len(b.queue))
		}
		b.now = max(b.now, next)
		if len(b.queue) > 0 && b.queue[0].at <= b.now {
			f := b.queue[0]
			b.queue = b.queue[1:]
			b.nodes[f.to].HandlePacket(b.now, 0, f.src, f.data)
			b.flush(f.to)
			continue
		}
		for i, s := range b.nodes {
			if s.Deadline() <= b.now {
				s.Tick(b.now)
				b.flush(i)
			}
		}
	}
}

func (b *bus) peersUp(i int) (up int) {
	for p := range b.nodes[i].Nodes().Nodes() {
		if p.Up {
			up++
		}
	}
	return up
}

func (b *bus) waitUp() {
	b.t.Helper()
	b.run(10*time.Second, func() bool {
		for i := range b.nodes {
			if b.peersUp(i) != len(b.nodes)-1 {
				return false
			}
		}
		return true
	})
}

// TestStream sends a megabyte from one node to another.
func TestStream(t *testing.T) {
	b := newBus(t, 2)
	b.waitUp()
	if took := time.Duration(b.now) - time.Second; took > 2*time.Second {
		t.Errorf("up after %v", took)
	}
	srv, _ := b.nodes[0].Sockets().Create(b.now, socket.Stream)
	r := wire.ServiceRange{Type: 4711, Lower: 1, Upper: 1}
	if err := srv.Bind(b.now, r, wire.ScopeCluster); err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(5); err != nil {
		t.Fatal(err)
	}
	b.flush(0)
	b.run(time.Second, func() bool { _, ok := b.nodes[1].Names().Lookup(4711, 1, 0); return ok })
	cli, _ := b.nodes[1].Sockets().Create(b.now, socket.Stream)
	if err := cli.Connect(b.now, socket.Dest{Kind: socket.ServiceDest, Range: r}); err != socket.ErrInProgress {
		t.Fatal(err)
	}
	b.flush(1)
	var conn *socket.Sock
	b.run(time.Second, func() bool {
		c, err := srv.Accept(b.now)
		if err == nil {
			conn = c
			b.flush(0)
		}
		return conn != nil && cli.ConnectResult() == nil
	})
	data := make([]byte, 1<<20)
	for i := 0; i < len(data); i += 4 {
		binary.BigEndian.PutUint32(data[i:], uint32(i))
	}
	var got []byte
	sent := 0
	p := make([]byte, 1<<16)
	b.run(time.Minute, func() bool {
		if sent < len(data) {
			n, err := cli.Send(b.now, data[sent:], socket.Dest{})
			if err != nil && err != socket.ErrWouldBlock {
				t.Fatal(err)
			}
			sent += n
			b.flush(1)
		}
		for {
			n, _, err := conn.Recv(b.now, p, 0)
			got = append(got, p[:n]...)
			if err == socket.ErrWouldBlock {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		b.flush(0)
		return len(got) >= len(data)
	})
	if !bytes.Equal(got, data) {
		t.Error("data differs")
	}
}
