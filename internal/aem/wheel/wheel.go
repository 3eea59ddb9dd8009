// Package wheel is a hashed hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP
// 1987, scheme 7) for very many timers.
//
// A timer is a record in a table, and what lies in the slots of the wheel are entries of eight octets, which name a record and
// a tick. Entries are appended to a slot and never taken out of the middle of one: who stops or moves a timer changes its
// record, and the entry finds out when its slot comes up. So setting a timer is one append, moving it to an earlier time one more,
// and stopping it or moving it to a later time a write; none of them looks at another timer. Entries that lead nowhere are swept
// out little by little when there are more of them than timers.
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

// page is a part of the table: records by columns, as most operations need one or two of them, and columns are small enough for
// the caches. A record is free, or has a timer and an entry in the wheel, or the entry alone, whose timer was stopped.
type page struct {
	gen   [pageLen]uint32    // odd, that of the ID, while the timer is set
	entry [pageLen]uint32    // the tick of its latest entry, as in entry.when; 0 when it has none
	at    [pageLen]mono.Time // when it is due; of a free record the index of the next one
	owner [pageLen]any
}

// Wheel holds timers. Make one with New. It grows with the greatest number of timers that are set at a time, and does not
// shrink.
type Wheel struct {
	pages   []*page
	live    int // timers that are set
	free    uint32
	used    uint32 // records that were ever used; the first is for the zero ID and never is
	stopped uint32 // the record of the timer that was stopped last

	slots
}

// New makes a wheel whose time begins at now.
func New(now mono.Time) *Wheel {
	w := &Wheel{used: 1, pages: []*page{new(page)}}
	w.pages[0].gen[0] = lastGen
	w.slots.init(int64(now) >> TickShift)
	return w
}

// Len returns how many timers are set, those included that are due and not handed out.
func (w *Wheel) Len() int { return w.live }

// IsSet reports whether a timer is set: neither stopped nor handed out.
func (w *Wheel) IsSet(id ID) bool {
	i := int(id.index / pageLen)
	return i < len(w.pages) && w.pages[i].gen[id.index%pageLen] == id.gen
}

// At returns when a timer is due; ok is false when it is not set.
func (w *Wheel) At(id ID) (at mono.Time, ok bool) {
	if !w.IsSet(id) {
		return 0, false
	}
	return w.pages[id.index/pageLen].at[id.index%pageLen], true
}

// Set sets a timer. owner is the caller's own; the wheel may keep it for a while after the timer was stopped.
func (w *Wheel) Set(at mono.Time, owner any) ID {
	i := w.take()
	p, k := w.pages[i/pageLen], i%pageLen
	w.live++
	p.gen[k]++
	p.at[k], p.owner[k] = at, owner
	w.schedule(i, &p.entry[k], at)
	return ID{i, p.gen[k]}
}

// take returns a record for a timer: that of the timer that was stopped last if its entry is still in the wheel, and may serve
// again; otherwise a free one.
func (w *Wheel) take() uint32 {
	i := w.stopped
	p, k := w.pages[i/pageLen], i%pageLen
	w.stopped = 0
	if p.gen[k]&1 == 0 && p.entry[k] != 0 && p.gen[k] != lastGen {
		return i
	}
	if i = w.free; i != 0 {
		w.free = uint32(w.pages[i/pageLen].at[i%pageLen])
		return i
	}
	i = w.used
	if i == math.MaxUint32 {
		panic("wheel: 2^32 timers")
	}
	if i%pageLen == 0 {
		w.pages = append(w.pages, new(page))
	}
	w.used++
	return i
}

// leave frees a record whose entry has come up, and which has no timer.
func (w *Wheel) leave(p *page, i uint32) {
	k := i % pageLen
	p.entry[k], p.owner[k] = 0, nil
	if p.gen[k] != lastGen {
		p.at[k], w.free = mono.Time(w.free), i
	}
}

// Reset moves a timer to another time, and reports whether it is set.
func (w *Wheel) Reset(id ID, at mono.Time) bool {
	i := int(id.index / pageLen)
	if i >= len(w.pages) {
		return false
	}
	p, k := w.pages[i], id.index%pageLen
	if p.gen[k] != id.gen {
		return false
	}
	old := p.at[k]
	p.at[k] = at
	if at < old { // otherwise the entry comes up before that, and moves on
		w.schedule(id.index, &p.entry[k], at)
	}
	return true
}

// Stop stops a timer and reports whether it was set. One that was due but not handed out is stopped too.
func (w *Wheel) Stop(id ID) bool {
	i := int(id.index / pageLen)
	if i >= len(w.pages) {
		return false
	}
	if gen := &w.pages[i].gen[id.index%pageLen]; *gen == id.gen {
		*gen++
		w.live--
		w.stopped = id.index
		return true
	}
	return false
}

// schedule sees to it that the entry of a timer comes up when it is due or before that.
func (w *Wheel) schedule(i uint32, pending *uint32, at mono.Time) {
	d := max(0, min(tickOf(at)-w.tick, horizon))
	when := whenOf(w.tick + d)
	if *pending != 0 && int32(*pending-when) <= 0 {
		return
	}
	*pending = when
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
	for _, e := range c.entry[from:to] {
		p, k := w.pages[e.index/pageLen], e.index%pageLen
		switch {
		case p.entry[k] != e.when: // moved to an earlier time
		case p.gen[k]%2 == 0: // stopped
			w.leave(p, e.index)
		default:
			w.push(i, e)
		}
	}
	w.recycle(c)
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
			p, k := w.pages[e.index/pageLen], e.index%pageLen
			switch {
			case p.entry[k] != e.when: // moved to an earlier time
			case p.gen[k]%2 == 0: // stopped
				w.leave(p, e.index)
			case p.at[k] > mono.Time(w.tick<<TickShift): // moved to a later time
				p.entry[k] = 0
				w.schedule(e.index, &p.entry[k], p.at[k])
			default:
				id, owner = ID{e.index, p.gen[k]}, p.owner[k]
				p.gen[k]++
				w.live--
				w.leave(p, e.index)
				return id, owner, true
			}
		}
		if !w.load() {
			return ID{}, nil, false
		}
		w.touch()
	}
}

// touch drops entries that lead nowhere from those that are handed out next. None of its reads depends on another, so that the
// processor waits for many records at a time, where it waits for each of them when a handler runs before the next.
func (w *Wheel) touch() {
	c := w.now.chunk
	k := w.now.from
	for _, e := range c.entry[w.now.from:w.now.to] {
		c.entry[k] = e
		if w.pages[e.index/pageLen].entry[e.index%pageLen] == e.when {
			k++
		}
	}
	w.now.to = k
}

// Deadline returns when Advance has something to do next, mono.Never when no timer is set and nothing is to be swept out. That
// can be earlier than the first timer is due.
func (w *Wheel) Deadline() mono.Time {
	switch {
	case w.live > 0 && w.pending():
		return mono.Time(w.until << TickShift) // there is something for Expired
	case w.crowded():
		return mono.Time((w.until + 1) << TickShift)
	case w.live == 0:
		return mono.Never
	}
	return mono.Time(w.skip() << TickShift)
}
