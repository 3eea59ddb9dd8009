package service

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"

	"midplane/fib"
)

// ways are the next hops that this package makes: single ones are the set's own business (Intern); groups that are equal
// are one, and go with their last use; and what a hidden route leads to is held so that it does not go.
type ways struct {
	set *fib.Set

	mu     sync.Mutex
	groups map[string]fib.NextHopID // by members
	keys   map[fib.NextHopID]string
	holds  map[fib.NextHopID]*hold
}

// hold is what keeps a next hop from going: for those that go by themselves a group that nothing uses.
type hold struct {
	n     int
	group fib.NextHopID
}

// way is where a route leads, before it has a number: a next hop, several, or one that has a number.
type way struct {
	single fib.NextHop
	multi  []weighted
	id     fib.NextHopID
}

type weighted struct {
	hop    fib.NextHop
	weight uint16
}

func (w *ways) init(set *fib.Set) {
	w.set = set
	w.groups, w.keys, w.holds = map[string]fib.NextHopID{}, map[fib.NextHopID]string{}, map[fib.NextHopID]*hold{}
}

// insert puts a route into a table, and gives what it replaced up.
func (w *ways) insert(t *fib.Table, p netip.Prefix, to way) error {
	var old fib.NextHopID
	var replaced bool
	err := w.with(to, func(id fib.NextHopID) (err error) {
		old, replaced, err = t.Insert(p, id)
		return err
	})
	if err == nil && replaced {
		w.release(old)
	}
	return err
}

// with calls f with the number of a way, which it makes if need be. An interned next hop may go between its making and
// its use, when its last route does in another FIB: then it is made again.
func (w *ways) with(to way, f func(fib.NextHopID) error) (err error) {
	for range 100 {
		switch {
		case to.id != 0:
			return f(to.id)
		case to.multi != nil:
			err = w.withGroup(to.multi, f)
		default:
			var id fib.NextHopID
			if id, err = w.set.Intern(to.single); err == nil {
				err = f(id)
			}
		}
		if !errors.Is(err, fib.ErrNotFound) {
			return err
		}
	}
	return err
}

func (w *ways) withGroup(multi []weighted, f func(fib.NextHopID) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := groupKey(multi)
	id := w.groups[key]
	if id == 0 {
		members := make([]fib.Member, len(multi))
		for i, m := range multi {
			n, err := w.set.Intern(m.hop)
			if err != nil {
				return err
			}
			members[i] = fib.Member{NextHop: n, Weight: m.weight}
		}
		var err error
		if id, err = w.set.AddGroup(members); err != nil {
			return err
		}
		w.groups[key], w.keys[id] = id, key
	}
	err := f(id)
	w.drop(id)
	return err
}

// groupKey is equal for equal members in equal order.
func groupKey(multi []weighted) string {
	b := make([]byte, 0, 32*len(multi))
	for _, m := range multi {
		a := m.hop.Gateway.As16()
		b = append(b, byte(m.hop.Type), byte(m.hop.Gateway.BitLen()))
		b = append(b, a[:]...)
		b = binary.BigEndian.AppendUint32(b, m.hop.Device)
		b = binary.BigEndian.AppendUint16(b, m.weight)
	}
	return string(b)
}

// release gives up what a route led to.
func (w *ways) release(id fib.NextHopID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(id)
}

// drop removes a group of ours that nothing uses any more.
func (w *ways) drop(id fib.NextHopID) {
	key, ours := w.keys[id]
	if !ours || w.holds[id] != nil {
		return
	}
	if i, ok := w.set.NextHop(id); ok && i.Routes > 0 || w.set.RemoveNextHop(id) != nil {
		return
	}
	delete(w.groups, key)
	delete(w.keys, id)
}

// adopt takes over the next hops that the set has from before: they go with their last use. have are those that users
// gave a number to.
func (w *ways) adopt(have map[fib.NextHopID]uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, i := range w.set.NextHops() {
		if _, ours := w.keys[id]; !ours && !i.Auto && have[id] == 0 && w.holds[id] == nil {
			w.keys[id] = ""
		}
	}
}

// sweep drops all groups of ours that nothing uses any more.
func (w *ways) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.keys {
		w.drop(id)
	}
}

// hold keeps a next hop until as many calls of unhold. Without room for what holds it, the next hop may go.
func (w *ways) hold(id fib.NextHopID) { _ = w.keep(id, false) }

// keep is hold that tells when the next hop is gone already; locked says that the caller is within with, for a group.
func (w *ways) keep(id fib.NextHopID, locked bool) error {
	if !locked {
		w.mu.Lock()
		defer w.mu.Unlock()
	}
	h := w.holds[id]
	if h == nil {
		h = &hold{}
		if i, ok := w.set.NextHop(id); ok && i.Members == nil && i.Auto {
			var err error
			if h.group, err = w.set.AddGroup([]fib.Member{{NextHop: id}}); err != nil {
				return err
			}
		}
		w.holds[id] = h
	}
	h.n++
	return nil
}

func (w *ways) unhold(id fib.NextHopID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.holds[id]
	if h == nil {
		return
	}
	if h.n--; h.n > 0 {
		return
	}
	delete(w.holds, id)
	if h.group != 0 {
		_ = w.set.RemoveNextHop(h.group) // nothing else knows it
	}
	w.drop(id)
}
