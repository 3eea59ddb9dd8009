package loop

import (
	"errors"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/mono"
)

// epoll is the back end over epoll(7): edges, each descriptor added once and never changed, one read an endpoint and
// round, so that a fast sender does not keep others waiting.
type epoll struct {
	raw
	fd     int
	kernel []unix.EpollEvent
	ready  fifo[Handle] // endpoints with work that waits for no edge
	dry    []Handle     // endpoints that found no buffer
}

const edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff

// acceptBatch bounds what a listener may do in one round.
const acceptBatch = 16

func newEpoll(cfg Config) (*epoll, error) {
	e := &epoll{kernel: make([]unix.EpollEvent, 256)}
	if err := e.init(cfg); err != nil {
		return nil, err
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		e.fd = fd
		// Place -1 is no endpoint's.
		if err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, e.waker.fd, &unix.EpollEvent{Events: edges, Fd: -1}); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		e.free()
		return nil, os.NewSyscallError("epoll", err)
	}
	return e, nil
}

func (e *epoll) Name() string { return "epoll" }

func (e *epoll) watch(s *sock, op int, events uint32) error {
	err := unix.EpollCtl(e.fd, op, s.fd, &unix.EpollEvent{Events: events, Fd: int32(uint32(s.h)), Pad: int32(s.h >> 32)})
	return os.NewSyscallError("epoll_ctl", err)
}

func (e *epoll) adopt(c interface{ Close() error }, k kind, tag any) (*sock, error) {
	fd, err := adopt(c, true)
	if err != nil {
		return nil, err
	}
	return e.enter(fd, k, tag)
}

func (e *epoll) enter(fd int, k kind, tag any) (*sock, error) {
	s, err := e.add(fd, k, tag)
	if err != nil {
		return nil, err
	}
	if err := e.watch(s, unix.EPOLL_CTL_ADD, edges); err != nil {
		unix.Close(fd)
		e.close(s)
		return nil, err
	}
	return s, nil
}

func (e *epoll) Listener(l net.Listener, tag any) (Handle, error) {
	s, err := e.adopt(l, kindListener, tag)
	if err != nil {
		return 0, err
	}
	s.resumed, s.readable = true, true
	likeNet(s.fd)
	e.push(s)
	return s.h, nil
}

func (e *epoll) Conn(c net.Conn, tag any) (Handle, error) {
	s, err := e.adopt(c, kindStream, tag)
	if err != nil {
		return 0, err
	}
	s.readable, s.writable = true, true
	return s.h, nil
}

func (e *epoll) Packet(c net.PacketConn, tag any) (Handle, error) {
	s, err := e.adopt(c, kindPacket, tag)
	if err != nil {
		return 0, err
	}
	s.readable, s.writable = true, true
	return s.h, nil
}

func (e *epoll) Poll(fd int, mask Mask, tag any) (Handle, error) {
	s, err := e.add(fd, kindPoll, tag)
	if err != nil {
		return 0, err
	}
	s.mask, s.armed = mask, true
	if err := e.watch(s, unix.EPOLL_CTL_ADD, uint32(mask)|unix.EPOLLONESHOT); err != nil {
		e.close(s)
		return 0, err
	}
	return s.h, nil
}

func (e *epoll) Rearm(h Handle) error {
	s, err := e.find(h, kindPoll)
	if err != nil {
		return err
	}
	s.armed = true
	return e.watch(s, unix.EPOLL_CTL_MOD, uint32(s.mask)|unix.EPOLLONESHOT)
}

func (e *epoll) Resume(h Handle) error {
	s, err := e.find(h, kindListener, kindStream, kindPacket)
	if err != nil {
		return err
	}
	s.resumed = true
	e.push(s)
	return nil
}

func (e *epoll) Pause(h Handle) error {
	s, err := e.find(h, kindListener, kindStream, kindPacket)
	if err == nil {
		s.resumed = false
	}
	return err
}

// push lets the next Wait see to s.
func (e *epoll) push(s *sock) {
	if !s.inReady {
		s.inReady = true
		e.ready.push(s.h)
	}
}

func (e *epoll) Release(b Buf) {
	id, h := e.bufs.release(b)
	if h == 0 {
		return
	}
	e.bufs.giveBack(uint16(id))
	if s := e.socks.get(h); s != nil {
		s.held--
		if s.resumed && s.readable {
			e.push(s)
		}
	}
	for _, h := range e.dry {
		if s := e.socks.get(h); s != nil {
			e.push(s)
		}
	}
	e.dry = e.dry[:0]
}

func (e *epoll) Send(h Handle, p []byte) (int, error) {
	s, err := e.find(h, kindStream)
	if err != nil {
		return 0, err
	}
	if s.shut {
		return 0, unix.EPIPE
	}
	n := 0
	if s.out.n == 0 && s.writable && s.err == nil {
		// Nothing is before it, so the kernel can have it at once.
		n = e.write(s, p)
	}
	return n + e.queue(s, p[n:]), nil
}

// write gives the kernel what it takes at once.
func (e *epoll) write(s *sock, p []byte) int {
	done := 0
	for done < len(p) {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&p[done])), uintptr(len(p)-done), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			s.writable = false
			if errno != unix.EAGAIN {
				s.err = os.NewSyscallError("send", errno)
				e.push(s)
			}
			break
		}
		done += int(n)
	}
	e.stats.Sent += uint64(done)
	return done
}

// flush sends what is queued, and what was to come after that.
func (e *epoll) flush(s *sock) {
	for s.out.n > 0 && s.writable && s.err == nil {
		if n := e.write(s, s.out.front()); n > 0 {
			s.out.sent(n, &e.chunks)
		}
	}
	e.room(s)
	if s.out.n > 0 || s.err != nil {
		return
	}
	if s.shut && !s.shutDone {
		s.shutDone = true
		_ = unix.Shutdown(s.fd, unix.SHUT_WR)
	}
	if s.closing {
		e.end(s, nil)
	}
}

func (e *epoll) SendTo(h Handle, p []byte, to Addr) error {
	s, err := e.find(h, kindPacket)
	if err != nil {
		return err
	}
	switch err := sendDatagram(s.fd, p, int(s.family), to, &e.scratch); err {
	case nil:
		e.stats.Sent += uint64(len(p))
	case unix.EAGAIN:
		s.wantRoom, s.writable = true, false
		if s.family == unix.AF_UNIX {
			e.crowd(s)
		}
		return ErrBusy
	case unix.EAFNOSUPPORT, unix.EMSGSIZE, unix.EINVAL, unix.EDESTADDRREQ, unix.ENOENT, unix.ENOTCONN:
		return os.NewSyscallError("sendto", err) // the caller's doing, not the network's
	default:
		e.stats.SendErrors++
	}
	return nil
}

func (e *epoll) Shutdown(h Handle) error {
	s, err := e.find(h, kindStream)
	if err != nil {
		return err
	}
	s.shut = true
	e.push(s)
	return nil
}

func (e *epoll) Close(h Handle) error {
	s, err := e.find(h)
	if err != nil {
		return err
	}
	s.closing, s.resumed = true, false
	if s.out.n == 0 || s.err != nil {
		e.end(s, nil)
		return nil
	}
	s.deadline = mono.Now().Add(e.cfg.Linger)
	e.linger.push(s.h)
	e.push(s)
	return nil
}

func (e *epoll) Abort(h Handle) error {
	s := e.socks.get(h)
	if s == nil || s.gone || s.detach {
		return ErrClosed
	}
	if s.kind == kindStream {
		reset(s.fd)
	}
	e.end(s, nil)
	return nil
}

func (e *epoll) Detach(h Handle) error {
	s, err := e.find(h, kindListener, kindStream, kindPacket)
	if err != nil {
		return err
	}
	_ = e.watch(s, unix.EPOLL_CTL_DEL, 0)
	s.detach, s.gone = true, true
	e.pending.push(Event{Op: OpDetached, H: s.h, Tag: s.tag, File: file(s.fd), Data: s.out.bytes()})
	e.close(s)
	return nil
}

// end closes s; err is why, if it did not want to.
func (e *epoll) end(s *sock, err error) {
	if s.gone {
		return
	}
	s.gone = true
	if err != nil {
		e.stats.Resets++
	}
	if s.kind == kindPoll {
		_ = e.watch(s, unix.EPOLL_CTL_DEL, 0) // the descriptor lives on
	} else {
		unix.Close(s.fd)
	}
	e.pending.push(Event{Op: OpClosed, H: s.h, Tag: s.tag, Err: err})
	e.close(s)
}

func (e *epoll) Wait(events []Event, deadline mono.Time) (int, error) {
	if e.stopped {
		return 0, ErrClosed
	}
	e.stats.Waits++
	e.quench()
	n := e.tell(events)
	if n == len(events) {
		return n, nil
	}
	if err := e.kernelWait(n > 0 || e.ready.n > 0, deadline); err != nil {
		return n, err
	}
	e.overdue(e.end, e.push)
	n += e.tell(events[n:])
	for range e.ready.n {
		if n == len(events) {
			break
		}
		h, _ := e.ready.pop()
		s := e.socks.get(h)
		if s == nil {
			continue
		}
		s.inReady = false
		n += e.progress(s, events[n:])
		n += e.tell(events[n:])
	}
	return n, nil
}

// kernelWait asks for edges; it waits for one unless there is work already.
func (e *epoll) kernelWait(busy bool, deadline mono.Time) error {
	count, errno := uintptr(0), unix.Errno(0)
	// A first look that does not wait costs no hand-over of the processor, and under load it is the only one.
	count, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd), uintptr(unsafe.Pointer(&e.kernel[0])), uintptr(len(e.kernel)), 0, 0, 0)
	if count == 0 && errno == 0 && !busy {
		now := mono.Now()
		if deadline = e.next(deadline); deadline > now && e.waker.sleep() {
			count, errno = e.sleep(now, deadline)
		}
	}
	e.waker.rise()
	if errno == unix.EINTR {
		return nil
	}
	if errno != 0 {
		return os.NewSyscallError("epoll_wait", errno)
	}
	for i := range e.kernel[:count] {
		k := &e.kernel[i]
		if k.Fd == -1 {
			e.waker.drain()
			continue
		}
		s := e.socks.get(Handle(uint32(k.Pad))<<32 | Handle(uint32(k.Fd)))
		if s == nil {
			continue // closed since
		}
		if s.kind == kindPoll {
			if s.armed {
				s.armed = false
				e.pending.push(Event{Op: OpReady, H: s.h, Tag: s.tag, Mask: Mask(k.Events) & (In | Pri | Out | Err | Hup)})
			}
			continue
		}
		if k.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			s.readable = true
			s.hup = s.hup || k.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
		}
		if k.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			s.writable = true
		}
		if s.resumed && s.readable || s.out.n > 0 || s.wantRoom {
			e.push(s)
		}
	}
	return nil
}

// sleep waits for an edge until deadline.
func (e *epoll) sleep(now, deadline mono.Time) (count uintptr, errno unix.Errno) {
	call := unix.Syscall6
	hold, deadline := e.cfg.hold(now, deadline)
	if hold {
		call = unix.RawSyscall6
	}
	var ts unix.Timespec
	count, _, errno = call(unix.SYS_EPOLL_PWAIT2, uintptr(e.fd), uintptr(unsafe.Pointer(&e.kernel[0])), uintptr(len(e.kernel)),
		uintptr(unsafe.Pointer(timespec(deadline, now, &ts))), 0, 0)
	if errno == unix.ENOSYS { // Linux before 5.11 knows milliseconds only
		ms := -1
		if deadline != mono.Never {
			ms = int(min((deadline.Until(now)+999_999)/1_000_000, 3_600_000))
		}
		count, _, errno = call(unix.SYS_EPOLL_PWAIT, uintptr(e.fd), uintptr(unsafe.Pointer(&e.kernel[0])), uintptr(len(e.kernel)), uintptr(ms), 0, 0)
	}
	return count, errno
}

// progress does one round of what s can do now. Events go to out, or to pending if they are not of receiving.
func (e *epoll) progress(s *sock, out []Event) int {
	if s.kind == kindListener {
		return e.accept(s, out)
	}
	if s.kind == kindPacket && s.wantRoom && s.writable && s.deadline == 0 {
		e.room(s)
	}
	if s.kind == kindStream && (s.out.n > 0 || s.shut || s.wantRoom) {
		e.flush(s)
	}
	if s.err != nil && !s.gone {
		e.end(s, s.err)
	}
	if s.gone || !s.resumed || !s.readable || s.eof || len(out) == 0 {
		return 0
	}
	if s.held >= e.cfg.Held {
		e.stats.Starved++
		return 0 // Release comes back
	}
	id, ok := e.bufs.take()
	if !ok {
		e.stats.Starved++
		e.dry = append(e.dry, s.h) // Release comes back; until then it costs nothing
		return 0
	}
	return e.read(s, id, out)
}

func (e *epoll) read(s *sock, id uint16, out []Event) int {
	b := e.bufs.at(id)
	var from *[unix.SizeofSockaddrAny]byte
	size := uint32(unix.SizeofSockaddrAny)
	var n uintptr
	var errno unix.Errno
	for {
		if s.kind == kindPacket {
			from = &e.scratch
			n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT,
				uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)))
		} else {
			n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		}
		if errno != unix.EINTR {
			break
		}
	}
	switch {
	case errno == unix.EAGAIN:
		s.readable = false
	case errno != 0 && s.kind == kindPacket:
		e.stats.SendErrors++ // of a datagram before: an ICMP message
		e.push(s)
	case errno != 0:
		e.bufs.giveBack(id)
		e.end(s, os.NewSyscallError("recv", errno))
		return e.tell(out)
	case n == 0 && s.kind == kindStream:
		s.eof, s.readable = true, false
		e.bufs.giveBack(id)
		out[0] = Event{Op: OpEOF, H: s.h, Tag: s.tag}
		return 1
	default:
		e.stats.Received += uint64(n)
		s.held++
		out[0] = Event{Op: OpRecv, H: s.h, Tag: s.tag, Buf: e.bufs.hold(id, s.h), Data: b[:n:n]}
		if from != nil {
			out[0].From = parseAddr(from[:min(size, uint32(len(from)))])
		}
		if s.kind == kindStream && int(n) < len(b) && !s.hup {
			s.readable = false // it was all there was; the next octet makes an edge
		} else {
			e.push(s)
		}
		return 1
	}
	e.bufs.giveBack(id)
	return 0
}

func (e *epoll) accept(s *sock, out []Event) (n int) {
	for n < len(out) && n < acceptBatch && s.resumed && s.readable && s.deadline == 0 && !s.gone {
		var fd int
		err := error(ErrFull)
		if e.socks.n < e.cfg.MaxEndpoints {
			fd, err = accept4(s.fd)
		}
		switch {
		case err == nil:
			c, err := e.enter(fd, kindStream, nil)
			if err != nil {
				e.pause(s, err, mono.Now())
				return n
			}
			c.readable, c.writable = true, true
			out[n] = Event{Op: OpAccept, H: s.h, Tag: s.tag, Conn: c.h}
			n++
		case err == unix.EAGAIN:
			s.readable = false
		case err == unix.EINTR || err == unix.ECONNABORTED || err == unix.EPROTO:
		case short(err) || errors.Is(err, ErrFull):
			e.pause(s, err, mono.Now())
			return n
		default:
			e.end(s, os.NewSyscallError("accept", err))
			return n
		}
	}
	if s.resumed && s.readable && s.deadline == 0 && !s.gone {
		e.push(s)
	}
	return n
}

// accept4 accepts without the address, which is asked for when somebody wants it.
func accept4(fd int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func (e *epoll) Stop() error {
	if e.stopped {
		return nil
	}
	e.stopped = true
	e.socks.each(func(s *sock) {
		if s.kind != kindPoll {
			unix.Close(s.fd)
		}
	})
	for {
		ev, ok := e.pending.pop()
		if !ok {
			break
		}
		if ev.File != nil {
			ev.File.Close()
		}
	}
	e.socks = table[sock]{}
	unix.Close(e.fd)
	e.free()
	return nil
}
