package aem

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"midplane/internal/aem/loop"
)

// Packet is a datagram that came in. Data is the handler's until it returns.
type Packet struct {
	Data []byte
	From netip.AddrPort // of UDP
	Path string         // of a Unix socket: the sender's path, "" if it has none

	socket *packetLink
	buf    loop.Buf
}

// Reply sends a datagram back. It does not wait; when the queue of the socket is full the error is ErrPacketQueue.
func (p *Packet) Reply(b []byte) error {
	return p.socket.sendTo(b, loop.Addr{AddrPort: p.From, Path: p.Path})
}

// Packets is a source: the datagrams that come to an address.
type Packets struct {
	// Network and Address are those of net.ListenPacket: udp, udp4, udp6, unixgram.
	Network, Address string
	// Taken, when not nil, is a socket that the program before this one had (Takeover), used in place of Network and
	// Address by the first Start. The source closes it.
	Taken *TakenPackets

	mu   sync.Mutex // guards the following
	link *packetLink
	addr net.Addr
}

// ListenPacket is the source of datagrams to an address.
func ListenPacket(network, address string) *Packets {
	return &Packets{Network: network, Address: address}
}

// String names the source.
func (s *Packets) String() string { return fmt.Sprintf("%s %s", s.Network, s.Address) }

// Addr is where the source listens, nil before Start.
func (s *Packets) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// packetLink is a socket while the source is started.
type packetLink struct {
	link
	sink *Sink[Packet]
	path string
	lent bool // out of the loop, and perhaps coming back; guarded by the link's mu

	passing, stopped bool // being handed over, or gone; guarded by the source's mu

	holding bool     // the loop's own, like the next: datagrams wait, because the socket is being handed over
	parked  []Packet // those

	q      sync.Mutex // guards the following
	free   *openPacket
	open   int    // datagrams whose fate is open
	serial uint64 // of the next
	over   *packetHandover
}

// openPacket is a datagram whose fate is open.
type openPacket struct {
	recalled
	told func(Fate) // o.fate, made once
	next *openPacket
}

// ErrPacketQueue is the error of sending datagrams faster than the network takes them, and of sending while a Handover is
// under way that may yet fail.
var ErrPacketQueue = fmt.Errorf("aem: the send queue of the socket is full")

// Start binds the socket.
func (s *Packets) Start(to *Sink[Packet]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.Taken
	if t == nil {
		c, err := net.ListenPacket(s.Network, s.Address)
		if err != nil {
			return err
		}
		t = &TakenPackets{Conn: c}
	}
	s.Taken = nil
	c, l := t.Conn, to.Loop()
	p := &packetLink{sink: to}
	if u, ok := c.LocalAddr().(*net.UnixAddr); ok {
		p.path = u.Name
	}
	p.link.l, p.link.owner, p.sendq, p.receive, p.receiving = l, p, 256<<10, true, true
	p.takeGrams(t.unsent)
	s.link, s.addr = p, c.LocalAddr()
	if !l.post(func() { p.begin(t) }) {
		c.Close()
		return ErrLoopClosed
	}
	return nil
}

// begin is on the loop.
func (p *packetLink) begin(t *TakenPackets) {
	l := p.link.l
	h, err := l.back.Packet(t.Conn, &p.link)
	if err != nil {
		p.sink.Fail(err)
		return
	}
	p.adopt(h)
	p.passAgain(t.received)
	_ = l.back.Resume(h)
	p.flush() // what was wanted before there was a handle
}

// Stop closes the socket.
func (s *Packets) Stop() {
	s.mu.Lock()
	p := s.link
	p.stopped = true
	if !p.passing { // else it may be another program's
		p.unlink()
	}
	s.mu.Unlock()
	// Behind begin: before it there is no handle.
	p.link.l.post(func() {
		_ = p.ask(wantAbort)
	})
}

func (p *packetLink) unlink() {
	if p.path != "" {
		_ = os.Remove(p.path)
	}
}

// Send sends a datagram to an address of UDP.
func (s *Packets) Send(b []byte, to netip.AddrPort) error {
	s.mu.Lock()
	p := s.link
	s.mu.Unlock()
	if p == nil {
		return ErrStopped
	}
	return p.sendTo(b, loop.Addr{AddrPort: to})
}

func (p *packetLink) sendTo(b []byte, to loop.Addr) error {
	if !to.IsValid() && to.Path == "" {
		return &net.AddrError{Err: "the datagram came from a socket without address"}
	}
	p.mu.Lock()
	if p.ended && p.lent {
		p.mu.Unlock()
		return ErrPacketQueue
	}
	if p.ended || p.aborting {
		p.mu.Unlock()
		return net.ErrClosed
	}
	if p.queued()+len(b)+64 > p.sendq {
		p.mu.Unlock()
		return ErrPacketQueue
	}
	o := outBufs.Get().(*outBuf)
	o.b = append(o.b, b...)
	p.grams = append(p.grams, gram{o, to})
	must := p.touch()
	p.mu.Unlock()
	p.tell(must)
	return nil
}

func (p *packetLink) received(data []byte, from loop.Addr, b loop.Buf) {
	pkt := Packet{Data: data, From: from.AddrPort, Path: from.Path, socket: p, buf: b}
	if p.holding {
		p.parked = append(p.parked, pkt)
		return
	}
	p.pass(pkt)
}

// pass hands a datagram to the handler. One that is not handled is one that the network lost.
func (p *packetLink) pass(pkt Packet) {
	if p.sink.ev.Class().cfg.Inline { // the fate is known on return
		_ = p.sink.emit(pkt, nil, true)
		p.link.l.back.Release(pkt.buf)
		return
	}
	p.q.Lock()
	o := p.free
	if o == nil {
		o = &openPacket{}
		o.told = o.fate
	} else {
		p.free = o.next
	}
	o.Packet, o.serial = pkt, p.serial
	p.serial++
	p.open++
	p.q.Unlock()
	if err := p.sink.emit(pkt, o.told, true); err != nil {
		o.fate(Rejected)
	}
}

// fate is told by whoever decided it. It gives the buffer back, unless the datagram goes to the next program.
func (o *openPacket) fate(f Fate) {
	p, b := o.socket, o.buf
	p.q.Lock()
	h := p.over
	if f == Canceled && h != nil {
		h.recalled = append(h.recalled, o.recalled)
		b = 0
	}
	o.Packet = Packet{}
	o.next, p.free = p.free, o
	p.open--
	quiet := h != nil && h.waits && p.open == 0
	p.q.Unlock()
	if b != 0 {
		p.release(b)
	}
	if quiet {
		p.link.l.post(h.depart)
	}
}

func (p *packetLink) peerEnded() {}
func (p *packetLink) writable()  {}

func (p *packetLink) closed(err error) {
	if err != nil {
		p.sink.Fail(err)
	}
}
