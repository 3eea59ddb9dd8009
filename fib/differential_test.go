package fib_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"midplane/fib"
	"midplane/internal/fib/fibtest"
)

// near draws prefixes of all lengths that are close together: prefixes of a few long addresses, with one bit turned now
// and then, so that they cover, adjoin and equal each other.
func near() *rapid.Generator[netip.Prefix] {
	roots := []netip.Addr{}
	for _, s := range []string{"0.0.0.0", "10.170.85.3", "255.255.255.255", "::", "2001:db8:aaaa:5555:3333:cccc:f0f0:1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		roots = append(roots, netip.MustParseAddr(s))
	}
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		b := rapid.SampledFrom(roots).Draw(t, "root").AsSlice()
		bits := len(b) * 8
		if rapid.Bool().Draw(t, "turn") {
			at := rapid.IntRange(0, bits-1).Draw(t, "bit")
			b[at/8] ^= 128 >> (at % 8)
		}
		a, _ := netip.AddrFromSlice(b)
		n := rapid.IntRange(0, bits).Draw(t, "length")
		if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
			n = rapid.SampledFrom([]int{0, 1, 6, 7, bits / 2, bits - 1, bits}).Draw(t, "length")
		}
		p, _ := a.Prefix(n)
		return p
	})
}

// edges are the addresses at which the answer may change because of a prefix.
func edges(p netip.Prefix) (l []netip.Addr) {
	first := p.Addr()
	b := first.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 128 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	for _, a := range []netip.Addr{first.Prev(), first, last, last.Next()} {
		if a.IsValid() {
			l = append(l, a)
		}
	}
	return l
}

func collect(s func(func(fib.Route) bool)) (l []fibtest.Route) {
	for r := range s {
		l = append(l, fibtest.Route{Prefix: r.Prefix, NextHop: uint32(r.NextHop)})
	}
	return l
}

// TestSmallTables does all that can be done to a table to a small one and to the reference, and compares all they say,
// of the table and of snapshots of it.
func TestSmallTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, err := fib.New(&fib.Config{Size: 4 << 20, MaxFIBs: 16, MaxNextHops: 1024})
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		table, _ := set.Create(1, "")
		var ids []fib.NextHopID
		for i := range uint32(6) {
			id, err := set.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: i + 1})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		slow := fibtest.Reference{}
		prefix, hop := near(), rapid.SampledFrom(ids)
		var snapshots []*fib.Snapshot
		var then []fibtest.Reference
		compare := func(what string, slow fibtest.Reference, p netip.Prefix,
			lookup func(netip.Addr) (fib.NextHopID, bool), batch func([]netip.Addr, []fib.NextHopID), route func(netip.Addr) (fib.Route, bool),
			get func(netip.Prefix) (fib.NextHopID, bool), length func() (int, int), all, covering, covered func(func(fib.Route) bool)) {
			want := slow.Sorted()
			if got := collect(all); !slices.Equal(got, want) {
				t.Fatalf("%s: all: %v, want %v", what, got, want)
			}
			if n4, n6 := length(); n4+n6 != len(want) {
				t.Fatalf("%s: length %d + %d, want %d", what, n4, n6, len(want))
			}
			if got, want := collect(covering), slow.Covering(p); !slices.Equal(got, want) {
				t.Fatalf("%s: covering %v: %v, want %v", what, p, got, want)
			}
			if got, want := collect(covered), slow.Covered(p); !slices.Equal(got, want) {
				t.Fatalf("%s: covered by %v: %v, want %v", what, p, got, want)
			}
			addrs := edges(p)
			for _, r := range want {
				if got, ok := get(r.Prefix); !ok || uint32(got) != r.NextHop {
					t.Fatalf("%s: get %v: %d, %v", what, r, got, ok)
				}
				addrs = append(addrs, edges(r.Prefix)...)
			}
			if got, ok := get(p); uint32(got) != slow[p] || ok != (slow[p] != 0) {
				t.Fatalf("%s: get %v: %d, %v", what, p, got, ok)
			}
			nhs := make([]fib.NextHopID, len(addrs))
			batch(addrs, nhs)
			for i, a := range addrs {
				want, there := slow.Lookup(a)
				nh, ok := lookup(a)
				if uint32(nh) != want.NextHop || ok != there || nhs[i] != nh {
					t.Fatalf("%s: lookup %v: %d, %v, in a batch %d, want %v, %v", what, a, nh, ok, nhs[i], want, there)
				}
				if r, ok := route(a); ok != there || r.Prefix != want.Prefix || uint32(r.NextHop) != want.NextHop {
					t.Fatalf("%s: route of %v: %v, %v, want %v, %v", what, a, r, ok, want, there)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				p, nh := prefix.Draw(t, "prefix"), hop.Draw(t, "next hop")
				given, _ := netip.AddrFromSlice(p.Addr().AsSlice())
				old, replaced, err := table.Insert(netip.PrefixFrom(given, p.Bits()), nh)
				if err != nil || uint32(old) != slow[p] || replaced != (slow[p] != 0) {
					t.Fatalf("insert %v: %d, %v, %v", p, old, replaced, err)
				}
				slow[p] = uint32(nh)
			},
			"insert many": func(t *rapid.T) {
				p, nh := prefix.Draw(t, "prefix"), hop.Draw(t, "next hop")
				for range 8 {
					if _, _, err := table.Insert(p, nh); err != nil {
						t.Fatal(err)
					}
					slow[p] = uint32(nh)
					if p.Bits() == p.Addr().BitLen() {
						break
					}
					p = netip.PrefixFrom(p.Addr(), p.Bits()+1)
				}
			},
			"delete": func(t *rapid.T) {
				p := prefix.Draw(t, "prefix")
				if l := slow.Sorted(); len(l) > 0 && rapid.IntRange(0, 9).Draw(t, "there") > 0 {
					p = rapid.SampledFrom(l).Draw(t, "route").Prefix
				}
				old, deleted, err := table.Delete(p)
				if err != nil || uint32(old) != slow[p] || deleted != (slow[p] != 0) {
					t.Fatalf("delete %v: %d, %v, %v", p, old, deleted, err)
				}
				delete(slow, p)
			},
			"clear": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					if err := table.Clear(); err != nil {
						t.Fatal(err)
					}
					clear(slow)
				}
			},
			"replace all": func(t *rapid.T) {
				l := rapid.SliceOfN(prefix, 0, 40).Draw(t, "prefixes")
				nh := hop.Draw(t, "next hop")
				var routes []fib.Route
				clear(slow)
				for i, p := range l {
					nh := ids[(int(nh)+i)%len(ids)]
					routes = append(routes, fib.Route{Prefix: p, NextHop: nh})
					slow[p] = uint32(nh)
				}
				if err := table.Replace(slices.Values(routes)); err != nil {
					t.Fatal(err)
				}
			},
			"replace with an error": func(t *rapid.T) {
				routes := []fib.Route{{Prefix: prefix.Draw(t, "prefix"), NextHop: ids[0]}, {Prefix: prefix.Draw(t, "prefix"), NextHop: 999}}
				if err := table.Replace(slices.Values(routes)); !errors.Is(err, fib.ErrNotFound) {
					t.Fatal(err)
				}
			},
			"snapshot": func(t *rapid.T) {
				if len(snapshots) == 5 {
					i := rapid.IntRange(0, 4).Draw(t, "which")
					if err := snapshots[i].Close(); err != nil {
						t.Fatal(err)
					}
					snapshots, then = slices.Delete(snapshots, i, i+1), slices.Delete(then, i, i+1)
				}
				s, err := table.Snapshot()
				if err != nil || s.Generation() != table.Generation() {
					t.Fatal(err)
				}
				c := fibtest.Reference{}
				for p, nh := range slow {
					c[p] = nh
				}
				snapshots, then = append(snapshots, s), append(then, c)
			},
			"": func(t *rapid.T) {
				p := prefix.Draw(t, "asked")
				compare("table", slow, p, table.Lookup, table.LookupBatch, table.LookupRoute, table.Get, table.Len, table.All(), table.Covering(p), table.Covered(p))
				for i, s := range snapshots {
					compare(fmt.Sprint("snapshot ", i), then[i], p, s.Lookup, s.LookupBatch, s.LookupRoute, s.Get, s.Len, s.All(), s.Covering(p), s.Covered(p))
				}
				uses := map[uint32]int{}
				for _, m := range append([]fibtest.Reference{slow}, then...) {
					for _, nh := range m {
						uses[nh]++
					}
				}
				for _, id := range ids {
					if i, ok := set.NextHop(id); !ok || i.Routes != uses[uint32(id)] {
						t.Fatalf("next hop %d is held by %d routes, want %d", id, i.Routes, uses[uint32(id)])
					}
				}
			},
		})
	})
}

// TestDenseTables lets tables grow through all shapes of the root and back, with all prefixes close together.
func TestDenseTables(t *testing.T) {
	for family, base := range []string{"10.0.0.0/8", "2001:db8::/32"} {
		t.Run(base, func(t *testing.T) {
			w, r := newWorld(t), fibtest.Rand(uint64(family))
			root := netip.MustParsePrefix(base)
			var universe []netip.Prefix
			for range 120_000 / scale {
				a := fibtest.Within(r, root)
				bits := min(root.Bits()+r.IntN(20)+r.IntN(10), a.BitLen())
				if r.IntN(20) == 0 {
					bits = r.IntN(a.BitLen() + 1)
				}
				p, _ := a.Prefix(bits)
				universe = append(universe, p)
			}
			slices.SortFunc(universe, fibtest.ComparePrefixes)
			universe = slices.Compact(universe)
			order := fibtest.Shuffled(r, universe)
			for i, p := range order {
				w.put(p, fibtest.Hop(r))
				if i == 500 || i == 2000 || i == len(order)-1 {
					w.same(fmt.Sprint("with ", i+1), r, universe, 5000)
				}
			}
			order = fibtest.Shuffled(r, universe)
			for i, p := range order {
				w.take(p)
				if left := len(order) - 1 - i; left == 98000 || left == 3000 || left == 50 || left == 0 {
					w.same(fmt.Sprint("down to ", left), r, universe, 5000)
				}
			}
			w.uses()
		})
	}
}

// TestSwapUnderReaders swaps whole tables, also for an empty one: each lookup is of the one or of the other.
func TestSwapUnderReaders(t *testing.T) {
	w, r := newWorld(t), fibtest.Rand(3)
	var tables [3]fibtest.Reference
	var routes [3][]fib.Route
	var universe []netip.Prefix
	for i := range tables {
		tables[i] = fibtest.Reference{}
		for j := range []int{3000, 40, 0}[i] {
			p, _ := fibtest.Any(r, j%2).Prefix(1 + r.IntN(32))
			tables[i][p] = fibtest.Hop(r)
		}
	}
	tables[0][netip.MustParsePrefix("0.0.0.0/0")] = 1
	tables[1][netip.MustParsePrefix("::/0")] = 2
	for i := range tables {
		for p, nh := range tables[i] {
			routes[i] = append(routes[i], fib.Route{Prefix: p, NextHop: w.ids[nh]})
			universe = append(universe, p)
		}
	}
	type answers struct {
		addr netip.Addr
		nh   [3]uint32
	}
	var probes []answers
	for range 5000 {
		a := answers{addr: fibtest.Within(r, universe[r.IntN(len(universe))])}
		for i := range tables {
			route, _ := tables[i].Lookup(a.addr)
			a.nh[i] = route.NextHop
		}
		probes = append(probes, a)
	}
	var step atomic.Int64 // 2k: table k%3 is in place; 2k+1: the next is on its way
	var stop atomic.Bool
	var wg sync.WaitGroup
	var judged atomic.Int64
	if err := w.table.Replace(slices.Values(routes[0])); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		r := fibtest.Rand(uint64(n))
		wg.Go(func() {
			for ; !stop.Load(); runtime.Gosched() {
				p := &probes[r.IntN(len(probes))]
				before := step.Load()
				nh, _ := w.table.Lookup(p.addr)
				after := step.Load()
				ok := after-before > 4
				for k := before / 2; k <= (after+1)/2 && !ok; k++ {
					ok = p.nh[k%3] == w.number[nh]
				}
				if !ok {
					t.Errorf("lookup %v: %d, between the steps %d and %d; the tables have %v", p.addr, w.number[nh], before, after, p.nh)
					return
				}
				if after-before <= 2 {
					judged.Add(1)
				}
			}
		})
	}
	for k := range 600 / scale {
		step.Add(1)
		var err error
		if next := (k + 1) % 3; next == 2 && k%2 == 0 {
			err = w.table.Clear()
		} else {
			err = w.table.Replace(slices.Values(routes[next]))
		}
		if err != nil {
			t.Fatal(err)
		}
		step.Add(1)
	}
	stop.Store(true)
	wg.Wait()
	if judged.Load() == 0 {
		t.Error("no lookup was judged")
	}
	for i := range 3 {
		if err := w.table.Replace(slices.Values(routes[i])); err != nil {
			t.Fatal(err)
		}
		w.slow = tables[i]
		w.uses()
	}
}

// TestManyFIBs has 10,000 of them, all with the same prefixes, which lead elsewhere in each. Some are removed and made
// anew while others are read.
func TestManyFIBs(t *testing.T) {
	const fibs = 10_000
	set, err := fib.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	ids := hops(t, set, fibs)
	prefixes := []netip.Prefix{}
	for _, s := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.168.0.0/17", "2001:db8::/32", "2001:db8:1::/48", "fe80::/10"} {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	inside := []netip.Addr{}
	for _, s := range []string{"1.1.1.1", "10.9.9.9", "10.1.2.3", "10.1.2.4", "192.168.4.4", "2001:db8:1::1", "fe80::5"} {
		inside = append(inside, netip.MustParseAddr(s))
	}
	outside := netip.MustParseAddr("3fff::1")
	tables := make([]*fib.Table, fibs+1)
	make1 := func(n int) {
		f, err := set.Create(fib.ID(n), fmt.Sprint("f", n))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range prefixes {
			if _, _, err := f.Insert(p, ids[n]); err != nil {
				t.Fatal(err)
			}
		}
		tables[n] = f
	}
	for n := 1; n <= fibs; n++ {
		make1(n)
	}
	st := set.Stats()
	if st.FIBs != fibs {
		t.Fatal(st)
	}
	t.Logf("%d FIBs of %d routes take %d octets of the image each", fibs, len(prefixes), (st.Size-st.Free)/fibs)
	check := func(n int) {
		for _, a := range inside {
			if nh, ok := tables[n].Lookup(a); !ok || nh != ids[n] {
				t.Fatalf("FIB %d: lookup %v: %d, %v, want %d", n, a, nh, ok, ids[n])
			}
		}
		if nh, ok := tables[n].Lookup(outside); ok {
			t.Fatalf("FIB %d: lookup %v: %d", n, outside, nh)
		}
	}
	for n := 1; n <= fibs; n++ {
		check(n)
	}
	// Readers of FIBs that are removed see their own answer or none, and none for good after that; of those that stay,
	// their own always.
	var removed [fibs + 1]atomic.Bool
	var stop atomic.Bool
	var wg sync.WaitGroup
	old := slices.Clone(tables)
	for seed := range uint64(2) {
		r := fibtest.Rand(seed)
		wg.Go(func() {
			for !stop.Load() {
				n := 1 + r.IntN(fibs)
				a := inside[r.IntN(len(inside))]
				gone := removed[n].Load()
				nh, ok := old[n].Lookup(a)
				h := set.Resolve(old[n], a, r.Uint32())
				stays := n%2 == 0
				if ok && (nh != ids[n] || gone) || stays && !ok || h.ID != 0 && (h.ID != ids[n] || gone) || stays && h.ID == 0 {
					t.Errorf("FIB %d, removed: %v: lookup %v: %d, %v, which leads to %v", n, gone, a, nh, ok, h)
					return
				}
			}
		})
	}
	r := fibtest.Rand(9)
	for range 2 {
		for _, i := range r.Perm(fibs / 2) {
			n := 2*i + 1
			if err := set.Remove(fib.ID(n)); err != nil {
				t.Fatal(err)
			}
			removed[n].Store(true)
			if nh, ok := old[n].Lookup(inside[0]); ok {
				t.Fatalf("FIB %d was removed: lookup: %d", n, nh)
			}
			if i%2 == 0 { // others come into its place
				make1(n)
				check(n)
			} else {
				tables[n] = nil
			}
		}
		for n := 1; n <= fibs; n += 2 {
			if tables[n] == nil {
				make1(n)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	for n := 1; n <= fibs; n++ {
		check(n)
		if i, ok := set.NextHop(ids[n]); !ok || i.Routes != len(prefixes) {
			t.Fatalf("next hop %d is held by %d routes", n, i.Routes)
		}
		if err := set.Remove(fib.ID(n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids[1:] {
		if err := set.RemoveNextHop(id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRandomGroups sees how groups spread flows: each member gets its share by weight, and a change moves no more flows
// than it must.
func TestRandomGroups(t *testing.T) {
	set, err := fib.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	f, _ := set.Create(1, "")
	ids := hops(t, set, 32)
	r := fibtest.Rand(5)
	const flows = 1 << 14
	to := netip.MustParseAddr("192.0.2.1")
	spread := func() (l [flows]fib.NextHopID, count map[fib.NextHopID]int) {
		count = map[fib.NextHopID]int{}
		h := rand.New(rand.NewPCG(7, 7))
		for i := range l {
			l[i] = set.Resolve(f, to, h.Uint32()).ID
			count[l[i]]++
		}
		return l, count
	}
	for range 60 {
		members := []fib.Member{}
		sum := 0
		for _, i := range r.Perm(32)[:2+r.IntN(14)] {
			m := fib.Member{NextHop: ids[1+i], Weight: uint16(1 + r.IntN(8))}
			members = append(members, m)
			sum += int(m.Weight)
		}
		g, err := set.AddGroup(members)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Insert(netip.MustParsePrefix("192.0.2.0/24"), g); err != nil {
			t.Fatal(err)
		}
		shares := func(count map[fib.NextHopID]int, sum int, out fib.NextHopID) {
			t.Helper()
			for _, m := range members {
				want := float64(m.Weight) / float64(sum) * flows
				if got := float64(count[m.NextHop]); m.NextHop != out && (got < want*0.75-64 || got > want*1.25+64) {
					t.Errorf("member %v of weights %v has %v of %v flows, want %v", m, members, got, flows, want)
				}
			}
		}
		before, count := spread()
		shares(count, sum, 0)
		// One is lost: its flows move, the others stay.
		lost := members[r.IntN(len(members))]
		if err := set.SetDown(lost.NextHop, true); err != nil {
			t.Fatal(err)
		}
		during, count := spread()
		shares(count, sum-int(lost.Weight), lost.NextHop)
		for i := range during {
			if during[i] == lost.NextHop || during[i] == 0 || before[i] != lost.NextHop && during[i] != before[i] {
				t.Fatalf("%d is lost: a flow went from %d to %d", lost.NextHop, before[i], during[i])
			}
		}
		// It is back: flows move to it only.
		if err := set.SetDown(lost.NextHop, false); err != nil {
			t.Fatal(err)
		}
		after, count := spread()
		shares(count, sum, 0)
		for i := range after {
			if after[i] != during[i] && after[i] != lost.NextHop {
				t.Fatalf("%d is back: a flow went from %d to %d", lost.NextHop, during[i], after[i])
			}
		}
		if err := f.Clear(); err != nil {
			t.Fatal(err)
		}
		if err := set.RemoveNextHop(g); err != nil {
			t.Fatal(err)
		}
	}
}
