// Package source gives package diff what it compares: FIBs and files. Kernel tables come from internal/fib/mirror.
package source

import (
	"fmt"
	"io"
	"iter"

	"midplane/fib"
	"midplane/internal/fib/diff"
	"midplane/internal/fib/mrt"
)

// Hop writes a next hop in words.
func Hop(h fib.NextHop, weight uint16) diff.Hop {
	return diff.Hop{Type: h.Type.String(), Gateway: h.Gateway, Device: h.Device, Table: uint32(h.Table), Weight: weight}
}

// Routes writes the routes of a FIB in words. It takes the routes of a Table or a Snapshot, in order, and the Set whose
// next hops they hold. One that goes while the routes are read is written as an error, and none with a Snapshot of a
// FIB that does not change.
func Routes(set *fib.Set, routes iter.Seq[fib.Route]) diff.Source {
	return func(yield func(diff.Route, error) bool) {
		known := map[fib.NextHopID][]diff.Hop{} // as many as the FIB has next hops
		for r := range routes {
			hops, ok := known[r.NextHop]
			if !ok {
				i, found := set.NextHop(r.NextHop)
				if !found {
					if !yield(diff.Route{}, fmt.Errorf("%v: next hop %d: %w", r.Prefix, r.NextHop, fib.ErrNotFound)) {
						return
					}
					return
				}
				if hops = words(set, i); len(known) < 1<<16 {
					known[r.NextHop] = hops
				}
			}
			if !yield(diff.Route{Prefix: r.Prefix, Hops: hops}, nil) {
				return
			}
		}
	}
}

func words(set *fib.Set, i fib.NextHopInfo) []diff.Hop {
	if i.Members == nil {
		return []diff.Hop{Hop(i.NextHop, 1)}
	}
	var l []diff.Hop
	for _, m := range i.Members {
		if mi, ok := set.NextHop(m.NextHop); ok {
			l = append(l, Hop(mi.NextHop, m.Weight))
		}
	}
	return l
}

// File reads the announcements of a file in words; see package mrt for the formats. Devices are those that device
// knows by name; nil, and 0 from it, leave them out of the comparison. The whole file is held.
func File(r io.Reader, o mrt.Options, device func(name string) uint32) diff.Source {
	return diff.Sorted(func(yield func(diff.Route, error) bool) {
		rd, err := mrt.NewReader(r, o)
		for err == nil {
			var e *mrt.Entry
			if e, err = rd.Next(); err != nil || e.Kind != mrt.Announce {
				continue
			}
			t := diff.Route{Prefix: e.Prefix}
			for _, h := range e.Hops {
				d := uint32(0)
				if device != nil && h.Device != "" {
					d = device(h.Device)
				}
				t.Hops = append(t.Hops, diff.Hop{Type: typeOf(e.Type), Gateway: h.Gateway, Device: d, Weight: h.Weight})
			}
			if len(t.Hops) == 0 {
				t.Hops = []diff.Hop{{Type: typeOf(e.Type)}}
				if e.Type == "lookup" {
					t.Hops[0].Table = e.Table
				}
			}
			if !yield(t, nil) {
				return
			}
		}
		if err != io.EOF {
			yield(diff.Route{}, err)
		}
	})
}

// typeOf is the type that a FIB has for a route of a file: to throw is to have no route, in a FIB that is alone.
func typeOf(t string) string {
	switch t {
	case "":
		return "unicast"
	case "throw":
		return "unreachable"
	}
	return t
}
