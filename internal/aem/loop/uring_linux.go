package loop

import (
	"errors"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/aem/uring"
	"midplane/internal/mono"
)

// ringLoop is the back end over io_uring(7). One accept a listener and one receive an endpoint stand (multishot), the
// kernel picks receive buffers from a ring that it shares with the loop, and one send an endpoint is in flight. An
// endpoint that is closed keeps its place until the kernel has given all of its operations back.
type ringLoop struct {
	raw
	ring    *uring.Ring
	shared  *uring.Buffers
	added   bool // buffers that are not published yet
	msg     []byte
	backlog fifo[uring.CQE] // completions taken to make room
	dry     []Handle        // endpoints that found no buffer
	dirty   []Handle        // endpoints with something to send
	delayed fifo[Handle]    // endpoints whose send waits for others to end
	sends   int             // in flight
}

// What a completion is of: the top octet of its user data. The rest is the handle, its generation cut to 24 bits: a place
// is not used again while anything of it is in flight.
const (
	ofAccept = iota + 1
	ofRecv
	ofSend
	ofPoll
	ofRoom
	ofWake
	ofCancel

	handleBits = 56
	handleMask = 1<<handleBits - 1
)

func newUring(cfg Config) (*ringLoop, error) {
	u := &ringLoop{}
	ring, err := uring.Open(1024, uint32(max(4096, 2*cfg.Buffers)))
	if err != nil {
		return nil, err
	}
	u.ring = ring
	if u.shared, err = ring.ProvideBuffers(0, cfg.Buffers); err != nil {
		ring.Close()
		return nil, err
	}
	if err = u.init(cfg); err == nil {
		if u.msg, err = mapMemory(os.Getpagesize()); err != nil {
			u.free()
		}
	}
	if err != nil {
		ring.Close()
		u.shared.Close()
		return nil, err
	}
	// The header of receiving datagrams asks for the sender's address and nothing else.
	(*unix.Msghdr)(unsafe.Pointer(&u.msg[0])).Namelen = unix.SizeofSockaddrAny
	for i := range cfg.Buffers {
		u.shared.Add(uint16(i), u.bufs.at(uint16(i)))
	}
	u.shared.Publish()
	u.listenWake()
	return u, nil
}

func (u *ringLoop) Name() string { return "io_uring" }

// sqe is a free entry; the kernel takes what is filled if there is none.
func (u *ringLoop) sqe(op uint8, fd int, of int, h Handle) *uring.SQE {
	e := u.ring.Next()
	for e == nil {
		if errno := u.ring.Enter(uring.Poll, nil); errno != 0 {
			u.absorb()
		}
		e = u.ring.Next()
	}
	e.Opcode, e.FD, e.UserData = op, int32(fd), uint64(of)<<handleBits|uint64(h)&handleMask
	return e
}

// absorb takes completions so that the kernel can go on.
func (u *ringLoop) absorb() {
	for c := u.ring.Peek(); c != nil; c = u.ring.Peek() {
		u.backlog.push(*c)
		u.ring.Seen()
	}
}

func (u *ringLoop) listenWake() {
	e := u.sqe(uring.OpPollAdd, u.waker.fd, ofWake, 0)
	e.Len, e.OpFlags = uring.PollMulti, uint32(In)
}

func (u *ringLoop) cancel(s *sock, of int) {
	e := u.sqe(uring.OpAsyncCancel, -1, ofCancel, 0)
	e.Addr = uint64(of)<<handleBits | uint64(s.h)&handleMask
}

func (u *ringLoop) adopt(c interface{ Close() error }, k kind, tag any) (*sock, error) {
	fd, err := adopt(c, false)
	if err != nil {
		return nil, err
	}
	return u.add(fd, k, tag)
}

func (u *ringLoop) Listener(l net.Listener, tag any) (Handle, error) {
	s, err := u.adopt(l, kindListener, tag)
	if err != nil {
		return 0, err
	}
	s.resumed = true
	likeNet(s.fd)
	u.receive(s)
	return s.h, nil
}

func (u *ringLoop) Conn(c net.Conn, tag any) (Handle, error) {
	s, err := u.adopt(c, kindStream, tag)
	if err != nil {
		return 0, err
	}
	return s.h, nil
}

func (u *ringLoop) Packet(c net.PacketConn, tag any) (Handle, error) {
	s, err := u.adopt(c, kindPacket, tag)
	if err != nil {
		return 0, err
	}
	return s.h, nil
}

func (u *ringLoop) Poll(fd int, mask Mask, tag any) (Handle, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	s, err := u.add(fd, kindPoll, tag)
	if err != nil {
		return 0, err
	}
	s.mask = mask
	u.receive(s)
	return s.h, nil
}

func (u *ringLoop) Rearm(h Handle) error {
	s, err := u.find(h, kindPoll)
	if err == nil {
		u.receive(s)
	}
	return err
}

// receive lets the kernel accept, receive or poll, if s shall and it does not yet.
func (u *ringLoop) receive(s *sock) {
	if s.receiving || s.gone || s.closing || s.detach || s.starved || s.kind == kindListener && s.deadline != 0 {
		return
	}
	if s.kind != kindPoll && (!s.resumed || s.eof || s.held >= u.cfg.Held) {
		return
	}
	switch s.kind {
	case kindListener:
		e := u.sqe(uring.OpAccept, s.fd, ofAccept, s.h)
		e.IOPrio, e.OpFlags = uring.AcceptMultishot, unix.SOCK_CLOEXEC
	case kindStream:
		e := u.sqe(uring.OpRecv, s.fd, ofRecv, s.h)
		e.IOPrio, e.Flags = uring.RecvMultishot, uring.SQEBufferSelect
	case kindPacket:
		e := u.sqe(uring.OpRecvmsg, s.fd, ofRecv, s.h)
		e.IOPrio, e.Flags = uring.RecvMultishot, uring.SQEBufferSelect
		e.Addr, e.Len = uint64(uintptr(unsafe.Pointer(&u.msg[0]))), 1
	case kindPoll:
		e := u.sqe(uring.OpPollAdd, s.fd, ofPoll, s.h)
		e.OpFlags = uint32(s.mask)
	}
	s.receiving = true
	s.flight++
}

// hush cancels what receive asked for.
func (u *ringLoop) hush(s *sock) {
	if s.receiving && !s.canceling {
		s.canceling = true
		of := ofRecv
		switch s.kind {
		case kindListener:
			of = ofAccept
		case kindPoll:
			of = ofPoll
		}
		u.cancel(s, of)
	}
}

func (u *ringLoop) Resume(h Handle) error {
	s, err := u.find(h, kindListener, kindStream, kindPacket)
	if err != nil {
		return err
	}
	s.resumed = true
	u.receive(s)
	return nil
}

func (u *ringLoop) Pause(h Handle) error {
	s, err := u.find(h, kindListener, kindStream, kindPacket)
	if err != nil {
		return err
	}
	s.resumed = false
	u.hush(s)
	return nil
}

func (u *ringLoop) Release(b Buf) {
	id, h := u.bufs.release(b)
	if h == 0 {
		return
	}
	if int(id) < u.cfg.Buffers {
		u.recycle(uint16(id))
	}
	if s := u.socks.get(h); s != nil {
		s.held--
		u.receive(s)
	}
	for _, h := range u.dry {
		if s := u.socks.get(h); s != nil {
			s.starved = false
			u.receive(s)
		}
	}
	u.dry = u.dry[:0]
}

func (u *ringLoop) recycle(id uint16) {
	u.shared.Add(id, u.bufs.at(id))
	u.added = true
}

func (u *ringLoop) publish() {
	if u.added {
		u.shared.Publish()
		u.added = false
	}
}

func (u *ringLoop) Send(h Handle, p []byte) (int, error) {
	s, err := u.find(h, kindStream)
	if err != nil {
		return 0, err
	}
	if s.shut {
		return 0, unix.EPIPE
	}
	n := u.queue(s, p)
	u.soil(s)
	return n, nil
}

// soil lets the next Wait see to what s has to send, so that what one round sends is one operation.
func (u *ringLoop) soil(s *sock) {
	if !s.inReady && !s.sending {
		s.inReady = true
		u.dirty = append(u.dirty, s.h)
	}
}

// wash starts sends.
func (u *ringLoop) wash() {
	for _, h := range u.dirty {
		if s := u.socks.get(h); s != nil {
			s.inReady = false
			u.send(s)
		}
	}
	u.dirty = u.dirty[:0]
}

func (u *ringLoop) send(s *sock) {
	if s.gone || s.detach || s.sending {
		return
	}
	if s.out.n == 0 {
		u.sentAll(s)
		return
	}
	if u.sends >= u.cfg.InFlight {
		s.inReady = true
		u.delayed.push(s.h)
		return
	}
	p := s.out.front()
	e := u.sqe(uring.OpSend, s.fd, ofSend, s.h)
	e.Addr, e.Len, e.OpFlags = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), uint32(len(p)), unix.MSG_NOSIGNAL|unix.MSG_WAITALL
	s.sending = true
	s.flight++
	u.sends++
}

func (u *ringLoop) sentAll(s *sock) {
	if s.shut && !s.shutDone {
		s.shutDone = true
		_ = unix.Shutdown(s.fd, unix.SHUT_WR)
	}
	if s.closing {
		u.end(s, nil)
	}
}

func (u *ringLoop) SendTo(h Handle, p []byte, to Addr) error {
	s, err := u.find(h, kindPacket)
	if err != nil {
		return err
	}
	switch err := sendDatagram(s.fd, p, int(s.family), to, &u.scratch); err {
	case nil:
		u.stats.Sent += uint64(len(p))
	case unix.EAGAIN:
		s.wantRoom = true
		if s.family == unix.AF_UNIX {
			u.crowd(s)
		} else if !s.poll {
			e := u.sqe(uring.OpPollAdd, s.fd, ofRoom, s.h)
			e.OpFlags = uint32(Out)
			s.poll = true
			s.flight++
		}
		return ErrBusy
	case unix.EAFNOSUPPORT, unix.EMSGSIZE, unix.EINVAL, unix.EDESTADDRREQ, unix.ENOENT, unix.ENOTCONN:
		return os.NewSyscallError("sendto", err)
	default:
		u.stats.SendErrors++
	}
	return nil
}

func (u *ringLoop) Shutdown(h Handle) error {
	s, err := u.find(h, kindStream)
	if err != nil {
		return err
	}
	s.shut = true
	u.soil(s)
	return nil
}

func (u *ringLoop) Close(h Handle) error {
	s, err := u.find(h)
	if err != nil {
		return err
	}
	s.closing, s.resumed = true, false
	u.hush(s)
	if s.out.n == 0 {
		u.end(s, nil)
		return nil
	}
	s.deadline = mono.Now().Add(u.cfg.Linger)
	u.linger.push(s.h)
	u.soil(s)
	return nil
}

func (u *ringLoop) Abort(h Handle) error {
	s := u.socks.get(h)
	if s == nil || s.gone || s.detach {
		return ErrClosed
	}
	if s.kind == kindStream {
		reset(s.fd)
	}
	u.end(s, nil)
	return nil
}

func (u *ringLoop) Detach(h Handle) error {
	s, err := u.find(h, kindListener, kindStream, kindPacket)
	if err != nil {
		return err
	}
	s.detach = true
	u.still(s)
	u.finish(s)
	return nil
}

// still cancels all that s has in flight.
func (u *ringLoop) still(s *sock) {
	u.hush(s)
	if s.sending && !s.sendCancel {
		s.sendCancel = true
		u.cancel(s, ofSend)
	}
	if s.poll {
		u.cancel(s, ofRoom)
	}
}

// end closes s as soon as the kernel has given its operations back; err is why, if it did not want to.
func (u *ringLoop) end(s *sock, err error) {
	if s.gone {
		return
	}
	s.gone, s.err = true, err
	if err != nil {
		u.stats.Resets++
	}
	u.still(s)
	u.finish(s)
}

// finish is called whenever an operation of s has ended.
func (u *ringLoop) finish(s *sock) {
	if s.flight > 0 || !s.gone && !s.detach || u.socks.get(s.h) != s {
		return
	}
	e := Event{Op: OpClosed, H: s.h, Tag: s.tag, Err: s.err}
	switch {
	case !s.gone: // detached
		e = Event{Op: OpDetached, H: s.h, Tag: s.tag, File: file(s.fd), Data: s.out.bytes()}
	case s.kind != kindPoll:
		unix.Close(s.fd)
	}
	u.pending.push(e)
	u.close(s)
}

func (u *ringLoop) Wait(events []Event, deadline mono.Time) (int, error) {
	if u.stopped {
		return 0, ErrClosed
	}
	u.stats.Waits++
	u.quench()
	n := u.tell(events)
	u.wash()
	u.publish()
	busy := n > 0 || u.backlog.n > 0 || u.pending.n > 0
	errno := u.ring.Enter(uring.Poll, nil)
	if errno == 0 && !busy && u.ring.Waiting() == 0 {
		now := mono.Now()
		if deadline = u.next(deadline); deadline > now && u.waker.sleep() {
			mode := uring.Block
			hold, deadline := u.cfg.hold(now, deadline)
			if hold {
				mode = uring.Hold
			}
			var ts unix.Timespec
			errno = u.ring.Enter(mode, timespec(deadline, now, &ts))
		}
	}
	u.waker.rise()
	if errno != 0 && errno != unix.EBUSY && errno != unix.EAGAIN {
		return n, os.NewSyscallError("io_uring_enter", errno)
	}
	u.overdue(u.end, u.receive)
	n += u.tell(events[n:])
	for n < len(events) {
		c, ok := u.backlog.pop()
		if !ok {
			p := u.ring.Peek()
			if p == nil {
				break
			}
			c = *p
			u.ring.Seen()
		}
		n += u.complete(&c, events[n:])
		n += u.tell(events[n:])
	}
	return n, nil
}

func (u *ringLoop) complete(c *uring.CQE, out []Event) int {
	of, h := int(c.UserData>>handleBits), Handle(c.UserData&handleMask)
	if of == ofWake {
		u.waker.drain()
		if c.Flags&uring.CQEMore == 0 {
			u.listenWake()
		}
		return 0
	}
	place := uint32(h) - 1
	if of == ofCancel || uint64(place) >= uint64(len(u.socks.slots)) {
		return 0
	}
	s := u.socks.slots[place].v
	if s == nil || s.h&handleMask != h {
		return 0
	}
	last := c.Flags&uring.CQEMore == 0
	if last {
		s.flight--
		switch of {
		case ofAccept, ofRecv, ofPoll:
			s.receiving, s.canceling = false, false
		}
	}
	n := 0
	switch of {
	case ofAccept:
		n = u.accepted(s, c.Res, out)
	case ofRecv:
		n = u.received(s, c, out)
	case ofSend:
		u.sent(s, c.Res)
	case ofPoll:
		if c.Res > 0 && !s.gone && !s.closing {
			out[0] = Event{Op: OpReady, H: s.h, Tag: s.tag, Mask: Mask(c.Res) & (In | Pri | Out | Err | Hup)}
			n = 1
		} else if c.Res < 0 && !s.gone && c.Res != -int32(unix.ECANCELED) {
			u.end(s, os.NewSyscallError("poll", unix.Errno(-c.Res)))
		}
	case ofRoom:
		s.poll = false
		u.room(s)
	}
	if last {
		if of == ofAccept || of == ofRecv {
			u.receive(s)
		}
		u.finish(s)
	}
	return n
}

func (u *ringLoop) accepted(s *sock, res int32, out []Event) int {
	if res >= 0 {
		if s.gone {
			unix.Close(int(res)) // the listener is closed; so is its backlog
			return 0
		}
		// The kernel may have accepted a few more than there shall be: they are not refused, the next ones wait.
		over := u.socks.n >= u.cfg.MaxEndpoints
		if over && s.deadline == 0 {
			u.pause(s, ErrFull, mono.Now())
			u.hush(s)
		}
		c := &sock{fd: int(res), kind: kindStream}
		c.h = u.socks.add(c)
		out[0] = Event{Op: OpAccept, H: s.h, Tag: s.tag, Conn: c.h}
		return 1
	}
	if s.gone || s.detach {
		return 0
	}
	switch err := unix.Errno(-res); {
	case err == unix.ECANCELED, err == unix.EINTR, err == unix.EAGAIN, err == unix.ECONNABORTED, err == unix.EPROTO:
	case short(err):
		if s.deadline == 0 {
			u.pause(s, err, mono.Now())
		}
	default:
		u.end(s, os.NewSyscallError("accept", err))
	}
	return 0
}

func (u *ringLoop) received(s *sock, c *uring.CQE, out []Event) int {
	id, has := c.Buffer()
	drop := func() {
		if has {
			u.recycle(id)
		}
	}
	if c.Res < 0 {
		drop()
		if s.gone || s.closing {
			return 0
		}
		switch err := unix.Errno(-c.Res); {
		case err == unix.ENOBUFS:
			u.stats.Starved++
			if !s.starved && u.bufs.held-u.bufs.spilled >= u.cfg.Buffers { // else some came back since, and receive asks again
				s.starved = true
				u.dry = append(u.dry, s.h)
			}
		case err == unix.ECANCELED, err == unix.EINTR, err == unix.EAGAIN:
		case s.kind == kindPacket:
			u.stats.SendErrors++ // of a datagram before: an ICMP message
		case !s.detach:
			u.end(s, os.NewSyscallError("recv", err))
		}
		return 0
	}
	if s.gone || s.closing {
		drop()
		return 0
	}
	if s.kind == kindStream && c.Res == 0 {
		drop()
		s.eof = true
		out[0] = Event{Op: OpEOF, H: s.h, Tag: s.tag}
		return 1
	}
	if !has {
		return 0
	}
	data, from := u.bufs.at(id)[:c.Res:c.Res], Addr{}
	if s.kind == kindPacket {
		var ok bool
		if data, from, ok = datagram(data); !ok {
			drop()
			return 0
		}
	}
	u.stats.Received += uint64(len(data))
	s.held++
	out[0] = Event{Op: OpRecv, H: s.h, Tag: s.tag, Data: data, From: from}
	if s.held > u.cfg.Held {
		// The kernel was faster than the cancelation. What is too much moves out of the shared buffers, so that one
		// endpoint does not take them from the others; it is no more than the socket had room for.
		out[0].Buf, out[0].Data = u.bufs.spill(data, s.h)
		u.recycle(id)
	} else {
		out[0].Buf = u.bufs.hold(id, s.h)
	}
	if s.held >= u.cfg.Held {
		u.stats.Starved++
		u.hush(s)
	}
	return 1
}

// datagram takes apart what a multishot recvmsg wrote: struct io_uring_recvmsg_out, room for the name, the payload.
func datagram(b []byte) (data []byte, from Addr, ok bool) {
	const header = 16
	if len(b) < header+unix.SizeofSockaddrAny {
		return nil, Addr{}, false
	}
	name := *(*uint32)(unsafe.Pointer(&b[0]))
	from = parseAddr(b[header : header+min(name, unix.SizeofSockaddrAny)])
	return b[header+unix.SizeofSockaddrAny:], from, true
}

func (u *ringLoop) sent(s *sock, res int32) {
	s.sending = false
	canceled := s.sendCancel
	s.sendCancel = false
	u.sends--
	if h, ok := u.delayed.pop(); ok {
		if d := u.socks.get(h); d != nil {
			d.inReady = false
			u.soil(d)
		}
	}
	if res > 0 {
		u.stats.Sent += uint64(res)
		s.out.sent(int(res), &u.chunks)
	}
	if s.gone || s.detach {
		return
	}
	if err := unix.Errno(-res); res < 0 && err != unix.EINTR && err != unix.EAGAIN && !(canceled && errors.Is(err, unix.ECANCELED)) {
		u.end(s, os.NewSyscallError("send", err))
		return
	}
	u.room(s)
	if s.out.n > 0 {
		u.soil(s)
		return
	}
	u.sentAll(s)
}

func (u *ringLoop) Stop() error {
	if u.stopped {
		return nil
	}
	u.stopped = true
	// Closing the ring cancels what is in flight, later than it returns: the memory must outlive it.
	u.socks.each(func(s *sock) { u.still(s) })
	for try := 0; try < 1000 && u.inFlight() > 0; try++ {
		ts := unix.NsecToTimespec(1_000_000)
		u.ring.Enter(uring.Block, &ts)
		u.absorb()
		u.settle()
	}
	left := u.inFlight()
	u.socks.each(func(s *sock) {
		if s.kind != kindPoll {
			unix.Close(s.fd)
		}
	})
	for {
		ev, ok := u.pending.pop()
		if !ok {
			break
		}
		if ev.File != nil {
			ev.File.Close()
		}
	}
	u.ring.Close()
	u.socks = table[sock]{}
	if left > 0 {
		u.waker.close()
		return errors.New("loop: the kernel did not give all operations back; their buffers stay mapped")
	}
	u.shared.Close()
	_ = unix.Munmap(u.msg)
	u.free()
	return nil
}

func (u *ringLoop) inFlight() (n int) {
	u.socks.each(func(s *sock) { n += s.flight })
	return n
}

// settle counts completions of a loop that stops.
func (u *ringLoop) settle() {
	for {
		c, ok := u.backlog.pop()
		if !ok {
			return
		}
		of, h := int(c.UserData>>handleBits), Handle(c.UserData&handleMask)
		if of == ofAccept && c.Res >= 0 {
			unix.Close(int(c.Res))
		}
		if place := uint32(h) - 1; of != ofCancel && of != ofWake && c.Flags&uring.CQEMore == 0 && uint64(place) < uint64(len(u.socks.slots)) {
			if s := u.socks.slots[place].v; s != nil {
				s.flight--
			}
		}
	}
}
