package flowhash

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

func flow4(src, dst uint32, sport, dport uint16) Flow {
	var s, d [4]byte
	binary.BigEndian.PutUint32(s[:], src)
	binary.BigEndian.PutUint32(d[:], dst)
	return Flow{netip.AddrFrom4(s), netip.AddrFrom4(d), TCP, sport, dport}
}

// Flows that differ in one field only, by small steps, are what real traffic is like.
func TestEveryFieldSpreads(t *testing.T) {
	const n = 1 << 16
	v6 := func(i int, first, last byte) Flow {
		a := [16]byte{0: 0x20, 1: 1, 7: first, 15: last}
		binary.BigEndian.PutUint16(a[4:], uint16(i))
		return Flow{netip.AddrFrom16(a), netip.MustParseAddr("2001:db8::1"), UDP, 1, 2}
	}
	for name, flow := range map[string]func(i int) Flow{
		"source":           func(i int) Flow { return flow4(0x0a000000+uint32(i), 0xc0000201, 1000, 80) },
		"destination":      func(i int) Flow { return flow4(0x0a000001, 0xc0000200+uint32(i), 1000, 80) },
		"destination net":  func(i int) Flow { return flow4(0x0a000001, uint32(i)<<16, 1000, 80) },
		"source port":      func(i int) Flow { return flow4(0x0a000001, 0xc0000201, uint16(i), 80) },
		"destination port": func(i int) Flow { return flow4(0x0a000001, 0xc0000201, 1000, uint16(i)) },
		"IPv6 network":     func(i int) Flow { return v6(i, 0, 1) },
	} {
		for _, buckets := range []int{2, 8, 256} {
			for _, seed := range []uint64{0, 1, 1 << 63} {
				count := make([]int, buckets)
				for i := range n {
					count[Hash(seed, flow(i))&uint32(buckets-1)]++
				}
				want := float64(n) / float64(buckets)
				chi := 0.0
				for _, c := range count {
					chi += (float64(c) - want) * (float64(c) - want) / want
				}
				// Chi square has the mean buckets-1 and the deviation sqrt(2(buckets-1)); nine of them do not happen.
				if d := float64(buckets - 1); chi > d+9*sqrt(2*d) {
					t.Errorf("%s, %d buckets, seed %d: chi square %.0f", name, buckets, seed, chi)
				}
			}
		}
	}
}

func sqrt(x float64) float64 {
	r := x
	for range 50 {
		r = (r + x/r) / 2
	}
	return r
}

// Behind a machine that chose by one seed, another with another seed still uses all its members.
func TestSeedsAreIndependent(t *testing.T) {
	var count [4]int
	n := 0
	for i := range 1 << 14 {
		f := flow4(0x0a000000+uint32(i), 0xc0000201, uint16(i*7), 443)
		if Hash(1, f)&3 == 2 {
			count[Hash(2, f)&3]++
			n++
		}
	}
	for b, c := range count {
		if c < n/5 || c > n/3 {
			t.Errorf("member %d has %d of %d", b, c, n)
		}
	}
}

func TestHashIsStable(t *testing.T) {
	// A change would move every flow at an upgrade, while the forwarder of before still runs.
	if h := Hash(7, flow4(0x0a000001, 0xc0000201, 1000, 80)); h != want4 {
		t.Errorf("IPv4: %#x", h)
	}
	f := Flow{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::2"), UDP, 53, 53}
	if h := Hash(7, f); h != want6 {
		t.Errorf("IPv6: %#x", h)
	}
	if Hash(7, f) == Hash(8, f) {
		t.Error("the seed does not matter")
	}
	if n := testing.AllocsPerRun(100, func() { Hash(7, f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

const want4, want6 = 0x378592d5, 0x335d6455
