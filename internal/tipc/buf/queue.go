package buf

// Queue is a doubly linked list of Bufs. The zero value is empty and ready. It must not be copied while in use.
type Queue struct {
	_          [0]func() // not comparable
	head, tail *Buf
	n          int
}

// Len is the number of Bufs.
func (q *Queue) Len() int { return q.n }

// Empty reports whether there is none.
func (q *Queue) Empty() bool { return q.n == 0 }

// Front and Back are the first and last Buf, or nil.
func (q *Queue) Front() *Buf { return q.head }
func (q *Queue) Back() *Buf  { return q.tail }

// Next is the Buf behind b on its queue, Prev the one before; nil at the ends.
func (b *Buf) Next() *Buf { return b.next }
func (b *Buf) Prev() *Buf { return b.prev }

// PushBack appends b, which must be on no queue.
func (q *Queue) PushBack(b *Buf) { q.insert(b, q.tail, nil) }

// PushFront puts b first.
func (q *Queue) PushFront(b *Buf) { q.insert(b, nil, q.head) }

// InsertBefore puts b before at, which is on q; at nil means at the end.
func (q *Queue) InsertBefore(b, at *Buf) {
	if at == nil {
		q.PushBack(b)
		return
	}
	q.insert(b, at.prev, at)
}

func (q *Queue) insert(b, prev, next *Buf) {
	if b.list != nil {
		panic("buf: already queued")
	}
	b.list, b.prev, b.next = q, prev, next
	if prev != nil {
		prev.next = b
	} else {
		q.head = b
	}
	if next != nil {
		next.prev = b
	} else {
		q.tail = b
	}
	q.n++
}

// Remove takes b off q.
func (q *Queue) Remove(b *Buf) {
	if b.list != q {
		panic("buf: not on this queue")
	}
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		q.head = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	} else {
		q.tail = b.prev
	}
	b.list, b.prev, b.next = nil, nil, nil
	q.n--
}

// PopFront removes and returns the first Buf, or nil.
func (q *Queue) PopFront() *Buf {
	b := q.head
	if b != nil {
		q.Remove(b)
	}
	return b
}

// PopBack removes and returns the last Buf, or nil.
func (q *Queue) PopBack() *Buf {
	b := q.tail
	if b != nil {
		q.Remove(b)
	}
	return b
}

// Splice moves all of from to the end of q, in order. It takes time proportional to from.
func (q *Queue) Splice(from *Queue) {
	for b := from.PopFront(); b != nil; b = from.PopFront() {
		q.PushBack(b)
	}
}

// Purge removes and releases all Bufs.
func (q *Queue) Purge() {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		b.Release()
	}
}
