package feed

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"midplane/fib"
)

// Add adds a route, or replaces that of the same prefix. The table may hold another route of the prefix afterwards, one
// with a lower metric. Errors: *fib.FieldError, ErrTable, ErrBound, fib.ErrNotFound for the FIB, fib.ErrFull; after one
// the table is as before.
func (a *Applier) Add(r *Route) error {
	if err := a.add(r); err != nil {
		return a.refuse(err)
	}
	return nil
}

func (a *Applier) add(r *Route) error {
	if !r.Prefix.IsValid() {
		return &fib.FieldError{Field: "prefix", Value: r.Prefix.String(), Want: "an IPv4 or IPv6 prefix"}
	}
	t, err := a.table(r.Table, true)
	if err != nil {
		return err
	}
	metric := r.Metric
	if !a.conf.Metrics {
		metric = 0
	}
	e, err := a.hopFor(r, metric)
	if err != nil {
		return err
	}
	p := r.Prefix.Masked()
	cur := a.current(t, p)
	if a.conf.Metrics && cur != nil && cur.gen == a.gen {
		return a.addAmong(t, p, cur, e, r.Mode)
	}
	if cur == e {
		a.n.Unchanged++
		return nil
	}
	if err := a.install(t, p, e); err != nil {
		return err
	}
	e.routes++
	return nil
}

// current returns this feed's hop of the route in the table, nil if there is none or it is somebody else's.
func (a *Applier) current(t *table, p netip.Prefix) *hop {
	id, ok := t.t.Get(p)
	if !ok {
		return nil
	}
	return a.hops[id]
}

// install writes a route to the table and takes what was there out of the books. The caller counts it with its hop.
func (a *Applier) install(t *table, p netip.Prefix, e *hop) error {
	old, replaced, err := t.t.Insert(p, e.id)
	if err != nil {
		return err
	}
	was := a.hops[old]
	switch {
	case !replaced:
		a.n.Added++
		a.n.Routes++
	case was == nil:
		a.n.Foreign++
		a.n.Routes++
	default:
		if was.gen != a.gen {
			a.n.Refreshed++
		} else {
			a.n.Replaced++
		}
		was.routes--
		a.drop(was)
	}
	return nil
}

// uninstall removes a route of this feed from the table.
func (a *Applier) uninstall(t *table, p netip.Prefix) (bool, error) {
	old, deleted, err := t.t.Delete(p)
	if err != nil || !deleted {
		return false, err
	}
	if was := a.hops[old]; was != nil {
		a.n.Routes--
		was.routes--
		a.drop(was)
	}
	return true, nil
}

// addAmong adds a route where this feed has one of the prefix already, cur.
func (a *Applier) addAmong(t *table, p netip.Prefix, cur, e *hop, mode Mode) error {
	k := altKey{t.id, p}
	l := a.alternates[k]
	if l == nil {
		if cur.metric == e.metric && (mode == Replace || cur == e) {
			if cur == e {
				a.n.Unchanged++
				return nil
			}
			if err := a.install(t, p, e); err != nil {
				return err
			}
			e.routes++
			return nil
		}
		l = []*hop{cur}
	}
	n := slices.Clone(l)
	i, equal := slices.BinarySearchFunc(n, e.metric, func(x *hop, m uint32) int { return int(int64(x.metric) - int64(m)) })
	switch {
	case slices.Contains(n, e) && mode != Replace:
		a.n.Unchanged++
		return nil
	case equal && mode == Replace:
		if n[i] == e {
			a.n.Unchanged++
			return nil
		}
		n[i] = e
	case equal && mode == Append:
		for i < len(n) && n[i].metric == e.metric {
			i++
		}
		n = slices.Insert(n, i, e)
	default:
		n = slices.Insert(n, i, e)
	}
	return a.arrange(t, p, l, n)
}

// arrange makes n the routes of a prefix that has l, the first of which is in the table.
func (a *Applier) arrange(t *table, p netip.Prefix, l, n []*hop) error {
	if grown := len(n) - len(l); len(n) > 1 && a.waiting+grown > a.conf.MaxAlternates {
		return fmt.Errorf("%s: more than %d routes behind better ones: %w", p, a.conf.MaxAlternates, ErrBound)
	}
	if n[0] != l[0] {
		if _, _, err := t.t.Insert(p, n[0].id); err != nil {
			return err
		}
		a.n.Replaced++
	} else if len(n) > len(l) {
		a.n.Added++
	}
	for _, e := range n {
		e.routes++
	}
	for _, e := range l {
		e.routes--
		a.drop(e)
	}
	a.n.Routes += int64(len(n) - len(l))
	k := altKey{t.id, p}
	if a.alternates[k] != nil {
		a.waiting -= len(l)
	}
	if len(n) == 1 {
		delete(a.alternates, k)
	} else {
		a.alternates[k] = n
		a.waiting += len(n)
	}
	return nil
}

// Delete removes a route, if it is this feed's. With Config.Metrics it is the one of the metric, and of several of one
// metric the one with the paths or the object; where r has only some of a route's paths, the route keeps the others
// (the kernel deletes the legs of an IPv6 route one by one). A route that is not there is counted, no error.
// Errors: *fib.FieldError, ErrTable, those of fib.Table.
func (a *Applier) Delete(r *Route) error {
	if err := a.del(r); err != nil {
		return a.refuse(err)
	}
	return nil
}

func (a *Applier) del(r *Route) error {
	if !r.Prefix.IsValid() {
		return &fib.FieldError{Field: "prefix", Value: r.Prefix.String(), Want: "an IPv4 or IPv6 prefix"}
	}
	t, err := a.table(r.Table, false)
	if errors.Is(err, fib.ErrNotFound) {
		a.n.Missing++
		return nil
	}
	if err != nil {
		return err
	}
	p := r.Prefix.Masked()
	id, ok := t.t.Get(p)
	if !ok {
		a.n.Missing++
		return nil
	}
	cur := a.hops[id]
	if cur == nil {
		a.n.Foreign++
		return nil
	}
	l := a.alternates[altKey{t.id, p}]
	if l == nil {
		l = []*hop{cur}
	}
	i := 0
	if a.conf.Metrics {
		if i = match(l, r); i < 0 {
			a.n.Missing++
			return nil
		}
		if rest := l[i].without(r.Paths); len(rest) > 0 {
			e, err := a.hopFor(&Route{Paths: rest}, l[i].metric)
			if err != nil {
				return err
			}
			n := slices.Clone(l)
			n[i] = e
			return a.arrange(t, p, l, n)
		}
	}
	if len(l) > 1 {
		if err := a.arrange(t, p, l, slices.Delete(slices.Clone(l), i, i+1)); err != nil {
			return err
		}
	} else if _, err := a.uninstall(t, p); err != nil {
		return err
	}
	a.n.Deleted++
	return nil
}

// match finds which of several routes of a prefix one is: of the same metric, and if there are several the one that
// leads the same way.
func match(l []*hop, r *Route) int {
	first := -1
	for i, e := range l {
		if e.metric != r.Metric {
			continue
		}
		if first < 0 {
			first = i
		}
		if r.Object != 0 && e.object != nil && e.object.id == r.Object || r.Object == 0 && e.leads(r.Paths) {
			return i
		}
	}
	return first
}

// leads says whether a hop is made of just these paths.
func (e *hop) leads(paths []Path) bool {
	if len(e.members) == 0 {
		return len(paths) == 1 && e.hop == paths[0].Hop
	}
	return len(paths) == len(e.members) && len(e.without(paths)) == 0
}

// without returns the paths of a group that are left when some go; nil when none of them are the group's, or all.
func (e *hop) without(paths []Path) (rest []Path) {
	if len(paths) >= len(e.members) {
		return nil
	}
	for i, m := range e.members {
		if !slices.ContainsFunc(paths, func(p Path) bool { return p.Hop == m.hop }) {
			rest = append(rest, Path{m.hop, e.weights[i]})
		}
	}
	if len(rest) == len(e.members) {
		return nil
	}
	return rest
}
