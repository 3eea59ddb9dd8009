package xdp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"midplane/internal/mountinfo"
)

const (
	linkPrefix  = "link-"
	bpffsMagic  = 0xcafe4a11 // BPF_FS_MAGIC
	mountSource = "midplane" // of a bpffs that we mounted
	nextSuffix  = "-next"    // of a pin that is about to take a place
)

func isLink(name string) bool { return strings.HasPrefix(name, linkPrefix) }

func isMap(name string) bool {
	return slices.Contains([]string{
		forwardMapImage, forwardMapPorts, forwardMapDevices, forwardMapLinks, forwardMapNeighbours, forwardMapStats, forwardMapAsked, forwardMapMisses, forwardMapGeneration,
	}, strings.TrimSuffix(name, nextSuffix))
}

func onBPFFS(path string) (bool, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return uint32(s.Type) == bpffsMagic, nil
}

// prepareDir makes dir a directory in a bpffs; fresh says that nothing is pinned there yet.
func prepareDir(dir string) (fresh bool, err error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return false, &FieldError{"dir", dir, "an absolute path"}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	in, err := onBPFFS(dir)
	if err != nil {
		return false, err
	}
	if !in {
		if l, err := os.ReadDir(dir); err != nil || len(l) > 0 {
			return false, errors.Join(err, &FieldError{"dir", dir, "a directory in a bpffs, or an empty one to mount a bpffs on"})
		}
		if err := syscall.Mount(mountSource, dir, "bpf", 0, "mode=0700"); err != nil {
			return false, fmt.Errorf("mount a bpffs on %s: %w (or: mount -t bpf bpf /sys/fs/bpf, and a directory below it)", dir, err)
		}
	}
	n, err := pins(dir)
	return n == 0, err
}

// pins counts what is in a directory, without what a bpffs has by itself in its root (maps.debug, progs.debug).
func pins(dir string) (n int, err error) {
	l, err := os.ReadDir(dir)
	for _, e := range l {
		if !strings.HasSuffix(e.Name(), ".debug") {
			n++
		}
	}
	return n, err
}

// releaseDir undoes what prepareDir did, when nothing is left in dir.
func releaseDir(dir string) error {
	if n, err := pins(dir); err != nil || n > 0 {
		return err
	}
	ours, err := mountedByUs(dir)
	if err != nil {
		return err
	}
	if ours {
		if err := syscall.Unmount(dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	err = os.Remove(dir)
	if errors.Is(err, syscall.EBUSY) { // a mount that the administrator made
		return nil
	}
	return err
}

func mountedByUs(dir string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		m, err := mountinfo.ParseLine(line)
		if err == nil && m.Point == dir && m.Type == "bpf" && m.Source == mountSource {
			return true, nil
		}
	}
	return false, nil
}
