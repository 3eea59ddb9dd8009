package node

import "midplane/internal/mono"

// timerHeap orders peers by their next timer run. It knows each peer's place, so that moving one is cheap.
type timerHeap []*peer

func (h timerHeap) less(i, j int) bool { return h[i].timer < h[j].timer }

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapPos, h[j].heapPos = i, j
}

func (h timerHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h.swap(i, parent)
		i = parent
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

func (h *timerHeap) add(p *peer) {
	p.heapPos = len(*h)
	*h = append(*h, p)
	h.up(p.heapPos)
}

func (h *timerHeap) remove(p *peer) {
	i, last := p.heapPos, len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	if i < last {
		h.down(i)
		h.up(i)
	}
}

// move gives p a new time.
func (h timerHeap) move(p *peer, at mono.Time) {
	p.timer = at
	h.down(p.heapPos)
	h.up(p.heapPos)
}
