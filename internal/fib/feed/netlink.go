package feed

import (
	"fmt"

	"midplane/fib"
	"midplane/internal/fib/rtnl"
)

var types = [...]fib.Type{
	rtnl.RouteUnicast: fib.Unicast, rtnl.RouteLocal: fib.Local, rtnl.RouteBlackhole: fib.Blackhole,
	rtnl.RouteUnreachable: fib.Unreachable, rtnl.RouteProhibit: fib.Prohibit,
}

// FromNetlink says what a route of netlink is for a FIB. The Paths of to are reused. Ways that are dead (RTNH_F_DEAD)
// are left out; usable is false when no other is left, as the kernel's lookup passes such a route by: the caller deletes
// it. Errors: ErrNotForFIBs for what FIBs do not know: types that are not of the forwarding of packets (broadcast,
// anycast, multicast, throw), cloned routes, routes by source or TOS, encapsulations.
func FromNetlink(r *rtnl.Route, to *Route) (usable bool, err error) {
	*to = Route{Table: r.Table, Prefix: r.Dst, Metric: r.Priority, Object: r.NextHop, Paths: to.Paths[:0]}
	var t fib.Type
	if int(r.Type) < len(types) {
		t = types[r.Type]
	}
	switch {
	case r.Type == rtnl.RouteUnspec: // of a deletion
		return true, nil
	case t == 0:
		return false, fmt.Errorf("%s: route of type %d: %w", r.Dst, r.Type, ErrNotForFIBs)
	case r.Src.IsValid():
		return false, fmt.Errorf("%s from %s: %w", r.Dst, r.Src, ErrNotForFIBs)
	case r.TOS != 0:
		return false, fmt.Errorf("%s tos %d: %w", r.Dst, r.TOS, ErrNotForFIBs)
	case r.Flags&rtnl.RouteCloned != 0:
		return false, fmt.Errorf("%s: cloned route: %w", r.Dst, ErrNotForFIBs)
	case to.Object != 0 && t == fib.Unicast:
		return true, nil
	case t != fib.Unicast:
		to.Object = 0 // the kernel refuses such routes with an object
		h := fib.NextHop{Type: t}
		if t == fib.Local && len(r.Paths) == 1 {
			h.Device = r.Paths[0].Device
		}
		to.Paths = append(to.Paths, Path{Hop: h, Weight: 1})
		return true, nil
	}
	for i := range r.Paths {
		p := &r.Paths[i]
		if p.EncapType != 0 {
			return false, fmt.Errorf("%s: encapsulation %d: %w", r.Dst, p.EncapType, ErrNotForFIBs)
		}
		if p.Flags&rtnl.PathDead == 0 {
			to.Paths = append(to.Paths, Path{Hop: fib.NextHop{Type: fib.Unicast, Gateway: p.Gateway, Device: p.Device}, Weight: p.Weight})
		}
	}
	return len(to.Paths) > 0 || len(r.Paths) == 0, nil
}

// ObjectFromNetlink says what a next-hop object of netlink is. The Members of to are reused. Weights above 256 are
// scaled down together. Errors: ErrNotForFIBs for encapsulations and the next hops of bridges.
func ObjectFromNetlink(n *rtnl.NextHop, to *Object) error {
	*to = Object{ID: n.ID, Members: to.Members[:0]}
	switch {
	case n.EncapType != 0:
		return fmt.Errorf("next hop %d: encapsulation %d: %w", n.ID, n.EncapType, ErrNotForFIBs)
	case n.FDB:
		return fmt.Errorf("next hop %d of a bridge: %w", n.ID, ErrNotForFIBs)
	case n.Blackhole:
		to.Hop = fib.NextHop{Type: fib.Blackhole}
		return nil
	case len(n.Group) == 0:
		to.Hop = fib.NextHop{Type: fib.Unicast, Gateway: n.Gateway, Device: n.Device}
		return nil
	}
	most := uint32(fib.MaxWeight)
	for _, m := range n.Group {
		most = max(most, m.Weight)
	}
	for _, m := range n.Group {
		to.Members = append(to.Members, Member{m.ID, uint16(max(uint64(m.Weight)*fib.MaxWeight/uint64(most), 1))})
	}
	return nil
}
