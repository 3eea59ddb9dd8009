package wheel

import (
	"math"
	"math/bits"
)

// A timer that moved to a time before that of its entry is marked, and its record looked at, and given an entry, before the next
// tick if its time is near or does not compare, and else after a while. Marks of records that need no entry any more do no
// harm.
const (
	// farAway is how many ticks ahead a far time is at least: 1.07 s. It is more than what passes until the entry is there:
	// what comes while a batch is under way waits for its end, or for lag, and for that of the next.
	farAway = 1024

	// lag is how many ticks pass until a batch begins. A loop that does nothing else wakes once in that time for what
	// moved, and what moves more than once meanwhile needs one entry.
	lag = 256

	// spread is how many ticks a batch takes.
	spread = 384

	// markLen is how many records have one mark.
	markLen = pageLen / 64
)

// moved are the marks of a page. A page with marks is in a list.
type moved struct {
	marks uint64
	next  uint32 // page in the list plus 1; 0 is none
}

// nearMoves is the list of pages with records that are to be looked at before the next tick.
type nearMoves struct{ first uint32 }

func (l *nearMoves) add(m *moved, page int) { m.next, l.first = l.first, uint32(page)+1 }

// farMoves are the pages with records that have time.
type farMoves struct {
	first uint32 // list that the next batch will be
	pages int    // in it
	from  int64  // the tick at which that begins, if the one before it is over

	batch uint32 // list that is looked at, a share each tick
	left  int    // pages in it
	until int64  // the tick before which it is over
}

func (l *farMoves) add(m *moved, page int, now int64) {
	m.next, l.first = l.first, uint32(page)+1
	if l.pages++; l.pages == 1 {
		l.from = now + lag
	}
}

// next returns the tick after now at which pages are to be looked at.
func (l *farMoves) next(now int64) int64 {
	switch {
	case l.left > 0:
		return now + 1
	case l.pages > 0:
		return max(l.from, now+1)
	}
	return math.MaxInt64 >> TickShift
}

// followNear gives entries to what moved to a near time.
func (w *Wheel) followNear() {
	for w.near.first != 0 {
		k := w.near.first - 1
		w.near.first, _ = w.follow(k, &w.pages[k].near)
	}
}

// followFar gives entries to this tick's share of what moved to a far time.
func (w *Wheel) followFar() {
	l := &w.far
	if l.left == 0 {
		if l.pages == 0 || w.tick < l.from {
			return
		}
		l.batch, l.left, l.until = l.first, l.pages, w.tick+spread
		l.first, l.pages = 0, 0
	}
	ticks := max(1, int(l.until-w.tick))
	for share, n := (l.left+ticks-1)/ticks, 0; l.left > 0 && (share > 0 || n < quota); share-- {
		k := l.batch - 1
		var records int
		l.batch, records = w.follow(k, &w.pages[k].far)
		l.left--
		n += records
	}
}

// follow gives entries to records of page k that have marks, and returns the page that is next, and how many records it looked at.
func (w *Wheel) follow(k uint32, m *moved) (next uint32, n int) {
	p := w.pages[k].records
	marks := m.marks
	m.marks = 0
	for ; marks != 0; marks &= marks - 1 {
		from := uint32(bits.TrailingZeros64(marks)) * markLen
		for i := from; i < from+markLen; i++ {
			if r := &p[i%pageLen]; r.gen%2 != 0 {
				w.schedule(k*pageLen+i, r)
			}
		}
		n += markLen
	}
	return m.next, n
}
