package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/gaissmai/bart"

	"midplane/bench/internal/stat"
	"midplane/fib"
	"midplane/internal/fib/fibtest"
)

// heap returns the octets of the heap that are in use.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// image returns the octets of the image that are in use.
func image(s *fib.Set) float64 {
	st := s.Stats()
	return float64(st.Size - st.Free)
}

func memory() {
	both, err := fibtest.Prefixes()
	check(err)
	fmt.Println("\nMemory, octets a route. image: what the FIB has taken of it; all in: and what the heap grew by, without the image's empty directories.")
	fmt.Printf("%-6s %9s %9s %9s %9s   %9s\n", "", "image", "all in", "Table", "Fast", "Table/fib")
	for family, name := range []string{"IPv4", "IPv6"} {
		r := fibtest.Rand(1)
		l := fibtest.Shuffled(r, both[family])
		hops := make([]uint32, len(l))
		for i := range hops {
			hops[i] = fibtest.Hop(r)
		}
		n := float64(len(l))

		set, ids := newSet()
		t, err := set.Create(1, "")
		check(err)
		before, empty := heap(), image(set)
		for i, p := range l {
			insert(t, p, ids[hops[i]])
		}
		ours := (heap() - before + image(set) - empty) / n
		taken := float64(t.Memory()) / n
		runtime.KeepAlive(t)
		set.Close()

		inTable := grown(l, func() interface{ Insert(netip.Prefix, uint32) } { return &bart.Table[uint32]{} }, hops)
		inFast := grown(l, func() interface{ Insert(netip.Prefix, uint32) } { return &bart.Fast[uint32]{} }, hops)
		most := []float64{8, 40}[family]
		fmt.Printf("%-6s %9.2f %9.2f %9.2f %9.2f   %9.2f  %s\n", name, taken, ours, inTable, inFast, inTable/ours, goal(ours <= most, fmt.Sprintf("<= %.0f", most)))
	}
}

// grown returns by how many octets a route the heap grows with a table.
func grown(l []netip.Prefix, empty func() interface{ Insert(netip.Prefix, uint32) }, hops []uint32) float64 {
	before := heap()
	t := empty()
	for i, p := range l {
		t.Insert(p, hops[i])
	}
	n := (heap() - before) / float64(len(l))
	runtime.KeepAlive(t)
	return n
}

func load() {
	l, hops := all()
	fmt.Println("\nLoading the full table, both families, in random order, ms (median)")
	var ns [4][]float64
	for range min(*rounds, 5) {
		set, ids := newSet()
		t, err := set.Create(1, "")
		check(err)
		start := time.Now()
		for i, p := range l {
			insert(t, p, ids[hops[i]])
		}
		ns[0] = append(ns[0], float64(time.Since(start))/1e6)
		start = time.Now()
		check(t.Replace(func(yield func(fib.Route) bool) {
			for i, p := range l {
				if !yield(fib.Route{Prefix: p, NextHop: ids[hops[i]]}) {
					return
				}
			}
		}))
		ns[1] = append(ns[1], float64(time.Since(start))/1e6)
		set.Close()
		start = time.Now()
		table := &bart.Table[uint32]{}
		for i, p := range l {
			table.Insert(p, hops[i])
		}
		ns[2] = append(ns[2], float64(time.Since(start))/1e6)
		start = time.Now()
		fast := &bart.Fast[uint32]{}
		for i, p := range l {
			fast.Insert(p, hops[i])
		}
		ns[3] = append(ns[3], float64(time.Since(start))/1e6)
		runtime.KeepAlive(table)
		runtime.KeepAlive(fast)
	}
	fmt.Printf("insert one by one %.0f, swap of the whole %.0f, bart Table %.0f, bart Fast %.0f\n", stat.Median(ns[0]), stat.Median(ns[1]), stat.Median(ns[2]), stat.Median(ns[3]))
}

// many has FIBs of equal size, with prefixes drawn from the full table, of which 85 in 100 are IPv4, as there, or all.
func many() {
	both, err := fibtest.Prefixes()
	check(err)
	fmt.Println("\nMany FIBs, with prefixes drawn at random from the full table. MB of the image and of the heap, with all directories.")
	for _, k := range []struct {
		fibs, routes int
		share        int // of IPv4, in 20
		most         float64
	}{{1000, 1000, 20, 100}, {1000, 1000, 17, 100}, {10_000, 10, 17, 0}, {10_000, 100, 17, 0}} {
		r := fibtest.Rand(7)
		before := heap()
		set, ids := newSet()
		for n := 1; n <= k.fibs; n++ {
			t, err := set.Create(fib.ID(n), "")
			check(err)
			for i := range k.routes {
				family := 0
				if i%20 >= k.share {
					family = 1
				}
				insert(t, both[family][r.IntN(len(both[family]))], ids[fibtest.Hop(r)])
			}
		}
		inImage, onHeap := image(set)/1e6, (heap()-before)/1e6
		verdict := ""
		if k.most > 0 {
			verdict = goal(inImage+onHeap < k.most, fmt.Sprintf("< %.0f MB", k.most))
		}
		a := netip.MustParseAddr("192.0.2.1")
		t, _ := set.Table(1)
		t.Lookup(a)
		fmt.Printf("%6d FIBs of %5d routes, %3d %% IPv4: image %6.1f, heap %5.1f; %.0f octets a route  %s\n", k.fibs, k.routes, 5*k.share, inImage, onHeap,
			(inImage+onHeap)*1e6/float64(k.fibs*k.routes), verdict)
		set.Close()
	}
}
