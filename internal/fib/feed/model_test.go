package feed

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"midplane/fib"
)

// model is the slow and obvious reference: what a kernel would hold.
type model struct {
	routes  map[netip.Prefix][]Route
	objects map[uint32]Object
}

func (m *model) add(r Route, metrics bool) {
	l := slices.DeleteFunc(slices.Clone(m.routes[r.Prefix]), func(x Route) bool { return !metrics || r.Mode == Replace && x.Metric == r.Metric })
	at := len(l)
	for i, x := range l {
		if x.Metric > r.Metric || x.Metric == r.Metric && r.Mode == Prepend {
			at = i
			break
		}
	}
	m.routes[r.Prefix] = slices.Insert(l, at, r)
}

func (m *model) del(r Route, metrics bool) {
	for i, x := range m.routes[r.Prefix] {
		if !metrics || x.Metric == r.Metric {
			m.routes[r.Prefix] = slices.Delete(slices.Clone(m.routes[r.Prefix]), i, i+1)
			return
		}
	}
}

func (m *model) deleteObject(id uint32) {
	if _, ok := m.objects[id]; !ok {
		return
	}
	delete(m.objects, id)
	for p, l := range m.routes {
		m.routes[p] = slices.DeleteFunc(slices.Clone(l), func(r Route) bool { return r.Object == id })
	}
	for g, o := range m.objects {
		if rest := slices.DeleteFunc(slices.Clone(o.Members), func(m Member) bool { return m.ID == id }); len(o.Members) > 0 && len(rest) == 0 {
			m.deleteObject(g)
		} else {
			m.objects[g] = Object{ID: g, Hop: o.Hop, Members: rest}
		}
	}
}

// want says where a prefix leads, as a text.
func (m *model) want(p netip.Prefix) string {
	if len(m.routes[p]) == 0 {
		return "nothing"
	}
	var l []string
	r := m.routes[p][0]
	for _, x := range r.Paths {
		l = append(l, fmt.Sprint(x.Hop, " ", max(x.Weight, 1)))
	}
	if len(r.Paths) == 1 {
		l[0] = fmt.Sprint(r.Paths[0].Hop, " 1") // alone it has no share
	}
	if r.Object != 0 {
		o := m.objects[r.Object]
		switch {
		case len(o.Members) > 0:
			for _, x := range o.Members {
				h, down := m.objects[x.ID].Hop, ""
				if h.Type == 0 {
					h, down = undefined, " down"
				}
				l = append(l, fmt.Sprint(h, " ", max(x.Weight, 1), down))
			}
		case o.Hop.Type == 0:
			l = append(l, fmt.Sprint(undefined, " 1 down"))
		default:
			l = append(l, fmt.Sprint(o.Hop, " 1"))
		}
	}
	return strings.Join(l, ", ")
}

// got says the same of a table.
func got(s *fib.Set, t *fib.Table, p netip.Prefix) string {
	id, ok := t.Get(p)
	if !ok {
		return "nothing"
	}
	i, ok := s.NextHop(id)
	if !ok {
		return "a next hop that is not there"
	}
	one := func(h fib.NextHopInfo, w uint16) string {
		down := ""
		if h.Down {
			down = " down"
		}
		return fmt.Sprint(h.NextHop, " ", w, down)
	}
	if i.Members == nil {
		return one(i, 1)
	}
	var l []string
	for _, m := range i.Members {
		h, _ := s.NextHop(m.NextHop)
		l = append(l, one(h, m.Weight))
	}
	return strings.Join(l, ", ")
}

func randomHop(r *rand.Rand) fib.NextHop {
	if r.IntN(8) == 0 {
		return fib.NextHop{Type: fib.Blackhole}
	}
	return fib.NextHop{Type: fib.Unicast, Gateway: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(5))}), Device: 1 + r.Uint32N(2)}
}

// An Applier and the model are told the same, resynchronisations among it, and hold the same after each Commit; when all
// is gone no next hop is left.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) })
	}
}

func runModel(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var set fib.Set
	metrics := seed%2 == 0
	a := New(&set, Config{Create: true, Metrics: metrics})
	m := &model{map[netip.Prefix][]Route{}, map[uint32]Object{}}
	foreign, err := set.Intern(fib.NextHop{Type: fib.Prohibit})
	if err != nil {
		t.Fatal(err)
	}
	tab, err := set.Create(7, "")
	if err != nil {
		t.Fatal(err)
	}
	theirs := netip.MustParsePrefix("203.0.113.0/24")
	if _, _, err := tab.Insert(theirs, foreign); err != nil {
		t.Fatal(err)
	}
	var prefixes []netip.Prefix
	for i := range 12 {
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16))
	}
	prefixes = append(prefixes, netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::/0"))
	random := func() Route {
		r := Route{Table: 7, Prefix: prefixes[rnd.IntN(len(prefixes))], Metric: rnd.Uint32N(3)}
		if !metrics {
			r.Metric = 0
		}
		if rnd.IntN(2) == 0 {
			r.Object = 1 + rnd.Uint32N(9)
			return r
		}
		for range 1 + rnd.IntN(3) {
			r.Paths = append(r.Paths, Path{randomHop(rnd), uint16(rnd.IntN(3))})
		}
		return r
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 400 {
		switch k := rnd.IntN(20); {
		case k < 10:
			r := random()
			ok(a.Add(&r))
			m.add(r, metrics)
		case k < 14:
			r := random()
			if l := m.routes[r.Prefix]; metrics && len(l) > 0 { // as the kernel tells it: just what was there
				r = l[rnd.IntN(len(l))]
			}
			ok(a.Delete(&r))
			m.del(r, metrics)
		case k < 18:
			o := Object{ID: 1 + rnd.Uint32N(6), Hop: randomHop(rnd)}
			if o.ID > 4 { // groups are 5 and 6, members 1 to 4 and 7, which is never defined
				for _, id := range rnd.Perm(4)[:1+rnd.IntN(3)] {
					o.Members = append(o.Members, Member{[]uint32{1, 2, 3, 7}[id], uint16(1 + rnd.IntN(3))})
				}
				o.Hop = fib.NextHop{}
				if rnd.IntN(5) == 0 {
					o.Hop, o.Members = randomHop(rnd), nil
				}
			}
			ok(a.SetObject(&o))
			m.objects[o.ID] = o
		case k < 19:
			id := 1 + rnd.Uint32N(6)
			if _, named := m.objects[id]; named { // of one that was not defined the kernel tells no end
				ok(a.DeleteObject(id))
				m.deleteObject(id)
			}
		case rnd.IntN(3) == 0:
			a.Mark()
			kept := &model{map[netip.Prefix][]Route{}, map[uint32]Object{}}
			for id, o := range m.objects {
				if rnd.IntN(4) > 0 {
					ok(a.SetObject(&o))
					kept.objects[id] = o
				}
			}
			for p, l := range m.routes {
				for _, r := range l {
					if rnd.IntN(4) > 0 {
						r.Mode = Append
						ok(a.Add(&r))
						kept.add(r, metrics)
					} else if rnd.IntN(4) == 0 && !slices.ContainsFunc(kept.routes[p], func(x Route) bool { return x.Metric == r.Metric }) {
						ok(a.Delete(&r))
					}
				}
			}
			m = kept
			a.Sweep()
		}
		a.Commit()
		routes := int64(0)
		for _, p := range prefixes {
			routes += int64(len(m.routes[p]))
			if got, want := got(&set, tab, p), m.want(p); got != want {
				t.Fatalf("%s leads to %s, want %s", p, got, want)
			}
		}
		if n := a.Counters().Routes; n != routes {
			t.Fatalf("%d routes, want %d", n, routes)
		}
	}
	a.Flush()
	if _, there := tab.Get(theirs); !there {
		t.Error("the route of somebody else is gone")
	}
	for id, i := range set.NextHops() {
		if id != foreign {
			t.Errorf("next hop %d stays: %+v", id, i)
		}
	}
	if c := a.Counters(); c.Routes != 0 || c.Refused != 0 || len(a.hops) != 0 {
		t.Errorf("%+v, %d hops", c, len(a.hops))
	}
}
