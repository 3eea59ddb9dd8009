package wheel

import "math"

const (
	// near is how many ticks ahead a time is from which on a move to it waits for its entry: 1.07 s. It is more than
	// what passes until then, which is lag and spread, or spread twice.
	near = 1024

	// lag is how many ticks pass until records that were moved are looked at. A loop that does nothing else wakes
	// once in that time for them, and what moves more than once meanwhile does so for the price of one.
	lag = 256

	// spread is how many ticks it takes then.
	spread = 384
)

// moves are the records that were moved to a time before that of their entry: a bit for each, and a queue of the words of 64 bits
// that are not zero. Marks of records that were stopped, or set again, do no harm.
type moves struct {
	bits       []uint64
	after      []uint32 // the word behind this one in the queue
	head, tail uint32
	queued     int // words

	from  int64 // the tick from which on they are looked at, when there are any
	batch int   // words that are left of those that were there when the last share was made
	until int64 // the tick before which they are looked at
}

const pageWords = pageLen / 64

// grow makes room for the records of another page.
func (m *moves) grow() {
	m.bits = append(m.bits, make([]uint64, pageWords)...)
	m.after = append(m.after, make([]uint32, pageWords)...)
}

// add marks a record.
func (m *moves) add(i uint32, now int64) {
	p := &m.bits[i/64]
	if *p == 0 {
		m.enqueue(i/64, now)
	}
	*p |= 1 << (i % 64)
}

func (m *moves) enqueue(k uint32, now int64) {
	if m.queued == 0 {
		m.head, m.from = k, now+lag
	} else {
		m.after[m.tail] = k
	}
	m.tail = k
	m.queued++
}

// take returns the marks of the next word, and the record of the first. There is one.
func (m *moves) take() (first uint32, marks uint64) {
	k := m.head
	m.head = m.after[k]
	m.queued--
	m.batch--
	marks, m.bits[k] = m.bits[k], 0
	return k * 64, marks
}

// next returns the tick after now at which records are to be looked at.
func (m *moves) next(now int64) int64 {
	if m.queued == 0 {
		return math.MaxInt64 >> TickShift
	}
	return max(m.from, now+1)
}

// share returns how many words are to be looked at in a tick at least. What is there when a batch begins is gone when it ends, and
// what comes meanwhile is the next.
func (m *moves) share(now int64) int {
	if m.queued == 0 || now < m.from {
		return 0
	}
	if m.batch <= 0 {
		m.batch, m.until = m.queued, now+spread
	}
	left := max(1, int(m.until-now))
	return (m.batch + left - 1) / left
}
