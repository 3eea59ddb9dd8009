package fib

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Set is a number of FIBs and the next hops that their routes lead to. The zero value is ready to use. All methods are
// safe for concurrent use; those that look something up never block.
type Set struct {
	mu     sync.RWMutex
	byID   map[ID]*Table
	byName map[string]*Table
	hops   map[NextHopID]*NextHopInfo
	intern map[NextHop]NextHopID
	last   NextHopID
}

// Create makes an empty FIB. The name is optional; it has up to 15 octets, like an interface's, and is unique.
// Errors: *FieldError; ErrExists; ErrTooMany and ErrFull when the image has no room for it.
func (s *Set) Create(id ID, name string) (*Table, error) {
	if id == 0 {
		return nil, &FieldError{"id", "0", "1 to 4294967295"}
	}
	if len(name) > 15 || strings.ContainsAny(name, "/: \t\n") || name == "." || name == ".." {
		return nil, &FieldError{"name", name, "up to 15 octets without space, slash or colon"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID, s.byName = map[ID]*Table{}, map[string]*Table{}
	}
	if s.byID[id] != nil || (name != "" && s.byName[name] != nil) {
		return nil, &OpError{"create", "fib " + id.String(), ErrExists}
	}
	t := &Table{set: s, id: id, name: name, routes: map[netip.Prefix]NextHopID{}}
	s.byID[id] = t
	if name != "" {
		s.byName[name] = t
	}
	return t, nil
}

// Remove empties and removes a FIB. Lookups that are under way end with the old answer or with none; routes of other
// FIBs that lead into it lead nowhere from then on. Operations on its Table return ErrRemoved.
func (s *Set) Remove(id ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byID[id]
	if t == nil {
		return &OpError{"remove", "fib " + id.String(), ErrNotFound}
	}
	t.clear()
	t.removed = true
	delete(s.byID, id)
	delete(s.byName, t.name)
	return nil
}

// Table returns a FIB by its id.
func (s *Set) Table(id ID) (*Table, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.byID[id]
	return t, ok
}

// ByName returns a FIB by its name.
func (s *Set) ByName(name string) (*Table, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.byName[name]
	return t, ok
}

// Tables returns all FIBs in the order of their ids.
func (s *Set) Tables() []*Table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var l []*Table
	for _, t := range s.byID {
		l = append(l, t)
	}
	slices.SortFunc(l, func(a, b *Table) int { return int(int64(a.id) - int64(b.id)) })
	return l
}

// AddNextHop makes a next hop, also when there is an equal one. Errors: *FieldError, ErrTooMany, ErrFull.
func (s *Set) AddNextHop(h NextHop) (NextHopID, error) {
	if err := h.Validate(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(&NextHopInfo{NextHop: h}), nil
}

func (s *Set) add(i *NextHopInfo) NextHopID {
	if s.hops == nil {
		s.hops, s.intern = map[NextHopID]*NextHopInfo{}, map[NextHop]NextHopID{}
	}
	s.last++
	s.hops[s.last] = i
	return s.last
}

// Intern returns the next hop that is equal to h and was made by Intern, or makes it. It goes by itself when the last
// route or group that holds it does; one that is never held stays until RemoveNextHop.
func (s *Set) Intern(h NextHop) (NextHopID, error) {
	if err := h.Validate(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.intern[h]; id != 0 {
		return id, nil
	}
	id := s.add(&NextHopInfo{NextHop: h, Auto: true})
	s.intern[h] = id
	return id, nil
}

// AddGroup makes a group: its members share the flows by weight. Errors: *FieldError, ErrNotFound, ErrTooMany, ErrFull.
func (s *Set) AddGroup(members []Member) (NextHopID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.hold(members, 1); err != nil {
		return 0, err
	}
	return s.add(&NextHopInfo{Members: slices.Clone(members)}), nil
}

func (s *Set) hold(members []Member, n int) error {
	if len(members) == 0 || len(members) > MaxMembers {
		return &FieldError{"members", "", "1 to 256"}
	}
	for _, m := range members {
		if i := s.hops[m.NextHop]; i == nil || i.Members != nil {
			return &OpError{"group", "member", ErrNotFound}
		}
	}
	for _, m := range members {
		s.hops[m.NextHop].Groups += n
	}
	return nil
}

// ReplaceNextHop changes what a next hop is, for all routes and groups that hold it, at once.
func (s *Set) ReplaceNextHop(id NextHopID, h NextHop) error {
	if err := h.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.hops[id]
	if i == nil || i.Members != nil {
		return &OpError{"replace", "nexthop", ErrNotFound}
	}
	i.NextHop = h
	return nil
}

// ReplaceGroup changes the members of a group, for all routes that hold it, at once. Flows of members that stay are
// moved as little as their weights allow.
func (s *Set) ReplaceGroup(id NextHopID, members []Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.hops[id]
	if i == nil || i.Members == nil {
		return &OpError{"replace", "group", ErrNotFound}
	}
	if err := s.hold(members, 1); err != nil {
		return err
	}
	_ = s.hold(i.Members, -1)
	i.Members = slices.Clone(members)
	return nil
}

// SetDown takes a next hop out of use, or back into it, for all routes and groups, with one write: groups send its
// flows to the members that are left; a route that has no other becomes unreachable.
func (s *Set) SetDown(id NextHopID, down bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.hops[id]
	if i == nil {
		return &OpError{"set", "nexthop", ErrNotFound}
	}
	i.Down = down
	return nil
}

// RemoveNextHop removes a next hop or group. Errors: ErrNotFound; ErrInUse while a route or group holds it.
func (s *Set) RemoveNextHop(id NextHopID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.hops[id]
	if i == nil {
		return &OpError{"remove", "nexthop", ErrNotFound}
	}
	if i.Routes > 0 || i.Groups > 0 {
		return &OpError{"remove", "nexthop", ErrInUse}
	}
	delete(s.hops, id)
	return nil
}

// NextHop returns the state of a next hop or group.
func (s *Set) NextHop(id NextHopID) (NextHopInfo, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.hops[id]
	if !ok {
		return NextHopInfo{}, false
	}
	c := *i
	c.Members = slices.Clone(i.Members)
	return c, true
}

// NextHops iterates over all next hops and groups, in the order of their ids. It shows what is there when it comes to
// it; the Set may change meanwhile.
func (s *Set) NextHops() iter.Seq2[NextHopID, NextHopInfo] {
	return func(yield func(NextHopID, NextHopInfo) bool) {
		s.mu.RLock()
		last := s.last
		s.mu.RUnlock()
		for id := NextHopID(1); id <= last; id++ {
			if i, ok := s.NextHop(id); ok && !yield(id, i) {
				return
			}
		}
	}
}

// Resolve says where packets to an address go that are looked up in a FIB: it follows groups by the hash of the flow,
// and routes of type Lookup from FIB to FIB, eight of them at most. Hop.Type is Unreachable when there is no route.
func (s *Set) Resolve(t *Table, to netip.Addr, hash uint32) Hop {
	for range 8 {
		id, ok := t.Lookup(to)
		if !ok {
			break
		}
		i, ok := s.NextHop(id)
		if ok && i.Members != nil {
			id = i.Members[hash%uint32(len(i.Members))].NextHop
			i, ok = s.NextHop(id)
		}
		if !ok || i.Down {
			break
		}
		if i.NextHop.Type != Lookup {
			return Hop{i.NextHop, id, t.id}
		}
		if t, ok = s.Table(i.NextHop.Table); !ok {
			break
		}
	}
	return Hop{NextHop: NextHop{Type: Unreachable}}
}

var _ atomic.Uint64
