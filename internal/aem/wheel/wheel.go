// Package wheel is a hashed hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP
// 1987, scheme 7) for very many timers.
//
// A timer has a place in a table, and what lies in the slots of the wheel are entries of eight octets, which name a place and
// a tick. Entries are appended to a slot and never taken out of the middle of one: a timer that is stopped leaves its place,
// one that is moved to a later time stays as it is, and its entry finds out when its slot comes up. So setting a timer is one
// append, moving it to an earlier time one more, and stopping it or moving it to a later time a write; none of them looks at
// another timer. Entries that lead nowhere are swept out little by little when there are more of them than timers.
//
// Entries that are far away move to finer levels little by little as well, while the time before theirs passes, so that no
// advance moves a whole slot of a coarse level at once; timers are not touched by it. The wheel is a core: it is told the
// time, and hands out what is due. Not safe for concurrent use.
package wheel

import "midplane/internal/mono"

// TickShift is the resolution: timers are due at multiples of 2^TickShift ns, 1.05 ms, and never early.
const TickShift = 20

// Timer is one timer. It is the caller's; the zero value is one that is not set. It must not be copied while it is set. The
// wheel does not refer to one that is not set.
type Timer struct {
	at  mono.Time
	ref uint32 // its place in the table, times 2, plus 1 while it is set; otherwise the place it had, which may be another's
}

// IsSet reports whether the timer is set and was not handed out.
func (t *Timer) IsSet() bool { return t.ref&1 != 0 }

// At returns when the timer is due, or was last.
func (t *Timer) At() mono.Time { return t.at }

const (
	pageBits = 9
	pageLen  = 1 << pageBits
)

// page is a part of the table. A place is free, has a timer and an entry in the wheel, or has an entry alone, whose timer was
// stopped.
type page struct {
	timer [pageLen]*Timer
	// entry is the tick of the latest entry of a place, as in entry.when, which is odd; of a free place it is the next free one, times 2.
	entry [pageLen]uint32
}

// Wheel holds timers. Make one with New. It grows with the greatest number of timers that are set at a time, and does not
// shrink.
type Wheel struct {
	pages []*page
	free  uint32 // the first free place; 0 when there is none
	used  uint32 // places that were ever used; 0 is none
	live  int    // timers that are set

	slots
}

// New makes a wheel whose time begins at now.
func New(now mono.Time) *Wheel {
	w := &Wheel{used: 1, pages: []*page{new(page)}}
	w.slots.init(int64(now) >> TickShift)
	return w
}

// Len returns how many timers are set, those included that are due and not handed out.
func (w *Wheel) Len() int { return w.live }

// Set sets a timer, or moves one that is set.
func (w *Wheel) Set(t *Timer, at mono.Time) {
	if t.ref&1 != 0 && at >= t.at {
		t.at = at // its entry comes up before that, and moves on
		return
	}
	w.set(t, at)
}

func (w *Wheel) set(t *Timer, at mono.Time) {
	t.at = at
	if t.ref&1 == 0 {
		w.enter(t)
	}
	i := t.ref >> 1
	w.schedule(i, &w.pages[i/pageLen].entry[i%pageLen], at)
}

// enter gives a timer a place. Often the one it had last is there, with its entry, which then serves again.
func (w *Wheel) enter(t *Timer) {
	w.live++
	if i := t.ref >> 1; i != 0 && i < w.used {
		if p := w.pages[i/pageLen]; p.timer[i%pageLen] == nil && p.entry[i%pageLen]&1 != 0 {
			p.timer[i%pageLen] = t
			t.ref |= 1
			return
		}
	}
	i := w.free
	if i == 0 {
		i = w.grow()
	}
	p := w.pages[i/pageLen]
	w.free = p.entry[i%pageLen] >> 1
	p.entry[i%pageLen] = 0
	p.timer[i%pageLen] = t
	t.ref = i<<1 | 1
}

// grow returns a place that was not used before.
func (w *Wheel) grow() uint32 {
	i := w.used
	if i == 1<<31 {
		panic("wheel: 2^31 timers")
	}
	if i%pageLen == 0 {
		w.pages = append(w.pages, new(page))
	}
	w.used++
	return i
}

// schedule sees to it that the entry of a place comes up at a time or before it.
func (w *Wheel) schedule(i uint32, pending *uint32, at mono.Time) {
	d := min(tickOf(at)-w.tick, horizon)
	if d <= 0 {
		d = 0
	}
	when := whenOf(w.tick + d)
	if *pending&1 != 0 && int32(*pending-when) <= 0 {
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

// Stop stops a timer and reports whether it was set in this wheel. One that was due but not handed out is stopped too.
func (w *Wheel) Stop(t *Timer) bool {
	i := t.ref >> 1
	if t.ref&1 == 0 || int(i/pageLen) >= len(w.pages) {
		return false
	}
	at := &w.pages[i/pageLen].timer[i%pageLen]
	if *at != t {
		return false
	}
	*at = nil
	t.ref--
	w.live--
	return true
}

// leave frees a place whose entry has come up.
func (w *Wheel) leave(p *page, i uint32) {
	p.entry[i%pageLen] = w.free << 1
	w.free = i
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
		case p.entry[k] != e.when:
		case p.timer[k] == nil:
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

// Expired returns a timer that is due, which is not set any more then; nil when there is none. They come in the order of their
// ticks; among those of one tick the order is not defined.
func (w *Wheel) Expired() *Timer {
	for {
		for w.now.from < w.now.to {
			e := w.now.chunk.entry[w.now.from]
			w.now.from++
			p, k := w.pages[e.index/pageLen], e.index%pageLen
			if p.entry[k] != e.when {
				continue // moved to an earlier time
			}
			t := p.timer[k]
			switch {
			case t == nil: // stopped
				w.leave(p, e.index)
			case t.at > mono.Time(w.tick<<TickShift):
				p.entry[k] = 0
				w.schedule(e.index, &p.entry[k], t.at) // moved to a later time
			default:
				p.timer[k] = nil
				w.leave(p, e.index)
				t.ref = 0
				w.live--
				return t
			}
		}
		if !w.load() {
			return nil
		}
		w.touch()
	}
}

// touch drops entries that lead nowhere from those that are handed out next, and reads their timers. No read depends on
// another, so that the processor waits for many at a time, where it waits for each of them when a handler lies between.
func (w *Wheel) touch() {
	c := w.now.chunk
	var timers [chunkLen + 1]*Timer
	n := 0
	k := w.now.from
	for _, e := range c.entry[w.now.from:w.now.to] {
		p := w.pages[e.index/pageLen]
		c.entry[k] = e
		if p.entry[e.index%pageLen] == e.when {
			k++
			timers[n%64] = p.timer[e.index%pageLen]
			n++
		}
	}
	w.now.to = k
	var all mono.Time
	for _, t := range timers[:n] {
		if t != nil {
			all |= t.at
		}
	}
	w.touched = all
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
