package service

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// do carries one operation out in the tables and in what is wanted, and returns how to take it back. It names FIBs by
// number in op, as they are kept. s.mu is held.
func (s *Service) do(op *spec.Op, config bool) (undo, error) {
	switch op.Do {
	case spec.FIBAdd:
		return s.addFIB(op, config)
	case spec.NextHopAdd, spec.NextHopReplace:
		return s.setHop(op, config)
	case spec.NextHopDel:
		return s.delHop(op)
	case spec.PortDel:
		return s.delPort(op)
	case spec.FeedAdd:
		return s.addFeed(op, config)
	case spec.FeedDel:
		return s.delFeed(op)
	}
	f, err := s.find(op.FIB)
	if err != nil {
		return nil, err
	}
	u, err := s.doIn(f, op, config)
	if err == nil {
		op.FIB = f.ID.String()
	}
	return u, err
}

// doIn is do of what is about one FIB.
func (s *Service) doIn(f *fibState, op *spec.Op, config bool) (undo, error) {
	switch op.Do {
	case spec.FIBDel:
		return s.delFIB(f)
	case spec.RouteAdd, spec.RouteChange, spec.RouteReplace:
		return s.setRoute(f, op, config)
	case spec.RouteDel:
		return s.delRoute(f, op)
	case spec.NeighAdd, spec.NeighReplace:
		return s.setNeigh(f, op, config)
	case spec.NeighDel:
		return s.delNeigh(f, op)
	case spec.PortAdd:
		return s.addPort(f, op, config)
	case spec.LoadSet:
		return s.setLoad(f, op)
	case spec.LoadDel:
		return s.delLoad(f, op)
	}
	return nil, &fib.FieldError{Field: "do", Value: string(op.Do), Want: "a verb such as route-add"}
}

func exists(what string) error   { return &fib.OpError{Op: "add", What: what, Err: fib.ErrExists} }
func notFound(what string) error { return &fib.OpError{Op: "find", What: what, Err: fib.ErrNotFound} }
func inUse(op, what, by string) error {
	return &fib.OpError{Op: op, What: what, Err: fmt.Errorf("%w by %s", fib.ErrInUse, by)}
}
func tooMany(what string, most int) error {
	return &fib.OpError{Op: "add", What: what, Err: fmt.Errorf("%w: there are %d already", fib.ErrTooMany, most)}
}

// firstID is where the daemon begins when it chooses numbers: above those that people write and the kernel's own.
const firstID = 1000

func (s *Service) addFIB(op *spec.Op, config bool) (undo, error) {
	v := *op.NewFIB
	what := op.About()
	if v.ID == 0 {
		for v.ID = firstID; s.fibs[v.ID] != nil; v.ID++ {
		}
	}
	if v.Backend == "" {
		v.Backend = s.def
	}
	if v.Backend != spec.None && v.Backend != "" && s.kern == nil {
		return nil, &fib.FieldError{Field: "backend", Value: v.Backend, Want: "none: this daemon has no kernel side"}
	}
	if v.Backend != spec.None && v.ID >= 253 && v.ID <= 255 {
		return nil, &fib.FieldError{Field: "id", Value: v.ID.String(), Want: "not 253 to 255, which are the kernel's own tables"}
	}
	if v.ID == holdID {
		return nil, &fib.FieldError{Field: "id", Value: v.ID.String(), Want: "1 to 4294967294"}
	}
	op.NewFIB = &v
	if _, named := s.names[v.Name]; s.fibs[v.ID] != nil || v.Name != "" && named {
		return nil, exists(what)
	}
	if len(s.fibs) >= spec.MaxFIBs {
		return nil, tooMany(what, spec.MaxFIBs)
	}
	f := newFIBState(v, config)
	if !s.loading {
		t, err := s.set.Create(v.ID, v.Name)
		if err != nil {
			return nil, err
		}
		f.t = t
		s.byTable.Store(uint32(v.ID), f)
	}
	s.fibs[v.ID] = f
	if v.Name != "" {
		s.names[v.Name] = v.ID
	}
	return func() {
		delete(s.fibs, v.ID)
		delete(s.names, v.Name)
		s.byTable.Delete(uint32(v.ID))
		f.close()
		_ = s.set.Remove(v.ID) // it was made above
	}, nil
}

// table returns the table of a FIB: one that the image still has from before, or a new one.
func (s *Service) table(v spec.FIB) (*fib.Table, error) {
	if t, ok := s.set.Table(v.ID); ok {
		if t.Name() == v.Name {
			return t, nil
		}
		if err := s.set.Remove(v.ID); err != nil {
			return nil, err
		}
	}
	if t, ok := s.set.ByName(v.Name); ok && v.Name != "" {
		if err := s.set.Remove(t.ID()); err != nil {
			return nil, err
		}
	}
	return s.set.Create(v.ID, v.Name)
}

func (f *fibState) close() {
	f.mu.Lock()
	f.gone = true
	f.mu.Unlock()
	if f.work != nil {
		close(f.stop)
	}
}

// delFIB removes a FIB that has no ports and no feed. Its routes and neighbours go with it; static routes of other FIBs
// that lead into it stay, and lead nowhere.
func (s *Service) delFIB(f *fibState) (undo, error) {
	what := "fib " + f.title()
	if f.config {
		return nil, &ConfigError{what}
	}
	for _, p := range s.ports {
		if p.fib == f.ID {
			return nil, inUse("del", what, "port "+p.Key())
		}
	}
	for _, w := range s.running {
		if g, err := s.find(w.FIB); err == nil && g == f {
			return nil, inUse("del", what, "feed "+w.Name)
		}
	}
	for p, r := range f.static {
		if r.config {
			return nil, &ConfigError{"route " + p.String() + " of " + what}
		}
	}
	neighs := map[neighKey]*item[spec.Neigh]{}
	for k, n := range s.neighs {
		if k.fib == f.ID {
			if n.config {
				return nil, &ConfigError{"neigh " + k.dst.String() + " of " + what}
			}
			neighs[k] = n
		}
	}
	for k := range neighs {
		delete(s.neighs, k)
	}
	statics := f.wantedRoutes()
	s.statics -= statics
	delete(s.fibs, f.ID)
	delete(s.names, f.Name)
	s.byTable.Delete(uint32(f.ID))
	if !s.loading {
		s.leaving = append(s.leaving, f)
	}
	// The table goes when nothing can fail any more, so that undo need not fill it again: see afterwards.
	return func() {
		s.fibs[f.ID] = f
		s.byTable.Store(uint32(f.ID), f)
		if f.Name != "" {
			s.names[f.Name] = f.ID
		}
		s.statics += statics
		maps.Copy(s.neighs, neighs)
	}, nil
}

// afterwards does what cannot be taken back, when the operations are on record.
func (s *Service) afterwards(ops []spec.Op) {
	s.runLater()
	for _, f := range s.leaving {
		f.close()
	}
	s.leaving = nil
	for _, op := range ops {
		switch op.Do {
		case spec.FIBDel:
			n, _ := strconv.ParseUint(op.FIB, 10, 32) // it was written by do
			id := fib.ID(n)
			if s.fibs[id] != nil {
				continue // it was made again in the same batch
			}
			s.purge(id)
			s.sweepFiles()
		case spec.FIBAdd:
			s.newFIB(op.NewFIB.ID)
		case spec.LoadSet, spec.LoadDel:
			s.sweepFiles()
		}
	}
}

// runLater runs what waits for the end of a change, one that was done or taken back.
func (s *Service) runLater() {
	for _, f := range s.later {
		f()
	}
	s.later = nil
}

// purge removes the table of a FIB that is wanted no more.
func (s *Service) purge(id fib.ID) {
	if t, ok := s.set.Table(id); ok && t != nil {
		if err := s.set.Remove(id); err != nil {
			s.log.Error("FIB", "id", id, "err", err)
		}
	}
	s.ways.sweep()
}

func (s *Service) addPort(f *fibState, op *spec.Op, config bool) (undo, error) {
	key := op.Port.Key()
	if o := s.ports[key]; o != nil {
		return nil, &fib.OpError{Op: "add", What: "port " + key, Err: fmt.Errorf("%w in fib %s", fib.ErrExists, s.fibs[o.fib].title())}
	}
	if len(s.ports) >= spec.MaxPorts {
		return nil, tooMany("port "+key, spec.MaxPorts)
	}
	s.ports[key] = &portState{Port: *op.Port, fib: f.ID, config: config}
	s.connect(f)
	return func() {
		delete(s.ports, key)
		s.connect(f)
	}, nil
}

func (s *Service) delPort(op *spec.Op) (undo, error) {
	key := op.Port.Key()
	p := s.ports[key]
	if p == nil {
		return nil, notFound("port " + key)
	}
	if p.config {
		return nil, &ConfigError{"port " + key}
	}
	if op.FIB != "" {
		if f, err := s.find(op.FIB); err != nil || f.ID != p.fib {
			return nil, notFound("port " + key + " of fib " + op.FIB)
		}
	}
	op.FIB = p.fib.String()
	// Neighbours are of a port, and go with it; routes wait for it to come back.
	neighs := map[neighKey]*item[spec.Neigh]{}
	for k, n := range s.neighs {
		if k.fib == p.fib && k.dev == key {
			if n.config {
				return nil, &ConfigError{"neigh " + k.dst.String() + " of port " + key}
			}
			neighs[k] = n
		}
	}
	for k := range neighs {
		delete(s.neighs, k)
	}
	delete(s.ports, key)
	s.connect(s.fibs[p.fib])
	return func() {
		s.ports[key] = p
		maps.Copy(s.neighs, neighs)
		s.connect(s.fibs[p.fib])
	}, nil
}

func (s *Service) setNeigh(f *fibState, op *spec.Op, config bool) (undo, error) {
	k := neighKey{f.ID, op.Neigh.Dev, op.Neigh.Dst}
	old := s.neighs[k]
	switch {
	case old != nil && op.Do == spec.NeighAdd:
		return nil, exists(op.About())
	case old != nil && old.config && !config:
		return nil, &ConfigError{op.About()}
	case old == nil && len(s.neighs) >= spec.MaxNeighs:
		return nil, tooMany(op.About(), spec.MaxNeighs)
	}
	if !s.loading {
		if err := s.belongs(f, op.Neigh.Dev); err != nil {
			return nil, err
		}
	}
	s.neighs[k] = &item[spec.Neigh]{*op.Neigh, config}
	return func() { restore(s.neighs, k, old) }, nil
}

// belongs says whether a device is a port of a FIB, or there at all with a FIB without kernel side.
func (s *Service) belongs(f *fibState, dev string) error {
	if p := s.ports[dev]; p != nil && p.fib == f.ID {
		return nil
	}
	if _, ok := s.links.Index(f.ID, dev); ok && f.Backend == spec.None && s.ports[dev] == nil {
		return nil
	}
	return &fib.FieldError{Field: "dev", Value: dev, Want: "a port of fib " + f.title()}
}

func restore[K comparable, V any](m map[K]*V, k K, old *V) {
	if old == nil {
		delete(m, k)
	} else {
		m[k] = old
	}
}

func (s *Service) delNeigh(f *fibState, op *spec.Op) (undo, error) {
	k := neighKey{f.ID, op.Neigh.Dev, op.Neigh.Dst}
	old := s.neighs[k]
	if old == nil {
		if s.kern != nil && f.Backend != spec.None {
			return func() {}, nil // a learned one: the kernel says whether there is one
		}
		return nil, notFound(op.About())
	}
	if old.config {
		return nil, &ConfigError{op.About()}
	}
	delete(s.neighs, k)
	op.Neigh = &old.v // with its address: the kernel may have lost it
	return func() { s.neighs[k] = old }, nil
}

// wanted are the operations that make what is wanted, without what the configuration says.
func (s *Service) wanted() iter.Seq[spec.Op] {
	return func(yield func(spec.Op) bool) {
		ids := slices.Sorted(maps.Keys(s.fibs))
		for _, id := range ids {
			if f := s.fibs[id]; !f.config && !yield(spec.Op{Do: spec.FIBAdd, NewFIB: &f.FIB}) {
				return
			}
		}
		// Single next hops before groups, which hold them.
		for _, groups := range []bool{false, true} {
			for _, id := range slices.Sorted(maps.Keys(s.hops)) {
				if h := s.hops[id]; !h.config && (h.Group != nil) == groups && !yield(spec.Op{Do: spec.NextHopAdd, NextHop: &h.NextHop}) {
					return
				}
			}
		}
		for _, p := range s.ports {
			if !p.config && !yield(spec.Op{Do: spec.PortAdd, FIB: p.fib.String(), Port: &p.Port}) {
				return
			}
		}
		for k, n := range s.neighs {
			if !n.config && !yield(spec.Op{Do: spec.NeighAdd, FIB: k.fib.String(), Neigh: &n.v}) {
				return
			}
		}
		for _, id := range ids {
			f := s.fibs[id]
			for _, r := range f.static {
				if !r.config && !r.implied && !yield(spec.Op{Do: spec.RouteAdd, FIB: id.String(), Route: &r.Route}) {
					return
				}
			}
			if f.load != nil && !yield(spec.Op{Do: spec.LoadSet, FIB: id.String(), Load: &f.load.v}) {
				return
			}
		}
		for _, f := range s.running {
			if !f.config && !yield(spec.Op{Do: spec.FeedAdd, Feed: &f.Feed}) {
				return
			}
		}
	}
}
