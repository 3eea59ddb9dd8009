package loop

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// Memory that the kernel reads and writes on its own time is mapped, not of the Go heap: the collector neither scans nor
// counts it, and it stays where it is while an operation runs.
func mapMemory(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
}

// buffers is the pool of receive buffers of one loop, and those that data was moved to, numbered behind them.
type buffers struct {
	mem     []byte
	size    int
	free    []uint16
	owner   []Handle // by buffer, who holds it; zero: it is free
	held    int
	spare   []int // free places behind the pool
	spilled int
}

func newBuffers(count, size int) (*buffers, error) {
	mem, err := mapMemory(count * size)
	if err != nil {
		return nil, err
	}
	b := &buffers{mem: mem, size: size, free: make([]uint16, count), owner: make([]Handle, count)}
	for i := range b.free {
		b.free[i] = uint16(count - 1 - i) // the first is used first
	}
	return b, nil
}

func (b *buffers) at(id uint16) []byte {
	o := int(id) * b.size
	return b.mem[o : o+b.size : o+b.size]
}

// take gives a free buffer; ok is false if there is none.
func (b *buffers) take() (id uint16, ok bool) {
	if len(b.free) == 0 {
		return 0, false
	}
	id = b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	return id, true
}

func (b *buffers) giveBack(id uint16) { b.free = append(b.free, id) }

func (b *buffers) hold(id uint16, h Handle) Buf {
	b.owner[id] = h
	b.held++
	return Buf(id) + 1
}

// release returns who held the buffer; zero if nobody did, which is a mistake of the caller. A spilled one has no id of
// the pool.
func (b *buffers) release(buf Buf) (id int, h Handle) {
	if buf == 0 || int64(buf) > int64(len(b.owner)) {
		return 0, 0
	}
	i := int(buf - 1)
	if h = b.owner[i]; h != 0 {
		b.owner[i] = 0
		b.held--
		if i >= cap(b.free) {
			b.spare = append(b.spare, i)
			b.spilled--
			i = cap(b.free)
		}
	}
	return i, h
}

// spill moves data out of the pool.
func (b *buffers) spill(data []byte, h Handle) (Buf, []byte) {
	i := len(b.owner)
	if k := len(b.spare); k > 0 {
		i, b.spare = b.spare[k-1], b.spare[:k-1]
		b.owner[i] = h
	} else {
		b.owner = append(b.owner, h)
	}
	b.held++
	b.spilled++
	return Buf(i) + 1, bytes.Clone(data)
}

func (b *buffers) unmap() { _ = unix.Munmap(b.mem) }

// Chunks of send queues come in two sizes: small ones, so that 10,000 short answers cost little, and large ones.
const (
	smallChunk = 512
	largeChunk = 16 << 10
	slabSize   = 256 << 10
)

type chunk struct {
	next  *chunk
	mem   []byte
	r, w  int // octets to send are mem[r:w]
	large bool
}

// chunks is the pool of them: what is mapped stays mapped, up to limit.
type chunks struct {
	slabs        [][]byte
	mapped       int
	limit        int
	small, large *chunk
}

func (c *chunks) take(large bool) *chunk {
	list, size := &c.small, smallChunk
	if large {
		list, size = &c.large, largeChunk
	}
	if *list == nil {
		if c.mapped+slabSize > c.limit {
			return nil
		}
		slab, err := mapMemory(slabSize)
		if err != nil {
			return nil
		}
		c.slabs = append(c.slabs, slab)
		c.mapped += slabSize
		all := make([]chunk, slabSize/size)
		for i := range all {
			all[i] = chunk{mem: slab[i*size : (i+1)*size : (i+1)*size], large: large, next: *list}
			*list = &all[i]
		}
	}
	k := *list
	*list = k.next
	k.next, k.r, k.w = nil, 0, 0
	return k
}

func (c *chunks) giveBack(k *chunk) {
	list := &c.small
	if k.large {
		list = &c.large
	}
	k.next = *list
	*list = k
}

func (c *chunks) unmap() {
	for _, s := range c.slabs {
		_ = unix.Munmap(s)
	}
	c.slabs = nil
}

// sendq is what one endpoint has yet to send.
type sendq struct {
	head, tail *chunk
	n          int
}

// put copies as much of p as fits limit and the pool.
func (q *sendq) put(p []byte, limit int, pool *chunks) int {
	p = p[:min(len(p), max(0, limit-q.n))]
	done := 0
	for done < len(p) {
		if q.tail == nil || q.tail.w == len(q.tail.mem) {
			want := len(p)-done > smallChunk || q.n > smallChunk
			k := pool.take(want)
			if k == nil {
				if k = pool.take(!want); k == nil {
					break
				}
			}
			if q.tail == nil {
				q.head = k
			} else {
				q.tail.next = k
			}
			q.tail = k
		}
		// Appending behind what an operation in flight sends is fine: it has been told its length.
		m := copy(q.tail.mem[q.tail.w:], p[done:])
		q.tail.w += m
		done += m
	}
	q.n += done
	return done
}

// front is what to send next, nil if nothing is.
func (q *sendq) front() []byte {
	if q.head == nil {
		return nil
	}
	return q.head.mem[q.head.r:q.head.w]
}

// sent takes n octets off the front chunk.
func (q *sendq) sent(n int, pool *chunks) {
	k := q.head
	k.r += n
	q.n -= n
	if k.r < k.w {
		return
	}
	if q.head = k.next; q.head == nil {
		q.tail = nil
	}
	pool.giveBack(k)
}

func (q *sendq) drop(pool *chunks) {
	for q.head != nil {
		k := q.head
		q.head = k.next
		pool.giveBack(k)
	}
	q.tail, q.n = nil, 0
}

// bytes copies all that is queued.
func (q *sendq) bytes() []byte {
	var b []byte
	for k := q.head; k != nil; k = k.next {
		b = append(b, k.mem[k.r:k.w]...)
	}
	return b
}
