// Package wheel is a hashed hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP
// 1987, scheme 7) for very many timers.
//
// A timer is a record in a table, and what lies in the slots of the wheel are entries of eight octets, which name a record and
// a tick. Entries are appended to a slot and never taken out of the middle of one: who stops or moves a timer changes its
// record, and the entry finds out when its slot comes up. So setting a timer is one append, and stopping it or moving it to a later
// time a write; none of them looks at another timer. A timer that moves to a time before that of its entry needs another entry. It
// is marked, which is a write more, and gets the entry later: before the next tick, or, when its new time is still far, some hundred
// ticks later together with others. Entries that lead nowhere are swept out little by little when there are more of them than
// timers.
//
// Entries that are far away move to finer levels little by little as well, while the time before theirs passes, so that no
// advance moves a whole slot of a coarse level at once; records are not touched by it. The wheel is a core: it is told the
// time, and hands out what is due. Not safe for concurrent use.
package wheel

import (
	"math"

	"midplane/internal/mono"
)

// TickShift is the resolution: timers are due at multiples of 2^TickShift ns, 1.05 ms, and never early.
const TickShift = 20

// ID names a timer from when it is set until it is stopped or was due, and nothing after that. The zero value names none.
type ID struct{ index, gen uint32 }

const (
	pageBits = 9
	pageLen  = 1 << pageBits

	// lastGen is the generation with which a record is given up, for an ID never to name two timers.
	lastGen = math.MaxUint32 - 1
)

// record is all that there is of a timer, in half a cache line. It is free, or has a timer and an entry in the wheel, or the entry
// alone, whose timer was stopped.
type record struct {
	at    mono.Time // when it is due; of a free record the index of the next one
	gen   uint32    // odd, that of the ID, while the timer is set
	entry uint32    // entry.when of its latest entry; 0 when it has none
	owner any
}

// covered reports whether the entry of a record, which has one, comes up at a tick or before it.
func (r *record) covered(tick int64) bool { return int32(r.entry-uint32(tick)*whenStep) < whenStep }

type page [pageLen]record

// leaf is a page, and which of its records are to be looked at.
type leaf struct {
	records   *page
	near, far moved
}

// Wheel holds timers. Make one with New. It grows with the greatest number of timers that are set at a time, and does not
// shrink.
type Wheel struct {
	pages   []leaf
	live    int // timers that are set
	free    uint32
	used    uint32 // records that were ever used; the first is for the zero ID and never is
	stopped uint32 // the record of the timer that was stopped last
	peeked  byte   // keeps what touch reads

	slots
	near nearMoves
	far  farMoves
}

// New makes a wheel whose time begins at now.
func New(now mono.Time) *Wheel {
	w := &Wheel{used: 1, pages: []leaf{{records: new(page)}}}
	w.record(0).gen = lastGen
	w.slots.init(int64(now) >> TickShift)
	return w
}

// Len returns how many timers are set, those included that are due and not handed out.
func (w *Wheel) Len() int { return w.live }

// record returns that of a place.
func (w *Wheel) record(i uint32) *record { return &w.pages[i/pageLen].records[i%pageLen] }

// IsSet reports whether a timer is set: neither stopped nor handed out.
func (w *Wheel) IsSet(id ID) bool {
	i := int(id.index / pageLen)
	return i < len(w.pages) && w.pages[i].records[id.index%pageLen].gen == id.gen
}

// At returns when a timer is due; ok is false when it is not set.
func (w *Wheel) At(id ID) (at mono.Time, ok bool) {
	if !w.IsSet(id) {
		return 0, false
	}
	return w.record(id.index).at, true
}

// Set sets a timer. owner is the caller's own; the wheel may keep it for a while after the timer was stopped. If it is a pointer
// or refers to memory, that memory is readable.
func (w *Wheel) Set(at mono.Time, owner any) ID {
	i := w.take()
	r := w.record(i)
	w.live++
	r.gen++
	r.at, r.owner = at, owner
	w.schedule(i, r)
	return ID{i, r.gen}
}

// take returns a record for a timer: that of the timer that was stopped last if its entry is still in the wheel, and may serve
// again; otherwise a free one.
func (w *Wheel) take() uint32 {
	i := w.stopped
	w.stopped = 0
	if r := w.record(i); r.gen&1 == 0 && r.entry != 0 && r.gen != lastGen {
		return i
	}
	if i = w.free; i != 0 {
		w.free = uint32(w.record(i).at)
		return i
	}
	i = w.used
	if i == math.MaxUint32 {
		panic("wheel: 2^32 timers")
	}
	if i%pageLen == 0 {
		w.pages = append(w.pages, leaf{records: new(page)})
	}
	w.used++
	return i
}

// leave frees a record whose entry has come up, and which has no timer.
func (w *Wheel) leave(r *record, i uint32) {
	r.entry, r.owner = 0, nil
	if r.gen != lastGen {
		r.at, w.free = mono.Time(w.free), i
	}
}

// Reset moves a timer to another time, and reports whether it is set.
func (w *Wheel) Reset(id ID, at mono.Time) bool {
	i := int(id.index / pageLen)
	if i >= len(w.pages) {
		return false
	}
	p := &w.pages[i]
	r := &p.records[id.index%pageLen]
	if r.gen != id.gen {
		return false
	}
	old := r.at
	r.at = at
	if at >= old {
		return true // the entry comes up before that, and moves on
	}
	mark := uint64(1) << (id.index / markLen % 64)
	tick := int64(at+(1<<TickShift-1)) >> TickShift
	ahead := tick - w.tick
	if uint64(ahead) < horizon { // otherwise ticks do not compare
		if r.covered(tick) {
			return true
		}
		if ahead >= farAway {
			if p.far.marks == 0 {
				w.far.add(&p.far, i, w.tick)
			}
			p.far.marks |= mark
			return true
		}
	}
	if p.near.marks == 0 {
		w.near.add(&p.near, i)
	}
	p.near.marks |= mark
	return true
}

// Stop stops a timer and reports whether it was set. One that was due but not handed out is stopped too.
func (w *Wheel) Stop(id ID) bool {
	i := int(id.index / pageLen)
	if i >= len(w.pages) {
		return false
	}
	if r := &w.pages[i].records[id.index%pageLen]; r.gen == id.gen {
		r.gen++
		w.live--
		w.stopped = id.index
		return true
	}
	return false
}

// schedule sees to it that the entry of a timer comes up when it is due or before that.
func (w *Wheel) schedule(i uint32, r *record) {
	d := max(0, min(tickOf(r.at)-w.tick, horizon))
	if r.entry != 0 && r.covered(w.tick+d) {
		return
	}
	when := whenOf(w.tick + d)
	r.entry = when
	k := w.slotOf(d)
	s := &w.slot[k]
	if s.to == chunkLen {
		w.sweep()
		if s.to == chunkLen {
			w.extend(k)
		}
	}
	s.tail.entry[s.to] = entry{when, i}
	s.to++
}

// crowded reports whether so many entries lead nowhere that they are to be swept out. Chunks that are not full are not
// counted.
func (w *Wheel) crowded() bool { return w.full*chunkLen > 2*w.live+slack }

// sweep looks at four chunks for each that was filled, as long as too many entries lead nowhere.
func (w *Wheel) sweep() {
	for k := 0; k < 4 && w.crowded(); k++ {
		w.sweepChunk()
	}
}

// sweepChunk takes entries that lead nowhere out of the chunk whose turn it is. It goes round all slots.
func (w *Wheel) sweepChunk() {
	i := w.nextToSweep()
	c, from, to := w.detach(i)
	for _, e := range c.entry[from:w.fresh(c, from, to)] {
		r := w.record(e.index)
		switch {
		case r.entry != e.when: // this one comes twice
		case r.gen%2 == 0: // stopped
			w.leave(r, e.index)
		default:
			// With another name for it, a second entry of that tick, which is there when the timer came back to it,
			// leads nowhere.
			e.when ^= whenTwin
			r.entry = e.when
			w.push(i, e)
		}
	}
	w.recycle(c)
}

// fresh drops entries whose timers moved to an earlier time, and returns the end of those that are left. None of its reads depends
// on another, so that the processor waits for many records at a time.
func (w *Wheel) fresh(c *chunk, from, to int) int {
	k := from
	for _, e := range c.entry[from:to] {
		c.entry[k] = e
		if w.record(e.index).entry == e.when {
			k++
		}
	}
	return k
}

// Advance moves time on, for Expired.
func (w *Wheel) Advance(now mono.Time) {
	if t := int64(now) >> TickShift; t > w.until {
		w.until = t
		for k := 0; k < sweepsPerTick && w.crowded(); k++ {
			w.sweepChunk()
		}
	}
}

// Expired returns a timer that is due, which is not set any more then, with its owner; ok is false when there is none. They come
// in the order of their ticks; among those of one tick the order is not defined.
func (w *Wheel) Expired() (id ID, owner any, ok bool) {
	for {
		for w.now.from < w.now.to {
			e := w.now.chunk.entry[w.now.from]
			w.now.from++
			r := w.record(e.index)
			switch {
			case r.entry != e.when: // moved to an earlier time
			case r.gen%2 == 0: // stopped
				w.leave(r, e.index)
			case r.at > mono.Time(w.tick<<TickShift): // moved to a later time
				r.entry = 0
				w.schedule(e.index, r)
			default:
				id, owner = ID{e.index, r.gen}, r.owner
				r.gen++
				w.live--
				w.leave(r, e.index)
				return id, owner, true
			}
		}
		if !w.load() {
			return ID{}, nil, false
		}
		w.touch()
	}
}

// touch drops entries that lead nowhere from those that are handed out next, and reads their owners, many at a time, where the
// processor waits for each of them when a handler runs before the next: that halves what firing costs.
func (w *Wheel) touch() {
	c := w.now.chunk
	w.now.to = w.fresh(c, w.now.from, w.now.to)
	for _, e := range c.entry[w.now.from:w.now.to] {
		w.peeked += peek(w.record(e.index).owner)
	}
}

// Deadline returns when Advance has something to do next, mono.Never when no timer is set and nothing is to be swept out. That
// can be earlier than the first timer is due.
func (w *Wheel) Deadline() mono.Time {
	w.followNear()
	switch {
	case w.live > 0 && w.pending():
		return mono.Time(w.until << TickShift) // there is something for Expired
	case w.crowded():
		return mono.Time((w.until + 1) << TickShift)
	case w.live == 0:
		return mono.Never
	}
	return mono.Time(w.next() << TickShift)
}

// next returns the next tick at which there is something to do.
func (w *Wheel) next() int64 { return min(w.skip(), w.far.next(w.tick)) }

// load takes the next chunk of entries that are due as now; false when there is none until later.
func (w *Wheel) load() bool {
	if w.now.chunk != nil {
		w.recycle(w.now.chunk)
		w.now = span{}
	}
	for {
		w.followNear()
		i := int(w.tick & slotMask)
		if w.slot[dueSlot].chunks > 0 {
			i = dueSlot
		}
		switch {
		case w.slot[i].chunks > 0:
			w.now.chunk, w.now.from, w.now.to = w.detach(i)
			return true
		case w.tick >= w.until:
			return false
		default:
			w.step(min(w.until, w.next()))
			w.followFar()
		}
	}
}
