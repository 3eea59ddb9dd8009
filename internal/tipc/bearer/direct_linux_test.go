package bearer

import (
	"errors"
	"net/netip"
	"testing"

	"midplane/internal/tipc/buf"
)

// openOnLoopback opens a bearer for unicast.
func openOnLoopback(t *testing.T, mtu int) *UDP {
	u, err := OpenUDP(UDPConfig{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: EphemeralPort, PeerList: true, MTU: mtu})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// TestLongDatagramsComeInBufs sends from Bufs and receives in Bufs: on neither side is there a copy or an allocation.
func TestLongDatagramsComeInBufs(t *testing.T) {
	const size = 64000
	a, b := openOnLoopback(t, size), openOnLoopback(t, size)
	r := b.Readers()[0]
	pkts := make([]Packet, 4)
	var out buf.Batch
	n := byte(0)
	turn := func() {
		n++
		m := buf.Get(size)
		m.Msg[0], m.Msg[size-1] = n, n
		out.SendFrom(0, b.Addr(), m.Msg, m)
		m.Release()
		if err := a.WriteBatch(&out, All); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		k, err := r.ReadBatch(pkts)
		if err != nil || k != 1 {
			t.Fatal(k, err)
		}
		p := &pkts[0]
		if p.Buf == nil || len(p.Buf.Msg) != size || &p.Buf.Msg[0] != &p.Data[0] || p.Data[0] != n || p.Data[size-1] != n {
			t.Fatalf("Buf %v, %d octets", p.Buf != nil, len(p.Data))
		}
		p.Buf.Release()
		p.Buf = nil
	}
	turn()
	// A garbage collection in between empties the pool.
	if got := testing.AllocsPerRun(200, turn); got >= 1 && !raceEnabled {
		t.Errorf("%v allocations", got)
	}
}

func TestReadBatchDirect(t *testing.T) {
	a, b := openOnLoopback(t, 0), openOnLoopback(t, 0)
	r := a.Readers()[0].(DirectReader)
	var p [4]Packet
	if n, err := r.ReadBatchDirect(p[:]); n != 0 || err != nil {
		t.Fatal("nothing came: ", n, err)
	}
	r.Kick()
	if n, err := r.ReadBatchDirect(p[:]); n != 0 || err != nil {
		t.Fatal("a kick is no packet: ", n, err)
	}
	if e := a.Stats().RxEmpty; e != 1 {
		t.Fatalf("%d empty datagrams, want the kick", e)
	}
	var out buf.Batch
	out.Send(0, a.Addr(), []byte("hello"))
	if err := b.WriteBatch(&out, All); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadBatchDirect(p[:]); n != 1 || err != nil || string(p[0].Data) != "hello" || p[0].Src != b.Addr() {
		t.Fatal(n, err, p[0])
	}
	if err := b.WriteBatch(&out, All); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadBatch(p[:]); n != 1 || err != nil { // both ways to read may be mixed
		t.Fatal(n, err)
	}
	done := make(chan error)
	go func() {
		for {
			if _, err := r.ReadBatchDirect(p[:]); err != nil {
				done <- err
				return
			}
		}
	}()
	a.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	r.Kick() // harmless
}
