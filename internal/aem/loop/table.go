package loop

// table finds endpoints by handle. A place is used again, with another generation.
type table[T any] struct {
	slots []entry[T]
	free  []uint32
	n     int
}

type entry[T any] struct {
	gen uint32
	v   *T
}

func handle(place, gen uint32) Handle { return Handle(gen)<<32 | Handle(place+1) }

func (t *table[T]) add(v *T) Handle {
	t.n++
	if k := len(t.free); k > 0 {
		i := t.free[k-1]
		t.free = t.free[:k-1]
		t.slots[i].v = v
		return handle(i, t.slots[i].gen)
	}
	t.slots = append(t.slots, entry[T]{v: v})
	return handle(uint32(len(t.slots)-1), 0)
}

// get returns nil for a handle that is closed or never was.
func (t *table[T]) get(h Handle) *T {
	i := uint32(h) - 1
	if uint64(i) >= uint64(len(t.slots)) || t.slots[i].gen != uint32(h>>32) {
		return nil
	}
	return t.slots[i].v
}

func (t *table[T]) drop(h Handle) {
	if t.get(h) == nil {
		return
	}
	i := uint32(h) - 1
	t.slots[i] = entry[T]{gen: t.slots[i].gen + 1}
	t.free = append(t.free, i)
	t.n--
}

func (t *table[T]) each(f func(*T)) {
	for i := range t.slots {
		if v := t.slots[i].v; v != nil {
			f(v)
		}
	}
}

// fifo is a queue in a ring that grows.
type fifo[T any] struct {
	ring    []T
	head, n int
}

func (q *fifo[T]) push(v T) {
	if q.n == len(q.ring) {
		grown := make([]T, max(16, 2*q.n))
		for i := range q.n {
			grown[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = v
	q.n++
}

func (q *fifo[T]) pop() (v T, ok bool) {
	if q.n == 0 {
		return v, false
	}
	p := &q.ring[q.head]
	v = *p
	*p = *new(T)
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return v, true
}
