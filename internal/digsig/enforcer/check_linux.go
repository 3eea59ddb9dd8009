package enforcer

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
)

// suspect is a file that something runs or maps.
type suspect struct {
	open string // a path that leads to it, whatever its name is now
	name string
	exe  bool
	dev  uint64
	ino  uint64
	pids []int
}

// maxDeniedPIDs bounds what is told of each file.
const maxDeniedPIDs = 16

// Check looks at every program that runs and every file that is mapped executable, and says which of them would be
// denied. It needs root to see all processes; those that end meanwhile are passed over. It changes nothing.
func Check(ctx context.Context, c CheckConfig) (*CheckReport, error) {
	var only map[uint64]bool
	if len(c.Mounts) > 0 {
		only = map[uint64]bool{}
		for _, m := range c.Mounts {
			var st unix.Stat_t
			if err := unix.Stat(m, &st); err != nil {
				return nil, fmt.Errorf("mount %s: %w", m, err)
			}
			only[st.Dev] = true
		}
	}
	files, processes, err := running(only)
	if err != nil {
		return nil, err
	}
	report := &CheckReport{Files: len(files), Processes: processes, Denied: []Denied{}}
	work := make(chan *suspect)
	var mu sync.Mutex
	var wait sync.WaitGroup
	done := 0
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for s := range work {
				d := c.judge(ctx, s)
				mu.Lock()
				if d != nil {
					report.Denied = append(report.Denied, *d)
				}
				if done++; c.Progress != nil {
					c.Progress(done, len(files))
				}
				mu.Unlock()
			}
		})
	}
	for _, s := range files {
		if ctx.Err() != nil {
			break
		}
		work <- s
	}
	close(work)
	wait.Wait()
	slices.SortFunc(report.Denied, func(a, b Denied) int { return strings.Compare(a.Path, b.Path) })
	return report, ctx.Err()
}

// judge returns nil when a file is good.
func (c *CheckConfig) judge(ctx context.Context, s *suspect) *Denied {
	use := digsig.UseLib
	if s.exe {
		use = digsig.UseExec
	}
	q := digsig.Request{Use: use, At: time.Now(), Path: s.name}
	var v digsig.Verdict
	known := false
	if c.Known != nil {
		if v, known = c.Known(s.dev, s.ino); known {
			v = c.Verifier.RecheckRequest(v, q)
		}
	}
	if !known {
		fd, err := unix.Open(s.open, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil // it has ended
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
		q.Signature, q.Carrier = signatureOf(fd), digsig.InXattr
		v = c.Verifier.Check(ctx, content(fd), st.Size, q)
	}
	if s.exe && !good(v) { // ld.so and interpreters run by themselves too
		if i := c.Verifier.RecheckRequest(v, digsig.Request{Use: digsig.UseInterp, At: q.At, Path: s.name}); good(i) {
			v = i
		}
	}
	if good(v) {
		return nil
	}
	o := opinionOf(v)
	reason := v.Reason
	if v.Cause != 0 {
		reason = v.Cause
	}
	return &Denied{Path: s.name, Use: use.String(), Reason: o.Reason, Detail: o.Detail, PIDs: s.pids,
		Wanted: reason == digsig.Revoked || reason == digsig.Rollback}
}

// running lists the files that processes run and map, each once for running and once for mapping.
func running(only map[uint64]bool) (files []*suspect, processes int, err error) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil, 0, err
	}
	type id struct {
		dev, ino uint64
		exe      bool
	}
	found := map[id]*suspect{}
	add := func(pid int, path, name string, exe bool) bool {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || only != nil && !only[st.Dev] {
			return false
		}
		k := id{st.Dev, st.Ino, exe}
		s := found[k]
		if s == nil {
			s = &suspect{open: path, name: name, exe: exe, dev: st.Dev, ino: st.Ino}
			found[k] = s
			files = append(files, s)
		}
		if len(s.pids) < maxDeniedPIDs {
			s.pids = append(s.pids, pid)
		}
		return true
	}
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + e.Name()
		exe, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue // a thread of the kernel, or gone
		}
		any := add(pid, dir+"/exe", exe, true)
		maps, err := os.ReadFile(dir + "/maps")
		if err != nil {
			continue
		}
		var last uint64
		for _, a := range parseMaps(string(maps)) {
			if !a.exec || a.inode == 0 || a.inode == last || a.path == exe {
				continue
			}
			last = a.inode
			any = add(pid, fmt.Sprintf("%s/map_files/%x-%x", dir, a.from, a.to), a.path, false) || any
		}
		if any {
			processes++
		}
	}
	return files, processes, nil
}

// check is Check with what the worker knows.
func (w *worker) check(v *digsig.Verifier) (*CheckReport, error) {
	return Check(context.Background(), CheckConfig{Verifier: v, Mounts: w.cfg.Mounts, Known: w.known})
}
