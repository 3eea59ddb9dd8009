package fib

import (
	"errors"
	"net/netip"
	"strconv"
	"sync"
)

// ErrLost is what [Watch.Next] returns when changes were not kept: the whole FIB was replaced or cleared, or the watcher was
// too slow. The table is to be read again; changes from then on follow.
var ErrLost = errors.New("changes were lost: read the table again")

// Update is one change of one route. Old is 0 for a new route, New for one that was deleted; the ids are what the route led
// to, and may be of other next hops by the time they are looked up.
type Update struct {
	Prefix     netip.Prefix // masked
	Old, New   NextHopID
	Generation uint64 // of the FIB after it
}

// Watch tells of changes of a FIB's routes, in their order. Safe for concurrent use, with one reader of the updates.
// It costs writers a copy of 48 octets a change and never lets them wait for the reader.
//
// Who wants the routes and then their changes calls [Table.Watch] first and takes a Snapshot after it. Updates whose Generation
// is not above that of the Snapshot ([Snapshot.Generation]) are in it already and to be passed over: they are older than it. Who reads the table
// with [Table.All] takes them all, and is right when what happened meanwhile has been told.
type Watch struct {
	t     *Table
	ready chan struct{}

	mu    sync.Mutex // guards what follows; taken after the Table's
	ring  []Update
	first int
	n     int
	lost  bool
	gone  bool
}

// maxBacklog bounds what a watch may keep: 48 MiB.
const maxBacklog = 1 << 20

// Watch begins to keep changes of the routes, backlog of them at most (1 to 1,048,576; 48 octets each, taken at once).
// Close it. Errors: *FieldError, ErrRemoved.
func (t *Table) Watch(backlog int) (*Watch, error) {
	if backlog < 1 || backlog > maxBacklog {
		return nil, &FieldError{"backlog", strconv.Itoa(backlog), "1 to 1048576"}
	}
	w := &Watch{t: t, ready: make(chan struct{}, 1), ring: make([]Update, backlog)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return nil, &OpError{"watch", "fib " + label(t.id, t.name), ErrRemoved}
	}
	t.watches = append(t.watches, w)
	return w, nil
}

// Ready receives when Next has something to tell since it last had nothing.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Next copies the oldest updates that were not read to dst and returns how many; 0 when there are none now. It does not
// block. Errors: ErrLost, once, before the updates that follow what was lost; ErrRemoved after the last update of a FIB that
// was removed, or when the Watch was closed.
func (w *Watch) Next(dst []Update) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost {
		w.lost = false
		w.signal() // what follows it may be there already
		return 0, ErrLost
	}
	if w.n == 0 && w.gone {
		return 0, ErrRemoved
	}
	n := min(len(dst), w.n)
	k := copy(dst[:n], w.ring[w.first:])
	copy(dst[k:n], w.ring)
	w.first, w.n = (w.first+n)%len(w.ring), w.n-n
	if n > 0 {
		w.signal()
	}
	return n, nil
}

// Close ends the watch: what was kept is dropped.
func (w *Watch) Close() error {
	w.t.mu.Lock()
	for i, o := range w.t.watches {
		if o == w {
			last := len(w.t.watches) - 1
			w.t.watches[i], w.t.watches[last] = w.t.watches[last], nil
			w.t.watches = w.t.watches[:last]
			break
		}
	}
	w.t.mu.Unlock()
	w.end(true)
	return nil
}

// signal lets Ready receive. w.mu is held.
func (w *Watch) signal() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *Watch) put(u Update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == len(w.ring) {
		w.n, w.lost = 0, true
	}
	w.ring[(w.first+w.n)%len(w.ring)] = u
	w.n++
	w.signal()
}

// lose is for changes that are not told one by one.
func (w *Watch) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n, w.lost = 0, true
	w.signal()
}

// end is the end of the FIB, or of the watch.
func (w *Watch) end(closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	if closed {
		w.n, w.lost = 0, false
	}
	w.signal()
}

// routeChanged ends a change of one route. t.mu is held.
func (t *Table) routeChanged(p netip.Prefix, was, is NextHopID) {
	t.changed()
	if len(t.watches) == 0 {
		return
	}
	u := Update{p.Masked(), was, is, t.Generation()}
	for _, w := range t.watches {
		w.put(u)
	}
}

// allChanged ends a change of all routes. t.mu is held.
func (t *Table) allChanged() {
	t.changed()
	for _, w := range t.watches {
		w.lose()
	}
}
