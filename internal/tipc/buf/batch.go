package buf

import "midplane/internal/tipc/wire"

// Output takes outgoing datagrams. Send is done with pkt when it returns, so the caller may change it afterwards. own is
// nil, or the Buf whose message pkt is: of that, the octets behind the header must not change any more, and may be
// referenced until later; its owner releases it as always.
type Output interface {
	Send(bearer int, dst wire.MediaAddr, pkt []byte, own *Buf)
}

// Datagram is one outgoing datagram of a [Batch]; its octets are Batch.Parts(i).
type Datagram struct {
	Bearer   int
	Dst      wire.MediaAddr
	off, end int  // in the arena: all of it, or its beginning
	rest     *Buf // has the other octets, from the same place in its message on; nil: there are none
}

// Len is the datagram's length in octets.
func (d *Datagram) Len() int {
	if d.rest != nil {
		return len(d.rest.Msg)
	}
	return d.end - d.off
}

// Batch collects outgoing datagrams in the order of sending: short ones one behind the other in an arena, of long ones
// only the header, which may change before they are sent. The zero value is ready; Reset keeps the memory.
type Batch struct {
	Datagrams []Datagram
	arena     []byte
	joined    []byte // of Bytes
	size      int
}

// refSize is from which length on octets are referenced rather than copied.
const refSize = 4096

// Send appends a copy of pkt.
func (b *Batch) Send(bearer int, dst wire.MediaAddr, pkt []byte) { b.SendFrom(bearer, dst, pkt, nil) }

// SendFrom appends pkt as Send of [Output] may: if it is long and has an owner it is referenced until Reset.
func (b *Batch) SendFrom(bearer int, dst wire.MediaAddr, pkt []byte, own *Buf) {
	off := len(b.arena)
	b.size += len(pkt)
	if own == nil || len(pkt) < refSize {
		own = nil
		b.arena = append(b.arena, pkt...)
	} else {
		own.refs++
		b.arena = append(b.arena, pkt[:own.Msg.Hdrsz()]...)
	}
	b.Datagrams = append(b.Datagrams, Datagram{bearer, dst, off, len(b.arena), own})
}

// Parts is the content of datagram i, valid until Reset; rest may be empty.
func (b *Batch) Parts(i int) (head, rest []byte) {
	d := &b.Datagrams[i]
	head = b.arena[d.off:d.end:d.end]
	if d.rest != nil {
		rest = d.rest.Msg[len(head):]
	}
	return head, rest
}

// Bytes is the content of datagram i in one piece, valid until Reset.
func (b *Batch) Bytes(i int) []byte {
	head, rest := b.Parts(i)
	if len(rest) == 0 {
		return head
	}
	off := len(b.joined)
	b.joined = append(append(b.joined, head...), rest...)
	return b.joined[off:]
}

// Span is the content of datagrams i to j-1 if that is one piece of memory; ok is false if not.
func (b *Batch) Span(i, j int) (span []byte, ok bool) {
	for _, d := range b.Datagrams[i:j] {
		if d.rest != nil {
			return nil, false
		}
	}
	return b.arena[b.Datagrams[i].off:b.Datagrams[j-1].end], true
}

// Len is the number of datagrams, Size that of their octets.
func (b *Batch) Len() int  { return len(b.Datagrams) }
func (b *Batch) Size() int { return b.size }

// Reset empties the batch and keeps its memory. The Bufs that were referenced can be used again: nobody may use them, or
// release them, at the same time.
func (b *Batch) Reset() {
	for i := range b.Datagrams {
		if own := b.Datagrams[i].rest; own != nil {
			own.unref()
			b.Datagrams[i].rest = nil
		}
	}
	b.Datagrams, b.arena, b.joined, b.size = b.Datagrams[:0], b.arena[:0], b.joined[:0], 0
}
