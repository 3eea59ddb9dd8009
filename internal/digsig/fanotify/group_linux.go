package fanotify

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/sys"
)

// Group is a fanotify group. Its methods are safe for concurrent use, except that one goroutine at a time may Read. It is
// not closed by itself.
type Group struct {
	fd        int
	evictable bool
}

// What marks ask for. Permission events of directories are not wanted.
const (
	maskOpen = unix.FAN_OPEN_PERM
	maskExec = unix.FAN_OPEN_EXEC_PERM
)

// Open makes a group of class PRE_CONTENT, whose denials can have another reason than EPERM (Linux 6.14), without bounds on its queue and marks. It needs CAP_SYS_ADMIN in the first user
// namespace. Reading never waits, see Wait. The descriptor is closed on exec.
//
// The events tell the thread (FAN_REPORT_TID) and no pidfd (FAN_REPORT_PIDFD, which is of a process): the thread waits in the
// kernel for the answer, so its number is not given to another before, and what it waits in can be looked at.
func Open() (*Group, error) {
	// O_NONBLOCK: older kernels raise events of FIFOs too, and opening one for the event must not wait for its other end.
	const files = unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOATIME
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_PRE_CONTENT|unix.FAN_REPORT_TID|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE|unix.FAN_UNLIMITED_MARKS, files)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("fanotify: permission events need CAP_SYS_ADMIN: %w", err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return nil, &sys.UnsupportedError{Feature: "fanotify permission events (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)", MinKernel: "5.0", Err: err}
	case err != nil:
		return nil, os.NewSyscallError("fanotify_init", err)
	}
	return FromFD(fd), nil
}

// FromFD takes over the descriptor of a group that another process has made.
func FromFD(fd int) *Group { return &Group{fd: fd, evictable: true} }

// FD returns the descriptor, which stays the group's.
func (g *Group) FD() int { return g.fd }

// Close closes the descriptor. When it is the last, everything that waits is allowed.
func (g *Group) Close() error { return unix.Close(g.fd) }

func (g *Group) mark(flags uint, mask uint64, dir int, path string) error {
	return os.NewSyscallError("fanotify_mark", unix.FanotifyMark(g.fd, flags, mask, dir, path))
}

// MarkFileSystem asks for events of the whole file system (super block) that path is on, in every mount of it. Marking it
// again changes nothing.
func (g *Group) MarkFileSystem(path string, p Place, open bool) error {
	mask := uint64(maskExec)
	if open && p != ExecOnly {
		mask |= maskOpen
	}
	return g.mark(unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask, unix.AT_FDCWD, path)
}

// UnmarkFileSystem ends that.
func (g *Group) UnmarkFileSystem(path string) error {
	err := g.mark(unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, maskExec|maskOpen, unix.AT_FDCWD, path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Ignore ends events of the file behind a descriptor: of executions, of opens. The kernel takes it back when the file is
// written with write(2) or truncated, but not when it is written through a mapping.
func (g *Group) Ignore(fd int, exec, open bool) error {
	var on, off uint64
	for _, m := range []struct {
		mask uint64
		want bool
	}{{maskExec, exec}, {maskOpen, open}} {
		if m.want {
			on |= m.mask
		} else {
			off |= m.mask
		}
	}
	if off != 0 {
		if err := g.mark(unix.FAN_MARK_REMOVE|unix.FAN_MARK_IGNORED_MASK, off, fd, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if on == 0 {
		return nil
	}
	flags := uint(unix.FAN_MARK_ADD | unix.FAN_MARK_IGNORED_MASK)
	if g.evictable {
		err := g.mark(flags|unix.FAN_MARK_EVICTABLE, on, fd, "")
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		g.evictable = false // before Linux 5.19
	}
	return g.mark(flags, on, fd, "")
}

// IgnoreFile ends all events of a file by its path, until Flush; also when it is written. It is for the enforcer's own
// program, which the kernel keeps from being written while it runs.
func (g *Group) IgnoreFile(path string) error {
	return g.mark(unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORED_MASK|unix.FAN_MARK_IGNORED_SURV_MODIFY, maskExec|maskOpen, unix.AT_FDCWD, path)
}

// Flush removes the marks on files, and leaves those on file systems.
func (g *Group) Flush() error {
	return g.mark(unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "")
}

// Wait waits until there is something to read, or stop is readable, or the milliseconds are over (-1: for ever). It says
// whether there is something to read.
func (g *Group) Wait(stop, ms int) (bool, error) {
	p := []unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	_, err := unix.Poll(p, ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, os.NewSyscallError("poll", err)
	}
	return p[0].Revents&unix.POLLIN != 0, nil
}

// Buffer is what Read reads into.
type Buffer struct {
	b [4096]byte
	n int
}

const metaSize = int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))

// Read reads events. It returns false when there are none, or when the kernel could not open the file of the next one for
// us, for which it has denied the opening (no descriptors left, for one): the error then says why, and reading goes on.
func (g *Group) Read(b *Buffer) (bool, error) {
	n, err := unix.Read(g.fd, b.b[:])
	b.n = max(n, 0)
	if err != nil {
		b.n = 0
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return false, nil
		}
		return false, os.NewSyscallError("read", err)
	}
	return b.n > 0, nil
}

// Events calls each for the events in b, and overflow for a queue that overflowed, which cannot be.
func (b *Buffer) Events(each func(Event), overflow func()) error {
	for rest := b.b[:b.n]; len(rest) >= metaSize; {
		m := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&rest[0]))
		if m.Vers != unix.FANOTIFY_METADATA_VERSION || int(m.Event_len) < metaSize || int(m.Event_len) > len(rest) {
			return fmt.Errorf("fanotify: event of version %d and %d octets: want version %d", m.Vers, m.Event_len, unix.FANOTIFY_METADATA_VERSION)
		}
		switch {
		case m.Mask&unix.FAN_Q_OVERFLOW != 0:
			overflow()
		case m.Fd >= 0:
			each(Event{Exec: m.Mask&maskExec != 0, FD: m.Fd, TID: m.Pid})
		}
		rest = rest[m.Event_len:]
	}
	return nil
}

// Answer answers the event of a descriptor number. ErrGone says that nobody waits for it any more.
func (g *Group) Answer(fd int32, allow bool) error {
	if allow {
		return g.respond(fd, unix.FAN_ALLOW)
	}
	return g.respond(fd, unix.FAN_DENY)
}

// DenyBusy denies the execution of a file that somebody writes to, with ETXTBSY as execve(2) does, or with EPERM where the
// kernel cannot (before Linux 6.14; FAN_DENY_ERRNO in fs/notify/fanotify/fanotify_user.c, process_access_response).
func (g *Group) DenyBusy(fd int32) error {
	err := g.respond(fd, unix.FAN_DENY|uint32(unix.ETXTBSY)<<24)
	if errors.Is(err, unix.EINVAL) {
		return g.Answer(fd, false)
	}
	return err
}

func (g *Group) respond(fd int32, response uint32) error {
	r := unix.FanotifyResponse{Fd: fd, Response: response}
	for {
		_, err := unix.Write(g.fd, unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r)))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT):
			return ErrGone
		}
		return os.NewSyscallError("write", err)
	}
}

// ErrGone says that an event has been answered, or that who waited was killed.
var ErrGone = errors.New("fanotify: no such event waits")

// DenyAll denies every event that was read and not answered, whoever read it: of all descriptor numbers below limit. It is
// for when the reader is dead. It returns how many there were.
func (g *Group) DenyAll(limit int) int {
	n := 0
	for fd := range int32(limit) {
		for g.Answer(fd, false) == nil { // several readers may have had the same number
			n++
		}
	}
	return n
}
