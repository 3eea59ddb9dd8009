// Package bgp writes what BGP peers announce straight into a FIB, with GoBGP as a library: no daemon, no kernel table.
//
// A Speaker is for one FIB, so that best paths are chosen per routing domain; several run side by side. GoBGP keeps the
// RIB. The core here keeps which next hops each prefix has, resolves those through the FIB itself, and gives them to a
// feed.Applier as next-hop objects, so that a change of how a next hop is reached is one write however many routes it has.
package bgp

import (
	"net/netip"
	"slices"

	"midplane/fib"
	"midplane/internal/fib/feed"
)

// maxDepth bounds how many BGP routes one next hop is resolved through.
const maxDepth = 8

// Counters tell what a Speaker did. Prefixes, Unresolved and NextHops are of now, the others only grow.
type Counters struct {
	Prefixes   int    // that peers announce
	Unresolved int    // of these: not in the FIB, because no route leads to the next hop
	NextHops   int    // different next hops, and groups of them
	Updates    uint64 // changes of prefixes taken from BGP
	Withdrawn  uint64 // of these: prefixes that went
	Resolved   uint64 // changes of where a next hop is
	Refused    uint64 // changes that the FIB refused; see the feed's counters
	Over       uint64 // sessions ended because of too many prefixes
	Invalid    uint64 // prefixes that are none for a FIB, or without a usable next hop
}

// hopset is what routes have in common: their next hops.
type hopset struct {
	key    string
	addrs  []netip.Addr
	id     uint32 // of the feed's object
	routes int
	paths  []feed.Path // where they are, in order; none: nowhere
}

// core is the part without BGP: prefixes with next hops in, changes of the FIB out.
type core struct {
	set        *fib.Set
	table      *fib.Table
	sink       *feed.Applier
	open       func(uint32) (feed.Table, fib.ID, error)
	viaDefault bool
	n          Counters

	rib    map[netip.Prefix]*hopset
	sets   map[string]*hopset
	hops   map[fib.NextHop]uint32 // objects of single next hops, members of groups
	lastID uint32
	key    []byte
}

func newCore(set *fib.Set, t *fib.Table, open func(uint32) (feed.Table, fib.ID, error), viaDefault bool) *core {
	return &core{
		set: set, table: t, open: open, viaDefault: viaDefault, sink: feed.New(set, feed.Config{Open: open}),
		rib: map[netip.Prefix]*hopset{}, sets: map[string]*hopset{}, hops: map[fib.NextHop]uint32{},
	}
}

func (c *core) counters() Counters {
	n := c.n
	n.Prefixes, n.NextHops = len(c.rib), len(c.sets)
	for _, s := range c.sets {
		if len(s.paths) == 0 {
			n.Unresolved += s.routes
		}
	}
	return n
}

// update says which next hops a prefix has now; none: it is gone.
func (c *core) update(p netip.Prefix, addrs []netip.Addr) {
	c.n.Updates++
	was := c.rib[p]
	if len(addrs) == 0 {
		if was != nil {
			c.n.Withdrawn++
			delete(c.rib, p)
			c.remove(p, was)
		}
		return
	}
	s := c.hopset(addrs)
	if s == was {
		return
	}
	c.rib[p] = s
	s.routes++
	if s.routes == 1 {
		c.point(s, c.resolve(s.addrs))
	}
	switch {
	case len(s.paths) > 0:
		c.install(p, s)
		if was != nil {
			c.release(was)
		}
	case was != nil:
		c.remove(p, was)
	}
}

func (c *core) install(p netip.Prefix, s *hopset) {
	if c.sink.Add(&feed.Route{Table: uint32(c.table.ID()), Prefix: p, Object: s.id}) != nil {
		c.n.Refused++
	}
}

// remove takes a prefix out of the FIB that had these next hops.
func (c *core) remove(p netip.Prefix, s *hopset) {
	if len(s.paths) > 0 && c.sink.Delete(&feed.Route{Table: uint32(c.table.ID()), Prefix: p}) != nil {
		c.n.Refused++
	}
	c.release(s)
}

func (c *core) release(s *hopset) {
	if s.routes--; s.routes > 0 {
		return
	}
	if len(s.paths) > 0 {
		_ = c.sink.DeleteObject(s.id)
	}
	delete(c.sets, s.key)
}

// hopset returns the one of some next hops, which is made where needed.
func (c *core) hopset(addrs []netip.Addr) *hopset {
	c.key = c.key[:0]
	for _, a := range addrs {
		b := a.As16()
		c.key = append(c.key, byte(a.BitLen()))
		c.key = append(c.key, b[:]...)
	}
	s := c.sets[string(c.key)]
	if s == nil {
		c.lastID++
		s = &hopset{key: string(c.key), addrs: slices.Clone(addrs), id: c.lastID}
		c.sets[s.key] = s
	}
	return s
}

// point makes a hopset lead to paths, for all its routes at once. Routes that have nowhere to go leave the FIB with
// the feed's Commit; the caller installs those that have again.
func (c *core) point(s *hopset, paths []feed.Path) {
	if slices.Equal(s.paths, paths) {
		return
	}
	c.n.Resolved++
	was := s.paths
	s.paths = paths
	var err error
	switch len(paths) {
	case 0:
		err = c.sink.DeleteObject(s.id)
	case 1:
		err = c.sink.SetObject(&feed.Object{ID: s.id, Hop: paths[0].Hop})
	default:
		o := feed.Object{ID: s.id}
		for _, p := range paths {
			var id uint32
			if id, err = c.member(p.Hop); err != nil {
				break
			}
			o.Members = append(o.Members, feed.Member{ID: id, Weight: p.Weight})
		}
		if err == nil {
			err = c.sink.SetObject(&o)
		}
	}
	if err != nil {
		c.n.Refused++
		s.paths = was
	}
}

// member returns the object of one next hop.
func (c *core) member(h fib.NextHop) (uint32, error) {
	if id := c.hops[h]; id != 0 {
		return id, nil
	}
	c.lastID++
	if err := c.sink.SetObject(&feed.Object{ID: c.lastID, Hop: h}); err != nil {
		return 0, err
	}
	c.hops[h] = c.lastID
	return c.lastID, nil
}

// recheck resolves all next hops anew, as is due when the FIB has changed. All are looked up before any is changed:
// what depends on a route that goes now is found with the next call, which is due because the FIB has changed.
func (c *core) recheck() {
	now := make(map[*hopset][]feed.Path, len(c.sets))
	for _, s := range c.sets {
		now[s] = c.resolve(s.addrs)
	}
	back := map[*hopset]bool{} // those that lead somewhere again
	for s, paths := range now {
		if len(s.paths) == 0 && len(paths) > 0 {
			back[s] = true
		}
		c.point(s, paths)
	}
	c.sink.Commit()
	if len(back) > 0 {
		for p, s := range c.rib {
			if back[s] {
				c.install(p, s)
			}
		}
	}
	c.tidy()
}

// tidy forgets members that no group has any longer, once there are many.
func (c *core) tidy() {
	const many = 1024
	if len(c.hops) < many+2*len(c.sets) {
		return
	}
	used := map[fib.NextHop]bool{}
	for _, s := range c.sets {
		if len(s.paths) > 1 {
			for _, p := range s.paths {
				used[p.Hop] = true
			}
		}
	}
	for h, id := range c.hops {
		if !used[h] {
			_ = c.sink.DeleteObject(id)
			delete(c.hops, h)
		}
	}
}

// resolve says where next hops are: on a link, behind the gateway of a route to them, or where a route drops. Those
// that are nowhere are left out. The result is in order, equal paths are one.
func (c *core) resolve(addrs []netip.Addr) []feed.Path {
	var l []feed.Path
	for _, a := range addrs {
		l = c.follow(l, a, nil)
	}
	slices.SortFunc(l, func(a, b feed.Path) int { return compare(a.Hop, b.Hop) })
	n := 0
	for _, p := range l {
		if n > 0 && l[n-1].Hop == p.Hop {
			l[n-1].Weight = min(l[n-1].Weight+p.Weight, fib.MaxWeight)
			continue
		}
		l[n] = p
		n++
	}
	return l[:min(n, fib.MaxMembers)]
}

func compare(a, b fib.NextHop) int {
	if c := a.Gateway.Compare(b.Gateway); c != 0 {
		return c
	}
	return slices.Compare([]uint32{uint32(a.Type), a.Device}, []uint32{uint32(b.Type), b.Device})
}

// follow resolves one next hop. The longest route to it counts, but none of those that are being resolved, in trail: a
// route cannot lead to itself.
func (c *core) follow(l []feed.Path, a netip.Addr, trail []netip.Prefix) []feed.Path {
	if len(trail) >= maxDepth || len(l) >= fib.MaxMembers {
		return l
	}
	r, ok := c.table.LookupRoute(a)
	if ok && slices.Contains(trail, r.Prefix) {
		ok = false
		for o := range c.table.Covering(netip.PrefixFrom(a, a.BitLen())) {
			if !slices.Contains(trail, o.Prefix) {
				r, ok = o, true // the last one is the longest
			}
		}
	}
	if !ok || (r.Prefix.Bits() == 0 && !c.viaDefault) {
		return l
	}
	if s := c.rib[r.Prefix]; s != nil && len(s.paths) > 0 && c.own(r) { // to where its next hops are
		for _, via := range s.addrs {
			l = c.follow(l, via, append(trail, r.Prefix))
		}
		return l
	}
	i, ok := c.set.NextHop(r.NextHop)
	if !ok || i.Down {
		return l
	}
	if i.Members == nil {
		return c.reach(l, a, i.NextHop, 1)
	}
	for _, m := range i.Members {
		if mi, ok := c.set.NextHop(m.NextHop); ok && !mi.Down {
			l = c.reach(l, a, mi.NextHop, m.Weight)
		}
	}
	return l
}

// own says whether a route of the FIB at a prefix of ours is ours, and not that of another writer which hides it.
func (c *core) own(r fib.Route) bool {
	if c.open == nil {
		return true
	}
	t, _, err := c.open(uint32(c.table.ID()))
	if err != nil {
		return false
	}
	id, ok := t.Get(r.Prefix)
	return ok && id == r.NextHop
}

// reach appends the path to a next hop by one next hop of the route to it.
func (c *core) reach(l []feed.Path, a netip.Addr, h fib.NextHop, weight uint16) []feed.Path {
	switch h.Type {
	case fib.Unicast:
		if !h.Gateway.IsValid() {
			h.Gateway = a
		}
	case fib.Blackhole, fib.Unreachable, fib.Prohibit: // how blackholing by a community's next hop is set up
	default: // ourselves, or another FIB
		return l
	}
	if h.Validate() != nil || len(l) >= fib.MaxMembers {
		return l
	}
	return append(l, feed.Path{Hop: h, Weight: max(weight, 1)})
}
