package buf

import "midplane/internal/tipc/wire"

// Output takes outgoing datagrams. Send copies pkt before it returns, so the caller may change it afterwards.
type Output interface {
	Send(bearer int, dst wire.MediaAddr, pkt []byte)
}

// Datagram is one outgoing datagram of a [Batch]; its octets are Batch.Bytes(d).
type Datagram struct {
	Bearer   int
	Dst      wire.MediaAddr
	off, end int
}

// Len is the datagram's length.
func (d Datagram) Len() int { return d.end - d.off }

// Batch collects outgoing datagrams in one contiguous arena, in the order of sending. The zero value is ready; Reset
// keeps the memory. Consecutive datagrams are contiguous in memory, which drivers use for segmentation offload.
type Batch struct {
	Datagrams []Datagram
	arena     []byte
}

// Send appends a copy of pkt.
func (b *Batch) Send(bearer int, dst wire.MediaAddr, pkt []byte) {
	off := len(b.arena)
	b.arena = append(b.arena, pkt...)
	b.Datagrams = append(b.Datagrams, Datagram{bearer, dst, off, len(b.arena)})
}

// Bytes is the content of datagram i, valid until Reset.
func (b *Batch) Bytes(i int) []byte {
	d := b.Datagrams[i]
	return b.arena[d.off:d.end:d.end]
}

// Span is the contiguous content of datagrams i to j-1.
func (b *Batch) Span(i, j int) []byte { return b.arena[b.Datagrams[i].off:b.Datagrams[j-1].end] }

// Len is the number of datagrams, Size that of their octets.
func (b *Batch) Len() int  { return len(b.Datagrams) }
func (b *Batch) Size() int { return len(b.arena) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Datagrams = b.Datagrams[:0]
	b.arena = b.arena[:0]
}
