// Package buf holds messages inside the protocol cores: [Buf] is one message with the link's control block, [Queue] an
// intrusive list of them, [Batch] a list of outgoing datagrams.
//
// A Buf has one owner at a time and is on at most one Queue. Whoever consumes it last may give it back with
// [Buf.Release]; forgetting that costs a garbage collection, releasing too early corrupts messages: when in doubt,
// do not release. A Batch may reference the octets of a Buf that is released meanwhile; they are reused after the
// Batch's Reset. Nothing here is safe for concurrent use, except that Get and Release may be called from any goroutine,
// as long as no Batch has the Buf.
package buf

import (
	"sync"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// Buf is one message and what links note about it.
type Buf struct {
	Msg wire.Msg

	NextRetr  mono.Time // not to be retransmitted before; socket, held for order: time to look whether it need be
	RetrStamp mono.Time // when it was first retransmitted; socket: since when it is held
	RetrCnt   int       // how often it was
	Ackers    int       // broadcast: peers that have yet to acknowledge
	ChainImp  int       // importance of a congested sender's chain
	BytesRead int       // socket: octets of a stream message already read
	Member    uint32    // group: original member port
	Node      uint32    // local use: node that it came from or goes to

	next, prev *Buf
	list       *Queue
	mem        []byte // whole capacity, for the pool
	class      int8   // pool size class, -1: not pooled
	refs       int32  // datagrams of a Batch that reference mem
	released   bool   // Release was called, mem is still referenced
}

// Largest is the room in the largest pooled Buf: any message of TIPC fits, with a packet's header before it.
const Largest = 66560

// Roomy is the longest message for which [Get] takes a Buf smaller than the largest.
const Roomy = 14336

// Pool size classes: short messages, one Ethernet packet, one UDP packet of default MTU, the largest message.
var classes = [...]int{256, 2048, Roomy, Largest}

var pools [len(classes)]sync.Pool

// Get returns a Buf whose Msg has n octets; the first 60 (or n) are zero, the rest is undefined. n is 0 to any size;
// above the largest message it is not pooled.
func Get(n int) *Buf {
	for c, size := range classes {
		if n > size {
			continue
		}
		b, _ := pools[c].Get().(*Buf)
		if b == nil {
			b = &Buf{mem: make([]byte, size), class: int8(c)}
		}
		b.Msg = wire.Msg(b.mem[:n])
		clear(b.Msg[:min(n, wire.MaxHeaderSize)])
		return b
	}
	b := &Buf{mem: make([]byte, n), class: -1}
	b.Msg = b.mem
	return b
}

// Copy returns a new Buf with a copy of m.
func Copy(m []byte) *Buf {
	b := Get(len(m))
	copy(b.Msg, m)
	return b
}

// Clone returns a copy of b's message with a fresh control block.
func (b *Buf) Clone() *Buf { return Copy(b.Msg) }

// Cap is the room for the message without reallocation.
func (b *Buf) Cap() int { return cap(b.Msg) }

// Resize makes the message n octets long; n must not exceed Cap. New octets are undefined.
func (b *Buf) Resize(n int) { b.Msg = b.Msg[:n] }

// TrimFront takes the first n octets off the message.
func (b *Buf) TrimFront(n int) { b.Msg = b.Msg[n:] }

// Release gives b back for reuse. b must not be on a queue and must not be used afterwards.
func (b *Buf) Release() {
	if b.list != nil {
		panic("buf: released while queued")
	}
	if b.class < 0 {
		return
	}
	if b.refs > 0 {
		b.released = true
		return
	}
	*b = Buf{mem: b.mem, class: b.class}
	pools[b.class].Put(b)
}

// unref is the end of one reference of a Batch.
func (b *Buf) unref() {
	if b.refs--; b.refs == 0 && b.released {
		b.Release()
	}
}
