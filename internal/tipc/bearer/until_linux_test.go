package bearer

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"midplane/internal/tipc/buf"
)

func TestReadBatchUntil(t *testing.T) {
	open := func() *UDP {
		u, err := OpenUDP(UDPConfig{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: EphemeralPort, PeerList: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		return u
	}
	a, b := open(), open()
	r := a.Readers()[0].(UntilReader)
	var p [4]Packet
	if n, err := r.ReadBatchUntil(p[:], time.Now().Add(time.Millisecond)); n != 0 || err != nil {
		t.Fatal("nothing came: ", n, err)
	}
	if n, err := r.ReadBatchUntil(p[:], time.Now().Add(-time.Millisecond)); n != 0 || err != nil {
		t.Fatal("the time is over already: ", n, err)
	}
	var out buf.Batch
	out.Send(0, a.Addr(), []byte("hello"))
	if err := b.WriteBatch(&out, All); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadBatchUntil(p[:], time.Time{}); n != 1 || err != nil || string(p[0].Data) != "hello" || p[0].Src != b.Addr() {
		t.Fatal(n, err, p[0])
	}
	done := make(chan error)
	go func() { _, err := r.ReadBatchUntil(p[:], time.Time{}); done <- err }()
	a.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := r.ReadBatchUntil(p[:], time.Now()); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}
