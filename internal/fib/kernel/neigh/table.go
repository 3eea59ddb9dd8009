package neigh

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"midplane/internal/mono"
)

// Bounds of a Table that does not say otherwise.
const (
	DefaultMax    = 1 << 20 // entries
	DefaultPerFIB = 1 << 16 // entries of one FIB, so that one customer's scan does not push out others
)

// Table holds the neighbours of all FIBs. Those that the kernel reports (Handle) stay until it takes them back; those that
// somebody else learned (Learn) age. The zero value is ready to use, with the default bounds.
type Table struct {
	Max, PerFIB int // bounds of what Learn adds and Handle keeps; 0 is the default

	entries map[Key]*item
	perFIB  map[uint32]int
	aging   ageing
	refused uint64
}

type item struct {
	Entry
	expires mono.Time // Never: it is the kernel's
	at      int       // in ageing, -1 when the kernel's
}

// Refused counts the entries that had no room.
func (t *Table) Refused() uint64 { return t.refused }

// Len is the number of entries.
func (t *Table) Len() int { return len(t.entries) }

// Get returns an entry.
func (t *Table) Get(k Key) (Entry, bool) {
	if i := t.entries[k]; i != nil {
		return i.Entry, true
	}
	return Entry{}, false
}

// Handle takes an event of the kernel in, and returns the events that it makes of it: none when nothing has changed, or when
// there is no room. What the kernel says counts more than what was learned.
func (t *Table) Handle(e Event) (Event, bool) {
	switch e.Type {
	case Set:
		return t.put(e.Entry, mono.Never)
	case Gone:
		i := t.entries[e.Entry.Key]
		if i == nil || i.at >= 0 { // learned entries live on
			return Event{}, false
		}
		return t.drop(i), true
	}
	return Event{}, false
}

// Learn adds or renews an entry that the kernel did not report; it ages after a time unless it is learned again. It does not
// replace a usable one of the kernel's.
func (t *Table) Learn(now mono.Time, e Entry, age time.Duration) (Event, bool) {
	if i := t.entries[e.Key]; i != nil && i.at < 0 && i.State.Usable() {
		return Event{}, false
	}
	return t.put(e, now.Add(age))
}

// Forget removes an entry that was learned. It reports whether there was one.
func (t *Table) Forget(k Key) (Event, bool) {
	i := t.entries[k]
	if i == nil || i.at < 0 {
		return Event{}, false
	}
	return t.drop(i), true
}

func (t *Table) put(e Entry, expires mono.Time) (Event, bool) {
	i := t.entries[e.Key]
	if i == nil {
		if len(t.entries) >= bound(t.Max, DefaultMax) || t.perFIB[e.FIB] >= bound(t.PerFIB, DefaultPerFIB) {
			t.refused++
			return Event{}, false
		}
		if t.entries == nil {
			t.entries, t.perFIB = map[Key]*item{}, map[uint32]int{}
		}
		i = &item{at: -1}
		t.entries[e.Key] = i
		t.perFIB[e.FIB]++
	}
	changed := i.Entry != e
	i.Entry, i.expires = e, expires
	switch {
	case expires == mono.Never && i.at >= 0:
		heap.Remove(&t.aging, i.at)
	case expires != mono.Never && i.at >= 0:
		heap.Fix(&t.aging, i.at)
	case expires != mono.Never:
		heap.Push(&t.aging, i)
	}
	return Event{Set, e}, changed
}

func bound(n, or int) int {
	if n <= 0 {
		return or
	}
	return n
}

func (t *Table) drop(i *item) Event {
	if i.at >= 0 {
		heap.Remove(&t.aging, i.at)
	}
	delete(t.entries, i.Key)
	if t.perFIB[i.FIB]--; t.perFIB[i.FIB] == 0 {
		delete(t.perFIB, i.FIB)
	}
	return Event{Gone, Entry{Key: i.Key}}
}

// Deadline is when Expire has something to do.
func (t *Table) Deadline() mono.Time {
	if len(t.aging) == 0 {
		return mono.Never
	}
	return t.aging[0].expires
}

// Expire removes what was learned and not renewed, the oldest first.
func (t *Table) Expire(now mono.Time) []Event {
	var l []Event
	for len(t.aging) > 0 && t.aging[0].expires <= now {
		l = append(l, t.drop(t.aging[0]))
	}
	return l
}

// List returns the entries of a FIB, or of all with 0, in the order of FIBs, devices and addresses.
func (t *Table) List(fib uint32) []Entry {
	var l []Entry
	for _, i := range t.entries {
		if fib == 0 || i.FIB == fib {
			l = append(l, i.Entry)
		}
	}
	slices.SortFunc(l, func(a, b Entry) int { return Compare(a.Key, b.Key) })
	return l
}

// Compare orders keys by FIB, device and address.
func Compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.FIB, b.FIB), cmp.Compare(a.Device, b.Device), a.IP.Compare(b.IP))
}

// Clear removes the entries of a FIB, or of all with 0.
func (t *Table) Clear(fib uint32) []Event {
	var l []Event
	for _, e := range t.List(fib) {
		l = append(l, t.drop(t.entries[e.Key]))
	}
	return l
}

// ageing is a heap of what ages, by when.
type ageing []*item

func (a ageing) Len() int           { return len(a) }
func (a ageing) Less(i, j int) bool { return a[i].expires < a[j].expires }
func (a ageing) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].at, a[j].at = i, j
}

// Push implements heap.Interface.
func (a *ageing) Push(x any) {
	i := x.(*item)
	i.at = len(*a)
	*a = append(*a, i)
}

// Pop implements heap.Interface.
func (a *ageing) Pop() any {
	l := *a
	i := l[len(l)-1]
	l[len(l)-1] = nil
	i.at = -1
	*a = l[:len(l)-1]
	return i
}
