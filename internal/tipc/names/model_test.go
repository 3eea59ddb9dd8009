package names

import (
	"slices"

	"midplane/internal/tipc/wire"
)

// model is the slow reference of Table: plain lists, written after the rules of Linux' name_table.c and subscr.c.
type model struct {
	own      uint32
	legacy   bool
	services []*mService // newest first
	subs     int
	subSeq   int
}

type mService struct {
	typ    uint32
	nextID int
	ranges []*mRange // in the kernel's order
	subs   []*mSub   // newest first
}

type mRange struct {
	lower, upper uint32
	all, local   []*mPub
}

type mPub struct {
	r     wire.ServiceRange
	addr  wire.SocketAddr
	key   uint32
	scope wire.Scope
	id    int
}

type mSub struct {
	s       wire.Subscr
	seq     int
	expires int64 // ms, -1 never
	owner   *mSubscriber
}

type mSubscriber struct {
	subs   []*mSub // newest first
	events []wire.Event
}

func (m *model) find(typ uint32) *mService {
	for _, s := range m.services {
		if s.typ == typ {
			return s
		}
	}
	return nil
}

func (m *model) create(typ uint32) *mService {
	if s := m.find(typ); s != nil {
		return s
	}
	s := &mService{typ: typ}
	m.services = slices.Insert(m.services, 0, s)
	return s
}

func (m *model) tidy() {
	m.services = slices.DeleteFunc(m.services, func(s *mService) bool { return len(s.ranges) == 0 && len(s.subs) == 0 })
}

func overlap(r *mRange, lower, upper uint32) bool { return r.lower <= upper && r.upper >= lower }

func (m *model) insert(r wire.ServiceRange, addr wire.SocketAddr, key uint32, scope wire.Scope) bool {
	sc := m.create(r.Type)
	i := slices.IndexFunc(sc.ranges, func(x *mRange) bool { return x.lower == r.Lower && x.upper == r.Upper })
	if i < 0 {
		i = slices.IndexFunc(sc.ranges, func(x *mRange) bool { return x.lower >= r.Lower })
		if i < 0 {
			i = len(sc.ranges)
		}
		sc.ranges = slices.Insert(sc.ranges, i, &mRange{lower: r.Lower, upper: r.Upper})
	}
	x := sc.ranges[i]
	first := len(x.all) == 0
	for _, p := range x.all {
		if p.key == key && p.addr == addr {
			return false
		}
	}
	p := &mPub{r, addr, key, scope, sc.nextID}
	sc.nextID++
	x.all = slices.Insert(x.all, 0, p)
	if addr.Node == m.own {
		x.local = slices.Insert(x.local, 0, p)
	}
	for _, s := range sc.subs {
		s.report(p, wire.EventPublished, first)
	}
	return true
}

func (m *model) remove(r wire.ServiceRange, addr wire.SocketAddr, key uint32) bool {
	sc := m.find(r.Type)
	if sc == nil {
		return false
	}
	for i, x := range sc.ranges {
		if x.lower != r.Lower || x.upper != r.Upper {
			continue
		}
		for _, p := range x.all {
			if p.key != key || p.addr != addr {
				continue
			}
			same := func(q *mPub) bool { return q == p }
			x.all = slices.DeleteFunc(x.all, same)
			x.local = slices.DeleteFunc(x.local, same)
			for _, s := range sc.subs {
				s.report(p, wire.EventWithdrawn, len(x.all) == 0)
			}
			if len(x.all) == 0 {
				sc.ranges = slices.Delete(sc.ranges, i, i+1)
			}
			m.tidy()
			return true
		}
	}
	return false
}

func (s *mSub) report(p *mPub, kind wire.EventKind, must bool) {
	f := s.s.Filter
	switch {
	case p.r.Lower > s.s.Range.Upper || p.r.Upper < s.s.Range.Lower:
	case !must && f&wire.SubPorts == 0:
	case f&SubClusterScope != 0 && p.scope == wire.ScopeNode:
	case f&SubNodeScope != 0 && p.scope != wire.ScopeNode:
	default:
		s.owner.events = append(s.owner.events, wire.Event{Kind: kind, Lower: p.r.Lower, Upper: p.r.Upper, Port: p.addr, Subscr: s.s})
	}
}

func (m *model) subscribe(o *mSubscriber, s wire.Subscr, nowMs int64) bool {
	if s.Filter&3 == 3 || s.Range.Lower > s.Range.Upper {
		return false
	}
	sc := m.create(s.Range.Type)
	m.subSeq++
	n := &mSub{s: s, seq: m.subSeq, owner: o, expires: -1}
	if s.Timeout != wire.WaitForever {
		n.expires = nowMs + int64(s.Timeout)
	}
	sc.subs = slices.Insert(sc.subs, 0, n)
	o.subs = slices.Insert(o.subs, 0, n)
	m.subs++
	if s.Filter&SubNoStatus != 0 {
		return true
	}
	var found []*mPub
	for _, x := range sc.ranges {
		if !overlap(x, s.Range.Lower, s.Range.Upper) {
			continue
		}
		if s.Filter&wire.SubPorts != 0 {
			found = append(found, x.all...)
			continue
		}
		found = append(found, slices.MinFunc(x.all, func(a, b *mPub) int { return a.id - b.id }))
	}
	slices.SortFunc(found, func(a, b *mPub) int { return a.id - b.id })
	for _, p := range found {
		n.report(p, wire.EventPublished, true)
	}
	return true
}

func (m *model) unsubscribe(n *mSub) {
	same := func(x *mSub) bool { return x == n }
	sc := m.find(n.s.Range.Type)
	sc.subs = slices.DeleteFunc(sc.subs, same)
	n.owner.subs = slices.DeleteFunc(n.owner.subs, same)
	m.subs--
	m.tidy()
}

func (m *model) cancel(o *mSubscriber, s wire.Subscr) bool {
	for _, n := range o.subs {
		if n.s == s {
			m.unsubscribe(n)
			return true
		}
	}
	return false
}

// expire ends what is due at nowMs, in the order of the times.
func (m *model) expire(nowMs int64) {
	var due []*mSub
	for _, sc := range m.services {
		for _, n := range sc.subs {
			if n.expires >= 0 && n.expires <= nowMs {
				due = append(due, n)
			}
		}
	}
	slices.SortFunc(due, func(a, b *mSub) int {
		if a.expires != b.expires {
			return int(a.expires - b.expires)
		}
		return a.seq - b.seq
	})
	for _, n := range due {
		n.owner.events = append(n.owner.events,
			wire.Event{Kind: wire.EventTimeout, Lower: n.s.Range.Lower, Upper: n.s.Range.Upper, Subscr: n.s})
		m.unsubscribe(n)
	}
}

func (m *model) lookup(typ, inst, node uint32) (wire.SocketAddr, bool) {
	in := node == 0 || node == m.own || m.legacy && (node == m.own&^0xfff || node == m.own&^0xffffff)
	if !in {
		return wire.SocketAddr{Node: node}, true
	}
	sc := m.find(typ)
	if sc == nil {
		return wire.SocketAddr{}, false
	}
	for _, x := range sc.ranges {
		if !overlap(x, inst, inst) {
			continue
		}
		l := &x.all
		if node == m.own {
			if len(x.local) == 0 {
				continue
			}
			l = &x.local
		} else if m.legacy && node == 0 && len(x.local) > 0 {
			l = &x.local
		}
		p := (*l)[0]
		*l = append((*l)[1:], p)
		return p.addr, true
	}
	return wire.SocketAddr{}, false
}

func pushFront[T comparable](l []T, x T) []T {
	if slices.Contains(l, x) {
		return l
	}
	return slices.Insert(l, 0, x)
}

func (m *model) multicast(r wire.ServiceRange, scope wire.Scope) (ports, nodes []uint32, local bool) {
	sc := m.find(r.Type)
	if sc == nil {
		return
	}
	for _, x := range sc.ranges {
		if !overlap(x, r.Lower, r.Upper) {
			continue
		}
		for _, p := range x.local {
			if scope == ScopeAny || scope == p.scope {
				ports = pushFront(ports, p.addr.Port)
			}
		}
		for _, p := range x.all {
			if p.addr.Node == m.own {
				local = true
			} else {
				nodes = pushFront(nodes, p.addr.Node)
			}
		}
	}
	return
}

func (m *model) group(typ, inst uint32, scope wire.Scope, exclude uint32, all bool) (dst []wire.SocketAddr) {
	sc := m.find(typ)
	if sc == nil {
		return nil
	}
	for _, x := range sc.ranges {
		if !overlap(x, inst, inst) {
			continue
		}
		for i, p := range x.all {
			if p.scope != scope || p.addr.Port == exclude && p.addr.Node == m.own {
				continue
			}
			dst = slices.Insert(dst, 0, p.addr)
			if !all {
				x.all = append(slices.Delete(x.all, i, i+1), p)
				break
			}
		}
		break
	}
	return dst
}

func (m *model) list() (out []*mPub) {
	for h := range uint32(hashSize) {
		for _, sc := range m.services {
			if sc.typ%hashSize != h {
				continue
			}
			for _, x := range sc.ranges {
				out = append(out, x.all...)
			}
		}
	}
	return out
}
