package setfib

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
)

// Report says what Refresh did.
type Report struct {
	Updated int      // cgroups whose programs were looked after
	Removed []string // cgroups without processes, and resolv.conf files of FIBs that are gone
	Stale   []string // cgroups with processes whose FIB is not set up any more; their programs stay as they are
}

// Refresh makes what belongs to running programs agree with the record of FIBs below dir ("" for the default): BPF programs
// with devices, ports and addresses, resolv.conf files with name servers. It removes cgroups that no process is left
// in, whoever started these and however they ended. Doing it twice changes nothing. It is for after each change of a
// FIB, and for the start of a daemon.
func Refresh(dir string) (Report, error) {
	if dir == "" {
		dir = binding.DefaultDir()
	}
	var r Report
	l, err := binding.Load(dir)
	if err != nil {
		return r, err
	}
	byID := map[uint32]binding.Binding{}
	for _, b := range l {
		byID[b.FIB] = b
	}
	err = errors.Join(refreshGroups(byID, &r), refreshFiles(byID, dir, &r))
	return r, err
}

func refreshGroups(byID map[uint32]binding.Binding, r *Report) error {
	h, err := openHierarchy(true)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // no cgroups, so none of ours
	}
	if err != nil {
		return err
	}
	defer h.Close()
	own, err := ownNetns()
	if err != nil {
		return err
	}
	var errs []error
	parents := map[string]bool{}
	err = h.groups(func(dir string) error {
		parents[filepath.Dir(dir)] = true
		path := strings.TrimPrefix(dir, h.root)
		if err := removeEmpty(dir); err != nil {
			return err
		}
		if _, err := os.Stat(dir); err != nil {
			r.Removed = append(r.Removed, path)
			return nil
		}
		g, ok := parseGroup(filepath.Base(dir))
		if !ok || g.netns != own {
			return nil // of another network namespace, whose record this is not
		}
		b, known := byID[g.fib]
		if !known || b.Backend == binding.Netns {
			r.Stale = append(r.Stale, path)
			return nil
		}
		if err := refreshGroup(dir, b, g.port); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			return nil
		}
		r.Updated++
		return nil
	})
	for p := range parents {
		_ = unix.Rmdir(p) // it stays when it is not empty
	}
	return errors.Join(append(errs, err)...)
}

func refreshGroup(dir string, b binding.Binding, port string) error {
	rule, err := ruleFor(b, port)
	if err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return ignoreGone(err)
	}
	defer f.Close()
	return ignoreGone(enforce(f, rule))
}

// refreshFiles rewrites the resolv.conf files that are there, and removes those of FIBs that are gone. Processes that
// have one mounted keep it as it was.
func refreshFiles(byID map[uint32]binding.Binding, dir string, r *Report) error {
	entries, err := os.ReadDir(filepath.Join(dir, "resolv"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), ".conf")
		id, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			continue
		}
		if b, known := byID[uint32(id)]; known {
			_, err = writeResolvConf(b, dir)
		} else {
			file := resolvPath(dir, uint32(id))
			if err = os.Remove(file); err == nil {
				r.Removed = append(r.Removed, file)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Remove ends what belongs to the programs of a FIB: it kills its processes with SIGKILL if kill is set, waits until
// they are gone, and removes its cgroups and its resolv.conf file. Without kill it fails with a *BusyError while there are
// processes.
func Remove(ctx context.Context, dir string, b binding.Binding, kill bool) error {
	if dir == "" {
		dir = binding.DefaultDir()
	}
	for {
		pids, err := Pids(dir, b)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			break
		}
		if !kill {
			return &BusyError{b.FIB, pids}
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d of FIB %d: %w", pid, b.FIB, err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond): // a killed process leaves in its own time, and nothing tells when
		}
	}
	h, err := openHierarchy(true)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err == nil {
		defer h.Close()
		own, err := ownNetns()
		if err != nil {
			return err
		}
		err = h.groups(func(path string) error {
			if g, ok := parseGroup(filepath.Base(path)); !ok || g.fib != b.FIB || g.netns != own {
				return nil
			}
			err := removeEmpty(path)
			_ = unix.Rmdir(filepath.Dir(path))
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := os.Remove(resolvPath(dir, b.FIB)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
