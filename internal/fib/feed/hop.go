package feed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"midplane/fib"
)

// hop is one next hop or group that this feed made in the Set.
type hop struct {
	id      fib.NextHopID
	gen     uint32
	metric  uint32
	routes  int      // routes that hold it, alternates among them
	held    int      // groups and objects that hold it
	members []*hop   // of a group
	weights []uint16 // of its members
	hop     fib.NextHop
	object  *object
	key     string // of a group that was made by its paths
	loose   bool   // no longer to be found by what it is
	dead    bool   // its routes go
	moved   *hop   // its routes move there
	trash   bool   // in Applier.garbage
	adopted bool   // made by an earlier process
}

type singleKey struct {
	hop    fib.NextHop
	metric uint32
}

// object is what the peer calls by a number. It has a hop for each metric of the routes that name it.
type object struct {
	id      uint32
	hop     fib.NextHop // zero Type: named, but not defined
	members []Member    // of a group
	hops    []*hop      // the first, of metric 0, is the one that groups hold
	groups  map[*object]struct{}
}

var undefined = fib.NextHop{Type: fib.Unreachable}

// hopFor returns the hop that a route leads to, which is made where needed. It is not held yet: see garbage.
func (a *Applier) hopFor(r *Route, metric uint32) (*hop, error) {
	switch {
	case r.Object != 0:
		o := a.objects[r.Object]
		if o == nil {
			var err error
			if o, err = a.define(r.Object); err != nil {
				return nil, err
			}
		}
		return a.alias(o, metric)
	case len(r.Paths) == 1:
		return a.single(r.Paths[0].Hop, metric)
	case len(r.Paths) == 0:
		return nil, &fib.FieldError{Field: "paths", Value: "none", Want: "a next hop"}
	case len(r.Paths) > fib.MaxMembers:
		return nil, &fib.FieldError{Field: "paths", Value: fmt.Sprint(len(r.Paths)), Want: "256 at most"}
	}
	return a.group(r.Paths, metric)
}

func (a *Applier) single(h fib.NextHop, metric uint32) (*hop, error) {
	k := singleKey{h, metric}
	if e := a.singles[k]; e != nil {
		return e, nil
	}
	id, err := a.set.AddNextHop(h)
	if err != nil {
		return nil, err
	}
	e := a.register(&hop{id: id, metric: metric, hop: h})
	a.singles[k] = e
	return e, nil
}

// register takes a hop that nobody holds yet into the books.
func (a *Applier) register(e *hop) *hop {
	e.gen = a.gen
	a.hops[e.id] = e
	a.drop(e)
	return e
}

func (a *Applier) group(paths []Path, metric uint32) (*hop, error) {
	a.key = binary.NativeEndian.AppendUint32(a.key[:0], metric)
	members := make([]*hop, 0, 8)
	for _, p := range paths {
		m, err := a.single(p.Hop, 0)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
		a.key = binary.NativeEndian.AppendUint32(a.key, uint32(m.id))
		a.key = binary.NativeEndian.AppendUint16(a.key, max(p.Weight, 1))
	}
	if e := a.groups[string(a.key)]; e != nil {
		return e, nil
	}
	e := &hop{metric: metric, members: members, key: string(a.key)}
	for _, p := range paths {
		e.weights = append(e.weights, max(p.Weight, 1))
	}
	var err error
	if e.id, err = a.set.AddGroup(e.list()); err != nil {
		return nil, err
	}
	for _, m := range members {
		m.held++
	}
	a.groups[e.key] = a.register(e)
	return e, nil
}

func (e *hop) list() []fib.Member {
	l := make([]fib.Member, len(e.members))
	for i, m := range e.members {
		l[i] = fib.Member{NextHop: m.id, Weight: e.weights[i]}
	}
	return l
}

// drop notes that a hop may not be held any longer.
func (a *Applier) drop(e *hop) {
	if e.routes <= 0 && e.held <= 0 && !e.trash {
		e.trash = true
		a.garbage = append(a.garbage, e)
	}
}

// collect removes the hops that nobody holds. One that a route of somebody else holds stays until Sweep or Flush.
func (a *Applier) collect() {
	for i := 0; i < len(a.garbage); i++ { // it grows by the members of groups
		e := a.garbage[i]
		e.trash = false
		if e.routes > 0 || e.held > 0 || a.hops[e.id] != e {
			continue
		}
		if err := a.set.RemoveNextHop(e.id); err != nil && !errors.Is(err, fib.ErrNotFound) {
			continue
		}
		delete(a.hops, e.id)
		if e.gen == a.gen && !e.loose {
			switch {
			case e.object != nil:
				e.object.hops = slices.DeleteFunc(e.object.hops, func(x *hop) bool { return x == e })
				a.forget(e.object)
			case e.key != "":
				delete(a.groups, e.key)
			default:
				delete(a.singles, singleKey{e.hop, e.metric})
			}
		}
		for _, m := range e.members {
			m.held--
			a.drop(m)
		}
	}
	a.garbage = a.garbage[:0]
}
