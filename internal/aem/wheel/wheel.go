// Package wheel is a hashed hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP
// 1987, scheme 7) for very many timers: setting, moving and stopping one takes constant time and allocates nothing, for the
// links are in the timers.
//
// Timers that are far away move to finer levels little by little, while the time before theirs passes, so that no advance
// moves a whole slot of a coarse level at once. A timer that is set anew to a later time stays where it is until its old
// time comes. The wheel is a core: it is told the time, and hands out what is due. Not safe for concurrent use.
package wheel

import (
	"math/bits"

	"midplane/internal/mono"
)

const (
	// TickShift is the resolution: timers are due at multiples of 2^TickShift ns, 1.05 ms, and never early.
	TickShift = 20

	windowBits = 8 // ticks of one level that make one of the next
	windowMask = 1<<windowBits - 1
	slotBits   = windowBits + 1 // a level has room for the window that passes and the next one
	slots      = 1 << slotBits
	slotMask   = slots - 1
	levels     = 5 // together 36 years

	// quota is how many timers one tick moves at least to a finer level, as long as there are some.
	quota = 64
)

// Timer is one timer. It is the caller's; the zero value is one that is not set. It must not be copied while it is set.
type Timer struct {
	Owner any // the caller's own, not looked at

	prev, next *Timer
	at         mono.Time
	slot       int32 // level and slot, from 1; 0 when it is not set
}

// IsSet reports whether the timer is set and not due yet.
func (t *Timer) IsSet() bool { return t.slot != 0 }

// At returns when the timer is due, or was last.
func (t *Timer) At() mono.Time { return t.at }

const dueSlot = levels*slots + 1

// Wheel holds timers. Make one with New.
type Wheel struct {
	tick  int64 // the tick that is handed out now: everything before it has been
	until int64 // the tick up to which Expired hands out
	count int
	moved int // timers that went to a finer level so far

	level [levels]level
	due   Timer // list of those that were set when their slot was over
}

type level struct {
	head  [slots]Timer
	n     [slots]int32 // timers in a slot
	total int
	used  [slots / 64]uint64 // slots that have timers
}

// New makes a wheel whose time begins at now.
func New(now mono.Time) *Wheel {
	w := &Wheel{tick: int64(now) >> TickShift}
	w.until = w.tick
	for l := range w.level {
		for i := range w.level[l].head {
			h := &w.level[l].head[i]
			h.prev, h.next = h, h
		}
	}
	w.due.prev, w.due.next = &w.due, &w.due
	return w
}

// Len returns how many timers are set, those included that are due and not handed out.
func (w *Wheel) Len() int { return w.count }

// tickOf returns the first tick at or after a time.
func tickOf(at mono.Time) int64 {
	if at > mono.Never-(1<<TickShift) {
		return int64(mono.Never >> TickShift)
	}
	return int64((at + (1<<TickShift - 1)) >> TickShift)
}

// Set sets a timer, or moves one that is set.
func (w *Wheel) Set(t *Timer, at mono.Time) {
	if t.slot != 0 {
		if at >= t.at && t.slot != dueSlot {
			t.at = at
			return
		}
		w.unlink(t)
		w.count--
	}
	t.at = at
	w.count++
	w.insert(t)
}

// Stop stops a timer and reports whether it was set. One that was due but not handed out is stopped too.
func (w *Wheel) Stop(t *Timer) bool {
	if t.slot == 0 {
		return false
	}
	w.unlink(t)
	w.count--
	return true
}

func (w *Wheel) unlink(t *Timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next = nil, nil
	if i := int(t.slot) - 1; i < levels*slots {
		l := &w.level[i>>slotBits]
		l.total--
		if i &= slotMask; l.n[i] == 1 {
			l.used[i/64] &^= 1 << (i % 64)
		}
		l.n[i]--
	}
	t.slot = 0
}

func link(head, t *Timer) {
	t.prev, t.next = head.prev, head
	head.prev.next = t
	head.prev = t
}

// insert puts a timer into the finest level that reaches its time: its window of that level passes now or is the next.
func (w *Wheel) insert(t *Timer) {
	at := tickOf(t.at)
	if at <= w.tick {
		t.slot = dueSlot
		link(&w.due, t)
		return
	}
	now := w.tick
	l := 0
	for l < levels-1 && at>>windowBits > now>>windowBits+1 {
		at >>= windowBits
		now >>= windowBits
		l++
	}
	if at > now+slots-1 {
		at = now + slots - 1 // beyond the horizon: it is looked at again then
	}
	v := &w.level[l]
	i := int(at & slotMask)
	v.n[i]++
	v.total++
	v.used[i/64] |= 1 << (i % 64)
	t.slot = int32(l<<slotBits + i + 1)
	link(&v.head[i], t)
}

// Advance moves time on, for Expired.
func (w *Wheel) Advance(now mono.Time) {
	w.until = max(w.until, int64(now)>>TickShift)
}

// skip returns the next tick at which there is something to do: a slot of the finest level, or timers to be moved.
func (w *Wheel) skip() int64 {
	if w.filling() {
		return w.tick + 1
	}
	next := int64(mono.Never >> TickShift)
	if at, ok := w.level[0].first(w.tick + 1); ok {
		next = at
	}
	for l := 1; l < levels; l++ {
		// A slot begins to move down when the one before it begins.
		shift := windowBits * l
		if at, ok := w.level[l].first(w.tick>>shift + 1); ok {
			next = min(next, max((at-1)<<shift, w.tick+1))
		}
	}
	return next
}

// first returns the first place from a position on, within one turn, whose slot has timers.
func (l *level) first(from int64) (int64, bool) {
	if l.total == 0 {
		return 0, false
	}
	i := int(from & slotMask)
	word := l.used[i/64] >> (i % 64) << (i % 64)
	for k := range slots/64 + 1 {
		if word != 0 {
			j := ((i/64+k)%(slots/64))*64 + bits.TrailingZeros64(word)
			return from + int64((j-i)&slotMask), true
		}
		word = l.used[(i/64+k+1)%(slots/64)]
	}
	return 0, false
}

// filling reports whether timers of the next window of a level wait in the coarser one.
func (w *Wheel) filling() bool {
	now := w.tick
	for l := range levels - 1 {
		now >>= windowBits
		if w.level[l+1].n[(now+1)&slotMask] > 0 {
			return true
		}
	}
	return false
}

// step goes to a tick that nothing lies before.
func (w *Wheel) step(to int64) {
	if to>>windowBits != w.tick>>windowBits {
		// A window begins. What is left of it in coarser levels comes down at once; that is much only when time jumped.
		for l := levels - 2; l >= 0; l-- {
			old, now := w.tick>>(windowBits*(l+1)), to>>(windowBits*(l+1))
			if old != now {
				w.tick = to - 1
				w.pour(l+1, int(now&slotMask), 1<<30)
			}
		}
	}
	w.tick = to
	// The next window of each level fills, evenly over the time that is left.
	now := to
	for l := range levels - 1 {
		left := 1<<(windowBits*(l+1)) - to&(1<<(windowBits*(l+1))-1)
		now >>= windowBits
		i := int((now + 1) & slotMask)
		if n := w.level[l+1].n[i]; n > 0 {
			w.pour(l+1, i, max(quota, int(int64(n)/left)+1))
		}
	}
}

// pour moves up to max timers of a slot to where they belong now.
func (w *Wheel) pour(l, i, limit int) {
	v := &w.level[l]
	h := &v.head[i]
	for range limit {
		t := h.next
		if t == h {
			return
		}
		w.unlink(t)
		w.insert(t)
		w.moved++
	}
}

// Expired returns a timer that is due, which is not set any more then; nil when there is none.
func (w *Wheel) Expired() *Timer {
	for {
		h := &w.due
		if h.next == h {
			if h = &w.level[0].head[w.tick&slotMask]; h.next == h {
				switch {
				case w.tick >= w.until:
					return nil
				case w.count == 0:
					w.tick = w.until
				default:
					w.step(min(w.until, w.skip()))
				}
				continue
			}
		}
		t := h.next
		w.unlink(t)
		if tickOf(t.at) > w.tick {
			w.insert(t) // it was moved to a later time meanwhile
			continue
		}
		w.count--
		return t
	}
}

// Deadline returns when Advance has something to do next, mono.Never when no timer is set. That can be earlier than the
// first timer is due.
func (w *Wheel) Deadline() mono.Time {
	switch {
	case w.count == 0:
		return mono.Never
	case w.due.next != &w.due, w.tick < w.until, w.level[0].n[w.tick&slotMask] > 0:
		return mono.Time(w.until << TickShift) // there is something for Expired
	}
	return mono.Time(w.skip() << TickShift)
}
