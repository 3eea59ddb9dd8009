package bearer

import (
	"sync"
	"time"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Bounds of a [Hub].
const (
	DefaultMemQueue = 4096 // datagrams waiting at a port
	DefaultMemMTU   = 14000
	maxMemMTU       = 65507
	maxDelayed      = 1 << 16 // datagrams under way with a delay, all ports together
	keepArena       = 1 << 20 // octets of memory that an idle port keeps
)

// Fate is what a [Hub]'s filter decides about one datagram and one receiver.
type Fate struct {
	Drop      bool
	Delay     time.Duration // later datagrams without a delay overtake it
	Duplicate bool
}

// Hub is a network in memory: what one port sends, the others receive. It
// works without privileges, on every system and in a testing/synctest bubble
// (where it must be made inside the bubble). The zero value is ready; its
// fields are set before the first port is opened. Safe for concurrent use.
type Hub struct {
	// MTU of the ports, 0 means DefaultMemMTU; at most 65507.
	MTU int

	// Queue is how many datagrams wait at a port before more are dropped
	// and counted as RxOverflow, 0 means DefaultMemQueue.
	Queue int

	// Filter, when not nil, decides about each datagram and receiver. It is
	// called with the hub locked: it must not call the hub or its ports,
	// nor keep or change pkt.
	Filter func(from, to wire.MediaAddr, pkt []byte) Fate

	// NoBroadcast makes the ports report that broadcasting costs one
	// transmission a receiver, as UDP with a list of peers does.
	NoBroadcast bool

	mu      sync.Mutex
	ports   map[wire.MediaAddr]*Mem // open ports
	order   []*Mem                  // the same, in order of opening
	last    uint64                  // number of the last port opened
	delayed int
}

// Mem is a port of a [Hub].
type Mem struct {
	hub     *Hub
	name    string
	addr    wire.MediaAddr
	mtu     int
	limit   int
	stats   counters
	events  chan Event
	readers []Reader

	mu     sync.Mutex // taken with hub.mu held, never the other way round
	cond   *sync.Cond
	in     memQueue // filled by senders
	closed bool

	out  memQueue // being read; owned by the reader
	next int      // first of out not yet returned
}

// memQueue is a list of datagrams in one arena.
type memQueue struct {
	pkts  []memPacket
	arena []byte
}

type memPacket struct {
	src       wire.MediaAddr
	broadcast bool
	off, end  int
}

// broadcastMAC is FF:FF:FF:FF:FF:FF.
var broadcastMAC = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Open adds a port. name is the bearer's full name. Its address is an Ethernet
// address, 02:00:00:00:00:01 for the first port and counting up.
func (h *Hub) Open(name string) *Mem {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	n := h.last
	p := &Mem{
		hub: h, name: name, mtu: h.MTU, limit: h.Queue,
		addr: wire.MediaAddr{
			Media: wire.MediaEth,
			MAC:   [6]byte{2, byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)},
		},
		events: make(chan Event, 16),
	}
	if p.mtu <= 0 {
		p.mtu = DefaultMemMTU
	}
	p.mtu = min(p.mtu, maxMemMTU)
	if p.limit <= 0 {
		p.limit = DefaultMemQueue
	}
	p.cond = sync.NewCond(&p.mu)
	p.readers = []Reader{p}
	if h.ports == nil {
		h.ports = make(map[wire.MediaAddr]*Mem)
	}
	h.ports[p.addr] = p
	h.order = append(h.order, p)
	return p
}

var (
	_ Bearer = (*Mem)(nil)
	_ Reader = (*Mem)(nil)
)

// Name implements Bearer.
func (p *Mem) Name() string { return p.name }

// Media implements Bearer.
func (p *Mem) Media() wire.MediaType { return wire.MediaEth }

// Addr implements Bearer.
func (p *Mem) Addr() wire.MediaAddr { return p.addr }

// BroadcastAddr implements Bearer.
func (p *Mem) BroadcastAddr() wire.MediaAddr {
	return wire.MediaAddr{Media: wire.MediaEth, Broadcast: true, MAC: broadcastMAC}
}

// BroadcastSupport implements Bearer.
func (p *Mem) BroadcastSupport() bool { return !p.hub.NoBroadcast }

// MTU implements Bearer.
func (p *Mem) MTU() int { return p.mtu }

// Readers implements Bearer.
func (p *Mem) Readers() []Reader { return p.readers }

// Events implements Bearer.
func (p *Mem) Events() <-chan Event { return p.events }

// Notify lets the port's user see ev as if the device below had changed. It
// reports false when the port is closed or the user is 16 events behind.
func (p *Mem) Notify(ev Event) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	select {
	case p.events <- ev:
		return true
	default:
		return false
	}
}

// Stats implements Bearer.
func (p *Mem) Stats() Stats { return p.stats.snapshot() }

// Close implements Bearer. Datagrams not yet read are lost.
func (p *Mem) Close() error {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.closed = true
	p.cond.Broadcast()
	close(p.events)
	delete(h.ports, p.addr)
	for i, q := range h.order {
		if q == p {
			h.order = append(h.order[:i], h.order[i+1:]...)
			break
		}
	}
	return nil
}

// WriteBatch implements Bearer. It never waits.
func (p *Mem) WriteBatch(b *buf.Batch, id int) error {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ports[p.addr] != p {
		return ErrClosed
	}
	p.stats.txCalls.Add(1)
	for i, d := range b.Datagrams {
		if id != All && d.Bearer != id {
			continue
		}
		pkt := b.Bytes(i)
		if len(pkt) > p.mtu || d.Dst.Media != wire.MediaEth {
			p.stats.txErrors.Add(1)
			continue
		}
		p.stats.txDatagrams.Add(1)
		p.stats.txBytes.Add(uint64(len(pkt)))
		if !d.Dst.Broadcast {
			if to := h.ports[d.Dst]; to != nil {
				h.send(p, to, pkt, false)
			}
			continue
		}
		for _, to := range h.order {
			if to != p {
				h.send(p, to, pkt, true)
			}
		}
	}
	return nil
}

// send takes pkt to one port through the filter. h.mu is held.
func (h *Hub) send(from, to *Mem, pkt []byte, broadcast bool) {
	var fate Fate
	if h.Filter != nil {
		fate = h.Filter(from.addr, to.addr, pkt)
	}
	if fate.Drop {
		return
	}
	copies := 1
	if fate.Duplicate {
		copies = 2
	}
	for range copies {
		if fate.Delay <= 0 {
			to.deliver(from.addr, pkt, broadcast)
			continue
		}
		if h.delayed >= maxDelayed {
			to.stats.rxOverflow.Add(1)
			continue
		}
		h.delayed++
		late := append([]byte(nil), pkt...)
		time.AfterFunc(fate.Delay, func() {
			h.mu.Lock()
			h.delayed--
			h.mu.Unlock()
			to.deliver(from.addr, late, broadcast)
		})
	}
}

// deliver queues a copy of pkt for the port's reader.
func (p *Mem) deliver(src wire.MediaAddr, pkt []byte, broadcast bool) {
	if len(pkt) == 0 {
		p.stats.rxEmpty.Add(1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	q := &p.in
	if len(q.pkts) >= p.limit {
		p.stats.rxOverflow.Add(1)
		return
	}
	off := len(q.arena)
	q.arena = append(q.arena, pkt...)
	q.pkts = append(q.pkts, memPacket{src, broadcast, off, len(q.arena)})
	if len(q.pkts) == 1 {
		p.cond.Signal()
	}
}

// ReadBatch implements Reader.
func (p *Mem) ReadBatch(pkts []Packet) (int, error) { return p.read(pkts, true) }

// TryReadBatch implements Reader.
func (p *Mem) TryReadBatch(pkts []Packet) (int, error) { return p.read(pkts, false) }

func (p *Mem) read(pkts []Packet, wait bool) (int, error) {
	if len(pkts) == 0 {
		return 0, nil
	}
	if p.next == len(p.out.pkts) {
		if ok, err := p.swap(wait); !ok {
			return 0, err
		}
	}
	n, size := 0, 0
	for n < len(pkts) && p.next < len(p.out.pkts) {
		m := &p.out.pkts[p.next]
		pkts[n] = Packet{Src: m.src, Broadcast: m.broadcast, Data: p.out.arena[m.off:m.end:m.end]}
		size += m.end - m.off
		p.next++
		n++
	}
	p.stats.rxDatagrams.Add(uint64(n))
	p.stats.rxBytes.Add(uint64(size))
	return n, nil
}

// swap exchanges the filled queue for the one that was read. ok is false when
// there is nothing to read.
func (p *Mem) swap(wait bool) (ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.in.pkts) == 0 && !p.closed && wait {
		p.cond.Wait()
	}
	if p.closed {
		return false, ErrClosed
	}
	if len(p.in.pkts) == 0 {
		return false, nil
	}
	if cap(p.out.arena) > keepArena && len(p.out.arena) < keepArena/2 {
		p.out.arena = nil // a burst is over
	}
	p.in, p.out = memQueue{p.out.pkts[:0], p.out.arena[:0]}, p.in
	p.next = 0
	p.stats.rxCalls.Add(1)
	return true, nil
}
