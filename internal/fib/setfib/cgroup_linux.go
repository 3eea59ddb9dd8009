package setfib

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"midplane/internal/mountinfo"
	"midplane/internal/sys"
)

// hierarchy is the tree of control groups (cgroup v2), as mounted somewhere, or by this process for itself alone.
type hierarchy struct {
	root string   // where it is mounted
	own  *os.File // not nil: the private mount, which lives as long as this is open
}

func (h *hierarchy) Close() error {
	if h.own != nil {
		return h.own.Close()
	}
	return nil
}

// openHierarchy finds the tree, or mounts it privately where none is mounted (or all are read-only and writable is
// asked for): a mount that is in no directory and so visible to nobody else (fsmount(2)).
func openHierarchy(writable bool) (*hierarchy, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	found := findMount(string(b))
	if found != "" && (!writable || unix.Access(found, unix.W_OK) != unix.EROFS) {
		return &hierarchy{root: found}, nil
	}
	own, err := mountHierarchy()
	switch {
	case err == nil:
		return &hierarchy{root: fmt.Sprintf("/proc/self/fd/%d", own.Fd()), own: own}, nil
	case errors.Is(err, unix.ENOSYS):
		return nil, &sys.UnsupportedError{Feature: "a cgroup2 mount of one's own", MinKernel: "5.2", Err: err}
	case errors.Is(err, unix.ENODEV):
		return nil, &sys.UnsupportedError{Feature: "cgroup v2", MinKernel: "4.5", Err: err}
	case found != "":
		return nil, fmt.Errorf("%s is read-only (in a systemd unit: ProtectControlGroups=; in a container: its runtime), and mounting another: %w", found, err)
	}
	return nil, fmt.Errorf("no cgroup2 file system is mounted, and mounting one: %w", err)
}

func mountHierarchy() (*os.File, error) {
	fsfd, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "cgroup2"), nil
}

// findMount returns where the whole tree is mounted, writable if there is a choice, from /proc/self/mountinfo.
func findMount(text string) string {
	best := ""
	for line := range strings.Lines(text) {
		m, err := mountinfo.ParseLine(line)
		if err != nil || m.Root != "/" || m.Type != "cgroup2" {
			continue
		}
		if best == "" || m.Has("rw") {
			best = m.Point
		}
	}
	return best
}

// processGroup returns the path of the group that a process ("self" or a number) is in.
func processGroup(process string) (string, error) {
	b, err := os.ReadFile("/proc/" + process + "/cgroup")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		if path, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			return strings.TrimSuffix(strings.TrimSuffix(string(path), "\n"), " (deleted)"), nil
		}
	}
	return "", &sys.UnsupportedError{Feature: "cgroup v2", MinKernel: "4.5"}
}

// openGroup makes the cgroup of a FIB below the caller's unless it is there, and opens it. What is done through the open
// directory is done to this very group, or fails with ENODEV or ENOENT when it is gone.
func openGroup(h *hierarchy, g group) (*os.File, error) {
	path, err := processGroup("self")
	if err != nil {
		return nil, err
	}
	base, _ := splitGroup(path)
	if strings.HasPrefix(base, "/..") {
		return nil, fmt.Errorf("the cgroup of this process (%s) is outside of its cgroup namespace", path)
	}
	dir := filepath.Join(h.root, base, groupDir)
	for _, d := range []string{dir, filepath.Join(dir, g.String())} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		dir = d
	}
	return os.Open(dir)
}

// join moves the calling process into a group.
func join(dir *os.File) error {
	fd, err := unix.Openat(int(dir.Fd()), "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "cgroup.procs", Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("0")); err != nil {
		return &fs.PathError{Op: "write", Path: "cgroup.procs", Err: err}
	}
	return nil
}

// groups calls f for each cgroup of a FIB in the tree, with its directory.
func (h *hierarchy) groups(f func(dir string) error) error {
	return filepath.WalkDir(h.root+"/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && errors.Is(err, fs.ErrNotExist):
			return nil // it went meanwhile
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case d.Name() != groupDir:
			return nil
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return ignoreGone(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				if err := f(filepath.Join(path, e.Name())); err != nil {
					return err
				}
			}
		}
		return fs.SkipDir
	})
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// removeEmpty removes a group, and the groups that programs made below it, when no process is left in any.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	if populated, err := os.ReadFile(filepath.Join(dir, "cgroup.events")); err != nil || !bytes.Contains(populated, []byte("populated 0")) {
		return ignoreGone(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeEmpty(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		return ignoreGone(&fs.PathError{Op: "rmdir", Path: dir, Err: err})
	}
	return nil
}
