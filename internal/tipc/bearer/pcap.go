package bearer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Link types of the pcap format.
const (
	linkTypeEthernet = 1
	linkTypeRaw      = 101 // an IPv4 or IPv6 packet
)

// Capture writes datagrams in the pcap format with nanoseconds, as tshark and
// tcpdump read it. Ethernet frames are as they were but for padding; IP and
// UDP headers are made up (one packet a datagram, never fragments). A write
// error ends the capture and nothing else. Safe for concurrent use; several
// bearers of one medium can share a Capture.
type Capture struct {
	mu    sync.Mutex
	w     *bufio.Writer
	media wire.MediaType
	now   func() time.Time
	err   error
	id    uint16   // of IPv4 packets
	head  [96]byte // pcap record header, then link, IP and UDP headers
}

// NewCapture starts a capture of one medium and writes the file header.
func NewCapture(w io.Writer, media wire.MediaType) (*Capture, error) {
	link := uint32(linkTypeRaw)
	switch media {
	case wire.MediaUDP:
	case wire.MediaEth:
		link = linkTypeEthernet
	default:
		return nil, badConfig("cannot capture %v", media)
	}
	c := &Capture{w: bufio.NewWriterSize(w, 64<<10), media: media, now: time.Now}
	var h [24]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], 0xa1b23c4d) // nanoseconds
	le.PutUint16(h[4:], 2)          // version 2.4
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], 1<<18) // longest record
	le.PutUint32(h[20:], link)
	c.w.Write(h[:])
	if err := c.w.Flush(); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return c, nil
}

// Err returns the error that ended the capture, if any.
func (c *Capture) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// record writes one datagram. c.mu is held.
func (c *Capture) record(now time.Time, src, dst wire.MediaAddr, data []byte) {
	if c.err != nil {
		return
	}
	h := c.head[16:]
	n := 0
	if c.media == wire.MediaEth {
		n = ethHeader(h, src, dst)
	} else {
		c.id++
		n = udpHeader(h, src.IP, dst.IP, c.id, data)
	}
	if n == 0 {
		return // not of this medium
	}
	le := binary.LittleEndian
	size := uint32(n + len(data))
	le.PutUint32(c.head[0:], uint32(now.Unix()))
	le.PutUint32(c.head[4:], uint32(now.Nanosecond()))
	le.PutUint32(c.head[8:], size)
	le.PutUint32(c.head[12:], size)
	c.w.Write(c.head[:16+n])
	c.w.Write(data)
}

// flush ends a batch. c.mu is held.
func (c *Capture) flush() {
	if err := c.w.Flush(); err != nil && c.err == nil {
		c.err = fmt.Errorf("capture: %w", err)
	}
}

func ethHeader(h []byte, src, dst wire.MediaAddr) int {
	if src.Media != wire.MediaEth || dst.Media != wire.MediaEth {
		return 0
	}
	copy(h[0:], dst.MAC[:])
	copy(h[6:], src.MAC[:])
	binary.BigEndian.PutUint16(h[12:], EtherType)
	return 14
}

func udpHeader(h []byte, src, dst netip.AddrPort, id uint16, data []byte) int {
	be := binary.BigEndian
	ulen := 8 + len(data)
	if !src.IsValid() || !dst.IsValid() || src.Addr().Is4() != dst.Addr().Is4() || ulen > 65535 {
		return 0
	}
	n := 20
	if src.Addr().Is4() {
		if ulen > 65535-20 {
			return 0
		}
		clear(h[:20])
		h[0] = 4<<4 | 5
		be.PutUint16(h[2:], uint16(20+ulen))
		be.PutUint16(h[4:], id)
		h[8], h[9] = DefaultTTL, 17
		s, d := src.Addr().As4(), dst.Addr().As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		be.PutUint16(h[10:], ^fold(sum(0, h[:20])))
	} else {
		n = 40
		clear(h[:8])
		h[0] = 6 << 4
		be.PutUint16(h[4:], uint16(ulen))
		h[6], h[7] = 17, DefaultTTL
		s, d := src.Addr().As16(), dst.Addr().As16()
		copy(h[8:], s[:])
		copy(h[24:], d[:])
	}
	u := h[n : n+8]
	be.PutUint16(u[0:], src.Port())
	be.PutUint16(u[2:], dst.Port())
	be.PutUint16(u[4:], uint16(ulen))
	be.PutUint16(u[6:], 0) // IPv4: no checksum, as Linux sends TIPC
	if n == 40 {
		x := ^fold(sum(sum(sum(uint64(17+ulen), h[8:40]), u), data))
		if x == 0 {
			x = 0xffff
		}
		be.PutUint16(u[6:], x)
	}
	return n + 8
}

// sum adds b to the Internet checksum (RFC 1071); all but the last part have an
// even length.
func sum(s uint64, b []byte) uint64 {
	for len(b) >= 2 {
		s += uint64(b[0])<<8 | uint64(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// Traced is a bearer whose datagrams are captured.
type Traced struct {
	Bearer
	c       *Capture
	readers []Reader
}

// Trace returns b with everything that passes through it written to c. b is
// used through the result from then on. Outgoing datagrams are written before
// they are sent, also those that b then cannot send.
func Trace(b Bearer, c *Capture) *Traced {
	t := &Traced{Bearer: b, c: c}
	for _, r := range b.Readers() {
		t.readers = append(t.readers, &tracedReader{r, t})
	}
	return t
}

// Unwrap returns the traced bearer.
func (t *Traced) Unwrap() Bearer { return t.Bearer }

// Driver returns what b is below the wrappers around it.
func Driver(b Bearer) Bearer {
	for {
		w, ok := b.(interface{ Unwrap() Bearer })
		if !ok {
			return b
		}
		b = w.Unwrap()
	}
}

// Readers implements Bearer.
func (t *Traced) Readers() []Reader { return t.readers }

// WriteBatch implements Bearer.
func (t *Traced) WriteBatch(b *buf.Batch, id int) error {
	t.writeOut(b, id)
	return t.Bearer.WriteBatch(b, id)
}

func (t *Traced) writeOut(b *buf.Batch, id int) {
	own, all := t.Addr(), t.BroadcastAddr()
	now := t.c.now()
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	for i := range b.Datagrams {
		d := &b.Datagrams[i]
		if id != All && d.Bearer != id {
			continue
		}
		switch {
		case !d.Dst.Broadcast:
			t.c.record(now, own, d.Dst, b.Bytes(i))
		case t.Media() != wire.MediaUDP || all.IP.IsValid():
			t.c.record(now, own, all, b.Bytes(i))
		default:
			if u, ok := t.Bearer.(*UDP); ok {
				for _, peer := range *u.peers.Load() {
					t.c.record(now, own, wire.MediaAddr{Media: wire.MediaUDP, IP: peer}, b.Bytes(i))
				}
			}
		}
	}
	t.c.flush()
}

type tracedReader struct {
	r Reader
	t *Traced
}

// ReadBatch implements Reader.
func (r *tracedReader) ReadBatch(p []Packet) (int, error) {
	n, err := r.r.ReadBatch(p)
	r.writeIn(p[:n])
	return n, err
}

// TryReadBatch implements Reader.
func (r *tracedReader) TryReadBatch(p []Packet) (int, error) {
	n, err := r.r.TryReadBatch(p)
	r.writeIn(p[:n])
	return n, err
}

func (r *tracedReader) writeIn(p []Packet) {
	if len(p) == 0 {
		return
	}
	own, all := r.t.Addr(), r.t.BroadcastAddr()
	c := r.t.c
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range p {
		dst := own
		if p[i].Broadcast {
			dst = all
		}
		c.record(now, p[i].Src, dst, p[i].Data)
	}
	c.flush()
}
