package service

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"

	"midplane/fib"
)

// ways are the next hops that this package makes. The set has equal ones once, and lets them go some time after their
// last use; what a hidden route leads to is held so that it does not go.
type ways struct {
	set *fib.Set

	mu    sync.Mutex
	holds map[fib.NextHopID]int
	table *fib.Table             // of holdID: a route to each next hop that is held
	old   map[fib.NextHopID]bool // those that the set has from before the start, and nobody gave a number to
}

// holdID is the number of the FIB whose routes hold next hops. Nobody looks anything up in it.
const holdID fib.ID = 1<<32 - 1

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
	w.set, w.holds, w.old = set, map[fib.NextHopID]int{}, map[fib.NextHopID]bool{}
}

// insert puts a route into a table.
func (w *ways) insert(t *fib.Table, p netip.Prefix, to way) error {
	return w.with(to, func(id fib.NextHopID) error {
		_, _, err := t.Insert(p, id)
		return err
	})
}

// with calls f with the number of a way, which it makes if need be. One that nothing uses may go before f uses it, when
// very many do: then it is made again.
func (w *ways) with(to way, f func(fib.NextHopID) error) (err error) {
	if to.id != 0 {
		return f(to.id)
	}
	for range 10 {
		var id fib.NextHopID
		if id, err = w.number(to); err != nil {
			return err
		}
		if err = f(id); !errors.Is(err, fib.ErrNotFound) {
			break
		}
	}
	return err
}

func (w *ways) number(to way) (fib.NextHopID, error) {
	if to.multi == nil {
		return w.set.Intern(to.single)
	}
	members := make([]fib.Member, len(to.multi))
	for i, m := range to.multi {
		id, err := w.set.Intern(m.hop)
		if err != nil {
			return 0, err
		}
		members[i] = fib.Member{NextHop: id, Weight: m.weight}
	}
	return w.set.InternGroup(members)
}

// slot is the prefix whose route holds a next hop.
func slot(id fib.NextHopID) netip.Prefix {
	a := [16]byte{0xfd}
	binary.BigEndian.PutUint32(a[12:], uint32(id))
	return netip.PrefixFrom(netip.AddrFrom16(a), 128)
}

// hold keeps a next hop until as many calls of unhold. It is fib.ErrNotFound when it is gone already.
func (w *ways) hold(id fib.NextHopID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holds[id] == 0 {
		if w.table == nil {
			t, err := w.set.Create(holdID, "")
			if err != nil {
				return err
			}
			w.table = t
		}
		if _, _, err := w.table.Insert(slot(id), id); err != nil {
			return err
		}
	}
	w.holds[id]++
	return nil
}

func (w *ways) unhold(id fib.NextHopID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.holds[id]
	if n == 0 {
		return
	}
	if w.holds[id] = n - 1; n > 1 {
		return
	}
	delete(w.holds, id)
	_, _, _ = w.table.Delete(slot(id)) // it is there
}

// adopt takes over the next hops that the set has from before: they go with their last use. have are those that users
// gave a number to.
func (w *ways) adopt(have map[fib.NextHopID]uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, i := range w.set.NextHops() {
		if !i.Auto && have[id] == 0 {
			w.old[id] = true
		}
	}
}

// forget leaves what adopt took over to the feeds, which take over the routes that lead there.
func (w *ways) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.old)
}

// sweep removes those of adopt that nothing uses any more.
func (w *ways) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 2 { // groups, then what was in them
		for id := range w.old {
			if i, ok := w.set.NextHop(id); ok && i.Routes+i.Groups > 0 {
				continue
			}
			if w.set.RemoveNextHop(id) == nil {
				delete(w.old, id)
			}
		}
	}
}
