package fib

import (
	"iter"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"

	"midplane/internal/fib/image"
	"midplane/internal/fib/trie"
)

// Table is one FIB: the routes of one routing domain, IPv4 and IPv6. It belongs to a [Set]. All methods are safe for
// concurrent use: lookups by any number of goroutines never block and never wait for a writer; writers of one FIB take
// turns, those of different FIBs do not.
type Table struct {
	set  *Set
	view image.View // of the set's image
	id   ID
	name string
	desc atomic.Uint32 // its descriptor, noDesc when it was removed

	mu      sync.Mutex // guards what follows, and all writing below the descriptor
	heap    trie.Heap
	tree    [2]trie.Tree
	watches []*Watch
	removed bool
}

// ID returns the FIB's number.
func (t *Table) ID() ID { return t.id }

// Name returns the FIB's name, "" if it has none.
func (t *Table) Name() string { return t.name }

// Len returns how many routes the FIB has of each family.
func (t *Table) Len() (ipv4, ipv6 int) {
	w := t.set.im.Load(t.desc.Load() + image.DescCount)
	return int(image.Lo(w)), int(image.Hi(w))
}

// Generation counts the changes of the FIB: it is another one after each.
func (t *Table) Generation() uint64 { return t.set.im.Load(t.desc.Load() + image.DescGeneration) }

// Memory returns how many octets of the image the FIB has taken.
func (t *Table) Memory() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heap.Taken() * 8
}

// changed ends a change. t.mu is held.
func (t *Table) changed() {
	at := t.desc.Load() + image.DescGeneration
	t.set.im.Store(at, t.set.im.Load(at)+1)
}

// failed makes the error of an operation on a route.
func failed(op string, p netip.Prefix, err error) error {
	if err == trie.ErrFull {
		err = ErrFull
	}
	return &OpError{op, p.String(), err}
}

// Insert adds a route or replaces that of the same prefix; replaced says which, and old is what it had. The prefix is
// masked. Errors: *FieldError for a prefix that is not valid or is IPv4 in IPv6; ErrNotFound for the next hop; ErrFull;
// ErrRemoved. After an error the FIB is as before.
func (t *Table) Insert(p netip.Prefix, nh NextHopID) (old NextHopID, replaced bool, err error) {
	family, k, n, err := prefixKey(p)
	if err != nil {
		return 0, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return 0, false, failed("insert", p, ErrRemoved)
	}
	if !t.set.hops.hold(nh, 1) {
		return 0, false, failed("insert", p, &OpError{"next hop", nh.String(), ErrNotFound})
	}
	was, err := t.tree[family].Insert(k, n, uint32(nh))
	if err != nil {
		t.set.hops.drop(nh, 1)
		return 0, false, failed("insert", p, err)
	}
	if was != 0 {
		t.set.hops.drop(NextHopID(was), 1)
	}
	if was != uint32(nh) {
		t.routeChanged(p, NextHopID(was), nh)
	}
	return NextHopID(was), was != 0, nil
}

// Delete removes a route. deleted is false when there was none of this very prefix.
func (t *Table) Delete(p netip.Prefix) (old NextHopID, deleted bool, err error) {
	family, k, n, err := prefixKey(p)
	if err != nil {
		return 0, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return 0, false, failed("delete", p, ErrRemoved)
	}
	was, err := t.tree[family].Delete(k, n)
	if err != nil {
		return 0, false, failed("delete", p, err)
	}
	if was != 0 {
		t.set.hops.drop(NextHopID(was), 1)
		t.routeChanged(p, NextHopID(was), 0)
	}
	return NextHopID(was), was != 0, nil
}

// Clear removes all routes, in one step for lookups of a family.
func (t *Table) Clear() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return &OpError{"clear", "fib " + label(t.id, t.name), ErrRemoved}
	}
	t.clear()
	t.allChanged()
	return nil
}

// clear removes all routes. t.mu is held.
func (t *Table) clear() {
	uses := t.uses()
	for f := range t.tree {
		t.tree[f].Clear()
	}
	t.set.hops.dropAll(uses)
}

// uses counts the routes by next hop. t.mu is held.
func (t *Table) uses() map[NextHopID]int {
	u := map[NextHopID]int{}
	for f := range t.tree {
		t.tree[f].Ascend(trie.Key{}, 0, func(_ trie.Key, _ uint, nh uint32) bool {
			u[NextHopID(nh)]++
			return true
		})
	}
	return u
}

// Replace makes routes the whole content of the FIB, in one step for lookups of a family: each sees all of the old
// table or all of the new one. Of several routes of one prefix the last counts. Other writers wait; the new table is
// built beside the old one and needs as much memory again. Errors are those of Insert; after one the FIB is as before.
func (t *Table) Replace(routes iter.Seq[Route]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return &OpError{"replace", "fib " + label(t.id, t.name), ErrRemoved}
	}
	var b [2]*trie.Tree
	held := map[NextHopID]int{}
	undo := func(err error) error {
		for _, tree := range b {
			if tree != nil {
				tree.Discard()
			}
		}
		t.set.hops.dropAll(held)
		return err
	}
	for f := range b {
		var err error
		if b[f], err = t.tree[f].Build(); err != nil {
			return undo(&OpError{"replace", "fib " + label(t.id, t.name), ErrFull})
		}
	}
	for r := range routes {
		family, k, n, err := prefixKey(r.Prefix)
		if err != nil {
			return undo(err)
		}
		if !t.set.hops.hold(r.NextHop, 1) {
			return undo(failed("insert", r.Prefix, &OpError{"next hop", r.NextHop.String(), ErrNotFound}))
		}
		held[r.NextHop]++
		was, err := b[family].Insert(k, n, uint32(r.NextHop))
		if err != nil {
			return undo(failed("insert", r.Prefix, err))
		}
		if was != 0 {
			held[NextHopID(was)]--
			t.set.hops.drop(NextHopID(was), 1)
		}
	}
	uses := t.uses()
	for f := range b {
		t.tree[f].Swap(b[f])
	}
	t.set.hops.dropAll(uses)
	t.allChanged()
	return nil
}

// lookupLocked is for the reader under whom memory was used again in every try: it takes a writer's turn. And for that
// of a FIB that was removed meanwhile.
//
//go:noinline
func (t *Table) lookupLocked(family uint32, k image.Key) (NextHopID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	nh, _ := t.set.im.Lookup(t.desc.Load(), family, k)
	return NextHopID(nh), nh != 0
}

// LookupBatch looks up many addresses, which is faster than one after the other: nhs[i] is that of addrs[i], 0 if there
// is no route. Both slices belong to the caller; nhs is at least as long as addrs.
func (t *Table) LookupBatch(addrs []netip.Addr, nhs []NextHopID) {
	nhs = nhs[:len(addrs)]
	var b image.Batch
	for len(addrs) > 0 {
		n := fillBatch(&b, addrs)
		if n == 0 { // an address that is not valid
			nhs[0], addrs, nhs = 0, addrs[1:], nhs[1:]
			continue
		}
		d := t.desc.Load()
		left, ok := t.view.LookupBatch(d, &b)
		if !ok || t.desc.Load() != d {
			left = 1<<n - 1
		}
		for i, nh := range b.Best[:n] {
			nhs[i] = NextHopID(nh)
		}
		for ; left != 0; left &= left - 1 {
			i := bits.TrailingZeros32(left)
			nhs[i], _ = t.lookupSlowly(addrs[i])
		}
		addrs, nhs = addrs[n:], nhs[n:]
	}
}

// LookupRoute is Lookup that also tells the prefix. It takes a writer's turn.
func (t *Table) LookupRoute(a netip.Addr) (r Route, ok bool) {
	family, k, ok := slowKey(a)
	if !ok {
		return Route{}, false
	}
	ok = false
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return Route{}, false
	}
	t.tree[family].Path(k, width(family), func(n uint, nh uint32) bool {
		r, ok = Route{prefixOf(family, k, n), NextHopID(nh)}, true
		return true
	})
	r.Prefix = r.Prefix.Masked()
	return r, ok
}

func width(family uint32) uint {
	if family == ipv4 {
		return 32
	}
	return 128
}

// Get returns the next hop of the route of this very prefix. It takes a writer's turn.
func (t *Table) Get(p netip.Prefix) (NextHopID, bool) {
	family, k, n, err := prefixKey(p)
	if err != nil {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return 0, false
	}
	nh := t.tree[family].Get(k, n)
	return NextHopID(nh), nh != 0
}

// All iterates over the routes in order: IPv4 first, by address, shorter prefixes first. Routes that are there all the
// time are seen once each; changes meanwhile are seen or not. For a consistent view take a [Table.Snapshot]. The loop
// may change the FIB.
func (t *Table) All() iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for f := range uint32(2) {
			if !t.ascend(f, trie.Key{}, 0, yield) {
				return
			}
		}
	}
}

// Covered iterates over the routes within a prefix, itself among them, as All does.
func (t *Table) Covered(p netip.Prefix) iter.Seq[Route] {
	return func(yield func(Route) bool) {
		family, k, n, err := prefixKey(p)
		if err != nil {
			return
		}
		p := p.Masked()
		t.ascend(family, k, n, func(r Route) bool { return p.Contains(r.Prefix.Addr()) && yield(r) })
	}
}

// Covering iterates over the routes that contain a prefix, itself among them, shortest first.
func (t *Table) Covering(p netip.Prefix) iter.Seq[Route] {
	return func(yield func(Route) bool) {
		family, k, n, err := prefixKey(p)
		if err != nil {
			return
		}
		var l [129]Route
		c := 0
		t.mu.Lock()
		if t.removed {
			t.mu.Unlock()
			return
		}
		t.tree[family].Path(k, n, func(n uint, nh uint32) bool {
			l[c] = Route{prefixOf(family, k, n).Masked(), NextHopID(nh)}
			c++
			return true
		})
		t.mu.Unlock()
		for _, r := range l[:c] {
			if !yield(r) {
				return
			}
		}
	}
}

// chunk is how many routes an iteration copies while it keeps writers waiting.
const chunk = 256

// ascend calls yield for the routes of a family from a prefix on, without a lock being held.
func (t *Table) ascend(family uint32, from trie.Key, n uint, yield func(Route) bool) bool {
	type route struct {
		k  trie.Key
		n  uint
		nh uint32
	}
	var buf [chunk]route
	for {
		c := 0
		t.mu.Lock()
		if t.removed {
			t.mu.Unlock()
			return true
		}
		t.tree[family].Ascend(from, n, func(k trie.Key, n uint, nh uint32) bool {
			buf[c] = route{k, n, nh}
			c++
			return c < chunk
		})
		t.mu.Unlock()
		for _, r := range buf[:c] {
			if !yield(Route{prefixOf(family, r.k, r.n), NextHopID(r.nh)}) {
				return false
			}
		}
		if c < chunk {
			return true
		}
		last := buf[c-1]
		from, n = last.k, last.n+1 // the next in order, whether or not such a prefix can be
	}
}

// Snapshot is a FIB as it was at one generation: it can be read like a Table, and does not change. Close it, as it holds
// memory of the image, and a place among Config.MaxFIBs.
type Snapshot struct{ t *Table }

// Snapshot copies the FIB as it is now. Writers wait meanwhile, lookups do not. It takes as much memory as the FIB, and a
// few milliseconds for a full Internet table. Errors: ErrFull, ErrTooMany, ErrRemoved.
func (t *Table) Snapshot() (*Snapshot, error) {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	what := "fib " + label(t.id, t.name)
	if t.removed {
		return nil, &OpError{"snapshot", what, ErrRemoved}
	}
	c, err := t.set.newTable(t.id, t.name)
	if err != nil {
		return nil, &OpError{"snapshot", what, err}
	}
	m := &t.set.im
	d := c.desc.Load()
	m.Store(d+image.DescGeneration, t.Generation())
	m.Store(d+image.DescID, image.Pair(uint32(t.id), 0))
	uses := t.uses()
	t.set.hops.holdAll(uses)
	for f := range t.tree {
		if err := t.tree[f].Copy(&c.tree[f]); err != nil {
			for f := range c.tree {
				c.tree[f].Clear()
			}
			t.set.hops.dropAll(uses)
			t.set.descs = append(t.set.descs, d)
			return nil, &OpError{"snapshot", what, ErrFull}
		}
	}
	return &Snapshot{c}, nil
}

// Close gives the memory back. Lookups find nothing from then on.
func (s *Snapshot) Close() error {
	s.t.set.mu.Lock()
	defer s.t.set.mu.Unlock()
	if !s.t.removed {
		s.t.set.drop(s.t)
	}
	return nil
}

// The methods that read are those of Table.

// ID returns the FIB's number.
func (s *Snapshot) ID() ID { return s.t.id }

// Name returns the FIB's name.
func (s *Snapshot) Name() string { return s.t.name }

// Len returns how many routes there are of each family.
func (s *Snapshot) Len() (ipv4, ipv6 int) { return s.t.Len() }

// Generation returns that of the FIB when the snapshot was taken.
func (s *Snapshot) Generation() uint64 { return s.t.Generation() }

// Lookup is as that of Table.
func (s *Snapshot) Lookup(a netip.Addr) (NextHopID, bool) { return s.t.Lookup(a) }

// LookupBatch is as that of Table.
func (s *Snapshot) LookupBatch(addrs []netip.Addr, nhs []NextHopID) { s.t.LookupBatch(addrs, nhs) }

// LookupRoute is as that of Table.
func (s *Snapshot) LookupRoute(a netip.Addr) (Route, bool) { return s.t.LookupRoute(a) }

// Get is as that of Table.
func (s *Snapshot) Get(p netip.Prefix) (NextHopID, bool) { return s.t.Get(p) }

// All iterates over the routes in order.
func (s *Snapshot) All() iter.Seq[Route] { return s.t.All() }

// Covered is as that of Table.
func (s *Snapshot) Covered(p netip.Prefix) iter.Seq[Route] { return s.t.Covered(p) }

// Covering is as that of Table.
func (s *Snapshot) Covering(p netip.Prefix) iter.Seq[Route] { return s.t.Covering(p) }
