package mirror

import (
	"fmt"
	"slices"

	"midplane/fib"
	"midplane/internal/fib/diff"
	"midplane/internal/fib/diff/source"
	"midplane/internal/fib/feed"
	"midplane/internal/fib/rtnl"
)

// Table reads a kernel table for a comparison: of each prefix the route that counts, as far as a FIB can hold it. It is
// a reading of its own, by other code than the mirror's books. Namespace and skip are as in Config. All of it is held,
// sorted.
func Table(namespace string, table uint32, skip ...func(*rtnl.Route) bool) diff.Source {
	return diff.Sorted(func(yield func(diff.Route, error) bool) {
		if err := readTable(namespace, table, skip, func(r diff.Route) bool { return yield(r, nil) }); err != nil {
			yield(diff.Route{}, err)
		}
	})
}

func readTable(namespace string, table uint32, skip []func(*rtnl.Route) bool, yield func(diff.Route) bool) error {
	conn, err := dial(namespace, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	objects := map[uint32]feed.Object{}
	if err := send(conn, rtnl.AppendNextHopDump(nil, 0)); err != nil {
		return err
	}
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			if unknown(err) {
				break
			}
			return fmt.Errorf("dump of next hops: %w", err)
		}
		var n rtnl.NextHop
		if err := rtnl.DecodeNextHop(m.Data, &n); err != nil {
			return err
		}
		var o feed.Object
		if feed.ObjectFromNetlink(&n, &o) == nil {
			objects[o.ID] = o
		}
	}
	for _, f := range []uint8{rtnl.FamilyIPv4, rtnl.FamilyIPv6} {
		if err := send(conn, rtnl.AppendRouteDump(nil, 0, f, table)); err != nil {
			return err
		}
		var r rtnl.Route
		best := diff.Route{} // of the prefix that is being read: routes of one follow each other
		metric := uint32(0)
		stop := false
		for m, err := range conn.ReceiveIter() {
			if err != nil {
				if absent(err) {
					break
				}
				return fmt.Errorf("dump of table %d: %w", table, err)
			}
			if err := rtnl.DecodeRoute(m.Data, &r); err != nil {
				return err
			}
			hops := inWords(&r, objects)
			if r.Table != table || len(hops) == 0 || stop || slices.ContainsFunc(skip, func(f func(*rtnl.Route) bool) bool { return f(&r) }) {
				continue
			}
			if best.Prefix == r.Dst {
				if r.Priority < metric {
					best.Hops, metric = hops, r.Priority
				}
				continue
			}
			if best.Prefix.IsValid() && !yield(best) {
				stop = true // the rest is read and left
			}
			best, metric = diff.Route{Prefix: r.Dst, Hops: hops}, r.Priority
		}
		if best.Prefix.IsValid() && !stop && !yield(best) || stop {
			return nil
		}
	}
	return nil
}

// inWords returns the next hops of a route, none if a FIB cannot hold it.
func inWords(r *rtnl.Route, objects map[uint32]feed.Object) []diff.Hop {
	if r.Flags&rtnl.RouteCloned != 0 || r.Src.IsValid() || r.TOS != 0 {
		return nil
	}
	local := diff.Hop{Type: "local"}
	switch r.Type {
	case rtnl.RouteBlackhole:
		return []diff.Hop{{Type: "blackhole"}}
	case rtnl.RouteUnreachable, rtnl.RouteThrow:
		return []diff.Hop{{Type: "unreachable"}}
	case rtnl.RouteProhibit:
		return []diff.Hop{{Type: "prohibit"}}
	case rtnl.RouteLocal:
		if len(r.Paths) == 1 {
			local.Device = r.Paths[0].Device
		}
		return []diff.Hop{local}
	case rtnl.RouteUnicast:
	default:
		return nil
	}
	var l []diff.Hop
	if r.NextHop != 0 {
		o, ok := objects[r.NextHop]
		if !ok {
			return nil
		}
		if len(o.Members) == 0 {
			return []diff.Hop{source.Hop(o.Hop, 1)}
		}
		for _, m := range o.Members {
			if mo, ok := objects[m.ID]; ok {
				l = append(l, source.Hop(mo.Hop, m.Weight))
			}
		}
		return l
	}
	for _, p := range r.Paths {
		if p.EncapType != 0 {
			return nil
		}
		if p.Flags&rtnl.PathDead == 0 {
			l = append(l, source.Hop(fib.NextHop{Type: fib.Unicast, Gateway: p.Gateway, Device: p.Device}, p.Weight))
		}
	}
	return l
}

// Verify compares a FIB with the kernel table that it mirrors and returns the differences: none, when no change is
// under way. show, if not nil, gets each of them.
func Verify(set *fib.Set, id fib.ID, namespace string, table uint32, show func(diff.Difference)) (diff.Counts, error) {
	t, ok := set.Table(id)
	if !ok {
		return diff.Counts{}, &fib.FieldError{Field: "fib", Value: id.String(), Want: "one that exists"}
	}
	s, err := t.Snapshot()
	if err != nil {
		return diff.Counts{}, err
	}
	defer s.Close()
	return diff.Count(source.Routes(set, s.All()), Table(namespace, table), show)
}
