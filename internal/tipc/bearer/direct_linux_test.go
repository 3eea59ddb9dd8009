package bearer

import (
	"errors"
	"net/netip"
	"testing"

	"midplane/internal/tipc/buf"
)

func TestReadBatchDirect(t *testing.T) {
	open := func() *UDP {
		u, err := OpenUDP(UDPConfig{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: EphemeralPort, PeerList: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		return u
	}
	a, b := open(), open()
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
