// Package bearertest checks that a bearer driver does what the interface says.
// Every driver passes the same suite.
package bearertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Open returns n bearers that reach each other. It registers their closing
// with t.Cleanup.
type Open func(t *testing.T, n int) []bearer.Bearer

// timeout is how long a datagram that must arrive may take.
const timeout = 10 * time.Second

// minLen has room for the tag that tests put into datagrams; no TIPC message is shorter.
const minLen = 24

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, tc := range []struct {
		name string
		f    func(*testing.T, Open)
	}{
		{"Identity", testIdentity},
		{"Unicast", testUnicast},
		{"Broadcast", testBroadcast},
		{"Sizes", testSizes},
		{"Trains", testTrains},
		{"MixedBatch", testMixedBatch},
		{"BatchOfSeveralBearers", testSeveral},
		{"SmallSlices", testSmallSlices},
		{"Oversized", testOversized},
		{"Empty", testEmpty},
		{"BadDestination", testBadDestination},
		{"TryRead", testTryRead},
		{"Close", testClose},
		{"Concurrent", testConcurrent},
		{"NoAllocation", testNoAllocation},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.f(t, open) })
	}
}

// got is one received datagram, copied.
type got struct {
	src  wire.MediaAddr
	data string
}

// Sink reads from all of a bearer's readers, copying.
type Sink struct {
	b    bearer.Bearer
	ch   chan got
	errs chan error
	n    int
}

// NewSink starts reading; size is the length of the slice to read into.
func NewSink(b bearer.Bearer, size int) *Sink {
	s := &Sink{b: b, ch: make(chan got, 1<<16), errs: make(chan error, 16), n: len(b.Readers())}
	for _, r := range b.Readers() {
		go func() {
			pkts := make([]bearer.Packet, size)
			for {
				n, err := r.ReadBatch(pkts)
				if err == nil && (n < 1 || n > size) {
					err = fmt.Errorf("ReadBatch returned %d of %d", n, size)
				}
				if err != nil {
					s.errs <- err
					return
				}
				for _, p := range pkts[:n] {
					s.ch <- got{p.Src, string(p.Data)}
					if p.Buf != nil && &p.Buf.Msg[0] == &p.Data[0] && len(p.Buf.Msg) == len(p.Data) {
						clear(p.Buf.Msg) // it is ours
						p.Buf.Release()
					} else if p.Buf != nil {
						s.errs <- errors.New("a datagram's Buf has not its data")
					}
				}
			}
		}()
	}
	return s
}

// next waits for a datagram.
func (s *Sink) next(t *testing.T) got {
	t.Helper()
	select {
	case g := <-s.ch:
		return g
	case err := <-s.errs:
		t.Fatalf("%s: reader ended: %v", s.b.Name(), err)
	case <-time.After(timeout):
		t.Fatalf("%s: nothing arrived; %+v", s.b.Name(), s.b.Stats())
	}
	return got{}
}

// nothing checks that what was sent before has not arrived: the datagrams of a
// marker sent by from afterwards must be the next.
func (s *Sink) nothing(t *testing.T, from bearer.Bearer) {
	t.Helper()
	marker := Payload(99999, minLen)
	send(t, from, s.b.Addr(), marker)
	if g := s.next(t); g.data != marker {
		t.Errorf("%s: got %d octets from %v that nobody should have sent", s.b.Name(), len(g.data), g.src)
	}
}

func send(t *testing.T, b bearer.Bearer, dst wire.MediaAddr, data ...string) {
	t.Helper()
	var batch buf.Batch
	for _, d := range data {
		b := buf.Copy([]byte(d))
		batch.SendFrom(0, dst, b.Msg, b)
		b.Release()
	}
	if err := b.WriteBatch(&batch, 0); err != nil {
		t.Fatalf("%s: %v", b.Name(), err)
	}
}

// Payload makes a datagram of n octets, at least 24, that differs with k.
func Payload(k, n int) string {
	p := make([]byte, max(n, minLen))
	binary.BigEndian.PutUint32(p, uint32(k))
	for i := 4; i < len(p); i++ {
		p[i] = byte(i*7 + k)
	}
	return string(p)
}

func testIdentity(t *testing.T, open Open) {
	bs := open(t, 2)
	for _, b := range bs {
		a, bc := b.Addr(), b.BroadcastAddr()
		if a.Media != b.Media() || bc.Media != b.Media() || a.Broadcast || !bc.Broadcast {
			t.Errorf("addresses %+v and %+v of medium %v", a, bc, b.Media())
		}
		if b.Name() == "" || b.MTU() < bearer.MinUDPMTU || len(b.Readers()) == 0 {
			t.Errorf("name %q, MTU %d, %d readers", b.Name(), b.MTU(), len(b.Readers()))
		}
		// What goes into discovery messages must come out as it was.
		var info [wire.MediaInfoSize]byte
		wire.PutMediaInfo(info[:], a)
		if back, ok := wire.ParseMediaInfo(info[:]); !ok || back != a {
			t.Errorf("address %v does not survive a discovery message: %v, %v", a, back, ok)
		}
	}
	if bs[0].Addr() == bs[1].Addr() {
		t.Error("two bearers with one address")
	}
}

func testUnicast(t *testing.T, open Open) {
	bs := open(t, 3)
	var sinks []*Sink
	for _, b := range bs {
		sinks = append(sinks, NewSink(b, bearer.BatchSize))
	}
	for i, from := range bs {
		for j, to := range bs {
			if i == j {
				continue
			}
			want := Payload(i*10+j, 100)
			send(t, from, to.Addr(), want)
			g := sinks[j].next(t)
			if g.data != want || g.src != from.Addr() {
				t.Errorf("%v to %v: got %d octets from %v", from.Addr(), to.Addr(), len(g.data), g.src)
			}
		}
	}
	for j := range bs {
		sinks[j].nothing(t, bs[(j+1)%3])
	}
}

func testBroadcast(t *testing.T, open Open) {
	bs := open(t, 3)
	var sinks []*Sink
	for _, b := range bs {
		sinks = append(sinks, NewSink(b, bearer.BatchSize))
	}
	for i, from := range bs {
		// A train, so that segmented broadcasts are tried as well.
		var want []string
		for k := range 5 {
			want = append(want, Payload(i*10+k, 200))
		}
		send(t, from, from.BroadcastAddr(), want...)
		for j := range bs {
			if i == j {
				continue
			}
			for k := range want {
				if g := sinks[j].next(t); g.data != want[k] || g.src != from.Addr() {
					t.Errorf("broadcast %d of %v reached %v as %d octets from %v", k, from.Addr(), bs[j].Addr(), len(g.data), g.src)
				}
			}
		}
	}
	for j := range bs {
		sinks[j].nothing(t, bs[(j+1)%3])
	}
}

func testSizes(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	mtu := bs[0].MTU()
	for k, n := range []int{minLen, 25, 60, 127, 1000, 1280, 1400, 1472, 1473, 1500, 8000, mtu - 1, mtu} {
		if n > mtu {
			continue
		}
		want := Payload(k, n)
		send(t, bs[0], bs[1].Addr(), want)
		if g := sink.next(t); g.data != want {
			t.Errorf("%d octets arrived as %d", n, len(g.data))
		}
	}
}

// testTrains sends runs of equal datagrams, the last one shorter: what
// segmentation offload takes.
func testTrains(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	mtu := bs[0].MTU()
	for _, size := range []int{minLen, 100, 1400, mtu} {
		size = min(size, mtu)
		for _, n := range []int{2, 3, 63, 64, 65, 130} {
			if size*n > 200_000 {
				continue // would not fit into a socket buffer of a system that limits it
			}
			var want []string
			for k := range n {
				want = append(want, Payload(k, size))
			}
			want = append(want, Payload(n, max(size/2, minLen)), Payload(n+1, size))
			send(t, bs[0], bs[1].Addr(), want...)
			for k, w := range want {
				if g := sink.next(t); g.data != w {
					t.Fatalf("%d times %d octets: number %d arrived as %d octets, first %x", n, size, k, len(g.data), g.data[:min(4, len(g.data))])
				}
			}
		}
	}
}

// testMixedBatch has destinations and sizes in turn.
func testMixedBatch(t *testing.T, open Open) {
	bs := open(t, 3)
	sinks := []*Sink{nil, NewSink(bs[1], bearer.BatchSize), NewSink(bs[2], bearer.BatchSize)}
	var batch buf.Batch
	want := make([][]string, 3)
	mtu := bs[0].MTU()
	for k := range 150 {
		d := Payload(k, []int{50, 50, 300, 50, min(1400, mtu)}[k%5])
		switch to := k / 3 % 3; to {
		case 0:
			batch.Send(0, bs[0].BroadcastAddr(), []byte(d))
			want[1] = append(want[1], d)
			want[2] = append(want[2], d)
		default:
			batch.Send(0, bs[to].Addr(), []byte(d))
			want[to] = append(want[to], d)
		}
	}
	if err := bs[0].WriteBatch(&batch, 0); err != nil {
		t.Fatal(err)
	}
	for to := 1; to < 3; to++ {
		var have []string
		for range want[to] {
			have = append(have, sinks[to].next(t).data)
		}
		// Broadcasts may come by another socket: between the two there is no order.
		slices.Sort(have)
		slices.Sort(want[to])
		if !slices.Equal(have, want[to]) {
			t.Errorf("receiver %d did not get what was sent to it", to)
		}
	}
}

// testSeveral has one batch for two bearers.
func testSeveral(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	var batch buf.Batch
	for k := range 20 {
		batch.Send(k%2, bs[1].Addr(), []byte(Payload(k, 64)))
	}
	if err := bs[0].WriteBatch(&batch, 1); err != nil {
		t.Fatal(err)
	}
	for k := 1; k < 20; k += 2 {
		if g := sink.next(t); g.data != Payload(k, 64) {
			t.Fatalf("datagram %x instead of %d", g.data[:4], k)
		}
	}
	if err := bs[0].WriteBatch(&batch, bearer.All); err != nil {
		t.Fatal(err)
	}
	for k := range 20 {
		if g := sink.next(t); g.data != Payload(k, 64) {
			t.Fatalf("datagram %x instead of %d", g.data[:4], k)
		}
	}
	sink.nothing(t, bs[0])
}

// testSmallSlices reads trains into a slice of one.
func testSmallSlices(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], 1)
	var want []string
	for k := range 100 {
		want = append(want, Payload(k, 80))
	}
	send(t, bs[0], bs[1].Addr(), want...)
	for k, w := range want {
		if g := sink.next(t); g.data != w {
			t.Fatalf("number %d is wrong", k)
		}
	}
	if n, err := bs[0].Readers()[0].TryReadBatch(nil); n != 0 || err != nil {
		t.Errorf("reading into nothing: %d, %v", n, err)
	}
}

// testOversized sends what no bearer can carry, between what it can.
func testOversized(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	before := bs[0].Stats().TxErrors
	ok1, ok2 := Payload(1, 64), Payload(2, 64)
	send(t, bs[0], bs[1].Addr(), ok1, Payload(0, 70_000), ok2)
	if g := sink.next(t); g.data != ok1 {
		t.Errorf("got %d octets", len(g.data))
	}
	if g := sink.next(t); g.data != ok2 {
		t.Errorf("got %d octets", len(g.data))
	}
	if n := bs[0].Stats().TxErrors - before; n != 1 {
		t.Errorf("%d errors counted, want 1", n)
	}
	sink.nothing(t, bs[0])
}

// testEmpty sends datagrams without an octet, which must not reach the reader's user.
func testEmpty(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	one := Payload(1, 64)
	send(t, bs[0], bs[1].Addr(), "", "", one, "")
	if g := sink.next(t); g.data != one {
		t.Errorf("got %d octets", len(g.data))
	}
	sink.nothing(t, bs[0])
}

// testBadDestination sends to addresses of no or another medium.
func testBadDestination(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	before := bs[0].Stats().TxErrors
	var batch buf.Batch
	one := Payload(1, 64)
	batch.Send(0, wire.MediaAddr{}, []byte(one))
	batch.Send(0, wire.MediaAddr{Media: wire.MediaIB}, []byte(one))
	batch.Send(0, bs[1].Addr(), []byte(one))
	if err := bs[0].WriteBatch(&batch, 0); err != nil {
		t.Fatal(err)
	}
	if g := sink.next(t); g.data != one {
		t.Errorf("got %d octets", len(g.data))
	}
	if n := bs[0].Stats().TxErrors - before; n != 2 {
		t.Errorf("%d errors counted, want 2", n)
	}
	sink.nothing(t, bs[0])
}

func testTryRead(t *testing.T, open Open) {
	bs := open(t, 2)
	r := bs[1].Readers()[0]
	var pkts [4]bearer.Packet
	if n, err := r.TryReadBatch(pkts[:]); n != 0 || err != nil {
		t.Fatalf("reading what was not sent: %d, %v", n, err)
	}
	want := Payload(7, 64)
	send(t, bs[0], bs[1].Addr(), want)
	deadline := time.Now().Add(timeout)
	for {
		n, err := r.TryReadBatch(pkts[:])
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 && string(pkts[0].Data) == want {
			break
		}
		if n > 0 || time.Now().After(deadline) {
			t.Fatalf("got %d datagrams", n)
		}
	}
}

func testClose(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	send(t, bs[0], bs[1].Addr(), Payload(1, 64))
	sink.next(t) // so at least one reader has run, and all are about to wait
	if err := bs[1].Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	for range sink.n {
		select {
		case err := <-sink.errs:
			if !errors.Is(err, bearer.ErrClosed) {
				t.Errorf("reader ended with %v", err)
			}
		case <-time.After(timeout):
			t.Fatal("Close does not wake the readers")
		}
	}
	var batch buf.Batch
	batch.Send(0, bs[0].Addr(), []byte(Payload(1, 64)))
	if err := bs[1].WriteBatch(&batch, 0); !errors.Is(err, bearer.ErrClosed) {
		t.Errorf("WriteBatch after Close: %v", err)
	}
	for _, r := range bs[1].Readers() {
		if _, err := r.ReadBatch(make([]bearer.Packet, 1)); !errors.Is(err, bearer.ErrClosed) {
			t.Errorf("ReadBatch after Close: %v", err)
		}
	}
	if err := bs[1].Close(); !errors.Is(err, bearer.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	// The other one lives on, although its datagrams now find nobody.
	for range 3 {
		send(t, bs[0], bs[1].Addr(), Payload(1, 64))
	}
}

// testConcurrent has several writers, and Close in the middle.
func testConcurrent(t *testing.T, open Open) {
	bs := open(t, 2)
	sink := NewSink(bs[1], bearer.BatchSize)
	var wg sync.WaitGroup
	const writers, each = 4, 50
	for w := range writers {
		wg.Go(func() {
			var batch buf.Batch
			for k := range each {
				batch.Reset()
				batch.Send(0, bs[1].Addr(), []byte(Payload(w*each+k, 64)))
				batch.Send(0, bs[1].Addr(), []byte(Payload(w*each+k, 64)))
				if err := bs[0].WriteBatch(&batch, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[string]int)
	for range writers * each * 2 {
		seen[sink.next(t).data]++
	}
	for k := range writers * each {
		if n := seen[Payload(k, 64)]; n != 2 {
			t.Errorf("datagram %d arrived %d times", k, n)
		}
	}
	for range 4 {
		wg.Go(func() {
			var batch buf.Batch
			batch.Send(0, bs[1].Addr(), []byte(Payload(1, 64)))
			for bs[0].WriteBatch(&batch, 0) == nil {
			}
		})
	}
	bs[0].Close()
	wg.Wait()
}

// testNoAllocation: in the steady state neither direction allocates.
func testNoAllocation(t *testing.T, open Open) {
	bs := open(t, 2)
	r := bs[1].Readers()[0]
	pkts := make([]bearer.Packet, bearer.BatchSize)
	var batch buf.Batch
	for k := range 40 {
		batch.Send(0, bs[1].Addr(), []byte(Payload(k, 100)))
	}
	batch.Send(0, bs[1].Addr(), []byte(Payload(1, 50)))
	fail := error(nil)
	allocs := testing.AllocsPerRun(100, func() {
		if err := bs[0].WriteBatch(&batch, 0); err != nil {
			fail = err
			return
		}
		for have := 0; have < batch.Len(); {
			n, err := r.ReadBatch(pkts)
			if err != nil {
				fail = err
				return
			}
			have += n
		}
	})
	if fail != nil {
		t.Fatal(fail)
	}
	if allocs != 0 {
		t.Errorf("%v allocations for %d datagrams", allocs, batch.Len())
	}
}

// Take waits for n datagrams and returns them.
func (s *Sink) Take(t *testing.T, n int) (data []string) {
	t.Helper()
	for range n {
		data = append(data, s.next(t).data)
	}
	return data
}

// Ended waits until all readers of a closed bearer have ended.
func (s *Sink) Ended(t *testing.T) {
	t.Helper()
	for range s.n {
		select {
		case <-s.errs:
		case <-time.After(timeout):
			t.Fatalf("%s: Close does not wake the readers", s.b.Name())
		}
	}
}
