package feed

import (
	"slices"

	"midplane/fib"
)

// chunk bounds how many routes are noted for removal at a time.
const chunk = 1 << 16

// Commit ends a batch of changes: it removes the routes whose next-hop object is gone, moves those whose object became
// another kind, and removes the next hops that nothing leads to any longer. Call it when what has been read is applied.
func (a *Applier) Commit() {
	if a.doomed {
		a.doomed = false
		a.settle()
	}
	a.collect()
}

// settle walks the FIBs for routes that hold hops that are dead or moved.
func (a *Applier) settle() {
	for k, l := range a.alternates {
		t := a.fibs[k.fib]
		if t == nil || !slices.ContainsFunc(l, func(e *hop) bool { return e.dead || e.moved != nil }) {
			continue
		}
		n := slices.DeleteFunc(slices.Clone(l), func(e *hop) bool { return e.dead })
		for i, e := range n {
			if e.moved != nil {
				n[i] = e.moved
			}
		}
		if len(n) == 0 {
			n = l[:1] // the walk below removes it
		}
		if err := a.arrange(t, k.prefix, l, n); err != nil {
			_ = a.refuse(err)
		}
	}
	a.walk(func(e *hop) bool { return e.dead || e.moved != nil }, &a.n.Deleted)
	for _, e := range a.hops {
		if e.moved != nil {
			e.moved.held--
			a.drop(e.moved)
			e.moved = nil
		}
	}
}

// walk removes the routes of this feed whose hop is to go, or moves them.
func (a *Applier) walk(goes func(*hop) bool, removed *uint64) {
	var l []fib.Route
	for _, t := range a.fibs {
		for {
			l = l[:0]
			for r := range t.t.All() {
				if e := a.hops[r.NextHop]; e != nil && goes(e) {
					if l = append(l, r); len(l) == chunk {
						break
					}
				}
			}
			failed := false
			for _, r := range l {
				e := a.hops[r.NextHop]
				if e == nil {
					continue
				}
				if e.moved != nil {
					if a.install(t, r.Prefix, e.moved) != nil {
						failed = true
						continue
					}
					e.moved.routes++
					continue
				}
				ok, err := a.uninstall(t, r.Prefix)
				if err != nil {
					failed = true
				} else if ok {
					*removed++
				}
			}
			if len(l) < chunk || failed { // a failure is that the FIB is gone
				break
			}
		}
	}
}

// Mark begins a resynchronisation: from now on the peer tells everything that it has. Until [Applier.Sweep] what it had
// before stays in the tables, where it is not replaced. The numbers of next-hop objects begin anew.
func (a *Applier) Mark() {
	a.Commit()
	for k, l := range a.alternates {
		if t := a.fibs[k.fib]; t != nil {
			_ = a.arrange(t, k.prefix, l, l[:1]) // it only gets less
		}
	}
	for _, e := range a.hops {
		e.object = nil
	}
	a.gen++
	a.fresh()
	for _, e := range a.hops {
		a.drop(e)
	}
	a.collect()
}

// Adopt takes over a FIB that an earlier process kept by the same feed: its routes are of the generation before, and go
// with Sweep unless the peer tells them again. Call it once for each table, after Mark and before anything else.
// Routes of others in that FIB are taken over too.
func (a *Applier) Adopt(table uint32) error {
	t, err := a.table(table, false)
	if err != nil {
		return err
	}
	for r := range t.t.All() {
		if e := a.adopt(r.NextHop); e != nil {
			e.routes++
			a.n.Routes++
		}
	}
	return nil
}

// adopt enters a next hop that this process did not make; nil for one that it did.
func (a *Applier) adopt(id fib.NextHopID) *hop {
	if e := a.hops[id]; e != nil {
		if e.adopted {
			return e
		}
		return nil
	}
	i, _ := a.set.NextHop(id)
	e := &hop{id: id, gen: a.gen - 1, hop: i.NextHop, adopted: true}
	a.hops[id] = e
	for _, m := range i.Members {
		if mh := a.adopt(m.NextHop); mh != nil {
			mh.held++
			e.members = append(e.members, mh)
			e.weights = append(e.weights, m.Weight)
		}
	}
	return e
}

// Sweep ends a resynchronisation: it removes what the peer did not tell since Mark, and returns how many routes that
// were. Without a Mark before it does nothing.
func (a *Applier) Sweep() int {
	a.Commit()
	before := a.n.Swept
	old := false
	for _, e := range a.hops {
		old = old || e.gen != a.gen && e.routes > 0
	}
	if old {
		a.walk(func(e *hop) bool { return e.gen != a.gen }, &a.n.Swept)
	}
	a.audit()
	return int(a.n.Swept - before)
}

// Flush removes all that this feed has installed: routes and next hops. FIBs stay.
func (a *Applier) Flush() {
	a.Mark()
	a.Sweep()
}

// audit corrects the books where routes of this feed were removed by others, so that next hops do not stay for ever.
func (a *Applier) audit() {
	waits := map[*hop]bool{}
	for _, l := range a.alternates {
		for _, e := range l[1:] {
			waits[e] = true
		}
	}
	for _, e := range a.hops {
		if i, ok := a.set.NextHop(e.id); (!ok || i.Routes == 0) && !waits[e] {
			a.n.Routes -= int64(e.routes)
			e.routes = 0
		}
		a.drop(e)
	}
	a.collect()
}
