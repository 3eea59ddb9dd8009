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
}

// ErrPacketQueue is the error of sending datagrams faster than the network takes them.
var ErrPacketQueue = fmt.Errorf("aem: the send queue of the socket is full")

// Start binds the socket.
func (s *Packets) Start(to *Sink[Packet]) error {
	c, err := net.ListenPacket(s.Network, s.Address)
	if err != nil {
		return err
	}
	l := to.Loop()
	p := &packetLink{sink: to}
	if u, ok := c.LocalAddr().(*net.UnixAddr); ok {
		p.path = u.Name
	}
	p.link.l, p.link.owner, p.sendq, p.receive, p.receiving = l, p, 256<<10, true, true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.addr = p, c.LocalAddr()
	if !l.post(func() { p.open(c) }) {
		c.Close()
		return ErrLoopClosed
	}
	return nil
}

func (p *packetLink) open(c net.PacketConn) {
	l := p.link.l
	h, err := l.back.Packet(c, &p.link)
	if err != nil {
		p.sink.Fail(err)
		return
	}
	p.adopt(h)
	_ = l.back.Resume(h)
	p.flush() // what was wanted before there was a handle
}

// Stop closes the socket.
func (s *Packets) Stop() {
	s.mu.Lock()
	p := s.link
	s.mu.Unlock()
	if p.path != "" {
		_ = os.Remove(p.path)
	}
	// Behind open: before it there is no handle.
	p.link.l.post(func() {
		_ = p.ask(wantAbort)
	})
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
	// A datagram that is not handled is one that the network lost. The fate releases the buffer, so it needs the buffer's
	// number: one closure a datagram, unless the class is inline and the fate is known on return.
	if p.sink.ev.Class().cfg.Inline {
		_ = p.sink.emit(pkt, nil, true)
		p.link.l.back.Release(b)
		return
	}
	if err := p.sink.emit(pkt, func(Fate) { p.release(b) }, true); err != nil {
		p.link.l.back.Release(b)
	}
}

func (p *packetLink) peerEnded() {}
func (p *packetLink) writable()  {}

func (p *packetLink) closed(err error) {
	if err != nil {
		p.sink.Fail(err)
	}
}
