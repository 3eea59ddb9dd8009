package names

import (
	"iter"
	"slices"

	"midplane/internal/tipc/wire"
)

// Lookup finds a socket bound to the service address {typ, inst}. node says where to look: 0 everywhere, this node's
// address only here. If it is another node, or in legacy mode a domain that this node is not part of, the lookup has to
// be done there: the result is then {0, node} and true.
//
// Only the first range that contains inst counts, except that with node = own ranges without a local binding are passed
// over. Bindings of the range take turns. Rules: name_table.c tipc_nametbl_lookup_anycast. Lookup does not allocate.
func (t *Table) Lookup(typ, inst, node uint32) (addr wire.SocketAddr, ok bool) {
	own := t.cfg.Own
	if !inScope(t.cfg.LegacyAddr, node, own) {
		return wire.SocketAddr{Node: node}, true
	}
	sc := t.services[typ]
	if sc == nil {
		return wire.SocketAddr{}, false
	}
	for v := sc.ranges.first(inst, inst); v != nil; v = v.next(inst, inst) {
		b := v.item
		l := &b.all
		switch {
		case node == own:
			if b.local.empty() {
				continue
			}
			l = &b.local
		case t.cfg.LegacyAddr && node == 0 && !b.local.empty():
			l = &b.local
		}
		return l.rotate().Addr, true
	}
	return wire.SocketAddr{}, false
}

// inScope reports whether this node is part of a lookup domain (addr.c tipc_in_scope).
func inScope(legacy bool, domain, own uint32) bool {
	if domain == 0 || domain == own {
		return true
	}
	return legacy && (domain == own&0xfffff000 || domain == own&0xff000000)
}

// AppendMulticastPorts appends the ports of this node's sockets that are bound to any part of r with the given scope
// ([ScopeAny]: with either), each once. Rules: name_table.c tipc_nametbl_lookup_mcast_sockets.
func (t *Table) AppendMulticastPorts(dst []uint32, r wire.ServiceRange, scope wire.Scope) []uint32 {
	sc := t.services[r.Type]
	if sc == nil {
		return dst
	}
	u := t.unique(dst)
	for v := sc.ranges.first(r.Lower, r.Upper); v != nil; v = v.next(r.Lower, r.Upper) {
		l := &v.item.local
		for p := l.head; p != nil; p = l.next(p) {
			if scope == p.Scope || scope == ScopeAny {
				u.add(p.Addr.Port)
			}
		}
	}
	return u.done()
}

// AppendMulticastNodes appends the other nodes that have a binding to any part of r, each once; local tells whether
// this node has one. Rules: name_table.c tipc_nametbl_lookup_mcast_nodes.
func (t *Table) AppendMulticastNodes(dst []uint32, r wire.ServiceRange) (remote []uint32, local bool) {
	sc := t.services[r.Type]
	if sc == nil {
		return dst, false
	}
	u := t.unique(dst)
	for v := sc.ranges.first(r.Lower, r.Upper); v != nil; v = v.next(r.Lower, r.Upper) {
		b := v.item
		if !b.local.empty() {
			local = true
		}
		for p := b.all.head; p != nil; p = b.all.next(p) {
			if !t.isLocal(p.Addr.Node) {
				u.add(p.Addr.Node)
			}
		}
	}
	return u.done(), local
}

// unique collects distinct numbers behind what dst has already; the last one added comes first, as on the kernel's
// lists (name_table.c tipc_dest_push).
type unique struct {
	dst  []uint32
	base int
	seen map[uint32]struct{} // once there are too many for a search
}

func (t *Table) unique(dst []uint32) unique { return unique{dst, len(dst), t.seen} }

const uniqueSearch = 16

func (u *unique) add(x uint32) {
	n := len(u.dst) - u.base
	switch {
	case n < uniqueSearch:
		if slices.Contains(u.dst[u.base:], x) {
			return
		}
	case n == uniqueSearch && len(u.seen) == 0:
		for _, y := range u.dst[u.base:] {
			u.seen[y] = struct{}{}
		}
		fallthrough
	default:
		if _, ok := u.seen[x]; ok {
			return
		}
		u.seen[x] = struct{}{}
	}
	u.dst = append(u.dst, x)
}

func (u *unique) done() []uint32 {
	if len(u.seen) > 0 {
		clear(u.seen)
	}
	slices.Reverse(u.dst[u.base:])
	return u.dst
}

// AppendGroup appends the members of a communication group that are bound to {typ, inst} with this scope, leaving out
// the local socket with port exclude: all of them, or the one whose turn it is. Only the first matching range counts.
// Rules: name_table.c tipc_nametbl_lookup_group.
func (t *Table) AppendGroup(dst []wire.SocketAddr, typ, inst uint32, scope wire.Scope, exclude uint32, all bool) []wire.SocketAddr {
	sc := t.services[typ]
	if sc == nil {
		return dst
	}
	v := sc.ranges.first(inst, inst)
	if v == nil {
		return dst
	}
	base := len(dst)
	l := &v.item.all
	for p := l.head; p != nil; p = l.next(p) {
		if p.Scope != scope || p.Addr.Port == exclude && p.Addr.Node == t.cfg.Own {
			continue
		}
		dst = append(dst, p.Addr)
		if !all {
			l.moveToBack(p)
			break
		}
	}
	// Members bind once, so there is nothing to be made unique: a peer that binds a member twice is sent messages twice.
	// The kernel's list is newest first.
	slices.Reverse(dst[base:])
	return dst
}

// GroupMembers calls yield for every binding to the service typ with this scope until it returns false
// (name_table.c tipc_nametbl_build_group).
func (t *Table) GroupMembers(typ uint32, scope wire.Scope, yield func(addr wire.SocketAddr, instance uint32) bool) {
	sc := t.services[typ]
	if sc == nil {
		return
	}
	for v := sc.ranges.begin(); v != nil; v = v.succ() {
		l := &v.item.all
		for p := l.head; p != nil; p = l.next(p) {
			if p.Scope == scope && !yield(p.Addr, p.Range.Lower) {
				return
			}
		}
	}
}

// Publications iterates over all publications in the order in which the kernel lists them (`tipc nametable show`,
// tipc_nl_name_table_dump): by service type modulo 1024, newest type first among equals; by range; and inside a range
// in the order of the next lookups. The table must not change meanwhile, Lookup included.
func (t *Table) Publications() iter.Seq[*Publication] {
	return func(yield func(*Publication) bool) {
		for _, sc := range t.buckets {
			for ; sc != nil; sc = sc.next {
				for v := sc.ranges.begin(); v != nil; v = v.succ() {
					l := &v.item.all
					for p := l.head; p != nil; p = l.next(p) {
						if !yield(p) {
							return
						}
					}
				}
			}
		}
	}
}
