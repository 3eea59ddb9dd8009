package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/sys"
)

// Masks of inotify and fanotify that package aem names.
const (
	InAccess, InModify, InAttrib, InCloseWrite = unix.IN_ACCESS, unix.IN_MODIFY, unix.IN_ATTRIB, unix.IN_CLOSE_WRITE
	InMovedFrom, InMovedTo, InCreate, InDelete = unix.IN_MOVED_FROM, unix.IN_MOVED_TO, unix.IN_CREATE, unix.IN_DELETE
	InDeleteSelf, InMoveSelf, InIgnored        = unix.IN_DELETE_SELF, unix.IN_MOVE_SELF, unix.IN_IGNORED
	InOverflow, InIsDir                        = unix.IN_Q_OVERFLOW, unix.IN_ISDIR

	FanAccess, FanModify, FanCloseWrite = unix.FAN_ACCESS, unix.FAN_MODIFY, unix.FAN_CLOSE_WRITE
	FanOpen, FanOpenExec, FanOverflow   = unix.FAN_OPEN, unix.FAN_OPEN_EXEC, unix.FAN_Q_OVERFLOW

	LinkGroups  = 1 << (unix.RTNLGRP_LINK - 1)
	AddrGroups  = 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	RouteGroups = 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)
)

// Close closes a descriptor.
func Close(fd int) { _ = unix.Close(fd) }

// ErrAgain says that there is nothing to read now. ErrOverflow says that the kernel had more than its queue holds.
var (
	ErrAgain    error = unix.EAGAIN
	ErrOverflow error = unix.ENOBUFS
)

// Read reads once, without waiting.
func Read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// Pidfd refers to a process, child or not.
func Pidfd(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, unix.O_NONBLOCK)
	switch {
	case err == unix.ENOSYS:
		return -1, &sys.UnsupportedError{Feature: "watching processes (pidfd)", MinKernel: "5.3", Err: err}
	case err == unix.EINVAL: // O_NONBLOCK came with 5.10, and polling needs it not
		fd, err = unix.PidfdOpen(pid, 0)
	}
	return fd, os.NewSyscallError("pidfd_open", err)
}

// ExitOf is how a child ended: an exit code, or a signal. It leaves the child to be waited for. ok is false for what is not
// a child, or has been waited for.
func ExitOf(fd int) (code, signal int, ok bool) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || info.Signo == 0 {
		return 0, 0, false
	}
	// Behind si_code come si_pid, si_uid and si_status, aligned to a pointer.
	at := 12
	if unsafe.Sizeof(uintptr(0)) == 8 {
		at = 16
	}
	status := int(int32(binary.NativeEndian.Uint32((*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))[at+8:])))
	const exited = 1 // CLD_EXITED
	if info.Code == exited {
		return status, 0, true
	}
	return -1, status, true
}

// Inotify opens an instance.
func Inotify() (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	return fd, os.NewSyscallError("inotify_init1", err)
}

// AddFile watches a path.
func AddFile(fd int, path string, mask uint32) (int, error) {
	wd, err := unix.InotifyAddWatch(fd, path, mask)
	if err != nil {
		return 0, &os.PathError{Op: "inotify_add_watch", Path: path, Err: err}
	}
	return wd, nil
}

// Fanotify watches an object, or all of the mount or filesystem that it is in ("", "mount", "filesystem"), for notification.
func Fanotify(path, scope string, mask uint64) (int, error) {
	flags := map[string]uint{"": 0, "mount": unix.FAN_MARK_MOUNT, "filesystem": unix.FAN_MARK_FILESYSTEM}
	scopeFlag, ok := flags[scope]
	if !ok {
		return -1, fmt.Errorf("aem/source: scope is %q, want mount, filesystem or none", scope)
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		if errors.Is(err, unix.ENOSYS) {
			return -1, &sys.UnsupportedError{Feature: "fanotify", Err: err}
		}
		return -1, os.NewSyscallError("fanotify_init", err)
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|scopeFlag, mask, unix.AT_FDCWD, path); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "fanotify_mark", Path: path, Err: err}
	}
	return fd, nil
}

// PathOf is the path of an open descriptor.
func PathOf(fd int) string {
	p, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return p
}

// Eventfd makes a counter.
func Eventfd() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return fd, os.NewSyscallError("eventfd", err)
}

// Duplicate gives a descriptor that does not block and is closed apart from fd. Not blocking is shared with fd.
func Duplicate(fd int) (int, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		if err = unix.SetNonblock(d, true); err != nil {
			unix.Close(d)
		}
	}
	return d, os.NewSyscallError("fcntl", err)
}

// Write writes once, without waiting.
func Write(fd int, b []byte) error {
	_, err := unix.Write(fd, b)
	return os.NewSyscallError("write", err)
}

// Pressure opens a trigger of pressure stall information on a file such as /proc/pressure/memory.
func Pressure(path string, full bool, stall, window time.Duration) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return -1, &sys.UnsupportedError{Feature: "pressure stall information (" + path + ")", MinKernel: "4.20", Err: err}
		}
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	share := "some"
	if full {
		share = "full"
	}
	trigger := fmt.Sprintf("%s %d %d\x00", share, stall.Microseconds(), window.Microseconds())
	if _, err := unix.Write(fd, []byte(trigger)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("aem/source: trigger %q on %s: %w", trigger[:len(trigger)-1], path, err)
	}
	return fd, nil
}

// Netlink opens a socket of route netlink in groups (a mask).
func Netlink(groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, os.NewSyscallError("socket(netlink)", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind(netlink)", err)
	}
	return fd, nil
}
