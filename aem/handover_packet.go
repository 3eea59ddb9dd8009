package aem

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"midplane/internal/aem/loop"
)

// TakenPackets is a packet socket that the program before this one had, with what it had not handled and not sent.
type TakenPackets struct {
	Conn net.PacketConn

	received, unsent []loop.Datagram
}

// packetHandover is a socket of Packets on its way. It is the loop's own, but for what the lock of the socket guards.
type packetHandover struct {
	src  *Packets
	p    *packetLink
	done chan struct{} // the following will not change

	err      error
	file     *os.File
	received []loop.Datagram
	unsent   []loop.Datagram

	recalled []recalled // guarded by the socket's q, like the next
	waits    bool       // for handlers, and nothing else
}

// recalled is a datagram that waited in the queue of a class.
type recalled struct {
	serial uint64
	Packet
}

func (s *Packets) giveUp(ctx context.Context) (passing, error) {
	s.mu.Lock()
	p := s.link
	if p == nil || p.passing || p.stopped {
		s.mu.Unlock()
		return nil, ErrStopped
	}
	h := &packetHandover{src: s, p: p, done: make(chan struct{})}
	p.passing = true
	s.mu.Unlock()
	l := p.link.l
	if !l.post(func() { p.hold(h) }) {
		return h, ErrLoopClosed
	}
	if err := settled(ctx, l, h.done); err != nil {
		return h, err
	}
	return h, h.err
}

// hold begins: nothing more is handed to handlers, and what waits is taken back.
func (p *packetLink) hold(h *packetHandover) {
	p.holding = true
	p.q.Lock()
	p.over = h
	p.q.Unlock()
	p.sink.ev.recall()
	p.q.Lock()
	h.waits = true
	quiet := p.open == 0
	p.q.Unlock()
	if quiet {
		h.depart()
	}
}

// depart takes the socket out of the loop. No handler runs.
func (h *packetHandover) depart() {
	p := h.p
	p.flush() // what handlers wanted comes before
	p.mu.Lock()
	p.detach, p.away, p.lent = h.left, true, true
	p.mu.Unlock()
	if err := p.link.l.back.Detach(p.h); err != nil {
		// It has ended, which its event is told.
		p.mu.Lock()
		p.detach, p.away, p.lent = nil, false, false
		p.mu.Unlock()
		h.err = err
		close(h.done)
	}
}

// left is told that the socket is out of the loop, or that it has ended.
func (h *packetHandover) left(e *loop.Event) {
	p := h.p
	p.mu.Lock()
	p.detach = nil
	p.mu.Unlock()
	defer close(h.done)
	if e.Op != loop.OpDetached {
		h.err = errors.Join(net.ErrClosed, e.Err)
		return
	}
	h.file, h.unsent = e.File, e.Grams
	for _, pkt := range h.waiting() {
		h.received = append(h.received, loop.Datagram{Data: bytes.Clone(pkt.Data), Addr: loop.Addr{AddrPort: pkt.From, Path: pkt.Path}})
		p.link.l.back.Release(pkt.buf)
	}
}

// waiting is what came in and was not handled, in order, once.
func (h *packetHandover) waiting() (all []Packet) {
	p := h.p
	p.q.Lock()
	slices.SortFunc(h.recalled, func(a, b recalled) int { return cmp.Compare(a.serial, b.serial) })
	for _, r := range h.recalled {
		all = append(all, r.Packet)
	}
	h.recalled = nil
	p.q.Unlock()
	all = append(all, p.parked...)
	p.parked = nil
	return all
}

func (h *packetHandover) send(record func(*handoverRecord, *os.File) error) error {
	return record(&handoverRecord{Kind: "packets", Name: h.src.String(), Received: appendGrams(nil, h.received), Unsent: appendGrams(nil, h.unsent)}, h.file)
}

func (h *packetHandover) gone() {
	h.file.Close()
	h.p.mu.Lock()
	h.p.lent = false
	h.p.mu.Unlock()
	_ = h.p.sink.ev.Stop()
}

func (h *packetHandover) keep() error {
	if err := h.p.link.l.hand(h.file, h.goOn); err != nil {
		return fmt.Errorf("aem: %v could not go on: %w", h.src, err)
	}
	return nil
}

// goOn takes the socket back, on the loop.
func (h *packetHandover) goOn() (err error) {
	s, p := h.src, h.p
	p.q.Lock()
	p.over = nil
	p.q.Unlock()
	if h.file != nil {
		if err = p.back(h); err != nil {
			p.mu.Lock()
			p.lent = false
			p.mu.Unlock()
			p.sink.Fail(err)
		}
	}
	p.passAgain(h.received)
	for _, pkt := range h.waiting() { // the socket did not leave the loop
		p.pass(pkt)
	}
	p.holding = false
	s.mu.Lock()
	p.passing = false
	if p.stopped { // meanwhile
		p.unlink()
		_ = p.ask(wantAbort)
	}
	s.mu.Unlock()
	if p.link.l.back.Resume(p.h) == nil {
		p.flush()
	}
	return err
}

// back puts a socket that was detached into the loop again.
func (p *packetLink) back(h *packetHandover) error {
	c, err := net.FilePacketConn(h.file)
	h.file.Close()
	if err != nil {
		return err
	}
	handle, err := p.link.l.back.Packet(c, &p.link)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.ended, p.away, p.lent, p.full, p.receiving = false, false, false, false, true
	p.takeGrams(h.unsent)
	p.mu.Unlock()
	p.adopt(handle)
	return nil
}

// passAgain hands datagrams to the handler that came in before the socket was handed over.
func (p *packetLink) passAgain(all []loop.Datagram) {
	for _, d := range all {
		p.pass(Packet{Data: d.Data, From: d.Addr.AddrPort, Path: d.Addr.Path, socket: p})
	}
}

// takeGrams queues datagrams that were queued before. mu is locked.
func (c *link) takeGrams(all []loop.Datagram) {
	for _, d := range all {
		c.grams = append(c.grams, gram{&outBuf{bytes.Clone(d.Data)}, d.Addr})
	}
}

// Datagrams in a record are one after the other: the length of the address and port, these, the length of the path, the
// path, the length of the data, the data.
func appendGrams(b []byte, all []loop.Datagram) []byte {
	for _, d := range all {
		addr, _ := d.Addr.AddrPort.MarshalBinary()
		b = append(b, byte(len(addr)))
		b = append(b, addr...)
		b = binary.AppendUvarint(b, uint64(len(d.Addr.Path)))
		b = append(b, d.Addr.Path...)
		b = binary.AppendUvarint(b, uint64(len(d.Data)))
		b = append(b, d.Data...)
	}
	return b
}

// maxGrams bounds the datagrams of a record: what of an event may be pending, and what comes while it is handed over.
const maxGrams = maxQueue + 1<<16

var errGrams = errors.New("malformed datagrams")

func parseGrams(b []byte) (all []loop.Datagram, err error) {
	next := func(most int) (field []byte) {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(min(most, len(b)-k)) {
			err = errGrams
			return nil
		}
		field, b = b[k:k+int(n):k+int(n)], b[k+int(n):]
		return field
	}
	for len(b) > 0 {
		var d loop.Datagram
		if e := d.Addr.AddrPort.UnmarshalBinary(next(1 << 7)); e != nil && err == nil {
			err = errGrams
		}
		d.Addr.Path = string(next(1 << 8))
		d.Data = next(256 << 10) // what is queued for a socket
		if len(all) == maxGrams {
			err = errGrams
		}
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}
