package fib_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gaissmai/bart"

	"midplane/fib"
	"midplane/internal/fib/fibtest"
)

var (
	updates = flag.Int("fib.updates", 200_000/scale, "TestChurn: how many updates; 5000000 is what the documentation tells of")
	every   = flag.Int("fib.every", everyNth, "TestChurn: take each n-th prefix of the full table; 1: all")
)

// full returns the prefixes of the full table, and a few short ones that it lacks.
func full(t *testing.T) []netip.Prefix {
	t.Helper()
	both, err := fibtest.Prefixes()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l := []netip.Prefix{}
	for _, s := range []string{"0.0.0.0/0", "0.0.0.0/1", "64.0.0.0/2", "96.0.0.0/3", "192.0.0.0/6", "8.0.0.0/7", "::/0", "2000::/3", "2a00::/7", "2a00::/11"} {
		l = append(l, netip.MustParsePrefix(s))
	}
	for f := range both {
		if len(both[f]) < 100_000 {
			t.Fatalf("only %d prefixes", len(both[f]))
		}
		for i := 0; i < len(both[f]); i += *every {
			l = append(l, both[f][i])
		}
	}
	slices.SortFunc(l, fibtest.ComparePrefixes)
	return slices.Compact(l)
}

// hops makes the next hops of a test: that of number n has the id ids[n].
func hops(t testing.TB, s *fib.Set, n int) []fib.NextHopID {
	t.Helper()
	ids := make([]fib.NextHopID, n+1)
	for i := 1; i <= n; i++ {
		id, err := s.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: uint32(i)})
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = id
	}
	return ids
}

// world is one table three times: ours, bart's, and the reference.
type world struct {
	t      *testing.T
	set    *fib.Set
	table  *fib.Table
	ids    []fib.NextHopID
	bart   bart.Table[uint32]
	slow   fibtest.Reference
	number map[fib.NextHopID]uint32

	states watched // of the prefixes in index, if there are readers
	index  map[netip.Prefix]int32
}

func newWorld(t *testing.T) *world {
	t.Helper()
	set, err := fib.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	table, err := set.Create(1, "full")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, set: set, table: table, ids: hops(t, set, fibtest.Hops), slow: fibtest.Reference{}, number: map[fib.NextHopID]uint32{}}
	for n, id := range w.ids {
		w.number[id] = uint32(n)
	}
	return w
}

// put inserts a route into the three, and compares what they say of the old one.
func (w *world) put(p netip.Prefix, nh uint32) {
	end := w.begin(p, nh)
	old, replaced, err := w.table.Insert(p, w.ids[nh])
	end()
	if err != nil {
		w.t.Fatalf("insert %v: %v", p, err)
	}
	want, was := w.slow[p]
	if replaced != was || w.number[old] != want {
		w.t.Fatalf("insert %v: replaced %d, %v, want %d, %v", p, w.number[old], replaced, want, was)
	}
	w.bart.Insert(p, nh)
	w.slow[p] = nh
}

func (w *world) take(p netip.Prefix) {
	end := w.begin(p, 0)
	old, deleted, err := w.table.Delete(p)
	end()
	if err != nil {
		w.t.Fatalf("delete %v: %v", p, err)
	}
	want, was := w.slow[p]
	if deleted != was || w.number[old] != want {
		w.t.Fatalf("delete %v: had %d, %v, want %d, %v", p, w.number[old], deleted, want, was)
	}
	w.bart.Delete(p)
	delete(w.slow, p)
}

func (w *world) route(r fib.Route) fibtest.Route {
	return fibtest.Route{Prefix: r.Prefix, NextHop: w.number[r.NextHop]}
}

// same compares the three: all routes in order, get of each, and n lookups, also with the prefix, and of covering and
// covered prefixes.
func (w *world) same(when string, r *rand.Rand, universe []netip.Prefix, n int) {
	w.t.Helper()
	want := w.slow.Sorted()
	i := 0
	for got := range w.table.All() {
		if i >= len(want) || w.route(got) != want[i] {
			w.t.Fatalf("%s: route %d of All is %v", when, i, got)
		}
		i++
	}
	n4, n6 := w.table.Len()
	if i != len(want) || n4+n6 != i || w.bart.Size() != i {
		w.t.Fatalf("%s: All has %d routes, Len is %d + %d, bart has %d, the reference %d", when, i, n4, n6, w.bart.Size(), len(want))
	}
	for _, p := range universe {
		got, ok := w.table.Get(p)
		nh, there := w.slow[p]
		if b, inBart := w.bart.Get(p); ok != there || w.number[got] != nh || inBart != there || b != nh {
			w.t.Fatalf("%s: get %v: %d, %v; the reference: %d, %v; bart: %d, %v", when, p, w.number[got], ok, nh, there, b, inBart)
		}
	}
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		switch r.IntN(10) {
		case 0:
			addrs[i] = fibtest.Any(r, r.IntN(2))
		case 1:
			addrs[i] = universe[r.IntN(len(universe))].Addr().Prev() // behind a prefix's edge
			if !addrs[i].IsValid() {
				addrs[i] = fibtest.Any(r, r.IntN(2))
			}
		default:
			addrs[i] = fibtest.Within(r, universe[r.IntN(len(universe))])
		}
	}
	batch := make([]fib.NextHopID, n)
	w.table.LookupBatch(addrs, batch)
	for i, a := range addrs {
		nh, ok := w.table.Lookup(a)
		b, inBart := w.bart.Lookup(a)
		if ok != inBart || w.number[nh] != b || batch[i] != nh {
			w.t.Fatalf("%s: lookup %v: %d, %v, in a batch %d; bart: %d, %v", when, a, w.number[nh], ok, w.number[batch[i]], b, inBart)
		}
		if i%8 != 0 {
			continue
		}
		route, ok2 := w.table.LookupRoute(a)
		slow, there := w.slow.Lookup(a)
		if ok2 != there || ok2 && w.route(route) != slow || ok != there || w.number[nh] != slow.NextHop {
			w.t.Fatalf("%s: route of %v: %v, %v; the reference: %v, %v", when, a, route, ok2, slow, there)
		}
	}
	for range n / 64 {
		p := universe[r.IntN(len(universe))]
		var got []fibtest.Route
		for r := range w.table.Covering(p) {
			got = append(got, w.route(r))
		}
		if want := w.slow.Covering(p); !slices.Equal(got, want) {
			w.t.Fatalf("%s: covering %v: %v, want %v", when, p, got, want)
		}
		if p.Bits() < 4 {
			continue
		}
		got = got[:0]
		for r := range w.table.Covered(p) {
			got = append(got, w.route(r))
		}
		var covered []fibtest.Route
		from, _ := slices.BinarySearchFunc(want, p, func(r fibtest.Route, p netip.Prefix) int { return fibtest.ComparePrefixes(r.Prefix, p) })
		for _, r := range want[from:] {
			if !p.Contains(r.Prefix.Addr()) {
				break
			}
			covered = append(covered, r)
		}
		if !slices.Equal(got, covered) {
			w.t.Fatalf("%s: covered by %v: %v, want %v", when, p, got, covered)
		}
	}
}

// watched is what a reader can know of a table that is being changed: the state of each prefix, which the writer writes
// down before and after each change. A state has 20 bits each of the next hop now (or after the change that is under way)
// and of that before it (0: not there), and above them a number that is odd while the change is under way.
type watched struct{ state []atomic.Uint64 }

// begin says that a prefix is about to lead to nh, 0: to go. What it returns says that it does.
func (w *world) begin(p netip.Prefix, nh uint32) (end func()) {
	i, ok := w.index[p]
	if !ok {
		return func() {}
	}
	state := &w.states.state[i]
	s := state.Load()
	state.Store((s>>40+1)<<40 | s&0xfffff<<20 | uint64(nh))
	return func() { state.Add(1 << 40) }
}

// could returns what a prefix may have led to while its state went from before to after, and whether that is known at
// all: it is not if it changed more than once.
func could(before, after uint64) (values [3]uint32, n int, known bool) {
	now, was := uint32(after&0xfffff), uint32(after>>20&0xfffff)
	switch after>>40 - before>>40 {
	case 0:
		if after>>40&1 == 0 {
			return [3]uint32{now}, 1, true
		}
		return [3]uint32{now, was}, 2, true
	case 1, 2:
		if after>>40&1 == 0 || before>>40&1 == 0 { // one change, begun before or not
			return [3]uint32{now, was}, 2, true
		}
		return [3]uint32{now, was, uint32(before >> 20 & 0xfffff)}, 3, true // the end of one, the beginning of the next
	}
	return values, 0, false
}

// probe is an address, and the prefixes of the universe that contain it, the longest first.
type probe struct {
	addr  netip.Addr
	chain []int32
}

func (w *watched) probes(r *rand.Rand, universe []netip.Prefix, index map[netip.Prefix]int32, n int) []probe {
	l := make([]probe, n)
	for i := range l {
		p := &l[i]
		p.addr = fibtest.Within(r, universe[r.IntN(len(universe))])
		for bits := p.addr.BitLen(); bits >= 0; bits-- {
			q, _ := p.addr.Prefix(bits)
			if at, ok := index[q]; ok {
				p.chain = append(p.chain, at)
			}
		}
	}
	return l
}

// check looks one address up and says whether the answer is one that it had in the meantime. exact says that there was
// only one such answer, known that there was a bound at all.
func (w *watched) check(p *probe, lookup func(netip.Addr) uint32) (exact, known bool, err error) {
	var before [64]uint64
	if len(p.chain) > len(before) {
		return false, false, fmt.Errorf("%d prefixes contain %v", len(p.chain), p.addr)
	}
	for i, c := range p.chain {
		before[i] = w.state[c].Load()
	}
	got := lookup(p.addr)
	var can [200]uint32
	n := 0
	for i, c := range p.chain {
		values, k, known := could(before[i], w.state[c].Load())
		if !known {
			return false, false, nil
		}
		absent := false
		for _, v := range values[:k] {
			if v == 0 {
				absent = true
			} else {
				can[n] = v
				n++
			}
		}
		if !absent {
			break
		}
		if i == len(p.chain)-1 {
			n++ // a 0: no route
		}
	}
	if len(p.chain) == 0 {
		n = 1
	}
	if !slices.Contains(can[:n], got) {
		return false, true, fmt.Errorf("lookup %v: %d, but while it was under way there were only %v", p.addr, got, can[:n])
	}
	return n == 1, true, nil
}

// judgedPerUpdate is how many lookups are judged for each update, at least: so many are asked for, while more updates are
// made, and the writer waits for those that are behind. In the race build it is lookups, not updates, that take the time.
const judgedPerUpdate = 16

// hotPrefixes is how many prefixes side by side get a good part of the updates and of the lookups, so that they meet.
const hotPrefixes = 48

// TestChurn changes a full table while it is read: before, the three tables are the same; during, each answer of the
// readers is one that the address had while it was looked up, as the states of the prefixes around it tell; after, the
// three are the same again.
func TestChurn(t *testing.T) {
	w, r := newWorld(t), fibtest.Rand(1)
	universe := full(t)
	w.index = make(map[netip.Prefix]int32, len(universe))
	w.states.state = make([]atomic.Uint64, len(universe))
	for i, p := range universe {
		w.index[p] = int32(i)
	}
	for _, i := range r.Perm(len(universe)) {
		w.put(universe[i], fibtest.Hop(r))
	}
	w.same("before", r, universe, 100_000/scale)

	// The hot ones: two stretches side by side, and the short prefixes above them, of which a change visits half of the
	// table, so that they change less often.
	var hot, short []netip.Prefix
	for _, p := range universe {
		if p.Bits() <= 7 {
			short = append(short, p)
		}
	}
	for _, a := range []string{"203.0.0.0", "2a02::"} {
		at, _ := slices.BinarySearchFunc(universe, netip.MustParseAddr(a), func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
		hot = append(hot, universe[at:at+hotPrefixes]...)
	}

	const round = 64 // updates, for which a reader is asked for as many times judgedPerUpdate lookups
	asked := make(chan struct{}, 2)
	var wg sync.WaitGroup
	var lookups, exact, unknown atomic.Int64
	for n := range max(2, runtime.GOMAXPROCS(0)-1) {
		r := fibtest.Rand(uint64(100 + n))
		probes := append(w.states.probes(r, universe, w.index, 20_000), w.states.probes(r, slices.Concat(hot, short), w.index, 500)...)
		lookup := func(a netip.Addr) uint32 { nh, _ := w.table.Lookup(a); return w.number[nh] }
		if n%2 == 1 { // the same by the other way
			lookup = func(a netip.Addr) uint32 {
				nhs := [4]fib.NextHopID{}
				w.table.LookupBatch([]netip.Addr{a, a, a, a}, nhs[:])
				return w.number[nhs[r.IntN(4)]]
			}
		}
		wg.Go(func() {
			for range asked {
				one, not := 0, 0
				for range round * judgedPerUpdate {
					p := &probes[r.IntN(len(probes))]
					if r.IntN(2) == 0 {
						p = &probes[len(probes)-1-r.IntN(500)]
					}
					only, known, err := w.states.check(p, lookup)
					if err != nil {
						t.Error(err)
						break
					}
					if only {
						one++
					}
					if !known {
						not++
					}
				}
				lookups.Add(round * judgedPerUpdate)
				exact.Add(int64(one))
				unknown.Add(int64(not))
			}
		})
	}
	churn, hotChurn, shortChurn := fibtest.NewChurn(2, len(universe)), fibtest.NewChurn(3, len(hot)), fibtest.NewChurn(4, len(short))
	for n := range *updates {
		if n%round == 0 {
			asked <- struct{}{}
		}
		u, of := churn.Next(), universe
		switch {
		case n%256 == 1:
			u, of = shortChurn.Next(), short
		case n%3 == 0:
			u, of = hotChurn.Next(), hot
		}
		p := of[u.Prefix]
		switch _, there := w.slow[p]; {
		case !u.Withdraw:
			w.put(p, u.NextHop)
		case there: // the other churn may have withdrawn it
			w.take(p)
		}
		if n%64 == 0 { // the writer's own eyes
			a := fibtest.Within(r, p)
			nh, ok := w.table.Lookup(a)
			if b, inBart := w.bart.Lookup(a); ok != inBart || w.number[nh] != b {
				t.Fatalf("after %d updates: lookup %v: %d, %v; bart: %d, %v", n+1, a, w.number[nh], ok, b, inBart)
			}
		}
		if t.Failed() {
			break
		}
	}
	close(asked)
	wg.Wait()
	t.Logf("%d prefixes, %d updates, %d lookups meanwhile: %d had one right answer, %d had several, %d could not be judged", len(universe), *updates,
		lookups.Load(), exact.Load(), lookups.Load()-exact.Load()-unknown.Load(), unknown.Load())
	if exact.Load() == 0 || unknown.Load() > lookups.Load()/10 || exact.Load()+unknown.Load() == lookups.Load() {
		t.Error("too few lookups were judged, or none met a change")
	}
	w.same("after", r, universe, 100_000/scale)
	w.uses()
}

// uses compares how many routes hold each next hop.
func (w *world) uses() {
	w.t.Helper()
	want := map[fib.NextHopID]int{}
	for _, nh := range w.slow {
		want[w.ids[nh]]++
	}
	for id, i := range w.set.NextHops() {
		if i.Routes != want[id] {
			w.t.Errorf("next hop %d is held by %d routes, want %d", w.number[id], i.Routes, want[id])
		}
	}
}
