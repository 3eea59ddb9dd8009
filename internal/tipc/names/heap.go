package names

// timerHeap has the subscriptions that expire, the next one first; of equal times the older subscription comes first.
type timerHeap []*Subscription

func (h timerHeap) less(i, j int) bool {
	a, b := h[i], h[j]
	return a.expires < b.expires || a.expires == b.expires && a.seq < b.seq
}

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timer, h[j].timer = i, j
}

func (h *timerHeap) push(n *Subscription) {
	n.timer = len(*h)
	*h = append(*h, n)
	h.up(n.timer)
}

func (h *timerHeap) remove(n *Subscription) {
	i, last := n.timer, len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	n.timer = -1
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h timerHeap) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if !h.less(i, p) {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h timerHeap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h.less(c+1, c) {
			c++
		}
		if !h.less(c, i) {
			return
		}
		h.swap(i, c)
		i = c
	}
}
