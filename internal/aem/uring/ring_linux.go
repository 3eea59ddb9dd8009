package uring

import (
	"encoding/binary"
	"os"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/sys"
)

// Of <linux/io_uring.h>.
const (
	setupCQSize       = 1 << 3
	setupClamp        = 1 << 4
	setupSubmitAll    = 1 << 7
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featExtArg     = 1 << 8

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	offSQRing = 0
	offSQEs   = 0x10000000

	registerPbufRing = 22
)

// Operations and flags of entries.
const (
	OpPollAdd     = 6
	OpRecvmsg     = 10
	OpAccept      = 13
	OpAsyncCancel = 14
	OpSend        = 26
	OpRecv        = 27

	SQEBufferSelect = 1 << 5

	PollMulti       = 1 << 0 // in Len
	AcceptMultishot = 1 << 0 // in IOPrio
	RecvMultishot   = 1 << 1 // in IOPrio
	RecvPollFirst   = 1 << 0 // in IOPrio

	CQEBuffer = 1 << 0
	CQEMore   = 1 << 1
)

// SQE is an entry of the submission queue, struct io_uring_sqe.
type SQE struct {
	Opcode   uint8
	Flags    uint8
	IOPrio   uint16
	FD       int32
	Off      uint64
	Addr     uint64
	Len      uint32
	OpFlags  uint32
	UserData uint64
	BufGroup uint16
	_        uint16
	_        int32
	_        [2]uint64
}

// CQE is an entry of the completion queue, struct io_uring_cqe.
type CQE struct {
	UserData uint64
	Res      int32
	Flags    uint32
}

// Buffer is the provided buffer that a completion used; ok is false if it used none.
func (c *CQE) Buffer() (id uint16, ok bool) { return uint16(c.Flags >> 16), c.Flags&CQEBuffer != 0 }

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// Ring is one io_uring. It is for the thread that opened it, alone.
type Ring struct {
	fd         int
	mem, sqMem []byte

	sqHead, sqTail *atomic.Uint32
	sqMask         uint32
	sqes           []SQE
	filled         uint32 // tail of what the caller filled in
	told           uint32 // tail of what the kernel took

	cqHead, cqTail *atomic.Uint32
	cqMask         uint32
	cqes           []CQE
	overflow       *atomic.Uint32

	arg getEvents
	ts  unix.Timespec
}

type getEvents struct {
	sigmask   uint64
	sigmaskSz uint32
	_         uint32
	ts        uint64
}

// Open makes a ring whose submission queue has that many entries, and whose completion queue cq. Both are powers of two.
func Open(entries, cq uint32) (*Ring, error) {
	p := params{cqEntries: cq, flags: setupCQSize | setupClamp | setupSubmitAll | setupSingleIssuer | setupDeferTaskrun}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, forbidden(errno)
	}
	r := &Ring{fd: int(fd)}
	if need := uint32(featSingleMmap | featNoDrop | featExtArg); p.features&need != need {
		unix.Close(r.fd)
		return nil, &sys.UnsupportedError{Feature: "io_uring with one mapping, no drops and wait times", MinKernel: "5.11"}
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+uint32(unsafe.Sizeof(CQE{}))*p.cqEntries)
	var err error
	if r.mem, err = unix.Mmap(r.fd, offSQRing, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err == nil {
		r.sqMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(SQE{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	if err != nil {
		r.Close()
		return nil, os.NewSyscallError("mmap of io_uring", err)
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.mem[off])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sq.head), word(p.sq.tail), p.sqEntries-1
	r.cqHead, r.cqTail, r.cqMask, r.overflow = word(p.cq.head), word(p.cq.tail), p.cqEntries-1, word(p.cq.overflow)
	r.sqes = unsafe.Slice((*SQE)(unsafe.Pointer(&r.sqMem[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*CQE)(unsafe.Pointer(&r.mem[p.cq.cqes])), p.cqEntries)
	array := unsafe.Slice((*uint32)(unsafe.Pointer(&r.mem[p.sq.array])), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return r, nil
}

// forbidden says what keeps io_uring from this process.
func forbidden(errno unix.Errno) error {
	e := &sys.UnsupportedError{Feature: "io_uring", Err: os.NewSyscallError("io_uring_setup", errno)}
	switch b, _ := os.ReadFile("/proc/sys/kernel/io_uring_disabled"); {
	case errno == unix.EPERM && strings.TrimSpace(string(b)) == "2":
		e.Feature = "io_uring, which kernel.io_uring_disabled=2 forbids,"
	case errno == unix.EPERM && strings.TrimSpace(string(b)) == "1":
		e.Feature = "io_uring, which kernel.io_uring_disabled=1 forbids to this group,"
	case errno == unix.EPERM || errno == unix.EACCES:
		e.Feature = "io_uring, which a seccomp filter or security module forbids,"
	case errno == unix.ENOSYS:
		e.Feature = "io_uring, which the kernel lacks or a seccomp filter hides,"
	case errno == unix.EINVAL:
		e.Feature, e.MinKernel = "io_uring with deferred work (DEFER_TASKRUN)", "6.1"
	}
	return e
}

// Probe says why no ring can be had, nil if one can. It makes one and closes it.
func Probe() error {
	r, err := Open(8, 16)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := r.ProvideBuffers(0, 8)
	if err != nil {
		return err
	}
	b.Close()
	return nil
}

// Close gives the ring back. The kernel cancels what it has not completed.
func (r *Ring) Close() {
	unix.Close(r.fd)
	if r.sqMem != nil {
		_ = unix.Munmap(r.sqMem)
	}
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
	}
	r.mem, r.sqMem = nil, nil
}

// Next is the next free entry, cleared; nil if the kernel must take some first (Enter).
func (r *Ring) Next() *SQE {
	if r.filled-r.sqHead.Load() > r.sqMask {
		return nil
	}
	s := &r.sqes[r.filled&r.sqMask]
	*s = SQE{}
	r.filled++
	return s
}

// Mode is whether Enter waits, and how.
type Mode uint8

// Modes.
const (
	Poll  Mode = iota // it does not wait
	Block             // the runtime knows that the thread blocks, and uses its P for others
	Hold              // the runtime does not know: the P stays, and the runtime's signals end the wait
)

// Enter submits what Next gave out and, unless mode is Poll, waits for a completion, no longer than timeout says (nil: for
// ever). It returns 0 when the time is over, unix.EBUSY or EAGAIN when completions must be taken first.
func (r *Ring) Enter(mode Mode, timeout *unix.Timespec) unix.Errno {
	r.sqTail.Store(r.filled)
	submit := r.filled - r.told
	flags, least := uintptr(enterGetEvents), uintptr(0)
	var arg, size uintptr
	if mode != Poll {
		least = 1
		if timeout != nil {
			r.ts = *timeout
			r.arg = getEvents{ts: uint64(uintptr(unsafe.Pointer(&r.ts)))}
			arg, size = uintptr(unsafe.Pointer(&r.arg)), unsafe.Sizeof(r.arg)
			flags |= enterExtArg
		}
	}
	var n uintptr
	var errno unix.Errno
	if mode == Block {
		n, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), least, flags, arg, size)
	} else {
		n, _, errno = unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), least, flags, arg, size)
	}
	if errno == 0 {
		r.told += uint32(n)
	} else {
		r.told = r.sqHead.Load() // what it took before it failed
	}
	if errno == unix.ETIME || errno == unix.EINTR {
		return 0
	}
	return errno
}

// Peek is the oldest completion that is not Seen, nil if there is none. It is valid until Seen.
func (r *Ring) Peek() *CQE {
	head := r.cqHead.Load()
	if head == r.cqTail.Load() {
		return nil
	}
	return &r.cqes[head&r.cqMask]
}

// Seen gives the oldest completion back.
func (r *Ring) Seen() { r.cqHead.Store(r.cqHead.Load() + 1) }

// Waiting is how many completions are there.
func (r *Ring) Waiting() int { return int(r.cqTail.Load() - r.cqHead.Load()) }

type bufReg struct {
	addr    uint64
	entries uint32
	group   uint16
	_       uint16
	_       [3]uint64
}

type bufEntry struct {
	addr uint64
	len  uint32
	id   uint16
	tail uint16 // of the ring, in the first entry
}

// Buffers is a ring of provided buffers, struct io_uring_buf_ring.
type Buffers struct {
	mem     []byte
	entries []bufEntry
	mask    uint16
	tail    uint16
}

// ProvideBuffers registers a ring of that many buffers, a power of two, for a group; it has none yet.
func (r *Ring) ProvideBuffers(group uint16, count int) (*Buffers, error) {
	size := max(count*int(unsafe.Sizeof(bufEntry{})), os.Getpagesize())
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	reg := bufReg{addr: uint64(uintptr(unsafe.Pointer(&mem[0]))), entries: uint32(count), group: group}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerPbufRing, uintptr(unsafe.Pointer(&reg)), 1, 0, 0); errno != 0 {
		_ = unix.Munmap(mem)
		return nil, &sys.UnsupportedError{Feature: "io_uring with rings of provided buffers", MinKernel: "5.19", Err: os.NewSyscallError("io_uring_register", errno)}
	}
	return &Buffers{mem: mem, entries: unsafe.Slice((*bufEntry)(unsafe.Pointer(&mem[0])), count), mask: uint16(count - 1)}, nil
}

// Add provides a buffer; the kernel sees it after Publish.
func (b *Buffers) Add(id uint16, mem []byte) {
	e := &b.entries[b.tail&b.mask]
	e.addr, e.len, e.id = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))), uint32(len(mem)), id
	b.tail++
}

// Publish shows the kernel what Add provided. The tail is half of a word whose other half is the first buffer's id, which
// only this thread writes.
func (b *Buffers) Publish() {
	word := (*atomic.Uint32)(unsafe.Pointer(&b.entries[0].id))
	var both [4]byte
	binary.NativeEndian.PutUint16(both[:], b.entries[0].id)
	binary.NativeEndian.PutUint16(both[2:], b.tail)
	word.Store(binary.NativeEndian.Uint32(both[:]))
}

// Close frees the memory of the ring, after the ring that it was registered with is closed.
func (b *Buffers) Close() { _ = unix.Munmap(b.mem) }
