package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is a network namespace and connections into it.
type space struct {
	ns *os.File // nil: this process's own
	rt *rtnl
	h  *netlink.Handle
}

// maxSpaces bounds how many namespaces are open at once.
const maxSpaces = 64

// space opens a namespace: home for "", else that of a FIB. The error is fs.ErrNotExist when it is not there. It stays open
// until closeSpaces.
func (k *Kernel) space(name string) (*space, error) {
	if s := k.spaces[name]; s != nil {
		return s, nil
	}
	if len(k.spaces) >= maxSpaces {
		k.closeSpaces()
	}
	var ns *os.File
	var err error
	switch {
	case name != "":
		ns, err = openSpace(k.spacePath(name))
	case k.config.Netns != "":
		ns, err = openSpace(k.config.Netns)
	}
	if err != nil {
		return nil, err
	}
	s, err := newSpace(ns)
	if err != nil {
		if ns != nil {
			_ = ns.Close()
		}
		return nil, err
	}
	k.spaces[name] = s
	return s, nil
}

func newSpace(ns *os.File) (*space, error) {
	s := &space{ns: ns}
	var err error
	if s.rt, err = dial(ns); err != nil {
		return nil, err
	}
	err = s.in(func() (err error) {
		s.h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		s.rt.close()
		return nil, err
	}
	return s, nil
}

func (s *space) close() {
	s.rt.close()
	s.h.Close()
	if s.ns != nil {
		_ = s.ns.Close()
	}
}

func (k *Kernel) closeSpaces() {
	for _, s := range k.spaces {
		s.close()
	}
	clear(k.spaces)
}

func (k *Kernel) spacePath(name string) string { return filepath.Join(k.config.NetnsDir, name) }

// openSpace opens the file of a namespace. A file that is not one, as a crash may leave it, counts as not there.
func openSpace(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.NSFS_MAGIC {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not a namespace: %w", path, fs.ErrNotExist)
	}
	return f, nil
}

// in runs f on a thread that is in the namespace. f starts no goroutine.
func (s *space) in(f func() error) error {
	if s.ns == nil {
		return f()
	}
	return onThread(func() error {
		if err := unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which comes back to its network namespace or ends.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open(threadSpace())
		if err != nil {
			done <- err
			return
		}
		defer own.Close()
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func threadSpace() string { return fmt.Sprintf("/proc/self/task/%d/ns/net", syscall.Gettid()) }

// addSpace makes a namespace with a file to hold it, as ip-netns(8) does.
func (k *Kernel) addSpace(name string) error {
	if err := k.prepareSpaces(); err != nil {
		return err
	}
	path := k.spacePath(name)
	if f, err := openSpace(path); err == nil {
		return f.Close()
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return err
	}
	_ = f.Close()
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return unix.Mount(threadSpace(), path, "none", unix.MS_BIND, "")
	})
}

// defaultNetnsDir is where ip-netns(8) looks.
const defaultNetnsDir = "/run/netns"

// prepareSpaces makes the directory of namespaces. That of ip-netns(8) is shared with other mount namespaces, as it does it,
// so that a name that is removed in one is removed in all.
func (k *Kernel) prepareSpaces() error {
	dir := k.config.NetnsDir
	if err := os.MkdirAll(dir, 0o755); err != nil || dir != defaultNetnsDir {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil { // iproute2 does likewise since 6.5
		return err
	}
	err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount yet
		if err = unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	return err
}

// delSpace removes the name of a namespace. The namespace itself ends with the last process in it.
func (k *Kernel) delSpace(name string) error {
	if s := k.spaces[name]; s != nil {
		s.close()
		delete(k.spaces, name)
	}
	path := k.spacePath(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !isAny(err, unix.EINVAL, unix.ENOENT) {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isAny says whether an error is one of some error numbers.
func isAny(err error, numbers ...syscall.Errno) bool {
	var no syscall.Errno
	if !errors.As(err, &no) {
		return false
	}
	for _, n := range numbers {
		if n == no {
			return true
		}
	}
	return false
}
