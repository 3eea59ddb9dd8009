package service

import (
	"context"
	"fmt"
	"net/netip"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// setRoute makes a static route. A route to a device that is not there is refused, but kept while the state is read:
// it becomes active when the device comes.
func (s *Service) setRoute(f *fibState, op *spec.Op, config bool) (undo, error) {
	r := *op.Route
	if r.Table != "" {
		to, err := s.find(r.Table)
		if err != nil && !s.loading {
			return nil, err
		}
		if err == nil {
			r.Table = to.ID.String()
		}
	}
	op.Route = &r
	there := f.static[r.Dst]
	old := there
	if old != nil && old.implied {
		old = nil
	}
	switch {
	case old != nil && op.Do == spec.RouteAdd:
		return nil, exists(op.About())
	case old == nil && op.Do == spec.RouteChange:
		return nil, notFound(op.About())
	case old != nil && old.config && !config:
		return nil, &ConfigError{op.About()}
	case old == nil && s.statics >= spec.MaxStatic:
		return nil, tooMany(op.About(), spec.MaxStatic)
	}
	n := &staticRoute{Route: r, config: config}
	var to way
	if !s.loading {
		var err error
		if to, err = s.way(f, r); err != nil {
			return nil, err
		}
		n.active = true
	}
	if n.under = there; old != nil {
		n.under = old.under
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.active {
		if err := s.activate(f, there != nil && there.active, r.Dst, to); err != nil {
			return nil, err
		}
	}
	f.static[r.Dst] = n
	if old == nil {
		s.statics++
	}
	return func() {
		if old == nil {
			s.statics--
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		restore(f.static, r.Dst, there)
		s.settle(f, r.Dst, n.active || there != nil && there.active)
	}, nil
}

// activate puts a static route into the table; what the source had there is hidden and held. inTable says that what is
// there is static too. f.mu is held.
func (s *Service) activate(f *fibState, inTable bool, p netip.Prefix, to way) error {
	var hidden fib.NextHopID
	if !inTable && !s.loading { // what a table has from before is sorted out when its source speaks
		hidden, _ = f.t.Get(p)
	}
	if hidden != 0 {
		if err := s.ways.hold(hidden); err != nil {
			return err
		}
	}
	if err := s.ways.insert(f.t, p, to); err != nil {
		if hidden != 0 {
			s.ways.unhold(hidden)
		}
		return err
	}
	if hidden != 0 {
		f.shadow[p] = hidden
	}
	return nil
}

// settle puts into the table what belongs to a prefix now: the static route, if it can be, or that of the source, or
// nothing. inTable says that what the table has is a static route. f.mu is held.
func (s *Service) settle(f *fibState, p netip.Prefix, inTable bool) {
	if st := f.static[p]; st != nil {
		if to, err := s.way(f, st.Route); err == nil {
			if err := s.activate(f, inTable, p, to); err == nil {
				st.active = true
				return
			}
		}
		st.active = false
	}
	if !inTable {
		return
	}
	hidden, ok := f.shadow[p]
	if ok {
		delete(f.shadow, p)
		err := s.ways.insert(f.t, p, way{id: hidden})
		s.ways.unhold(hidden)
		if err == nil {
			return
		}
		s.counts.feedErrs.Add(1)
	}
	if _, _, err := f.t.Delete(p); err != nil {
		s.log.Error("FIB", "id", f.ID, "err", err) // it was removed, or the prefix is wrong: neither can be
	}
}

func (s *Service) delRoute(f *fibState, op *spec.Op) (undo, error) {
	p := op.Route.Dst
	old := f.static[p]
	if old == nil || old.implied {
		if s.loading {
			return nil, notFound(op.About())
		}
		if _, ok := f.t.Get(p); ok {
			return nil, &fib.OpError{Op: "del", What: op.About(), Err: fmt.Errorf("%w as a static one: it is of the FIB's source or of an address", fib.ErrNotFound)}
		}
		return nil, notFound(op.About())
	}
	if old.config {
		return nil, &ConfigError{op.About()}
	}
	if op.Route.NHID != 0 && op.Route.NHID != old.NHID || len(op.Route.Hops) == 1 && !sameHops(op.Route.Hops, old.Hops) {
		return nil, notFound(op.About() + " by that way")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	restore(f.static, p, old.under)
	s.statics--
	if old.active {
		s.settle(f, p, true)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		s.statics++
		active := old.active
		old.active = false
		f.static[p] = old
		if active {
			s.settle(f, p, old.under != nil && old.under.active)
		}
	}, nil
}

func sameHops(want, have []spec.Hop) bool {
	if len(want) != len(have) {
		return false
	}
	for i, w := range want {
		if w.Dev != have[i].Dev || w.Gateway.IsValid() && w.Gateway != have[i].Gateway {
			return false
		}
	}
	return true
}

// way resolves the words of a route.
func (s *Service) way(f *fibState, r spec.Route) (way, error) {
	t, _ := spec.TypeOf(r.Type) // checked
	switch {
	case r.NHID != 0:
		h := s.hops[r.NHID]
		if h == nil {
			return way{}, notFound(fmt.Sprint("nexthop ", r.NHID))
		}
		if h.id == 0 {
			return way{}, noDevice(h.device())
		}
		return way{id: h.id}, s.reaches(f, h)
	case t == fib.Lookup:
		to, err := s.find(r.Table)
		if err != nil {
			return way{}, err
		}
		return way{single: fib.NextHop{Type: fib.Lookup, Table: to.ID}}, nil
	case len(r.Hops) == 0:
		return way{single: fib.NextHop{Type: t}}, nil
	case len(r.Hops) == 1 && r.Hops[0].Weight <= 1:
		hop, err := s.hopIn(f, t, r.Hops[0])
		return way{single: hop}, err
	}
	w := way{}
	for _, h := range r.Hops {
		hop, err := s.hopIn(f, t, h)
		if err != nil {
			return way{}, err
		}
		w.multi = append(w.multi, weighted{hop, uint16(max(h.Weight, 1))})
	}
	return w, nil
}

func noDevice(dev string) error {
	return &fib.FieldError{Field: "dev", Value: dev, Want: "a device that is there"}
}

// hopIn is hop for a route of a FIB. With a kernel side its packets leave by the FIB's own ports only.
func (s *Service) hopIn(f *fibState, t fib.Type, h spec.Hop) (fib.NextHop, error) {
	if err := s.own(f, h.Dev); err != nil && t != fib.Local {
		return fib.NextHop{}, err
	}
	return s.hop(f.ID, t, h)
}

func (s *Service) own(f *fibState, dev string) error {
	if p := s.ports[dev]; f.Backend == spec.None || p != nil && p.fib == f.ID {
		return nil
	}
	return &fib.FieldError{Field: "dev", Value: dev, Want: "a port of fib " + f.title()}
}

// reaches is own for the devices of a next hop or group.
func (s *Service) reaches(f *fibState, h *hopState) error {
	if h.Hop != nil {
		return s.own(f, h.Hop.Dev)
	}
	for _, m := range h.Group {
		if n := s.hops[m.ID]; n != nil && n.Hop != nil {
			if err := s.own(f, n.Hop.Dev); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) hop(id fib.ID, t fib.Type, h spec.Hop) (fib.NextHop, error) {
	index, ok := s.links.Index(id, h.Dev)
	if !ok {
		return fib.NextHop{}, noDevice(h.Dev)
	}
	return fib.NextHop{Type: t, Gateway: h.Gateway, Device: index}, nil
}

// retry puts static routes and next hops into the tables that could not be before: their device may have come, and takes
// those out whose device went or has another index. s.mu is held.
func (s *Service) retry() {
	for _, h := range s.hops {
		s.retryHop(h)
	}
	for _, f := range s.fibs {
		s.connect(f)
		s.retryIn(f)
	}
}

// retryIn is retry for the routes of one FIB.
func (s *Service) retryIn(f *fibState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, r := range f.static {
		to, err := s.way(f, r.Route)
		if err != nil && r.active || err == nil && (!r.active || s.moved(f, p, to)) {
			s.settle(f, p, r.active)
		}
	}
}

// moved says whether a route that is in the table leads elsewhere now: a device has another index.
func (s *Service) moved(f *fibState, p netip.Prefix, to way) bool {
	id, ok := f.t.Get(p)
	if !ok {
		return true
	}
	if to.id != 0 {
		return id != to.id
	}
	i, ok := s.set.NextHop(id)
	if !ok {
		return true
	}
	if to.multi == nil {
		return i.Members != nil || i.NextHop != to.single
	}
	if len(i.Members) != len(to.multi) {
		return true
	}
	for k, m := range i.Members {
		if n, ok := s.set.NextHop(m.NextHop); !ok || n.NextHop != to.multi[k].hop || max(m.Weight, 1) != to.multi[k].weight {
			return true
		}
	}
	return false
}

// LinksChanged tells that devices came, went, or have other names, indexes or addresses, or that somebody changed what the
// kernel side made. It brings all in line again.
func (s *Service) LinksChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.restoreKernel(context.Background())
	s.retry()
	for _, f := range s.fibs {
		s.refill(f)
	}
	if err := s.setForward(); err != nil {
		s.log.Error("forwarder", "err", err)
	}
}
