package service

import (
	"fmt"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// Next hops with a number of the user's. Their devices are those of the host: they are of no FIB.

// device is the device that a next hop waits for, for messages.
func (h *hopState) device() string {
	if h.Hop != nil {
		return h.Hop.Dev
	}
	return fmt.Sprint("of nexthop ", h.ID)
}

// single resolves a next hop that is no group.
func (s *Service) single(n spec.NextHop) (fib.NextHop, error) {
	t, _ := spec.TypeOf(n.Type) // checked
	if n.Hop == nil {
		return fib.NextHop{Type: t}, nil
	}
	return s.hop(0, t, *n.Hop)
}

// members resolves a group.
func (s *Service) members(n spec.NextHop) ([]fib.Member, error) {
	l := make([]fib.Member, 0, len(n.Group))
	for _, m := range n.Group {
		h := s.hops[m.ID]
		switch {
		case h == nil:
			return nil, notFound(fmt.Sprint("nexthop ", m.ID))
		case h.Group != nil:
			return nil, &fib.FieldError{Field: "group", Value: fmt.Sprint(m.ID), Want: "a next hop that is no group"}
		case h.id == 0:
			return nil, noDevice(h.device())
		}
		l = append(l, fib.Member{NextHop: h.id, Weight: uint16(m.Weight)})
	}
	return l, nil
}

// realise makes what a next hop is in the set: id 0 makes a new one.
func (s *Service) realise(n spec.NextHop, id fib.NextHopID) (fib.NextHopID, error) {
	var err error
	if n.Group != nil {
		var m []fib.Member
		if m, err = s.members(n); err != nil {
			return 0, err
		}
		if id != 0 {
			err = s.set.ReplaceGroup(id, m)
		} else {
			id, err = s.set.AddGroup(m)
		}
	} else {
		var h fib.NextHop
		if h, err = s.single(n); err != nil {
			return 0, err
		}
		if id != 0 {
			err = s.set.ReplaceNextHop(id, h)
		} else {
			id, err = s.set.AddNextHop(h)
		}
	}
	if err != nil {
		return 0, err
	}
	return id, s.set.SetDown(id, n.Down)
}

func (s *Service) setHop(op *spec.Op, config bool) (undo, error) {
	n := *op.NextHop
	old := s.hops[n.ID]
	switch {
	case old != nil && op.Do == spec.NextHopAdd:
		return nil, exists(op.About())
	case old != nil && old.config && !config:
		return nil, &ConfigError{op.About()}
	case old != nil && (old.Group == nil) != (n.Group == nil):
		return nil, &fib.FieldError{Field: "group", Value: fmt.Sprint(n.ID), Want: "a group for a group, a next hop for a next hop"}
	case old == nil && len(s.hops) >= spec.MaxNextHops:
		return nil, tooMany(op.About(), spec.MaxNextHops)
	}
	h := &hopState{NextHop: n, config: config}
	if old != nil {
		h.id = old.id
	}
	s.hops[n.ID] = h
	if s.loading {
		return func() {}, nil
	}
	id, err := s.realise(n, h.id)
	if err != nil {
		restore(s.hops, n.ID, old)
		return nil, err
	}
	h.id = id
	s.hopIDs[id] = n.ID
	return func() {
		restore(s.hops, n.ID, old)
		if old == nil {
			s.dropHop(h)
			return
		}
		if _, err := s.realise(old.NextHop, old.id); err != nil {
			s.log.Error("next hop", "id", n.ID, "err", err)
		}
	}, nil
}

func (s *Service) dropHop(h *hopState) {
	if h.id == 0 {
		return
	}
	delete(s.hopIDs, h.id)
	if err := s.set.RemoveNextHop(h.id); err != nil {
		s.log.Error("next hop", "id", h.ID, "err", err)
	}
}

// delHop removes a next hop that no route and no group has; in the kernel routes go with it, which nobody likes.
func (s *Service) delHop(op *spec.Op) (undo, error) {
	id := op.NextHop.ID
	h := s.hops[id]
	if h == nil {
		return nil, notFound(op.About())
	}
	if h.config {
		return nil, &ConfigError{op.About()}
	}
	if s.loading { // it was free when it was removed
		delete(s.hops, id)
		return func() {}, nil
	}
	if by := s.usersOf(id); by != "" {
		return nil, inUse("del", op.About(), by)
	}
	delete(s.hops, id)
	if h.id != 0 {
		if err := s.set.RemoveNextHop(h.id); err != nil {
			s.hops[id] = h
			return nil, err
		}
		delete(s.hopIDs, h.id)
	}
	return func() {
		s.hops[id] = h
		if h.id == 0 {
			return
		}
		n, err := s.realise(h.NextHop, 0)
		if err != nil {
			s.log.Error("next hop", "id", id, "err", err)
		}
		if h.id = n; n != 0 {
			s.hopIDs[n] = id
		}
	}, nil
}

// usersOf says what has a next hop: a group, or a route, also one that is not in the table.
func (s *Service) usersOf(id uint32) string {
	if h := s.hops[id]; h.id != 0 {
		if i, ok := s.set.NextHop(h.id); ok && i.Routes == 0 && i.Groups == 0 && !s.anyPending() {
			return ""
		}
	}
	for _, g := range s.hops {
		for _, m := range g.Group {
			if m.ID == id {
				return fmt.Sprint("group ", g.ID)
			}
		}
	}
	for _, f := range s.fibs {
		for p, r := range f.static {
			if r.NHID == id {
				return fmt.Sprintf("route %s of fib %s", p, f.title())
			}
		}
	}
	return ""
}

// anyPending says whether something wanted is not realised.
func (s *Service) anyPending() bool {
	for _, h := range s.hops {
		if h.id == 0 {
			return true
		}
	}
	for _, f := range s.fibs {
		for _, r := range f.static {
			if !r.active {
				return true
			}
		}
	}
	return false
}

// retryHop makes a next hop whose device has come, or has another index.
func (s *Service) retryHop(h *hopState) {
	if h.id != 0 && h.Group != nil {
		return // its members are changed in place
	}
	if h.id != 0 {
		want, err := s.single(h.NextHop)
		if i, ok := s.set.NextHop(h.id); err != nil || ok && i.NextHop == want {
			return
		}
	}
	id, err := s.realise(h.NextHop, h.id)
	if err != nil {
		return
	}
	h.id = id
	s.hopIDs[id] = h.ID
}
