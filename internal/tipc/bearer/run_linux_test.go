package bearer

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// slowRunEnd tries all ends, the longest first.
func slowRunEnd(dgs []buf.Datagram, i, limit int) int {
	for j := len(dgs); j > i+1; j-- {
		ok, total := j-i <= 64, 0
		for k := i; k < j; k++ {
			l := dgs[k].Len()
			total += l
			ok = ok && dgs[k].Dst == dgs[i].Dst && dgs[k].Bearer == dgs[i].Bearer && l > 0
			if k < j-1 {
				ok = ok && l == dgs[i].Len()
			} else {
				ok = ok && l <= dgs[i].Len()
			}
		}
		if ok && total <= limit {
			return j
		}
	}
	return i + 1
}

func TestRunEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b buf.Batch
		for range rapid.IntRange(1, 150).Draw(t, "n") {
			dst := wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(rapid.SampledFrom([]int{1, 1, 1, 1, 1, 1, 1, 1, 2}).Draw(t, "dst")))}
			size := rapid.SampledFrom([]int{100, 100, 100, 100, 100, 100, 100, 60, 101, 0}).Draw(t, "size")
			b.Send(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 1}).Draw(t, "bearer"), dst, make([]byte, size))
		}
		limit := rapid.SampledFrom([]int{250, 1000, 65507}).Draw(t, "limit")
		for i := range b.Datagrams {
			if got, want := runEnd(b.Datagrams, i, limit), slowRunEnd(b.Datagrams, i, limit); got != want {
				t.Fatalf("run from %d ends at %d, want %d", i, got, want)
			}
		}
	})
	// Equal datagrams without end: the kernel's limits apply.
	var b buf.Batch
	for range 200 {
		b.Send(0, wire.MediaAddr{}, make([]byte, 1400))
	}
	for _, tc := range []struct{ limit, want int }{{65507, 46}, {1 << 20, 64}, {1399, 1}} {
		if got := runEnd(b.Datagrams, 0, tc.limit); got != tc.want {
			t.Errorf("limit %d: a run of %d, want %d", tc.limit, got, tc.want)
		}
	}
}
