package service

import (
	"iter"
	"net/netip"

	"midplane/fib"
)

// Source writes the routes of one FIB that are not static. Its methods are those of a fib.Table that feeds need, with the
// static routes above them: a route that a static one hides is kept, and appears when that one goes. Next hops are of
// Set(); a feed removes those that it made. All methods are safe for concurrent use; they block while the FIB is written to.
type Source struct {
	s    *Service
	f    *fibState
	feed string // whose it is; "" a loaded file
	kind string // shown as the routes' protocol
}

// Set returns the next hops.
func (c *Source) Set() *fib.Set { return c.s.set }

// Table returns the FIB's table, to look at.
func (c *Source) Table() *fib.Table { return c.f.t }

// ID returns the FIB's number.
func (c *Source) ID() fib.ID { return c.f.ID }

// Stale says whether the FIB has routes that neither are static nor were written by this source: those of before the
// daemon was started.
func (c *Source) Stale() bool {
	c.f.mu.RLock()
	defer c.f.mu.RUnlock()
	return c.f.source == c && c.f.stale
}

// open locks the FIB for a write of this source.
func (c *Source) open(op string) error {
	c.f.mu.Lock()
	if c.f.gone || c.f.source != c {
		c.f.mu.Unlock()
		return &fib.OpError{Op: op, What: "fib " + c.f.ID.String(), Err: fib.ErrRemoved}
	}
	return nil
}

// Insert is fib.Table.Insert.
func (c *Source) Insert(p netip.Prefix, nh fib.NextHopID) (old fib.NextHopID, replaced bool, err error) {
	if err := c.open("insert"); err != nil {
		return 0, false, err
	}
	defer c.f.mu.Unlock()
	p = p.Masked()
	if st := c.f.static[p]; st != nil && st.active {
		if err := c.s.ways.hold(nh); err != nil {
			return 0, false, &fib.OpError{Op: "insert", What: p.String(), Err: err}
		}
		if old, replaced = c.f.shadow[p]; replaced {
			c.s.ways.unhold(old)
		}
		c.f.shadow[p] = nh
		return old, replaced, nil
	}
	old, replaced, err = c.f.t.Insert(p, nh)
	if err == nil {
		c.f.touch(p)
	}
	return old, replaced, err
}

// Delete is fib.Table.Delete.
func (c *Source) Delete(p netip.Prefix) (old fib.NextHopID, deleted bool, err error) {
	if err := c.open("delete"); err != nil {
		return 0, false, err
	}
	defer c.f.mu.Unlock()
	p = p.Masked()
	if st := c.f.static[p]; st != nil && st.active {
		if old, deleted = c.f.shadow[p]; deleted {
			delete(c.f.shadow, p)
			c.s.ways.unhold(old)
		}
		return old, deleted, nil
	}
	old, deleted, err = c.f.t.Delete(p)
	if deleted {
		c.f.touch(p)
	}
	return old, deleted, err
}

// Replace is fib.Table.Replace for the routes of the source: static ones stay.
func (c *Source) Replace(routes iter.Seq[fib.Route]) error {
	if err := c.open("replace"); err != nil {
		return err
	}
	defer c.f.mu.Unlock()
	return c.s.replaceSource(c.f, routes)
}

// Get returns the source's route of this very prefix, also when it is hidden.
func (c *Source) Get(p netip.Prefix) (fib.NextHopID, bool) {
	c.f.mu.RLock()
	defer c.f.mu.RUnlock()
	p = p.Masked()
	if st := c.f.static[p]; st != nil && st.active {
		id, ok := c.f.shadow[p]
		return id, ok
	}
	return c.f.t.Get(p)
}

// All iterates over the source's routes, also those that are hidden, in no order.
func (c *Source) All() iter.Seq[fib.Route] { return c.f.others() }

// others iterates over the routes of the source: those in the table that are not static, then the hidden ones.
func (f *fibState) others() iter.Seq[fib.Route] {
	return func(yield func(fib.Route) bool) {
		for r := range f.t.All() {
			f.mu.RLock()
			st := f.static[r.Prefix]
			static := st != nil && st.active
			f.mu.RUnlock()
			if !static && !yield(r) {
				return
			}
		}
		for _, r := range f.hidden() {
			if !yield(r) {
				return
			}
		}
	}
}

func (f *fibState) hidden() []fib.Route {
	f.mu.RLock()
	defer f.mu.RUnlock()
	l := make([]fib.Route, 0, len(f.shadow))
	for p, id := range f.shadow {
		l = append(l, fib.Route{Prefix: p, NextHop: id})
	}
	return l
}

// replaceSource makes routes all routes of the source, in one step for those who look up. f.mu is held; the table's lock
// is while routes runs.
func (s *Service) replaceSource(f *fibState, routes iter.Seq[fib.Route]) error {
	var static []fib.Route
	for p, st := range f.static {
		if id, ok := f.t.Get(p); ok && st.active {
			static = append(static, fib.Route{Prefix: p, NextHop: id})
		}
	}
	shadow := map[netip.Prefix]fib.NextHopID{}
	var holdErr error
	err := f.t.Replace(func(yield func(fib.Route) bool) {
		for r := range routes {
			p := r.Prefix.Masked()
			if st := f.static[p]; st == nil || !st.active {
				if !yield(r) {
					return
				}
				continue
			}
			if holdErr = s.ways.hold(r.NextHop); holdErr != nil {
				yield(fib.Route{Prefix: p}) // which ends it: there is no next hop 0
				return
			}
			if old := shadow[p]; old != 0 {
				s.ways.unhold(old)
			}
			shadow[p] = r.NextHop
		}
		for _, r := range static {
			if !yield(r) {
				return
			}
		}
	})
	if err != nil {
		for _, id := range shadow {
			s.ways.unhold(id)
		}
		if holdErr != nil {
			err = holdErr
		}
		return err
	}
	for _, id := range f.shadow {
		s.ways.unhold(id)
	}
	f.shadow = shadow
	s.ways.sweep()
	f.touchAll()
	return nil
}

// touch notes that the kernel is to be told of a prefix; too many of them are told as a whole. f.mu is held.
func (f *fibState) touch(p netip.Prefix) {
	if f.dirty == nil || f.all {
		return
	}
	if len(f.dirty) >= maxDirty {
		f.touchAll()
		return
	}
	f.dirty[p] = struct{}{}
	f.wake()
}

// maxDirty bounds the prefixes that wait for the kernel; with more its table is compared as a whole.
const maxDirty = 16_384

func (f *fibState) touchAll() {
	if f.dirty == nil {
		return
	}
	clear(f.dirty)
	f.all = true
	f.wake()
}

func (f *fibState) wake() {
	select {
	case f.work <- struct{}{}:
	default:
	}
}

// withdraw takes all routes of the source away, and the source itself. f.mu is held.
func (s *Service) withdraw(f *fibState) error {
	f.source = nil
	return s.replaceSource(f, func(func(fib.Route) bool) {})
}
