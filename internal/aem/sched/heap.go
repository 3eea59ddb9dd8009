package sched

// taskHeap is a binary heap of tasks that know their place in it. Its array is made once, so that nothing is allocated
// while the bound of the queue holds.
type taskHeap struct {
	a     []*Task
	byDue bool // ordered by release time in place of deadline
}

func (h *taskHeap) less(t, u *Task) bool {
	a, b := t.Deadline, u.Deadline
	if h.byDue {
		a, b = t.due, u.due
	}
	if a != b {
		return a < b
	}
	return t.seq < u.seq
}

func (h *taskHeap) min() *Task {
	if len(h.a) == 0 {
		return nil
	}
	return h.a[0]
}

func (h *taskHeap) push(t *Task) {
	h.a = append(h.a, t)
	h.up(len(h.a)-1, t)
}

func (h *taskHeap) remove(t *Task) {
	i, n := t.index, len(h.a)-1
	last := h.a[n]
	h.a[n] = nil
	h.a = h.a[:n]
	if i == n {
		return
	}
	h.down(i, last)
	if last.index == i {
		h.up(i, last)
	}
}

func (h *taskHeap) up(i int, t *Task) {
	for i > 0 {
		p := (i - 1) / 2
		if !h.less(t, h.a[p]) {
			break
		}
		h.a[i] = h.a[p]
		h.a[i].index = i
		i = p
	}
	h.a[i], t.index = t, i
}

func (h *taskHeap) down(i int, t *Task) {
	for {
		c := 2*i + 1
		if c >= len(h.a) {
			break
		}
		if c+1 < len(h.a) && h.less(h.a[c+1], h.a[c]) {
			c++
		}
		if !h.less(h.a[c], t) {
			break
		}
		h.a[i] = h.a[c]
		h.a[i].index = i
		i = c
	}
	h.a[i], t.index = t, i
}
