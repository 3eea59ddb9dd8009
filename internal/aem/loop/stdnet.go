package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"midplane/internal/mono"
)

// stdLoop is the back end over package net: a goroutine an endpoint that accepts or reads, one more while it has
// something to send, and a queue of what they tell. Each reading goroutine has a buffer of its own, so the pool is not
// bounded by Config.Buffers but by the endpoints; Held is, as everywhere.
type stdLoop struct {
	cfg    Config
	mu     sync.Mutex
	ends   table[stdEnd]
	queue  fifo[Event]
	kick   chan struct{} // capacity 1: something is queued, or Wake
	bufs   []stdBuf
	free   []Buf
	queued int // octets in all send queues
	dry    []Handle
	stats  Stats
	poller poller
	wg     sync.WaitGroup
	done   bool
	timer  *time.Timer
}

type stdBuf struct {
	mem   []byte
	owner Handle
}

// stdEnd is an endpoint. What is below the first line is guarded by the loop's mu.
type stdEnd struct {
	l      *stdLoop
	h      Handle
	kind   stdKind
	accept net.Listener
	conn   net.Conn
	packet net.PacketConn

	tag      any
	changed  *sync.Cond // of what the reading goroutine waits for
	resumed  bool
	eof      bool
	held     int
	accepted int // that no event has told yet
	out      []byte
	grams    []Datagram // the first may be on its way
	writing  bool
	wantRoom bool
	shut     bool
	closing  bool
	detach   bool
	gone     bool // no more events but the last
	err      error
	running  int // goroutines
}

type stdKind uint8

const (
	stdListener stdKind = iota + 1
	stdStream
	stdPacket
	stdPoll
)

func newStd(cfg Config) *stdLoop {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &stdLoop{cfg: cfg, kick: make(chan struct{}, 1), timer: t}
}

func (l *stdLoop) Name() string { return "stdnet" }

func (l *stdLoop) add(e *stdEnd, c io.Closer) (Handle, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addLocked(e, c, false)
}

func (l *stdLoop) addLocked(e *stdEnd, c io.Closer, over bool) (Handle, error) {
	var err error
	switch {
	case l.done:
		err = ErrClosed
	case l.ends.n >= l.cfg.MaxEndpoints && !over:
		err = ErrFull
	}
	if err != nil {
		if c != nil {
			c.Close()
		}
		return 0, err
	}
	e.l, e.changed = l, sync.NewCond(&l.mu)
	e.h = l.ends.add(e)
	run := map[stdKind]func(*stdEnd){stdListener: l.accept, stdStream: l.read, stdPacket: l.read}[e.kind]
	if run != nil {
		e.running++
		l.wg.Go(func() { run(e) })
	}
	return e.h, nil
}

func (l *stdLoop) Listener(n net.Listener, tag any) (Handle, error) {
	if u, ok := n.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l.add(&stdEnd{kind: stdListener, accept: n, tag: tag, resumed: true}, n)
}

func (l *stdLoop) Conn(c net.Conn, tag any) (Handle, error) {
	return l.add(&stdEnd{kind: stdStream, conn: c, tag: tag}, c)
}

func (l *stdLoop) Packet(c net.PacketConn, tag any) (Handle, error) {
	return l.add(&stdEnd{kind: stdPacket, packet: c, tag: tag}, c)
}

func (l *stdLoop) find(h Handle, kinds ...stdKind) (*stdEnd, error) {
	e := l.ends.get(h)
	if e == nil || e.gone || e.closing || e.detach {
		return nil, ErrClosed
	}
	if len(kinds) > 0 && !slices.Contains(kinds, e.kind) {
		return nil, ErrKind
	}
	return e, nil
}

func (l *stdLoop) SetTag(h Handle, tag any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.ends.get(h)
	if e == nil {
		return ErrClosed
	}
	e.tag = tag
	return nil
}

func (l *stdLoop) Addrs(h Handle) (local, remote net.Addr, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.ends.get(h)
	if e == nil || e.gone {
		return nil, nil, ErrClosed
	}
	switch e.kind {
	case stdListener:
		return e.accept.Addr(), nil, nil
	case stdStream:
		return e.conn.LocalAddr(), e.conn.RemoteAddr(), nil
	case stdPacket:
		if c, ok := e.packet.(net.Conn); ok {
			remote = c.RemoteAddr()
		}
		return e.packet.LocalAddr(), remote, nil
	}
	return nil, nil, ErrKind
}

func (l *stdLoop) Peer(h Handle) Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.ends.get(h); e != nil && e.kind == stdStream && !e.gone {
		return stdAddr(e.conn.RemoteAddr())
	}
	return Addr{}
}

// tell queues an event. mu is locked.
func (l *stdLoop) tell(e *stdEnd, ev Event) {
	ev.H, ev.Tag = e.h, e.tag
	l.queue.push(ev)
	l.Wake()
}

func (l *stdLoop) Wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Heard may take the call of an event with it: Wait looks for those first.
func (l *stdLoop) Heard() {
	select {
	case <-l.kick:
	default:
	}
}

func (l *stdLoop) Resume(h Handle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(h, stdListener, stdStream, stdPacket)
	if err != nil {
		return err
	}
	if !e.resumed {
		e.resumed = true
		e.deadline(time.Time{})
		e.changed.Broadcast()
	}
	return nil
}

func (l *stdLoop) Pause(h Handle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(h, stdListener, stdStream, stdPacket)
	if err == nil {
		e.resumed = false
		e.interrupt()
	}
	return err
}

// past is a deadline that ends what waits.
var past = time.Unix(1, 0)

func (e *stdEnd) deadline(t time.Time) {
	switch e.kind {
	case stdListener:
		if d, ok := e.accept.(interface{ SetDeadline(time.Time) error }); ok {
			_ = d.SetDeadline(t)
		}
	case stdStream:
		_ = e.conn.SetReadDeadline(t)
	case stdPacket:
		_ = e.packet.SetReadDeadline(t)
	}
}

func (e *stdEnd) interrupt() { e.deadline(past) }

// ready waits until e shall accept or read; false says that it never will again. mu is locked.
func (e *stdEnd) ready() bool {
	for {
		switch {
		case e.gone || e.closing || e.detach || e.eof:
			return false
		case e.kind == stdListener && e.resumed && e.accepted < 128 && e.l.ends.n < e.l.cfg.MaxEndpoints:
			return true
		case e.kind != stdListener && e.resumed && e.held < e.l.cfg.Held:
			return true
		}
		if e.kind == stdListener && e.resumed && e.l.ends.n >= e.l.cfg.MaxEndpoints {
			e.pause(ErrFull)
			continue
		}
		e.changed.Wait()
	}
}

// pause waits before the next accept. mu is locked.
func (e *stdEnd) pause(err error) {
	e.l.stats.AcceptPauses++
	e.l.tell(e, Event{Op: OpPaused, Err: err})
	// The wait ends early when e is closed: its end broadcasts.
	over := false
	t := time.AfterFunc(e.l.cfg.AcceptRetry, func() {
		e.l.mu.Lock()
		over = true
		e.l.mu.Unlock()
		e.changed.Broadcast()
	})
	for !over && !e.gone && !e.closing && !e.detach {
		e.changed.Wait()
	}
	t.Stop()
}

func (l *stdLoop) accept(e *stdEnd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer e.leave()
	for e.ready() {
		l.mu.Unlock()
		c, err := e.accept.Accept()
		l.mu.Lock()
		switch {
		case err == nil && (e.gone || e.closing):
			c.Close()
		case err == nil:
			n := &stdEnd{kind: stdStream, conn: c}
			if h, err := l.addLocked(n, c, true); err == nil {
				e.accepted++
				l.tell(e, Event{Op: OpAccept, Conn: h})
			}
		case e.gone || e.closing || e.detach || errors.Is(err, os.ErrDeadlineExceeded):
		case lacks(err):
			e.pause(err)
		default:
			l.end(e, err)
		}
	}
}

// lacks says whether an error of accept is a lack that passes: descriptors or memory.
func lacks(err error) bool {
	for _, n := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS} {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}

func (l *stdLoop) take(h Handle) (Buf, []byte) {
	if k := len(l.free); k > 0 {
		b := l.free[k-1]
		l.free = l.free[:k-1]
		l.bufs[b-1].owner = h
		return b, l.bufs[b-1].mem
	}
	mem := make([]byte, l.cfg.BufferSize)
	l.bufs = append(l.bufs, stdBuf{mem, h})
	return Buf(len(l.bufs)), mem
}

func (l *stdLoop) giveBack(b Buf) {
	l.bufs[b-1].owner = 0
	l.free = append(l.free, b)
}

func (l *stdLoop) Release(b Buf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b == 0 || int(b) > len(l.bufs) || l.bufs[b-1].owner == 0 {
		return
	}
	h := l.bufs[b-1].owner
	l.giveBack(b)
	l.stats.Held--
	if e := l.ends.get(h); e != nil {
		e.held--
		e.changed.Broadcast()
	}
}

func (l *stdLoop) read(e *stdEnd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer e.leave()
	for e.ready() {
		buf, mem := l.take(e.h)
		l.mu.Unlock()
		var n int
		var err error
		var from net.Addr
		if e.kind == stdStream {
			n, err = e.conn.Read(mem)
		} else {
			n, from, err = e.packet.ReadFrom(mem)
		}
		l.mu.Lock()
		if e.gone || e.closing || err != nil && n == 0 {
			l.giveBack(buf)
		}
		if e.gone || e.closing {
			return
		}
		if n > 0 || err == nil {
			e.held++
			l.stats.Held++
			l.stats.Received += uint64(n)
			if e.held >= l.cfg.Held {
				l.stats.Starved++
			}
			l.tell(e, Event{Op: OpRecv, Buf: buf, Data: mem[:n:n], From: stdAddr(from)})
		}
		switch {
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, io.EOF) && e.kind == stdStream:
			e.eof = true
			l.tell(e, Event{Op: OpEOF})
		case e.detach:
		case e.kind == stdPacket && !errors.Is(err, net.ErrClosed):
			l.stats.SendErrors++
		default:
			l.end(e, err)
		}
	}
}

func stdAddr(a net.Addr) Addr {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		p = a.AddrPort()
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UnixAddr:
		if a != nil {
			return Addr{Path: a.Name}
		}
	}
	return Addr{AddrPort: netip.AddrPortFrom(p.Addr().Unmap(), p.Port())}
}

func (l *stdLoop) Send(h Handle, p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(h, stdStream)
	if err != nil {
		return 0, err
	}
	if e.shut {
		return 0, syscall.EPIPE
	}
	n := min(len(p), max(0, l.cfg.SendQueue-len(e.out)), max(0, l.cfg.SendMemory-l.queued))
	e.out = append(e.out, p[:n]...)
	l.queued += n
	if n < len(p) {
		e.wantRoom = true
		if len(e.out) < l.cfg.SendQueue {
			l.dry = append(l.dry, h)
		}
	}
	e.write()
	return n, nil
}

func (l *stdLoop) SendTo(h Handle, p []byte, to Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(h, stdPacket)
	if err != nil {
		return err
	}
	if len(p) > 65535 {
		return fmt.Errorf("loop: datagram of %d octets, want at most 65535", len(p))
	}
	if n := len(p) + 64; e.queuedGrams()+n > l.cfg.SendQueue || l.queued+n > l.cfg.SendMemory {
		e.wantRoom = true
		return ErrBusy
	}
	e.grams = append(e.grams, Datagram{slices.Clone(p), to})
	l.queued += len(p) + 64
	e.write()
	return nil
}

func (e *stdEnd) queuedGrams() (n int) {
	for _, g := range e.grams {
		n += len(g.Data) + 64
	}
	return n
}

// write starts the goroutine that sends, if there is something for it to do. mu is locked.
func (e *stdEnd) write() {
	if e.writing || e.gone || e.detach {
		return
	}
	e.writing = true
	e.running++
	e.l.wg.Go(e.send)
}

func (e *stdEnd) send() {
	l := e.l
	l.mu.Lock()
	defer l.mu.Unlock()
	defer e.leave()
	defer func() { e.writing = false }()
	for !e.gone && !e.detach {
		if len(e.grams) > 0 {
			e.sendGram()
			continue
		}
		if len(e.out) == 0 {
			if e.shut {
				if c, ok := e.conn.(interface{ CloseWrite() error }); ok {
					_ = c.CloseWrite()
				}
			}
			if e.closing {
				l.end(e, nil)
			}
			return
		}
		p := e.out
		p = p[:min(len(p), 64<<10)]
		l.mu.Unlock()
		n, err := e.conn.Write(p)
		l.mu.Lock()
		// What Send appended meanwhile is behind p, in the same memory or a copy of it.
		e.out = e.out[n:]
		l.freed(e, n)
		l.stats.Sent += uint64(n)
		if len(e.out) == 0 {
			e.out = nil
		}
		if err != nil {
			if !e.detach {
				l.end(e, err)
			}
			return
		}
	}
}

func (e *stdEnd) sendGram() {
	l, g := e.l, e.grams[0]
	l.mu.Unlock()
	err := sendGram(e.packet, g)
	l.mu.Lock()
	switch {
	case e.detach && errors.Is(err, os.ErrDeadlineExceeded):
		return // Detach interrupted it: it goes with the socket
	case err != nil:
		l.stats.SendErrors++
	default:
		l.stats.Sent += uint64(len(g.Data))
	}
	if e.grams = e.grams[1:]; len(e.grams) == 0 {
		e.grams = nil
	}
	l.freed(e, len(g.Data)+64)
}

func sendGram(c net.PacketConn, g Datagram) (err error) {
	switch {
	case g.Addr == (Addr{}):
		w, ok := c.(io.Writer)
		if !ok {
			return ErrKind
		}
		_, err = w.Write(g.Data)
	case g.Addr.Path != "":
		_, err = c.WriteTo(g.Data, &net.UnixAddr{Name: g.Addr.Path, Net: "unixgram"})
	default:
		_, err = c.WriteTo(g.Data, net.UDPAddrFromAddrPort(g.Addr.AddrPort))
	}
	return err
}

// freed gives n octets of send queues back, and tells who waited for them.
func (l *stdLoop) freed(e *stdEnd, n int) {
	l.queued -= n
	l.room(e)
	for _, h := range l.dry {
		if d := l.ends.get(h); d != nil {
			l.room(d)
		}
	}
	l.dry = l.dry[:0]
}

func (l *stdLoop) room(e *stdEnd) {
	if e.wantRoom && len(e.out)+e.queuedGrams() <= l.cfg.SendQueue/2 && !e.gone && !e.closing && !e.detach && !e.shut {
		e.wantRoom = false
		l.tell(e, Event{Op: OpWritable})
	}
}

func (l *stdLoop) Shutdown(h Handle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(h, stdStream)
	if err != nil {
		return err
	}
	e.shut = true
	e.write()
	return nil
}

func (l *stdLoop) Close(h Handle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(h)
	if err != nil {
		return err
	}
	e.closing = true
	e.interrupt()
	e.changed.Broadcast()
	if e.kind == stdStream && len(e.out) > 0 {
		_ = e.conn.SetWriteDeadline(time.Now().Add(l.cfg.Linger))
		e.write()
		return nil
	}
	l.end(e, nil)
	return nil
}

func (l *stdLoop) Abort(h Handle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.ends.get(h)
	if e == nil || e.gone || e.detach {
		return ErrClosed
	}
	if c, ok := e.conn.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0)
	}
	l.end(e, nil)
	return nil
}

func (l *stdLoop) Detach(h Handle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(h, stdListener, stdStream, stdPacket)
	if err != nil {
		return err
	}
	if _, ok := e.closer().(interface{ File() (*os.File, error) }); !ok {
		return fmt.Errorf("loop: %T gives no descriptor away: %w", e.closer(), ErrKind)
	}
	e.detach = true
	e.interrupt()
	switch e.kind {
	case stdStream:
		_ = e.conn.SetWriteDeadline(past)
	case stdPacket:
		_ = e.packet.SetWriteDeadline(past)
	}
	e.changed.Broadcast()
	e.finish()
	return nil
}

func (e *stdEnd) closer() io.Closer {
	switch e.kind {
	case stdListener:
		return e.accept
	case stdStream:
		return e.conn
	case stdPacket:
		return e.packet
	}
	return nil
}

// end closes e; err is why, if it did not want to. mu is locked.
func (l *stdLoop) end(e *stdEnd, err error) {
	if e.gone {
		return
	}
	e.gone, e.err = true, err
	if err != nil {
		l.stats.Resets++
	}
	if c := e.closer(); c != nil {
		c.Close()
	} else {
		l.poller.remove(e)
	}
	e.changed.Broadcast()
	e.finish()
}

// leave ends a goroutine of e. mu is locked.
func (e *stdEnd) leave() {
	e.running--
	e.finish()
}

// finish tells the end of e when no goroutine can tell more of it.
func (e *stdEnd) finish() {
	l := e.l
	if e.running > 0 || !e.gone && !e.detach || l.ends.get(e.h) != e {
		return
	}
	l.queued -= len(e.out) + e.queuedGrams()
	ev := Event{Op: OpClosed, Err: e.err}
	if !e.gone {
		ev = Event{Op: OpDetached, Data: e.out, Grams: e.grams}
		var err error
		if ev.File, err = e.closer().(interface{ File() (*os.File, error) }).File(); err != nil {
			ev = Event{Op: OpClosed, Err: err}
		}
		e.closer().Close()
	}
	e.gone, e.out, e.grams = true, nil, nil
	l.tell(e, ev)
	l.ends.drop(e.h)
}

func (l *stdLoop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.stats
	st.Endpoints, st.Queued = l.ends.n, l.queued
	return st
}

func (l *stdLoop) Wait(events []Event, deadline mono.Time) (int, error) {
	n, err := l.drain(events)
	if n > 0 || err != nil {
		return n, err
	}
	var over <-chan time.Time
	if deadline != mono.Never {
		l.timer.Reset(deadline.Until(mono.Now()))
		over = l.timer.C
	}
	select {
	case <-l.kick:
	case <-over:
	}
	l.timer.Stop()
	return l.drain(events)
}

func (l *stdLoop) drain(events []Event) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return 0, ErrClosed
	}
	l.stats.Waits++
	for n < len(events) {
		e, ok := l.queue.pop()
		if !ok {
			break
		}
		if e.Op == OpAccept {
			if a := l.ends.get(e.H); a != nil {
				a.accepted--
				a.changed.Broadcast()
			}
		}
		events[n] = e
		n++
	}
	return n, nil
}

func (l *stdLoop) Stop() error {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return nil
	}
	l.done = true
	l.ends.each(func(e *stdEnd) { l.end(e, nil) })
	for {
		e, ok := l.queue.pop()
		if !ok {
			break
		}
		if e.File != nil {
			e.File.Close()
		}
	}
	l.mu.Unlock()
	l.poller.stop()
	l.wg.Wait()
	l.Wake()
	return nil
}
