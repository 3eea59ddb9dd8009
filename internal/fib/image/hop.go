package image

// Target is what a next-hop id leads to.
type Target struct {
	Kind    uint8  // KindUnicast to KindLookup; 0 if the id leads nowhere: it is free, down, or to a FIB that is not there
	ID      uint32 // the id, or that of the group's member
	Device  uint32
	Gateway Key    // IPv4 as ::ffff:a.b.c.d; zero: none
	Desc    uint32 // with KindLookup: the descriptor of the FIB
}

// Target follows a next-hop id; members of groups are chosen by the hash of a flow. The caller loads HeaderEpoch before
// it looks up the id, and again after this.
func (m *Words) Target(id, hash uint32) (t Target) {
	d := m.Load(HeaderNextHops)
	dir, n := Lo(d), Hi(d)
	if id >= n {
		return t
	}
	w := m.Load(dir + id)
	if w&HopDown == 0 && Kind(w) == KindGroup {
		id, w = m.member(dir, n, w, hash)
	}
	if w&HopDown != 0 || Kind(w) == KindGroup {
		return t
	}
	t.Kind, t.ID = Kind(w), id
	switch t.Kind {
	case KindUnicast, KindLocal:
		r := min(Lo(w), m.limit)
		t.Device = Lo(m.Load(r))
		t.Gateway = Key{Hi: m.Load(r + 1), Lo: m.Load(r + 2)}
	case KindLookup:
		t.Desc = Lo(w)
	case KindAbsent:
		t.Kind = 0
	}
	return t
}

// member chooses a member of a group: that of the flow's bucket or, if it is down, that of the next whose is not.
func (m *Words) member(dir, n uint32, group uint64, hash uint32) (id uint32, w uint64) {
	at, count := min(Lo(group), m.limit), Buckets(group)
	for i := range count {
		id = m.half(at, (hash+i)&(count-1))
		if id >= n {
			continue
		}
		if w = m.Load(dir + id); w&HopDown == 0 && Kind(w) != 0 {
			return id, w
		}
	}
	return 0, HopDown
}
