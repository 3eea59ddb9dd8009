package feed

import (
	"errors"
	"fmt"
	"slices"

	"midplane/fib"
)

// define makes an object that is named but not defined: routes that lead there lead nowhere.
func (a *Applier) define(id uint32) (*object, error) {
	if len(a.objects) >= a.conf.MaxObjects {
		return nil, fmt.Errorf("next hop %d: more than %d: %w", id, a.conf.MaxObjects, ErrBound)
	}
	o := &object{id: id, groups: map[*object]struct{}{}}
	a.objects[id] = o
	return o, nil
}

// alias returns the hop of an object for routes of a metric.
func (a *Applier) alias(o *object, metric uint32) (*hop, error) {
	for _, e := range o.hops {
		if e.metric == metric {
			return e, nil
		}
	}
	e := &hop{metric: metric, object: o, hop: o.hop}
	var err error
	switch {
	case len(o.members) > 0:
		if err = a.fill(e, o); err != nil {
			return nil, err
		}
		e.id, err = a.set.AddGroup(e.list())
	case o.hop.Type == 0:
		e.hop = undefined
		if e.id, err = a.set.AddNextHop(undefined); err == nil {
			err = a.set.SetDown(e.id, true)
		}
	default:
		e.id, err = a.set.AddNextHop(o.hop)
	}
	if err != nil {
		for _, m := range e.members {
			a.drop(m)
		}
		return nil, err
	}
	for _, m := range e.members {
		m.held++
	}
	o.hops = append(o.hops, a.register(e))
	return e, nil
}

// fill gives a group's hop the hops of the object's members.
func (a *Applier) fill(e *hop, o *object) error {
	e.members, e.weights = nil, nil
	for _, m := range o.members {
		mh, err := a.alias(a.objects[m.ID], 0)
		if err != nil {
			return err
		}
		e.members = append(e.members, mh)
		e.weights = append(e.weights, max(m.Weight, 1))
	}
	return nil
}

// SetObject defines a next-hop object or changes it, for all routes and groups that name it at once. Errors:
// *fib.FieldError, ErrNested, ErrBound and those of fib.Set; after one the object is as before, or not defined.
func (a *Applier) SetObject(n *Object) error {
	if err := a.setObject(n); err != nil {
		return a.refuse(err)
	}
	return nil
}

func (a *Applier) setObject(n *Object) error {
	switch {
	case n.ID == 0:
		return &fib.FieldError{Field: "next hop", Value: "0", Want: "1 to 4294967295"}
	case len(n.Members) > fib.MaxMembers:
		return &fib.FieldError{Field: "members", Value: fmt.Sprint(len(n.Members)), Want: "1 to 256"}
	case len(n.Members) == 0:
		if err := n.Hop.Validate(); err != nil {
			return err
		}
	}
	for _, m := range n.Members {
		if m.ID == 0 || m.ID == n.ID {
			return fmt.Errorf("next hop %d: %w", n.ID, ErrNested)
		}
		if mo := a.objects[m.ID]; mo != nil && len(mo.members) > 0 {
			return fmt.Errorf("next hop %d: %w", n.ID, ErrNested)
		}
		if m.Weight > fib.MaxWeight {
			return &fib.FieldError{Field: "weight", Value: fmt.Sprint(m.Weight), Want: "1 to 256"}
		}
	}
	o := a.objects[n.ID]
	if o == nil {
		var err error
		if o, err = a.define(n.ID); err != nil {
			return err
		}
	}
	if len(n.Members) > 0 && len(o.groups) > 0 {
		return fmt.Errorf("next hop %d is in a group: %w", n.ID, ErrNested)
	}
	if len(o.members) > 0 != (len(n.Members) > 0) {
		return a.remake(o, n)
	}
	if len(n.Members) > 0 {
		return a.regroup(o, slices.Clone(n.Members))
	}
	if o.hop == n.Hop {
		return nil
	}
	was := o.hop
	o.hop = n.Hop
	for _, e := range o.hops {
		if err := a.set.ReplaceNextHop(e.id, n.Hop); err != nil {
			return err
		}
		e.hop = n.Hop
		if was.Type == 0 {
			if err := a.set.SetDown(e.id, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// remake makes a group of a next hop or the other way round: routes move to new hops with the next Commit.
func (a *Applier) remake(o *object, n *Object) error {
	old, wasHop, was := o.hops, o.hop, o.members
	a.leave(o)
	o.hops, o.hop = nil, n.Hop
	err := a.join(o, slices.Clone(n.Members))
	for i := 0; i < len(old) && err == nil; i++ {
		if old[i].routes > 0 {
			old[i].moved, err = a.alias(o, old[i].metric)
		}
	}
	if err != nil {
		a.leave(o)
		o.hops, o.hop = old, wasHop
		for _, e := range old {
			e.moved = nil
		}
		return errors.Join(err, a.join(o, was))
	}
	for _, e := range old {
		e.object, e.loose = nil, true
		a.doomed = a.doomed || e.moved != nil
		if e.moved != nil {
			e.moved.held++ // until the routes have moved
		}
		a.drop(e)
	}
	return nil
}

// join gives a group its members, which are made where they lack, and enters it with them.
func (a *Applier) join(o *object, members []Member) error {
	for i, m := range members {
		mo := a.objects[m.ID]
		if mo == nil {
			var err error
			if mo, err = a.define(m.ID); err != nil {
				o.members = members[:i]
				a.leave(o)
				return err
			}
		}
		mo.groups[o] = struct{}{}
	}
	o.members = members
	return nil
}

// leave takes a group out of the books of its members.
func (a *Applier) leave(o *object) {
	for _, m := range o.members {
		if mo := a.objects[m.ID]; mo != nil {
			delete(mo.groups, o)
			a.forget(mo)
		}
	}
	o.members = nil
}

// forget removes an object that is named by nobody and was never defined.
func (a *Applier) forget(o *object) {
	if o.hop.Type == 0 && len(o.members) == 0 && len(o.groups) == 0 && len(o.hops) == 0 && a.objects[o.id] == o {
		delete(a.objects, o.id)
	}
}

// regroup changes the members of a group.
func (a *Applier) regroup(o *object, members []Member) error {
	if slices.Equal(o.members, members) {
		return nil
	}
	was := o.members
	a.leave(o)
	err := a.join(o, members)
	for i := 0; i < len(o.hops) && err == nil; i++ {
		e := o.hops[i]
		old, oldWeights := e.members, e.weights
		if err = a.fill(e, o); err == nil {
			err = a.set.ReplaceGroup(e.id, e.list())
		}
		if err != nil {
			e.members, e.weights = old, oldWeights
			break
		}
		for _, m := range e.members {
			m.held++
		}
		for _, m := range old {
			m.held--
			a.drop(m)
		}
	}
	if err != nil {
		a.leave(o)
		return errors.Join(err, a.join(o, was))
	}
	return nil
}

// DeleteObject removes a next-hop object as the kernel does (net/ipv4/nexthop.c, remove_nexthop): groups go on without
// it, a group that has no other goes too, and with the next Commit the routes that name it.
func (a *Applier) DeleteObject(id uint32) error {
	o := a.objects[id]
	if o == nil {
		a.n.Missing++
		return nil
	}
	var err error
	for g := range o.groups {
		rest := slices.DeleteFunc(slices.Clone(g.members), func(m Member) bool { return m.ID == id })
		if len(rest) == 0 {
			delete(o.groups, g)
			err = a.DeleteObject(g.id)
		} else if e := a.regroup(g, rest); e != nil {
			err = a.refuse(e)
		}
	}
	a.leave(o)
	delete(a.objects, id)
	for _, e := range o.hops {
		e.object, e.loose, e.dead = nil, true, true
		a.doomed = a.doomed || e.routes > 0
		a.drop(e)
	}
	return err
}
