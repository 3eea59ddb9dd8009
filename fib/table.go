package fib

import (
	"iter"
	"net/netip"
	"slices"
	"sync"
)

// Table is one FIB: the routes of one routing domain, IPv4 and IPv6. It belongs to a [Set]. All methods are safe for
// concurrent use: lookups by any number of goroutines never block and never wait for a writer; writers of one FIB take
// turns, those of different FIBs do not.
type Table struct {
	set     *Set
	id      ID
	name    string
	mu      sync.RWMutex
	routes  map[netip.Prefix]NextHopID
	gen     uint64
	removed bool
}

// ID returns the FIB's number.
func (t *Table) ID() ID { return t.id }

// Name returns the FIB's name, "" if it has none.
func (t *Table) Name() string { return t.name }

// Len returns how many routes the FIB has of each family.
func (t *Table) Len() (ipv4, ipv6 int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for p := range t.routes {
		if p.Addr().Is4() {
			ipv4++
		} else {
			ipv6++
		}
	}
	return
}

// Generation counts the changes of the FIB: it is another one after each.
func (t *Table) Generation() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.gen
}

// Insert adds a route or replaces that of the same prefix; replaced says which, and old is what it had. The prefix is
// masked. Errors: *FieldError for a prefix that is not valid, has a zone or is IPv4 in IPv6; ErrNotFound for the next
// hop; ErrFull; ErrRemoved. After an error the FIB is as before.
func (t *Table) Insert(p netip.Prefix, nh NextHopID) (old NextHopID, replaced bool, err error) {
	p, err = check(p)
	if err != nil {
		return 0, false, err
	}
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return 0, false, &OpError{"insert", p.String(), ErrRemoved}
	}
	i := t.set.hops[nh]
	if i == nil {
		return 0, false, &OpError{"insert", p.String(), ErrNotFound}
	}
	i.Routes++
	old, replaced = t.routes[p]
	t.routes[p] = nh
	t.gen++
	if replaced {
		t.drop(old)
	}
	return old, replaced, nil
}

func (t *Table) drop(id NextHopID) {
	i := t.set.hops[id]
	i.Routes--
	if i.Auto && i.Routes == 0 && i.Groups == 0 {
		delete(t.set.hops, id)
		delete(t.set.intern, i.NextHop)
	}
}

func check(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() || p.Addr().Zone() != "" || p.Addr().Is4In6() {
		return p, &FieldError{"prefix", p.String(), "an IPv4 or IPv6 prefix, such as 192.0.2.0/24"}
	}
	return p.Masked(), nil
}

// Delete removes a route. deleted is false when there was none of this very prefix.
func (t *Table) Delete(p netip.Prefix) (old NextHopID, deleted bool, err error) {
	p, err = check(p)
	if err != nil {
		return 0, false, err
	}
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return 0, false, &OpError{"delete", p.String(), ErrRemoved}
	}
	old, deleted = t.routes[p]
	if deleted {
		delete(t.routes, p)
		t.gen++
		t.drop(old)
	}
	return old, deleted, nil
}

// Clear removes all routes, in one step for those who look up.
func (t *Table) Clear() error {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	t.clear()
	return nil
}

func (t *Table) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, nh := range t.routes {
		delete(t.routes, p)
		t.drop(nh)
	}
	t.gen++
}

// Replace makes routes the whole content of the FIB, in one step for those who look up: each lookup sees the old table
// or the new one. Of several routes of one prefix the last counts. After an error the FIB is as before.
func (t *Table) Replace(routes iter.Seq[Route]) error {
	n := map[netip.Prefix]NextHopID{}
	for r := range routes {
		p, err := check(r.Prefix)
		if err != nil {
			return err
		}
		n[p] = r.NextHop
	}
	if err := t.Clear(); err != nil {
		return err
	}
	for p, nh := range n {
		if _, _, err := t.Insert(p, nh); err != nil {
			return err
		}
	}
	return nil
}

// Get returns the route of this very prefix.
func (t *Table) Get(p netip.Prefix) (NextHopID, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	nh, ok := t.routes[p.Masked()]
	return nh, ok
}

// Lookup returns the next hop or group of the longest prefix that contains an address. IPv4 in IPv6 is taken for IPv4;
// zones do not count. It does not block and does not allocate.
func (t *Table) Lookup(a netip.Addr) (NextHopID, bool) {
	r, ok := t.LookupRoute(a)
	return r.NextHop, ok
}

// LookupBatch looks up many addresses, which is faster than one after the other: nhs[i] is that of addrs[i], 0 if there
// is no route. Both slices belong to the caller and are of one length.
func (t *Table) LookupBatch(addrs []netip.Addr, nhs []NextHopID) {
	for i, a := range addrs {
		nhs[i], _ = t.Lookup(a)
	}
}

// LookupRoute is Lookup that also tells the prefix, for which it is slower.
func (t *Table) LookupRoute(a netip.Addr) (Route, bool) {
	a = a.Unmap().WithZone("")
	t.mu.RLock()
	defer t.mu.RUnlock()
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, _ := a.Prefix(bits)
		if nh, ok := t.routes[p]; ok {
			return Route{p, nh}, true
		}
	}
	return Route{}, false
}

// All iterates over the routes in order: IPv4 first, by address, shorter prefixes first. Routes that are there all the
// time are seen once each; changes meanwhile are seen or not. For a consistent view take a [Table.Snapshot].
func (t *Table) All() iter.Seq[Route] {
	return func(yield func(Route) bool) {
		t.mu.RLock()
		var l []Route
		for p, nh := range t.routes {
			l = append(l, Route{p, nh})
		}
		t.mu.RUnlock()
		slices.SortFunc(l, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
		for _, r := range l {
			if !yield(r) {
				return
			}
		}
	}
}

// Covering iterates over the routes that contain a prefix, itself among them, shortest first.
func (t *Table) Covering(p netip.Prefix) iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for r := range t.All() {
			if r.Prefix.Bits() <= p.Bits() && r.Prefix.Contains(p.Addr()) && !yield(r) {
				return
			}
		}
	}
}

// Covered iterates over the routes within a prefix, itself among them, in the order of All.
func (t *Table) Covered(p netip.Prefix) iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for r := range t.All() {
			if r.Prefix.Bits() >= p.Bits() && p.Contains(r.Prefix.Addr()) && !yield(r) {
				return
			}
		}
	}
}

// Snapshot is a FIB as it was at one generation. It does not change. Close it: it holds memory of the image.
type Snapshot struct{ Table }

// Snapshot copies the FIB as it is now. Writers wait meanwhile, lookups do not.
func (t *Table) Snapshot() (*Snapshot, error) {
	s := &Snapshot{Table{set: t.set, id: t.id, name: t.name, routes: map[netip.Prefix]NextHopID{}}}
	for r := range t.All() {
		s.routes[r.Prefix] = r.NextHop
	}
	return s, nil
}

// Close gives the memory back.
func (s *Snapshot) Close() error { return nil }
