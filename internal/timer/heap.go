// Package timer orders deadlines: a heap in which each owner of a timer can move or stop it at the cost of a logarithm.
//
// It reads no clock: who has it asks for the time of the next timer, and then which ones are due.
package timer

import "midplane/internal/mono"

// Heap has the timers that run, the next one first; of equal times the one that was set first. The zero Heap is empty.
type Heap[T any] struct {
	slots []slot[T]
	set   uint64 // calls of Set that took effect, which tells the older of equal times
}

// Timer is part of its owner, and in one heap at most. The zero Timer is stopped.
type Timer[T any] struct {
	owner *T
	place int // in the heap, from 1; 0: stopped
}

// slot has the key beside the pointer, so that sifting does not touch the owners it compares.
type slot[T any] struct {
	at  mono.Time
	age uint64
	t   *Timer[T]
}

func (s *slot[T]) less(o *slot[T]) bool { return s.at < o.at || s.at == o.at && s.age < o.age }

// Running reports whether t is set.
func (t *Timer[T]) Running() bool { return t.place != 0 }

// Len is how many timers run.
func (h *Heap[T]) Len() int { return len(h.slots) }

// Next is the time of the first timer, [mono.Never] if none runs.
func (h *Heap[T]) Next() mono.Time {
	if len(h.slots) == 0 {
		return mono.Never
	}
	return h.slots[0].at
}

// Due is the owner of the first timer if that has run out, nil otherwise.
func (h *Heap[T]) Due(now mono.Time) *T {
	if len(h.slots) == 0 || h.slots[0].at > now {
		return nil
	}
	return h.slots[0].t.owner
}

// Set lets owner's timer t run out at that time; [mono.Never] stops it. Setting it to the time it has changes nothing.
func (h *Heap[T]) Set(t *Timer[T], owner *T, at mono.Time) {
	switch {
	case at == mono.Never:
		h.Stop(t)
		return
	case !t.Running():
		t.owner = owner
		h.slots = append(h.slots, slot[T]{})
		t.place = len(h.slots)
	case h.slots[t.place-1].at == at:
		return
	}
	h.set++
	h.sift(t.place-1, slot[T]{at, h.set, t})
}

// Stop takes t out, if it runs.
func (h *Heap[T]) Stop(t *Timer[T]) {
	if !t.Running() {
		return
	}
	i, end := t.place-1, len(h.slots)-1
	last := h.slots[end]
	h.slots[end] = slot[T]{}
	h.slots = h.slots[:end]
	t.owner, t.place = nil, 0
	if i < end {
		h.sift(i, last)
	}
}

// sift puts s where it belongs, when the slot at i is free and all others are in order.
func (h *Heap[T]) sift(i int, s slot[T]) {
	a := h.slots
	for i > 0 {
		up := (i - 1) / 2
		if !s.less(&a[up]) {
			break
		}
		a[i] = a[up]
		a[i].t.place = i + 1
		i = up
	}
	for {
		down := 2*i + 1
		if down >= len(a) {
			break
		}
		if down+1 < len(a) && a[down+1].less(&a[down]) {
			down++
		}
		if !a[down].less(&s) {
			break
		}
		a[i] = a[down]
		a[i].t.place = i + 1
		i = down
	}
	a[i] = s
	s.t.place = i + 1
}
