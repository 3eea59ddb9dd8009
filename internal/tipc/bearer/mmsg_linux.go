package bearer

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/sys"
	"midplane/internal/tipc/buf"
)

// sockaddr has room for the addresses of IPv4, IPv6 and packet sockets.
type sockaddr = unix.RawSockaddrInet6

func (c *mmsgTx) name4(i int) *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&c.names[i]))
}

func (c *mmsgTx) nameLL(i int) *unix.RawSockaddrLinklayer {
	return (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&c.names[i]))
}

// pollConn is a socket that Go's poller watches: *net.UDPConn or *os.File.
type pollConn interface {
	syscall.Conn
	SetWriteDeadline(time.Time) error
}

// mmsgRx receives many datagrams with one system call, into buffers of its own, or into Bufs, which can be taken away.
type mmsgRx struct {
	raw   syscall.RawConn
	msgs  []sys.Mmsg
	iovs  []unix.Iovec
	names []sockaddr
	ctls  [][8]uint64 // control messages, aligned
	bufs  []byte
	own   []*buf.Buf // in place of bufs
	size  int        // of one buffer

	// flags is MSG_DONTWAIT, or MSG_WAITFORONE to wait in the system call.
	flags int

	n    int // messages received and
	used int // how many headers the last call may have changed

	// ask is how many messages the next call asks for. Asking for one more
	// than there is costs a second look into the queue, which a ping-pong
	// notices; so it follows what there was last time.
	ask   int
	errno syscall.Errno
	wait  bool
	fn    func(fd uintptr) bool // r.receive, made once
	fails int                   // errors in a row
}

// init prepares for count datagrams of up to size octets.
func (r *mmsgRx) init(conn syscall.Conn, count, size int) (err error) {
	if r.raw, err = conn.SyscallConn(); err != nil {
		return err
	}
	r.msgs = make([]sys.Mmsg, count)
	r.iovs = make([]unix.Iovec, count)
	r.names = make([]sockaddr, count)
	r.ctls = make([][8]uint64, count)
	r.fn = r.receive
	r.used = count
	r.ask = 1
	r.flags = unix.MSG_DONTWAIT
	r.resize(size)
	return nil
}

// initBufs is init with a Buf for each datagram.
func (r *mmsgRx) initBufs(conn syscall.Conn, count, size int) (err error) {
	r.own = make([]*buf.Buf, count)
	return r.init(conn, count, size)
}

// place puts a new buffer of r.size octets where datagram i will be.
func (r *mmsgRx) place(i int) {
	if r.own == nil {
		r.iovs[i].Base = &r.bufs[i*r.size]
		return
	}
	r.own[i] = buf.Get(r.size)
	r.iovs[i].Base = &r.own[i].Msg[0]
}

// take gives the Buf of datagram i away, and puts another in its place.
func (r *mmsgRx) take(i int) *buf.Buf {
	b := r.own[i]
	b.Resize(len(r.data(i)))
	r.place(i)
	return b
}

// resize gives every datagram a buffer of another size.
func (r *mmsgRx) resize(size int) {
	r.size = size
	if r.own == nil {
		r.bufs = make([]byte, len(r.msgs)*size)
	}
	for i := range r.msgs {
		r.place(i)
		r.iovs[i].SetLen(size)
		h := &r.msgs[i].Hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&r.ctls[i]))
	}
}

// fill receives datagrams; r.n says how many, 0 without any to read. The error
// is ErrClosed, or one that will not go away. Passing errors are counted.
func (r *mmsgRx) fill(wait bool, st *counters) error {
	for {
		for i := range r.used {
			h := &r.msgs[i].Hdr
			h.Namelen = uint32(unsafe.Sizeof(sockaddr{}))
			h.SetControllen(int(unsafe.Sizeof(r.ctls[i])))
		}
		r.used = 0
		r.n, r.errno, r.wait = 0, 0, wait
		if r.raw.Read(r.fn) != nil {
			return ErrClosed // nothing else can be wrong, there are no read deadlines
		}
		switch r.errno {
		case 0:
			r.fails = 0
			st.rxCalls.Add(1)
			return nil
		case unix.EAGAIN:
			return nil
		case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL, unix.ENOSYS, unix.EPERM:
			return os.NewSyscallError("recvmmsg", r.errno)
		}
		// ICMP errors, a device that went down, no memory: all pass.
		st.rxErrors.Add(1)
		r.fails++
		backOff(r.fails)
		if !wait {
			return nil
		}
	}
}

func (r *mmsgRx) receive(fd uintptr) bool {
	for {
		n, e := 1, syscall.Errno(0)
		if r.ask == 1 {
			e = sys.Recvmsg(int(fd), &r.msgs[0], r.flags)
		} else {
			n, e = sys.Recvmmsg(int(fd), r.msgs[:r.ask], r.flags)
		}
		switch e {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if r.wait {
				return false
			}
		}
		// After an error the first header may have been changed already.
		r.used, r.errno = max(n, 1), e
		if e == 0 {
			r.n = n
			if n == r.ask {
				r.ask = min(2*n, len(r.msgs))
			} else {
				r.ask = n
			}
		}
		return true
	}
}

// data is the content of message i.
func (r *mmsgRx) data(i int) []byte {
	if r.own != nil {
		return r.own[i].Msg[:min(int(r.msgs[i].Len), r.size)]
	}
	return r.bufs[i*r.size:][:min(int(r.msgs[i].Len), r.size)]
}

// control reads what the kernel says beside message i: the size that a merged
// datagram is to be cut at (0: not merged) and the receive queue's drops so far.
func (r *mmsgRx) control(i int) (segment int, drops uint32, hasDrops bool) {
	left := int(r.msgs[i].Hdr.Controllen)
	at := unsafe.Pointer(&r.ctls[i])
	for left >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(at)
		l := int(h.Len)
		if l < unix.SizeofCmsghdr || l > left {
			break
		}
		data := unsafe.Add(at, unix.CmsgLen(0))
		if l >= unix.CmsgLen(4) {
			switch {
			case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO:
				segment = int(*(*int32)(data))
			case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL:
				drops, hasDrops = *(*uint32)(data), true
			}
		}
		step := unix.CmsgSpace(l - unix.CmsgLen(0))
		at, left = unsafe.Add(at, step), left-step
	}
	return segment, drops, hasDrops
}

const (
	txBatch     = 64 // messages of one sendmmsg call
	txParts     = 4 * txBatch
	maxSegments = 64 // of one UDP_SEGMENT send: UDP_MAX_SEGMENTS of Linux before 6.9
	stallLimit  = 50 * time.Millisecond
)

// txCtl is a control message with the segment size.
type txCtl struct {
	hdr unix.Cmsghdr
	seg uint16
	_   [6]byte
}

// mmsgTx sends many datagrams with one system call.
type mmsgTx struct {
	conn  pollConn
	raw   syscall.RawConn
	st    *counters
	msgs  [txBatch]sys.Mmsg
	iovs  [txParts]unix.Iovec
	names [txBatch]sockaddr
	ctls  [txBatch]txCtl
	lens  [txBatch]int // octets
	segs  [txBatch]int // segment size, 0: one datagram

	n, done int
	parts   int // of all messages
	begun   int // of these, before the message that is being put together
	mayWait bool
	stalled bool
	fn      func(fd uintptr) bool // t.transmit, made once

	// refused, when not nil, is told that the kernel would not cut message
	// i into segments. The message is then sent as single datagrams.
	refused func(i int, e syscall.Errno)
	single  sys.Mmsg
	singleV [2]unix.Iovec
}

func (t *mmsgTx) init(conn pollConn, st *counters) (err error) {
	t.conn, t.st = conn, st
	if t.raw, err = conn.SyscallConn(); err != nil {
		return err
	}
	t.fn = t.transmit
	for i := range t.msgs {
		h := &t.msgs[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&t.names[i]))
		t.ctls[i].hdr.Level = unix.SOL_UDP
		t.ctls[i].hdr.Type = unix.UDP_SEGMENT
		t.ctls[i].hdr.SetLen(unix.CmsgLen(2))
	}
	return nil
}

// room flushes when a message of so many parts cannot be added. parts must not exceed 2*maxSegments.
func (t *mmsgTx) room(parts int) error {
	if t.n < txBatch && t.parts+parts <= txParts {
		return nil
	}
	return t.flush()
}

// put queues a part of the next message, which stays referenced until flush. A segment of a message has two parts at
// most, and no part a bit of two segments unless it is the only one.
func (t *mmsgTx) put(data []byte) {
	if len(data) == 0 {
		return
	}
	v := &t.iovs[t.parts]
	v.Base = &data[0]
	v.SetLen(len(data))
	t.parts++
	t.lens[t.n] += len(data)
}

// putDatagram puts datagram i of b.
func (t *mmsgTx) putDatagram(b *buf.Batch, i int) {
	head, rest := b.Parts(i)
	t.put(head)
	t.put(rest)
}

// add queues the message made of the parts that were put, for the address in names[t.n], of nameLen octets.
func (t *mmsgTx) add(segment, nameLen int) {
	i := t.n
	t.n++
	t.segs[i] = segment
	h := &t.msgs[i].Hdr
	h.Iov = &t.iovs[min(t.begun, txParts-1)]
	h.SetIovlen(t.parts - t.begun)
	t.begun = t.parts
	h.Namelen = uint32(nameLen)
	if segment > 0 {
		t.ctls[i].seg = uint16(segment)
		h.Control = (*byte)(unsafe.Pointer(&t.ctls[i]))
		h.SetControllen(unix.CmsgSpace(2))
	} else {
		h.Control = nil
		h.SetControllen(0)
	}
}

// flush sends what was added. Its only error is ErrClosed.
func (t *mmsgTx) flush() error {
	if t.n == 0 {
		return nil
	}
	defer func() {
		clear(t.iovs[:t.parts]) // let go of the batch's memory
		clear(t.lens[:t.n])
		t.n, t.parts, t.begun = 0, 0, 0
	}()
	t.done, t.mayWait, t.stalled = 0, false, false
	if err := t.raw.Write(t.fn); err != nil {
		return ErrClosed
	}
	if !t.stalled {
		return nil
	}
	// The socket is full. Wait a little: dropping costs retransmissions, but
	// a device that stands still must not hold the sender for ever.
	t.st.txStalls.Add(1)
	t.mayWait = true
	t.conn.SetWriteDeadline(time.Now().Add(stallLimit))
	err := t.raw.Write(t.fn)
	t.conn.SetWriteDeadline(time.Time{})
	if err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return ErrClosed
		}
		for i := t.done; i < t.n; i++ {
			t.st.txDropped.Add(uint64(t.count(i)))
		}
	}
	return nil
}

// count is how many datagrams message i makes.
func (t *mmsgTx) count(i int) int {
	if t.segs[i] == 0 {
		return 1
	}
	return (t.lens[i] + t.segs[i] - 1) / t.segs[i]
}

func (t *mmsgTx) transmit(fd uintptr) bool {
	for t.done < t.n {
		k, e := 1, syscall.Errno(0)
		if t.done+1 == t.n {
			e = sys.Sendmsg(int(fd), &t.msgs[t.done], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		} else {
			k, e = sys.Sendmmsg(int(fd), t.msgs[t.done:t.n], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		switch e {
		case 0:
			t.sent(k)
		case unix.EINTR:
		case unix.EAGAIN:
			t.stalled = true
			return !t.mayWait
		case unix.ENOBUFS:
			// The device's queue was full and the kernel has dropped it.
			t.st.txDropped.Add(uint64(t.count(t.done)))
			t.done++
		default:
			if t.segs[t.done] > 0 && t.refused != nil {
				t.refused(t.done, e)
				t.sendSingly(int(fd), t.done)
			} else {
				t.st.txErrors.Add(uint64(t.count(t.done)))
			}
			t.done++
		}
	}
	return true
}

// sent counts k messages from t.done on.
func (t *mmsgTx) sent(k int) {
	var datagrams, bytes, segmented uint64
	for i := t.done; i < t.done+k; i++ {
		c := uint64(t.count(i))
		datagrams += c
		bytes += uint64(t.lens[i])
		if t.segs[i] > 0 {
			segmented += c
		}
	}
	t.st.txCalls.Add(1)
	t.st.txDatagrams.Add(datagrams)
	t.st.txBytes.Add(bytes)
	if segmented > 0 {
		t.st.txSegmented.Add(segmented)
	}
	t.done += k
}

// sendSingly sends the segments of message i one by one.
func (t *mmsgTx) sendSingly(fd, i int) {
	h := &t.single.Hdr
	h.Name, h.Namelen = t.msgs[i].Hdr.Name, t.msgs[i].Hdr.Namelen
	h.Iov = &t.singleV[0]
	defer clear(t.singleV[:])
	parts := unsafe.Slice(t.msgs[i].Hdr.Iov, t.msgs[i].Hdr.Iovlen)
	for left, off := t.lens[i], 0; left > 0; {
		n := min(t.segs[i], left)
		k := 0
		for have := 0; have < n; k++ {
			p := &parts[0]
			m := min(n-have, int(p.Len)-off)
			t.singleV[k].Base = (*byte)(unsafe.Add(unsafe.Pointer(p.Base), off))
			t.singleV[k].SetLen(m)
			have, off = have+m, off+m
			if off == int(p.Len) {
				parts, off = parts[1:], 0
			}
		}
		h.SetIovlen(k)
	send:
		e := sys.Sendmsg(fd, &t.single, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch e {
		case 0:
			t.st.txCalls.Add(1)
			t.st.txDatagrams.Add(1)
			t.st.txBytes.Add(uint64(n))
		case unix.EINTR:
			goto send
		case unix.EAGAIN, unix.ENOBUFS:
			t.st.txDropped.Add(1)
		default:
			t.st.txErrors.Add(1)
		}
		left -= n
	}
}
