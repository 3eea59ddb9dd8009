package sim

import (
	"midplane/internal/mono"
)

// clock is a host's clock: it starts anywhere and runs a little too fast or too slow.
type clock struct {
	base mono.Time // its reading at virtual time 0
	ppm  int64     // deviation of its speed, millionths, more than -1e6
}

const million = 1_000_000

// local is the clock's reading at virtual time t.
func (c clock) local(t mono.Time) mono.Time {
	return c.base + t + mono.Time(int64(t)/million*c.ppm+int64(t)%million*c.ppm/million)
}

// global is the first virtual time at which the clock reads d or more.
func (c clock) global(d mono.Time) mono.Time {
	if d == mono.Never {
		return mono.Never
	}
	x := int64(d - c.base)
	t := mono.Time(x - x/(million+c.ppm)*c.ppm - x%(million+c.ppm)*c.ppm/(million+c.ppm))
	for c.local(t) < d {
		t++
	}
	for t > 0 && c.local(t-1) >= d {
		t--
	}
	return max(t, 0)
}

// event is something that happens at a time. Events of one time happen in the order in which they were made.
type event struct {
	at   mono.Time
	seq  uint64
	kind eventKind
	host int32  // evDeliver, evTimer
	inst uint32 // evDeliver, evTimer: instance of the host that it is for
	pkt  *packet
	do   func() // evCall
}

type eventKind uint8

const (
	evCall eventKind = iota
	evDeliver
	evTimer
)

// eventHeap is a 4-ary heap of events by (at, seq).
type eventHeap struct {
	e   []event
	seq uint64
}

func (e *event) before(f *event) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

func (h *eventHeap) push(e event) {
	h.seq++
	e.seq = h.seq
	h.e = append(h.e, e)
	i := len(h.e) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&h.e[up]) {
			break
		}
		h.e[i] = h.e[up]
		i = up
	}
	h.e[i] = e
}

func (h *eventHeap) pop() event {
	top := h.e[0]
	n := len(h.e) - 1
	last := h.e[n]
	h.e[n] = event{}
	h.e = h.e[:n]
	if n == 0 {
		return top
	}
	i := 0
	for {
		c := 4*i + 1
		if c >= n {
			break
		}
		best := c
		for j := c + 1; j < min(c+4, n); j++ {
			if h.e[j].before(&h.e[best]) {
				best = j
			}
		}
		if !h.e[best].before(&last) {
			break
		}
		h.e[i] = h.e[best]
		i = best
	}
	h.e[i] = last
	return top
}
