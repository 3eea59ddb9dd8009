package fib

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"midplane/internal/fib/image"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func insert(t *testing.T, f *Table, p string, nh NextHopID) {
	t.Helper()
	if _, _, err := f.Insert(pfx(p), nh); err != nil {
		t.Fatal(err)
	}
}

func via(gw string, dev uint32) NextHop {
	h := NextHop{Type: Unicast, Device: dev}
	if gw != "" {
		h.Gateway = addr(gw)
	}
	return h
}

func TestZeroValue(t *testing.T) {
	var s Set
	defer s.Close()
	if _, ok := s.Table(1); ok || len(s.Tables()) != 0 {
		t.Error("there is a FIB")
	}
	a, b := must(s.Create(10, "blue")), must(s.Create(20, ""))
	one, two := must(s.AddNextHop(via("192.0.2.1", 3))), must(s.AddNextHop(via("2001:db8::1", 4)))
	insert(t, a, "10.0.0.0/8", one)
	insert(t, b, "10.0.0.0/8", two)
	insert(t, b, "::/0", one)
	for _, c := range []struct {
		f    *Table
		to   string
		want Hop
	}{
		{a, "10.1.2.3", Hop{via("192.0.2.1", 3), one, 10}},
		{b, "10.1.2.3", Hop{via("2001:db8::1", 4), two, 20}},
		{b, "::ffff:10.1.2.3", Hop{via("2001:db8::1", 4), two, 20}},
		{b, "fe80::1%eth0", Hop{via("192.0.2.1", 3), one, 20}},
		{a, "11.0.0.0", nowhere},
		{a, "::", nowhere},
	} {
		if got := s.Resolve(c.f, addr(c.to), 7); got != c.want {
			t.Errorf("%s in %d: %v, want %v", c.to, c.f.ID(), got, c.want)
		}
	}
	if got := s.Resolve(a, netip.Addr{}, 0); got != nowhere {
		t.Errorf("the zero address leads to %v", got)
	}
	if f, ok := s.ByName("blue"); !ok || f != a {
		t.Error("not found by name")
	}
	if l := s.Tables(); !slices.Equal(l, []*Table{a, b}) {
		t.Error(l)
	}
}

func TestErrors(t *testing.T) {
	s := must(New(nil))
	defer s.Close()
	f := must(s.Create(1, "one"))
	nh := must(s.AddNextHop(NextHop{Type: Blackhole}))
	group := must(s.AddGroup([]Member{{NextHop: nh}}))
	var field *FieldError
	for name, err := range map[string]error{
		"id 0":            second(s.Create(0, "")),
		"long name":       second(s.Create(2, "sixteen-octets-x")),
		"slash":           second(s.Create(2, "a/b")),
		"prefix":          third(f.Insert(netip.Prefix{}, nh)),
		"mapped prefix":   third(f.Insert(netip.PrefixFrom(addr("::ffff:1.2.3.4"), 100), nh)),
		"type":            second(s.AddNextHop(NextHop{})),
		"no device":       second(s.AddNextHop(NextHop{Type: Unicast})),
		"multicast":       second(s.AddNextHop(via("224.0.0.1", 1))),
		"zone":            second(s.AddNextHop(via("fe80::1%x", 1))),
		"table":           second(s.AddNextHop(NextHop{Type: Lookup})),
		"no members":      second(s.AddGroup(nil)),
		"too many":        second(s.AddGroup(make([]Member, 257))),
		"weight":          second(s.AddGroup([]Member{{nh, 257}})),
		"group in group":  second(s.AddGroup([]Member{{group, 1}})),
		"small":           second(New(&Config{Size: 1000})),
		"large":           second(New(&Config{Size: 1 << 40})),
		"no room for all": second(New(&Config{Size: MinSize, MaxFIBs: 10000})),
		"MaxFIBs":         second(New(&Config{MaxFIBs: -1})),
		"MaxNextHops":     second(New(&Config{MaxNextHops: 1 << 25})),
	} {
		if !errors.As(err, &field) || field.Field == "" || field.Want == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct{ err, want error }{
		"id taken":          {second(s.Create(1, "")), ErrExists},
		"name taken":        {second(s.Create(3, "one")), ErrExists},
		"remove":            {s.Remove(7), ErrNotFound},
		"unknown next hop":  {third(f.Insert(pfx("1.0.0.0/8"), 77)), ErrNotFound},
		"next hop 0":        {third(f.Insert(pfx("1.0.0.0/8"), 0)), ErrNotFound},
		"unknown member":    {second(s.AddGroup([]Member{{99, 1}})), ErrNotFound},
		"in a group":        {s.RemoveNextHop(nh), ErrInUse},
		"replace":           {s.ReplaceNextHop(99, NextHop{Type: Local}), ErrNotFound},
		"replace a group":   {s.ReplaceNextHop(group, NextHop{Type: Local}), ErrNotFound},
		"replace as group":  {s.ReplaceGroup(nh, []Member{{nh, 1}}), ErrNotFound},
		"down":              {s.SetDown(99, true), ErrNotFound},
		"remove a next hop": {s.RemoveNextHop(99), ErrNotFound},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	if n4, n6 := f.Len(); n4+n6 != 0 || f.Generation() != 0 {
		t.Error("errors changed the FIB")
	}
	insert(t, f, "1.0.0.0/8", group)
	if err := s.RemoveNextHop(group); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if _, ok, err := f.Delete(pfx("1.0.0.0/9")); ok || err != nil {
		t.Error(ok, err)
	}
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveNextHop(group); err != nil {
		t.Error(err)
	}
	if err := s.RemoveNextHop(nh); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{"insert": third(f.Insert(pfx("1.0.0.0/8"), nh)), "delete": third(f.Delete(pfx("1.0.0.0/8"))),
		"clear": f.Clear(), "replace": f.Replace(func(func(Route) bool) {}), "snapshot": second(f.Snapshot())} {
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("%s in a removed FIB: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }

// A Table that was removed shows nothing of the FIB that has its place now.
func TestRemovedTableIsEmpty(t *testing.T) {
	s := must(New(&Config{MaxFIBs: 1}))
	defer s.Close()
	nh := must(s.AddNextHop(NextHop{Type: Local}))
	old := must(s.Create(1, ""))
	insert(t, old, "0.0.0.0/0", nh)
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	f := must(s.Create(2, ""))
	insert(t, f, "0.0.0.0/0", nh)
	insert(t, f, "10.0.0.0/8", nh)
	if _, ok := old.Lookup(addr("10.0.0.1")); ok {
		t.Error("lookup")
	}
	if _, ok := old.Get(pfx("10.0.0.0/8")); ok {
		t.Error("get")
	}
	if _, ok := old.LookupRoute(addr("10.0.0.1")); ok {
		t.Error("lookup of a route")
	}
	for r := range old.All() {
		t.Error("all", r)
	}
	for r := range old.Covering(pfx("10.0.0.0/8")) {
		t.Error("covering", r)
	}
	for r := range old.Covered(pfx("0.0.0.0/0")) {
		t.Error("covered", r)
	}
	if n4, n6 := old.Len(); n4+n6 != 0 {
		t.Error("len")
	}
	if h := s.Resolve(old, addr("10.0.0.1"), 0); h != nowhere {
		t.Error("resolve", h)
	}
}

func TestLeaks(t *testing.T) {
	s := must(New(nil))
	defer s.Close()
	a, b := must(s.Create(1, "")), must(s.Create(2, ""))
	out := must(s.Intern(via("192.0.2.1", 9)))
	toB, toA := must(s.Intern(NextHop{Type: Lookup, Table: 2})), must(s.Intern(NextHop{Type: Lookup, Table: 1}))
	toC := must(s.Intern(NextHop{Type: Lookup, Table: 3}))
	insert(t, a, "10.0.0.0/8", toB)
	insert(t, b, "10.1.0.0/16", out)
	insert(t, b, "10.2.0.0/16", toA) // a loop
	insert(t, a, "11.0.0.0/8", toC)  // not there yet
	check := func(to string, want Hop) {
		t.Helper()
		if got := s.Resolve(a, addr(to), 0); got != want {
			t.Errorf("%s: %v, want %v", to, got, want)
		}
	}
	check("10.1.0.1", Hop{via("192.0.2.1", 9), out, 2})
	check("10.2.0.1", nowhere)
	check("10.3.0.1", nowhere)
	check("11.0.0.1", nowhere)
	c := must(s.Create(3, ""))
	insert(t, c, "0.0.0.0/0", out)
	check("11.0.0.1", Hop{via("192.0.2.1", 9), out, 3})
	if err := s.Remove(3); err != nil {
		t.Fatal(err)
	}
	check("11.0.0.1", nowhere)
	c = must(s.Create(4, "")) // in the place of 3
	insert(t, c, "0.0.0.0/0", out)
	check("11.0.0.1", nowhere)
}

func TestGroups(t *testing.T) {
	s := must(New(nil))
	defer s.Close()
	f := must(s.Create(1, ""))
	var hops []NextHopID
	for i := range uint32(4) {
		hops = append(hops, must(s.AddNextHop(via("", i+1))))
	}
	g := must(s.AddGroup([]Member{{hops[0], 1}, {hops[1], 1}, {hops[2], 2}}))
	insert(t, f, "0.0.0.0/0", g)
	spread := func() map[NextHopID]int {
		m := map[NextHopID]int{}
		for h := range uint32(4096) {
			m[s.Resolve(f, addr("192.0.2.1"), h).ID]++
		}
		return m
	}
	all := func() (l [4096]NextHopID) {
		for h := range l {
			l[h] = s.Resolve(f, addr("192.0.2.1"), uint32(h)).ID
		}
		return l
	}
	if got, want := spread(), (map[NextHopID]int{hops[0]: 1024, hops[1]: 1024, hops[2]: 2048}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	before := all()
	if err := s.SetDown(hops[2], true); err != nil {
		t.Fatal(err)
	}
	for h, id := range all() {
		if id == hops[2] || (before[h] != hops[2] && id != before[h]) {
			t.Fatalf("flow %d went from %d to %d", h, before[h], id)
		}
	}
	if got := spread(); got[hops[0]] != 2048 || got[hops[1]] != 2048 {
		t.Errorf("after a loss: %v", got)
	}
	for _, id := range hops {
		s.SetDown(id, true)
	}
	if got := s.Resolve(f, addr("192.0.2.1"), 1); got != nowhere {
		t.Errorf("all are down: %v", got)
	}
	for _, id := range hops {
		s.SetDown(id, false)
	}
	if got := spread(); got[hops[2]] != 2048 {
		t.Errorf("all are up again: %v", got)
	}
	before = all()
	if err := s.ReplaceGroup(g, []Member{{hops[0], 1}, {hops[1], 1}, {hops[3], 2}}); err != nil {
		t.Fatal(err)
	}
	for h, id := range all() {
		if want := before[h]; id != want && (want != hops[2] || id != hops[3]) {
			t.Fatalf("flow %d went from %d to %d", h, want, id)
		}
	}
	if i, _ := s.NextHop(hops[2]); i.Groups != 0 {
		t.Error("still in a group")
	}
	if err := s.RemoveNextHop(hops[2]); err != nil {
		t.Error(err)
	}
	s.SetDown(g, true)
	if got := s.Resolve(f, addr("192.0.2.1"), 1); got != nowhere {
		t.Errorf("the group is down: %v", got)
	}
	s.SetDown(g, false)
	if err := s.ReplaceNextHop(hops[3], NextHop{Type: Prohibit}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for h := range uint32(4) {
		if s.Resolve(f, addr("192.0.2.1"), h).Type == Prohibit {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d of 4 buckets are prohibited", n)
	}
}

func TestQuotas(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		members := make([]Member, 1+r.IntN(MaxMembers))
		out := make([]bool, len(members))
		left, sum := 0, 0
		for i := range members {
			members[i] = Member{NextHopID(i + 1), uint16(r.IntN(MaxWeight + 1))}
			if out[i] = r.IntN(5) == 0; !out[i] {
				left++
				sum += int(weight(members[i]))
			}
		}
		b := bucketsFor(members)
		if b == 0 || b > image.MaxBuckets || b&(b-1) != 0 {
			t.Fatalf("%d buckets", b)
		}
		given := uint32(0)
		for i, q := range quotas(members, out, b) {
			given += q
			want := float64(b) * float64(weight(members[i])) / float64(sum)
			if out[i] && q != 0 || !out[i] && (float64(q) > want+1 || float64(q) < want-1) {
				t.Fatalf("member %d of weight %d/%d has %d of %d", i, weight(members[i]), sum, q, b)
			}
		}
		if left > 0 && given != b {
			t.Fatalf("%d of %d buckets are given", given, b)
		}
	}
}

// Interned next hops are shared, and go when nobody needs them, though not at once.
func TestIntern(t *testing.T) {
	s := must(New(nil))
	defer s.Close()
	f := must(s.Create(1, ""))
	a := must(s.Intern(via("192.0.2.1", 1)))
	if must(s.Intern(via("192.0.2.1", 1))) != a || must(s.AddNextHop(via("192.0.2.1", 1))) == a {
		t.Error("not shared, or shared with one that is not")
	}
	b := must(s.Intern(via("192.0.2.2", 1)))
	g := must(s.InternGroup([]Member{{a, 1}, {b, 1}}))
	if must(s.InternGroup([]Member{{b, 0}, {a, 1}})) != g {
		t.Error("groups with the same members are two")
	}
	insert(t, f, "10.0.0.0/8", g)
	churn := func() {
		for i := range uint32(3 * keepIdle) {
			insert(t, f, "11.0.0.0/8", must(s.Intern(via("", i+100))))
		}
		f.Delete(pfx("11.0.0.0/8"))
	}
	churn()
	if i, ok := s.NextHop(a); !ok || i.Groups != 1 || !i.Auto {
		t.Error("a member of a group that is in use went", i)
	}
	if n := s.Stats().NextHops; n > keepIdle+10 {
		t.Errorf("%d next hops are kept", n)
	}
	f.Delete(pfx("10.0.0.0/8"))
	churn()
	churn()
	for id, i := range s.NextHops() { // ids may be others' by now
		if i.Members != nil || i.NextHop == via("192.0.2.2", 1) {
			t.Errorf("next hop %d, which nobody holds, stays: %v", id, i)
		}
	}
	if c := must(s.Intern(via("192.0.2.1", 1))); s.RemoveNextHop(c) != nil {
		t.Error("an interned next hop cannot be removed")
	}
	if must(s.Intern(via("192.0.2.1", 1))) == 0 {
		t.Error("and not made again")
	}
}

// All memory comes back, whatever was done.
func TestMemoryComesBack(t *testing.T) {
	s := must(New(&Config{Size: 8 << 20}))
	defer s.Close()
	start := s.Stats().Free
	r := rand.New(rand.NewPCG(1, 1))
	for round := range 3 {
		for id := ID(1); id <= 20; id++ {
			f := must(s.Create(id, ""))
			for range 300 {
				var a [4]byte
				a[0], a[1], a[2] = byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())
				f.Insert(netip.PrefixFrom(netip.AddrFrom4(a), 8+r.IntN(17)), must(s.Intern(via("", 1+r.Uint32N(9)))))
			}
			snap := must(f.Snapshot())
			if err := f.Replace(func(yield func(Route) bool) {
				for r := range snap.All() {
					if r.Prefix.Bits() < 20 && !yield(r) {
						return
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			n, _ := f.Len()
			m, _ := snap.Len()
			if n == 0 || n >= m {
				t.Fatalf("%d of %d routes were to stay", n, m)
			}
			if err := f.Replace(func(yield func(Route) bool) {
				yield(Route{pfx("1.0.0.0/8"), 1})
				yield(Route{pfx("1.0.0.0/8"), 1 << 20})
			}); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			if k, _ := f.Len(); k != n {
				t.Fatal("a Replace that failed changed the FIB")
			}
			snap.Close()
			snap.Close()
			if _, ok := snap.Lookup(addr("1.2.3.4")); ok {
				t.Fatal("a closed snapshot answers")
			}
		}
		for id := ID(1); id <= 20; id++ {
			if err := s.Remove(id); err != nil {
				t.Fatal(err)
			}
		}
		for id, i := range s.NextHops() {
			if i.Routes != 0 {
				t.Fatalf("next hop %d has %d routes of nobody", id, i.Routes)
			}
			if err := s.RemoveNextHop(id); err != nil {
				t.Fatal(err)
			}
		}
		s.hops.heap.Release()
		if free := s.Stats().Free; free != start {
			t.Fatalf("round %d: %d octets are lost", round, start-free)
		}
	}
}

func TestIteration(t *testing.T) {
	s := must(New(nil))
	defer s.Close()
	f := must(s.Create(1, ""))
	nh := must(s.AddNextHop(NextHop{Type: Local}))
	r := rand.New(rand.NewPCG(5, 5))
	var want []netip.Prefix
	for range 3000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32())}), r.IntN(25)).Masked()
		if r.IntN(3) == 0 {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, byte(r.Uint32()), byte(r.Uint32())}), r.IntN(129)).Masked()
		}
		if _, replaced, err := f.Insert(p, nh); err != nil {
			t.Fatal(err)
		} else if !replaced {
			want = append(want, p)
		}
	}
	slices.SortFunc(want, netip.Prefix.Compare)
	var got []netip.Prefix
	for r := range f.All() {
		got = append(got, r.Prefix)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d routes, want %d", len(got), len(want))
	}
	for range 500 {
		p := want[r.IntN(len(want))]
		p = netip.PrefixFrom(p.Addr(), r.IntN(p.Bits()+1)).Masked()
		var in, over []netip.Prefix
		for _, q := range want {
			if p.Bits() <= q.Bits() && p.Contains(q.Addr()) {
				in = append(in, q)
			}
			if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
				over = append(over, q)
			}
		}
		got = nil
		for r := range f.Covered(p) {
			got = append(got, r.Prefix)
		}
		if !slices.Equal(got, in) {
			t.Fatalf("covered by %v: %v, want %v", p, got, in)
		}
		got = nil
		for r := range f.Covering(p) {
			got = append(got, r.Prefix)
		}
		if !slices.Equal(got, over) {
			t.Fatalf("covering %v: %v, want %v", p, got, over)
		}
	}
	for r := range f.All() { // a loop may change what it walks through
		if _, _, err := f.Delete(r.Prefix); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := f.Len(); a+b != 0 {
		t.Errorf("%d routes are left", a+b)
	}
}

// Readers in parallel with changes of every kind see, for each address, a value that it had.
func TestReadersDuringChanges(t *testing.T) {
	s := must(New(&Config{Size: 64 << 20}))
	defer s.Close()
	f := must(s.Create(1, ""))
	var nh [4]NextHopID
	for i := range nh {
		nh[i] = must(s.AddNextHop(via("", uint32(i+1))))
	}
	// 10/8 always has 0 or 1, 10.1/16 has 2 or nothing, and all else is noise that moves memory about.
	insert(t, f, "10.0.0.0/8", nh[0])
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if id, ok := f.Lookup(addr("10.2.3.4")); !ok || (id != nh[0] && id != nh[1]) {
					t.Errorf("10.2.3.4: %d", id)
					return
				}
				if id, ok := f.Lookup(addr("10.1.2.3")); !ok || id == nh[3] {
					t.Errorf("10.1.2.3: %d", id)
					return
				}
				if h := s.Resolve(f, addr("10.2.0.1"), 1); h.Type != Unicast || h.Device == 0 || h.Device > 2 {
					t.Errorf("10.2.0.1: %v", h)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 20000 {
		switch r.IntN(6) {
		case 0:
			insert(t, f, "10.0.0.0/8", nh[r.IntN(2)])
		case 1:
			insert(t, f, "10.1.0.0/16", nh[2])
		case 2:
			f.Delete(pfx("10.1.0.0/16"))
		case 3:
			if i%100 == 0 {
				snap := must(f.Snapshot())
				if err := f.Replace(snap.All()); err != nil {
					t.Fatal(err)
				}
				snap.Close()
			}
		default:
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 3 + byte(r.IntN(250)), byte(r.Uint32()), byte(r.Uint32())}), 17+r.IntN(16))
			if r.IntN(2) == 0 {
				insert(t, f, p.String(), nh[3])
			} else {
				f.Delete(p)
			}
		}
	}
	close(stop)
	wg.Wait()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	s := must(New(nil))
	defer s.Close()
	f := must(s.Create(1, ""))
	insert(t, f, "10.0.0.0/8", must(s.AddNextHop(via("192.0.2.1", 1))))
	insert(t, f, "2001:db8::/32", must(s.AddNextHop(via("2001:db8::1", 1))))
	a, b := addr("10.1.2.3"), addr("2001:db8::7")
	addrs, nhs := []netip.Addr{a, b, a}, make([]NextHopID, 3)
	if n := testing.AllocsPerRun(100, func() {
		f.Lookup(a)
		f.Lookup(b)
		f.LookupBatch(addrs, nhs)
		s.Resolve(f, b, 3)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAddressKeys(t *testing.T) {
	for _, a := range []netip.Addr{{}, addr("0.0.0.0"), addr("1.2.3.4"), addr("255.255.255.255"), addr("::"), addr("::1"), addr("::ffff:1.2.3.4"),
		addr("::fffe:1.2.3.4"), addr("2001:db8::1"), addr("fe80::1%eth0"), addr("::ffff:1.2.3.4%eth0"), addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")} {
		f, k, ok := key(a)
		sf, sk, sok := slowKey(a)
		if f != sf || k != sk || ok != sok {
			if !ok && !sok {
				continue
			}
			t.Errorf("%v: %d %x %v, want %d %x %v", a, f, k, ok, sf, sk, sok)
		}
	}
}
