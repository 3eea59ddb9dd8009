//go:build linux && amd64

package xdp

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/flowhash"
)

// realPrefixes are those of an Internet table that bart's tests have.
func realPrefixes(t testing.TB) []netip.Prefix {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gaissmai/bart").Output()
	if err != nil {
		t.Fatalf("where is the module github.com/gaissmai/bart? run: go mod download: %v", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "internal/tests/testdata/prefixes.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var l []netip.Prefix
	for s := bufio.NewScanner(z); s.Scan(); {
		l = append(l, netip.MustParsePrefix(s.Text()).Masked())
	}
	if len(l) < 1000000 {
		t.Fatalf("only %d prefixes", len(l))
	}
	return l
}

// gatewayMAC is what the gateway 192.0.2.n or 2001:db8:9::n has.
func gatewayMAC(n int) [6]byte { return [6]byte{2, 0, 0, 9, byte(n >> 8), byte(n)} }

// gateways adds n next hops, half of them by IPv6, with their neighbours.
func (r *router) gateways(t testing.TB, id uint32, device uint32, n int) []fib.NextHopID {
	t.Helper()
	var l []fib.NextHopID
	for i := range n {
		gw := netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(i)})
		if i%2 == 1 {
			gw = netip.MustParseAddr(fmt.Sprintf("2001:db8:9::%x", i))
		}
		nh, err := r.set.AddNextHop(fib.NextHop{Type: fib.Unicast, Gateway: gw, Device: device})
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, nh)
		r.neighbour(t, id, device, gw.String(), gatewayMAC(i))
	}
	return l
}

func randomAddr(rnd *rand.Rand, prefixes []netip.Prefix) netip.Addr {
	if rnd.IntN(4) == 0 { // anywhere
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], rnd.Uint64())
		binary.BigEndian.PutUint64(b[8:], rnd.Uint64())
		if rnd.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16(b)
	}
	p := prefixes[rnd.IntN(len(prefixes))]
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		if rnd.Uint32()&1 != 0 {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// special says that the program leaves an address to the kernel, in the plainest way.
func special(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return b[0] == 0 || b[0] == 127 || a.IsMulticast() || b == [4]byte{255, 255, 255, 255}
	}
	return a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.Is4In6()
}

// The program and the library agree on 100,000 addresses over the whole Internet table.
func TestIntegrationFullTable(t *testing.T) {
	r := newRouter(t, 2, Config{Image: 64 << 20})
	r.ports(t, Port{Device: r.links[0], FIB: 10}, Port{Device: r.links[1], FIB: 10})
	const n = 300
	hops := r.gateways(t, 10, r.links[1], n)
	macs := map[fib.NextHopID][6]byte{}
	for i, id := range hops {
		macs[id] = gatewayMAC(i)
	}
	group, err := r.set.AddGroup([]fib.Member{{NextHop: hops[0], Weight: 1}, {NextHop: hops[1], Weight: 3}, {NextHop: hops[2], Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	hole, err := r.set.AddNextHop(fib.NextHop{Type: fib.Blackhole})
	if err != nil {
		t.Fatal(err)
	}
	choice := append(append([]fib.NextHopID{}, hops...), group, hole)
	rnd := rand.New(rand.NewPCG(7, 7))
	prefixes := realPrefixes(t)
	f := r.table(t, 10)
	err = f.Replace(func(yield func(fib.Route) bool) {
		for _, p := range prefixes {
			if !yield(fib.Route{Prefix: p, NextHop: choice[rnd.IntN(len(choice))]}) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var forwarded, dropped, passed int
	r.in(t, func() error {
		for range 100000 {
			dst := randomAddr(rnd, prefixes)
			p := packet{dmac: r.macs[0], src: "198.51.100.1", dst: dst.String(), sport: uint16(rnd.Uint32()), dport: 53}
			if dst.Is6() {
				p.src = "2001:db8:99::1"
			}
			action, out, err := r.give(p.bytes(), r.links[0])
			if err != nil {
				return err
			}
			want := r.set.Resolve(f, dst, flowhash.Hash(0, p.flow()))
			switch {
			case special(dst) || want.Type == fib.Unreachable:
				passed++
				if action != pass {
					return fmt.Errorf("%s: action %d, the library says %v", dst, action, want)
				}
			case want.Type == fib.Blackhole:
				dropped++
				if action != drop {
					return fmt.Errorf("%s: action %d, the library says %v", dst, action, want)
				}
			default:
				forwarded++
				if action != redirect || [6]byte(out[:6]) != macs[want.ID] {
					s, _ := r.Stats(10)
					return fmt.Errorf("%s: action %d, to %x; the library says %v; counters %v", dst, action, out[:6], want, s)
				}
			}
		}
		return nil
	})
	if forwarded < 50000 || dropped < 100 || passed < 1000 {
		t.Errorf("%d forwarded, %d dropped, %d passed: the test does not test", forwarded, dropped, passed)
	}
}

// While the image changes under it, the program sees the old or the new, nothing else. Prefixes that stay never fail.
func TestIntegrationConcurrentUpdates(t *testing.T) {
	r := newRouter(t, 2, Config{})
	r.ports(t, Port{Device: r.links[0], FIB: 10}, Port{Device: r.links[1], FIB: 10})
	const n = 64
	hops := r.gateways(t, 10, r.links[1], n)
	f := r.table(t, 10)
	// Each /16 has a fixed route by one of the first half; its longer prefixes flap among it and one of the second.
	for i := range n / 2 {
		r.insert(t, 10, fmt.Sprintf("10.%d.0.0/16", i), hops[i])
		r.insert(t, 10, fmt.Sprintf("2001:db8:%x::/48", i), hops[i])
	}
	var stop atomic.Bool
	var writers sync.WaitGroup
	var changes atomic.Uint64
	writers.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 1))
		var live []netip.Prefix
		for !stop.Load() {
			i := rnd.IntN(n / 2)
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(rnd.Uint32()), byte(rnd.Uint32())}), 17+rnd.IntN(16)).Masked()
			if rnd.IntN(2) == 0 {
				b := [16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i)}
				binary.BigEndian.PutUint64(b[6:], rnd.Uint64())
				p = netip.PrefixFrom(netip.AddrFrom16(b), 49+rnd.IntN(80)).Masked()
			}
			_, _, err := f.Insert(p, hops[n/2+i])
			if live = append(live, p); len(live) > 1000 || rnd.IntN(3) > 0 {
				at := rnd.IntN(len(live))
				_, _, derr := f.Delete(live[at])
				err = errors.Join(err, derr)
				live[at] = live[len(live)-1]
				live = live[:len(live)-1]
			}
			if err != nil {
				t.Error(err)
				return
			}
			changes.Add(1)
		}
	})
	defer writers.Wait()
	defer stop.Store(true)
	var forwarded int
	r.in(t, func() error {
		rnd := rand.New(rand.NewPCG(2, 2))
		for range 60000 {
			i := rnd.IntN(n / 2)
			p := packet{dmac: r.macs[0], src: "198.51.100.1", dst: fmt.Sprintf("10.%d.%d.%d", i, rnd.IntN(256), rnd.IntN(256))}
			if rnd.IntN(2) == 0 {
				p.src, p.dst = "2001:db8:99::1", fmt.Sprintf("2001:db8:%x:%x::%x", i, rnd.IntN(65536), rnd.IntN(65536))
			}
			action, out, err := r.give(p.bytes(), r.links[0])
			if err != nil {
				return err
			}
			if action != redirect {
				continue // counted below
			}
			forwarded++
			if mac := [6]byte(out[:6]); mac != gatewayMAC(i) && mac != gatewayMAC(n/2+i) {
				return fmt.Errorf("%s went to %x", p.dst, mac)
			}
		}
		return nil
	})
	s := r.counters(t, 10)
	t.Logf("%d changes, %d forwarded, %d met a change at each try", changes.Load(), forwarded, s.Packets[Changing])
	if uint64(forwarded)+s.Packets[Changing] != 60000 || s.Packets[Changing] > 60 {
		t.Errorf("%d of 60000 forwarded, %d changing, %d without a route", forwarded, s.Packets[Changing], s.Packets[NoRoute])
	}
	if changes.Load() < 1000 {
		t.Errorf("only %d changes", changes.Load())
	}
}
