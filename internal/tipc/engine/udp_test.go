package engine

import (
	"fmt"
	"io"
	"net/netip"
	"testing"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/sockif"
)

// udpPair is two nodes on loopback, each with the other as its peer.
func udpPair(t testing.TB, mtu int) (a, b *Engine) {
	t.Helper()
	lo := netip.MustParseAddr("127.0.0.1")
	var drivers []*bearer.UDP
	var engines []*Engine
	for i := range 2 {
		d, err := bearer.OpenUDP(bearer.UDPConfig{Name: "u", LocalIP: lo, LocalPort: bearer.EphemeralPort, PeerList: true, MTU: mtu})
		if err != nil {
			t.Fatal(err)
		}
		e, err := New(Config{Addr: 0x01001001 + uint32(i)}) // without an address trial, which takes a second
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		drivers, engines = append(drivers, d), append(engines, e)
	}
	for i, d := range drivers {
		if err := d.AddPeer(drivers[1-i].Addr().IP); err != nil {
			t.Fatal(err)
		}
		if err := engines[i].EnableBearer(d, linkDefaults); err != nil {
			t.Fatal(err)
		}
	}
	linked(t, engines...)
	return engines[0], engines[1]
}

func TestUDPPair(t *testing.T) {
	a, b := udpPair(t, 0)
	c, s := connect(t, a, b, sockif.SeqPacket)
	go func() {
		for i := range 200 {
			if _, err := c.Send(make([]byte, 300*i+1), sockif.Dest{}); err != nil {
				t.Error(err)
			}
		}
		c.Close()
	}()
	buf := make([]byte, 66000)
	for i := range 200 {
		if n, _, err := s.Recv(buf); err != nil || n != 300*i+1 {
			t.Fatal(i, n, err)
		}
	}
	if _, _, err := s.Recv(buf); err != io.EOF {
		t.Fatal(err)
	}
}

// One-way traffic over UDP on loopback, all in one process: the sum of both ends' costs.
func BenchmarkUDP(b *testing.B) {
	for _, mtu := range []int{14000, 64000} {
		for _, typ := range []sockif.Type{sockif.SeqPacket, sockif.Stream} {
			for _, size := range []int{64, 1400, 16384, 65536} {
				b.Run(fmt.Sprintf("mtu=%d/type=%d/size=%d", mtu, typ, size), func(b *testing.B) {
					x, y := udpPair(b, mtu)
					c, s := connect(b, x, y, typ)
					done := make(chan int)
					go func() {
						buf := make([]byte, 256<<10)
						total := 0
						for {
							n, _, err := s.Recv(buf)
							if total += n; err != nil {
								done <- total
								return
							}
						}
					}()
					buf := make([]byte, size)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					n := 0
					for b.Loop() {
						if _, err := c.Send(buf, sockif.Dest{}); err != nil {
							b.Fatal(err)
						}
						n++
					}
					c.Close()
					if total := <-done; total != n*size {
						b.Fatalf("%d octets of %d", total, n*size)
					}
				})
			}
		}
	}
}

func BenchmarkUDPRoundTrip(b *testing.B) {
	x, y := udpPair(b, 0)
	roundTrips(b, x, y)
}
