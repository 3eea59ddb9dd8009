package loop

import (
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/mono"
)

// sock is an endpoint of the back ends that know descriptors.
type sock struct {
	h      Handle
	fd     int
	kind   kind
	family uint16
	mask   Mask // of a watched descriptor
	tag    any
	out    sendq
	held   int // receive buffers that are not released

	resumed  bool
	eof      bool // the peer sends no more
	wantRoom bool // a Send took less than it was given
	noRoom   bool // for want of chunks; in raw.thirsty
	shut     bool // Shutdown was asked for
	shutDone bool
	closing  bool // Close was asked for; what is queued goes out first
	detach   bool
	gone     bool // OpClosed or OpDetached is told, or will be when nothing is in flight
	err      error
	deadline mono.Time // of closing, or of a pause

	// Of epoll: what an edge has told and no call has contradicted yet.
	readable, writable, hup, armed bool
	inReady                        bool

	// Of io_uring: operations that the kernel has.
	receiving, sending, canceling, sendCancel bool
	starved                                   bool
	poll                                      bool // a poll for room of a packet socket
	flight                                    int
}

// raw is what epoll and io_uring have in common.
type raw struct {
	cfg     Config
	socks   table[sock]
	bufs    *buffers
	chunks  chunks
	pending fifo[Event]
	thirsty []Handle     // want chunks
	linger  fifo[Handle] // closing, by deadline: all wait for the same time
	paused  fifo[Handle] // listeners that lack descriptors, by the time they try again
	crowded fifo[Handle] // packet sockets whose peer has no room, by the time they try again
	stats   Stats
	waker   waker
	scratch [unix.SizeofSockaddrAny]byte
	stopped bool
}

func (r *raw) init(cfg Config) error {
	bufs, err := newBuffers(cfg.Buffers, cfg.BufferSize)
	if err != nil {
		return err
	}
	if err := r.waker.open(); err != nil {
		bufs.unmap()
		return err
	}
	r.cfg, r.bufs, r.chunks = cfg, bufs, chunks{limit: cfg.SendMemory}
	return nil
}

func (r *raw) free() {
	r.bufs.unmap()
	r.chunks.unmap()
	r.waker.close()
}

// add makes an endpoint of a descriptor, which it closes if it cannot.
func (r *raw) add(fd int, k kind, tag any) (*sock, error) {
	var err error
	switch {
	case r.stopped:
		err = ErrClosed
	case r.socks.n >= r.cfg.MaxEndpoints:
		err = ErrFull
	}
	if err != nil {
		if k != kindPoll {
			unix.Close(fd)
		}
		return nil, err
	}
	s := &sock{fd: fd, kind: k, tag: tag}
	if k == kindPacket {
		s.family = uint16(sockFamily(fd))
	}
	s.h = r.socks.add(s)
	return s, nil
}

func (r *raw) find(h Handle, kinds ...kind) (*sock, error) {
	s := r.socks.get(h)
	if s == nil || s.gone || s.closing || s.detach {
		return nil, ErrClosed
	}
	for _, k := range kinds {
		if s.kind == k {
			return s, nil
		}
	}
	if len(kinds) > 0 {
		return nil, ErrKind
	}
	return s, nil
}

// SetTag is part of Loop.
func (r *raw) SetTag(h Handle, tag any) error {
	s := r.socks.get(h)
	if s == nil {
		return ErrClosed
	}
	s.tag = tag
	return nil
}

// Addrs is part of Loop.
func (r *raw) Addrs(h Handle) (local, remote net.Addr, err error) {
	s := r.socks.get(h)
	if s == nil || s.gone {
		return nil, nil, ErrClosed
	}
	if s.kind == kindPoll {
		return nil, nil, ErrKind
	}
	return socketAddrs(s.fd)
}

// Peer is part of Loop.
func (r *raw) Peer(h Handle) Addr {
	s := r.socks.get(h)
	if s == nil || s.gone || s.kind == kindPoll {
		return Addr{}
	}
	size := uint32(len(r.scratch))
	if _, _, errno := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(s.fd), uintptr(unsafe.Pointer(&r.scratch)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return Addr{}
	}
	return parseAddr(r.scratch[:min(size, uint32(len(r.scratch)))])
}

// Wake is part of Loop.
func (r *raw) Wake() { r.waker.wake() }

// Heard is part of Loop.
func (r *raw) Heard() { r.waker.rise() }

// Stats is part of Loop.
func (r *raw) Stats() Stats {
	st := r.stats
	st.Endpoints, st.Held = r.socks.n, r.bufs.held
	r.socks.each(func(s *sock) { st.Queued += s.out.n })
	return st
}

// room tells an endpoint, that wanted it, that it can send again.
func (r *raw) room(s *sock) {
	if s.wantRoom && !s.noRoom && s.out.n <= r.cfg.SendQueue/2 && !s.closing && !s.gone && !s.detach && !s.shut {
		s.wantRoom = false
		r.pending.push(Event{Op: OpWritable, H: s.h, Tag: s.tag})
	}
}

// queue takes what it can of p; the caller starts sending.
func (r *raw) queue(s *sock, p []byte) int {
	n := s.out.put(p, r.cfg.SendQueue, &r.chunks)
	if n < len(p) {
		s.wantRoom = true
		if s.out.n < r.cfg.SendQueue && !s.noRoom {
			s.noRoom = true
			r.thirsty = append(r.thirsty, s.h)
		}
	}
	return n
}

// quench gives those who lacked chunks another try, now that some are free.
func (r *raw) quench() {
	if len(r.thirsty) == 0 || r.chunks.small == nil && r.chunks.large == nil {
		return
	}
	for _, h := range r.thirsty {
		if s := r.socks.get(h); s != nil {
			s.noRoom = false
			r.room(s)
		}
	}
	r.thirsty = r.thirsty[:0]
}

// tell fills events with what is pending.
func (r *raw) tell(events []Event) (n int) {
	for n < len(events) {
		e, ok := r.pending.pop()
		if !ok {
			break
		}
		events[n] = e
		n++
	}
	return n
}

// next is when Wait has something to do at the latest: its deadline, or that of an endpoint that closes, is paused or tries again.
func (r *raw) next(deadline mono.Time) mono.Time {
	for _, q := range []*fifo[Handle]{&r.linger, &r.paused, &r.crowded} {
		for q.n > 0 {
			s := r.socks.get(q.ring[q.head])
			if s != nil && !s.gone && s.deadline != 0 {
				deadline = min(deadline, s.deadline)
				break
			}
			q.pop()
		}
	}
	return deadline
}

// overdue does what the deadlines of endpoints are for: those that linger end, listeners accept and packet sockets try again.
func (r *raw) overdue(end func(*sock, error), accept func(*sock)) {
	if r.linger.n == 0 && r.paused.n == 0 && r.crowded.n == 0 {
		return
	}
	now := mono.Now()
	r.due(&r.linger, now, func(s *sock) {
		reset(s.fd)
		end(s, os.ErrDeadlineExceeded)
	})
	r.due(&r.paused, now, accept)
	r.due(&r.crowded, now, r.room)
}

// due calls f for each endpoint of q whose deadline is over.
func (r *raw) due(q *fifo[Handle], now mono.Time, f func(*sock)) {
	for q.n > 0 {
		s := r.socks.get(q.ring[q.head])
		if s != nil && !s.gone && s.deadline > now {
			return
		}
		q.pop()
		if s != nil && !s.gone && s.deadline != 0 {
			s.deadline = 0
			f(s)
		}
	}
}

// pause stops a listener for a while, because err.
func (r *raw) pause(s *sock, err error, now mono.Time) {
	r.stats.AcceptPauses++
	s.deadline = now.Add(r.cfg.AcceptRetry)
	r.paused.push(s.h)
	r.pending.push(Event{Op: OpPaused, H: s.h, Tag: s.tag, Err: err})
}

// roomRetry is how long a packet socket waits for a peer that has no room.
const roomRetry = time.Millisecond

// crowd lets a packet socket try again after a while. The kernel says of a Unix socket that is not connected that there is room when
// there is in the socket itself, whatever its peers' queues are like, and tells nobody when these have room again
// (net/unix/af_unix.c:unix_dgram_poll, unix_dgram_sendmsg). Each try that fails tells epoll of room, because it gives back what it took.
func (r *raw) crowd(s *sock) {
	if s.deadline == 0 {
		s.deadline = mono.Now().Add(roomRetry)
		r.crowded.push(s.h)
	}
}

// timespec of a wait until deadline; nil waits for ever.
func timespec(deadline, now mono.Time, ts *unix.Timespec) *unix.Timespec {
	if deadline == mono.Never {
		return nil
	}
	*ts = unix.NsecToTimespec(int64(min(deadline.Until(now), time.Hour)))
	return ts
}

// close forgets an endpoint.
func (r *raw) close(s *sock) {
	s.out.drop(&r.chunks)
	r.socks.drop(s.h)
}
