package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"midplane/fib"
	"midplane/internal/fib/fibtest"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fib:", err)
		os.Exit(1)
	}
}

// world is the full table in each contender.
type world struct {
	set     *fib.Set
	ours    *fib.Table
	ids     []fib.NextHopID
	table   *bart.Table[uint32]
	fast    *bart.Fast[uint32]
	persist atomic.Pointer[bart.Table[uint32]]
}

func newSet() (*fib.Set, []fib.NextHopID) {
	set, err := fib.New(nil)
	check(err)
	ids := make([]fib.NextHopID, fibtest.Hops+1)
	for i := 1; i < len(ids); i++ {
		ids[i], err = set.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: uint32(i)})
		check(err)
	}
	return set, ids
}

func insert(t *fib.Table, p netip.Prefix, id fib.NextHopID) {
	_, _, err := t.Insert(p, id)
	check(err)
}

// all returns the prefixes of both families in random order, with their next hops.
func all() ([]netip.Prefix, []uint32) {
	both, err := fibtest.Prefixes()
	check(err)
	r := fibtest.Rand(1)
	l := fibtest.Shuffled(r, append(append([]netip.Prefix(nil), both[0]...), both[1]...))
	hops := make([]uint32, len(l))
	for i := range hops {
		hops[i] = fibtest.Hop(r)
	}
	return l, hops
}

// newWorld fills the contenders. Persist is filled like Table and then changed by its own calls, so that it has their
// layout in a part.
func newWorld() *world {
	w := &world{table: &bart.Table[uint32]{}, fast: &bart.Fast[uint32]{}}
	w.set, w.ids = newSet()
	var err error
	w.ours, err = w.set.Create(1, "full")
	check(err)
	l, hops := all()
	p := &bart.Table[uint32]{}
	for i := range l {
		insert(w.ours, l[i], w.ids[hops[i]])
		w.table.Insert(l[i], hops[i])
		w.fast.Insert(l[i], hops[i])
		p.Insert(l[i], hops[i])
	}
	for i := range less(20_000) {
		p = p.InsertPersist(l[i], hops[i])
	}
	w.persist.Store(p)
	runtime.GC()
	return w
}

func (w *world) close() { w.set.Close() }

// keys of a kind, as many as fit no cache.
func keys(kind string, family int) []netip.Addr {
	both, err := fibtest.Prefixes()
	check(err)
	r := fibtest.Rand(uint64(100 + family))
	l := make([]netip.Addr, 1<<20)
	draw := func(r *rand.Rand) netip.Addr { return fibtest.Within(r, both[family][r.IntN(len(both[family]))]) }
	var some [4096]netip.Addr
	for i := range some {
		some[i] = draw(r)
	}
	for i := range l {
		switch kind {
		case "tbl":
			l[i] = draw(r)
		case "rnd":
			l[i] = fibtest.Any(r, family)
		case "hot4096":
			l[i] = some[r.IntN(len(some))]
		case "hot1":
			l[i] = some[0]
		}
	}
	return l
}
