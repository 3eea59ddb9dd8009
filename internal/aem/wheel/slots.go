package wheel

import (
	"math"
	"math/bits"

	"midplane/internal/mono"
)

const (
	windowBits = 8 // ticks of one level that make one of the next
	slotBits   = windowBits + 1
	perLevel   = 1 << slotBits // slots: the window that passes and the next one
	slotMask   = perLevel - 1
	levels     = 4
	dueSlot    = levels * perLevel // of what was set when its slot was over

	// horizon is how many ticks an entry is ahead at most, 6.5 days. A timer that is further away has one there, which then
	// moves on.
	horizon = 1<<29 - 1

	// quota is how many entries one tick moves at least to a finer level, as long as there are some.
	quota = 64

	// slack is how many entries may lead nowhere beside as many as there are timers.
	slack = 1024

	sweepsPerTick = 16 // chunks
)

// entry is a point in time at which a record is looked at.
type entry struct {
	when  uint32 // the tick, modulo 2^30, times whenStep, plus 1, plus whenTwin or not
	index uint32
}

const (
	whenTwin  = 2
	whenShift = 2
	whenStep  = 1 << whenShift
)

func whenOf(tick int64) uint32 { return uint32(tick)*whenStep | 1 }

const (
	chunkLen  = 63 // makes a chunk 512 octets
	chunkSlab = 32
)

// chunk is a piece of a slot.
type chunk struct {
	next  *chunk
	entry [chunkLen]entry
}

// slot is a queue of entries, in chunks that are full but for the first and the last.
type slot struct {
	head, tail *chunk
	chunks     int32
	from       uint8 // in head
	to         uint8 // in tail; chunkLen when there is none
}

func (s *slot) len() int {
	if s.chunks == 0 {
		return 0
	}
	return int(s.chunks-1)*chunkLen + int(s.to) - int(s.from)
}

// slots are the slots of all levels, and where time is.
type slots struct {
	tick  int64 // the tick that is handed out now: everything before it has been
	until int64 // the tick up to which Expired hands out

	now   span // what is handed out now
	full  int  // chunks that are not the last of their slot
	moved int  // entries that went to a finer level so far

	spare     *chunk
	sweepAt   int // slot
	sweepLeft int // chunks of it
	filled    [(dueSlot + 64) / 64]uint64
	slot      [dueSlot + 1]slot
}

// span is a part of a chunk.
type span struct {
	chunk    *chunk
	from, to int
}

func (w *slots) init(tick int64) {
	w.tick, w.until = tick, tick
	for i := range w.slot {
		w.slot[i].to = chunkLen
	}
}

// tickOf returns the first tick at or after a time.
func tickOf(at mono.Time) int64 {
	if at > mono.Never-(1<<TickShift) {
		return int64(mono.Never >> TickShift)
	}
	return int64((at + (1<<TickShift - 1)) >> TickShift)
}

// slotOf returns the slot of what is d ticks ahead: of the finest level whose window that passes now, and the next one, reach it.
func (w *slots) slotOf(d int64) int {
	if d <= 0 {
		return dueSlot
	}
	l := (bits.Len32(uint32(d)) - 1) / windowBits
	return l<<slotBits + int((w.tick+d)>>(l*windowBits&63)&slotMask)
}

// push appends an entry to slot i.
func (w *slots) push(i int, e entry) {
	s := &w.slot[i]
	if s.to == chunkLen {
		w.extend(i)
	}
	s.tail.entry[s.to] = e
	s.to++
}

// extend gives a slot one more chunk.
func (w *slots) extend(i int) {
	if w.spare == nil {
		slab := make([]chunk, chunkSlab)
		for k := range slab {
			w.recycle(&slab[k])
		}
	}
	c := w.spare
	w.spare, c.next = c.next, nil
	s := &w.slot[i]
	if s.chunks == 0 {
		s.head, s.from = c, 0
		w.filled[i/64] |= 1 << (i % 64)
	} else {
		s.tail.next = c
		w.full++
	}
	s.tail, s.to = c, 0
	s.chunks++
}

func (w *slots) recycle(c *chunk) { c.next, w.spare = w.spare, c }

// detach takes the first chunk of a slot that has one, and returns which part of it has entries.
func (w *slots) detach(i int) (c *chunk, from, to int) {
	s := &w.slot[i]
	c, from, to = s.head, int(s.from), chunkLen
	if s.chunks--; s.chunks == 0 {
		to = int(s.to)
		s.tail, s.to = nil, chunkLen
		w.filled[i/64] &^= 1 << (i % 64)
	} else {
		w.full--
	}
	s.head, s.from = c.next, 0
	return c, from, to
}

// pending reports whether there may be something that is due.
func (w *slots) pending() bool {
	return w.now.from < w.now.to || w.tick < w.until || w.slot[dueSlot].chunks > 0 || w.slot[w.tick&slotMask].chunks > 0
}

// skip returns the next tick at which there is something to do: a slot of the finest level, or entries to be moved.
func (w *slots) skip() int64 {
	if w.filling() {
		return w.tick + 1
	}
	next := int64(math.MaxInt64 >> TickShift)
	if at, ok := w.first(0, w.tick+1); ok {
		next = at
	}
	for l := 1; l < levels; l++ {
		// A slot begins to move down when the one before it begins.
		shift := windowBits * l
		if at, ok := w.first(l, w.tick>>shift+1); ok {
			next = min(next, max((at-1)<<shift, w.tick+1))
		}
	}
	return next
}

// first returns the first place of a level from a position on, within one turn, whose slot has entries.
func (w *slots) first(l int, from int64) (int64, bool) {
	filled := w.filled[l*perLevel/64 : (l+1)*perLevel/64]
	i := int(from & slotMask)
	word := filled[i/64] >> (i % 64) << (i % 64)
	for k := range perLevel/64 + 1 {
		if word != 0 {
			j := ((i/64+k)%(perLevel/64))*64 + bits.TrailingZeros64(word)
			return from + int64((j-i)&slotMask), true
		}
		word = filled[(i/64+k+1)%(perLevel/64)]
	}
	return 0, false
}

// filling reports whether entries of the next window of a level wait in the coarser one.
func (w *slots) filling() bool {
	now := w.tick
	for l := 1; l < levels; l++ {
		now >>= windowBits
		if w.slot[l<<slotBits+int((now+1)&slotMask)].chunks > 0 {
			return true
		}
	}
	return false
}

// step goes to a tick that nothing lies before.
func (w *slots) step(to int64) {
	if to>>windowBits != w.tick>>windowBits {
		// A window begins. What is left of it in coarser levels comes down at once; that is much only when time jumped.
		for l := levels - 1; l > 0; l-- {
			old, now := w.tick>>(windowBits*l), to>>(windowBits*l)
			if old != now {
				w.tick = to - 1
				w.pour(l<<slotBits+int(now&slotMask), math.MaxInt)
			}
		}
	}
	w.tick = to
	// The next window of each level fills, evenly over the time that is left.
	now := to
	for l := 1; l < levels; l++ {
		left := 1<<(windowBits*l) - int(to&(1<<(windowBits*l)-1))
		now >>= windowBits
		i := l<<slotBits + int((now+1)&slotMask)
		if n := w.slot[i].len(); n > 0 {
			w.pour(i, max(quota, n/left+1))
		}
	}
}

// pour moves up to limit entries of a slot to finer levels.
func (w *slots) pour(i, limit int) {
	s := &w.slot[i]
	for limit > 0 && s.chunks > 0 {
		c, from, n := s.head, int(s.from), chunkLen
		if s.chunks == 1 {
			n = int(s.to)
		}
		n -= from
		whole := n <= limit
		if whole {
			w.detach(i)
		} else {
			n = limit
			s.from += uint8(n)
		}
		for _, e := range c.entry[from : from+n] {
			w.refine(e)
		}
		if whole {
			w.recycle(c)
		}
		w.moved += n
		limit -= n
	}
}

// refine puts an entry into the finest level whose window that passes now, or the next one, has its tick.
func (w *slots) refine(e entry) {
	now := w.tick
	at := now + int64(int32(e.when-whenOf(now))>>whenShift)
	if at <= now {
		w.push(dueSlot, e)
		return
	}
	l := 0
	for at>>windowBits > now>>windowBits+1 {
		at >>= windowBits
		now >>= windowBits
		l += perLevel
	}
	w.push(l+int(at&slotMask), e)
}

// nextToSweep returns the slot whose first chunk is swept next. There are entries.
func (w *slots) nextToSweep() int {
	if w.sweepLeft <= 0 || w.slot[w.sweepAt].chunks == 0 {
		w.sweepAt = w.nextFilled(w.sweepAt + 1)
		w.sweepLeft = int(w.slot[w.sweepAt].chunks)
	}
	w.sweepLeft--
	return w.sweepAt
}

// nextFilled returns the first slot from i on that has entries, going round. There is one.
func (w *slots) nextFilled(i int) int {
	for {
		if i > dueSlot {
			i = 0
		}
		if word := w.filled[i/64] >> (i % 64); word != 0 {
			return i + bits.TrailingZeros64(word)
		}
		i = (i/64 + 1) * 64
	}
}
