package enforcer

import (
	"context"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/gate"
	"midplane/internal/digsig/text"
	"midplane/internal/mono"
)

// rules are those of the policy that are about paths and programs.
type rules struct {
	policy   *digsig.Policy
	patterns []string // of paths
	guards   bool     // there are patterns
}

func rulesOf(p *digsig.Policy) *rules {
	r := &rules{policy: p, patterns: append([]string(nil), p.Protect...)}
	for _, i := range p.Interpreters {
		r.patterns = append(r.patterns, i.Scripts...)
	}
	r.guards = len(r.patterns) > 0
	return r
}

func (r *rules) match(path string) bool { return matches(r.patterns, path) }

func matches(patterns []string, path string) bool {
	for _, p := range patterns {
		if text.Match(p, path) {
			return true
		}
	}
	return false
}

// ask finds out who asks, and tells the gate. The event's use of its file ends with it.
func (w *worker) ask(ev event) {
	r := w.rules.Load()
	s := gate.Subject{ID: ev.id}
	path := pathOf(ev.f.fd)
	if !ev.class.Loaded() && matches(r.policy.Protect, path) {
		s.Want |= gate.MayRead
	}
	call, _ := callOf(int(ev.tid))
	switch {
	case ev.op == gate.OpOpen && ev.class.Loaded() && call.writeOnly():
		s.Exempt = true // it cannot be mapped
	case len(r.policy.Exempt) > 0 || len(r.policy.Interpreters) > 0:
		if d, ok := w.programOf(int(ev.tid)); ok {
			if i, is := r.policy.Interpreters[d]; is && !ev.class.Loaded() && matches(i.Scripts, path) {
				s.Want = gate.MayScript
			} else if _, is := r.policy.Exempt[d]; is {
				s.Exempt = !loading(int(ev.tid), call)
			}
		}
	}
	now := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate.Subject(now, s)
	w.drain(now)
	w.drop(ev.f)
}

// programOf returns the digest of the program that a thread runs, which waits for an answer and so does not end. The
// kernel lets nobody write to it while it runs.
func (w *worker) programOf(tid int) (d [32]byte, ok bool) {
	exe := "/proc/" + strconv.Itoa(tid) + "/exe"
	var st unix.Stat_t
	if unix.Stat(exe, &st) != nil {
		return d, false
	}
	w.mu.Lock()
	if f := w.entries[gate.Key{Dev: st.Dev, Ino: st.Ino}]; f != nil && f.judged && f.leased {
		d, ok = f.verdict.File, f.verdict.File != [32]byte{}
	}
	w.mu.Unlock()
	if ok {
		return d, true
	}
	w.subjects <- struct{}{}
	defer func() { <-w.subjects }()
	fd, err := unix.Open(exe, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return d, false
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.Gate.Patience)
	defer cancel()
	v := w.judge.Load().Check(ctx, content(fd), st.Size, digsig.Request{Use: digsig.UseExec, At: time.Now()})
	return v.File, v.File != [32]byte{}
}

// call is the system call that a thread waits in: what is in registers, which nobody can change meanwhile.
type call struct {
	known  bool
	number int
	args   [6]uint64
	pc     uint64
}

// callOf reads /proc/TID/syscall. A thread that has asked is about to sleep.
func callOf(tid int) (c call, err error) {
	for range 100 {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/syscall")
		if err != nil {
			return c, err
		}
		words := strings.Fields(string(b))
		if len(words) == 1 { // running
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if len(words) < 9 {
			return c, nil
		}
		c.number, err = strconv.Atoi(words[0])
		for i := range c.args {
			if err == nil {
				c.args[i], err = strconv.ParseUint(words[1+i], 0, 64)
			}
		}
		if err == nil {
			c.pc, err = strconv.ParseUint(words[8], 0, 64)
		}
		c.known = err == nil
		return c, err
	}
	return c, nil
}

// writeOnly says whether the call opens a file that can then only be written: such a one cannot be mapped (mm/mmap.c,
// do_mmap), so nothing in it is loaded.
func (c call) writeOnly() bool {
	if !c.known {
		return false
	}
	flags := uint64(unix.O_RDONLY)
	switch c.number {
	case unix.SYS_OPENAT:
		flags = c.args[2]
	case sysOpen:
		flags = c.args[1]
	case sysCreat:
		return true
	}
	return flags&unix.O_ACCMODE == unix.O_WRONLY
}

// loading says whether a thread opens a file by the dynamic loader, to map it: a program that may read everything must not
// thereby load everything, for LD_PRELOAD is in everybody's hands. The system call then comes from within the loader's
// code. When that cannot be told, it does.
func loading(tid int, c call) bool {
	dir := "/proc/" + strconv.Itoa(tid)
	base, ok := loaderBase(dir)
	if !ok {
		return true
	}
	if base == 0 {
		return false // linked statically
	}
	maps, err := os.ReadFile(dir + "/maps")
	if err != nil || !c.known {
		return true
	}
	var loader, caller area
	for _, a := range parseMaps(string(maps)) {
		if a.from <= base && base < a.to {
			loader = a
		}
		if a.from <= c.pc && c.pc < a.to {
			caller = a
		}
	}
	return loader.inode == 0 || caller.dev == loader.dev && caller.inode == loader.inode
}

// loaderBase returns where the loader of a process was mapped (AT_BASE), 0 if it has none.
func loaderBase(dir string) (uint64, bool) {
	const atBase = 7
	b, err := os.ReadFile(dir + "/auxv")
	if err != nil || len(b) < 16 {
		return 0, false
	}
	for ; len(b) >= 16; b = b[16:] {
		if binary.NativeEndian.Uint64(b) == atBase {
			return binary.NativeEndian.Uint64(b[8:]), true
		}
	}
	return 0, false
}

// area is a line of /proc/PID/maps.
type area struct {
	from, to uint64
	exec     bool
	dev      string
	inode    uint64
	path     string
}

func parseMaps(s string) []area {
	var all []area
	for line := range strings.Lines(s) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
		if len(f) < 5 {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		a := area{exec: strings.Contains(f[1], "x"), dev: f[3]}
		a.from, _ = strconv.ParseUint(from, 16, 64)
		a.to, _ = strconv.ParseUint(to, 16, 64)
		a.inode, _ = strconv.ParseUint(f[4], 10, 64)
		if len(f) == 6 {
			a.path = strings.TrimLeft(f[5], " ")
		}
		all = append(all, a)
	}
	return all
}

// describe fills in who asks: a thread that waits.
func describe(r *audit.Record, tid int) {
	dir := "/proc/" + strconv.Itoa(tid)
	r.Exe, _ = os.Readlink(dir + "/exe")
	if b, err := os.ReadFile(dir + "/status"); err == nil {
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			f := strings.Fields(value)
			if len(f) == 0 {
				continue
			}
			switch name {
			case "Tgid":
				r.PID, _ = strconv.Atoi(f[0])
			case "PPid":
				r.PPID, _ = strconv.Atoi(f[0])
			case "Uid":
				if n, err := strconv.Atoi(f[0]); err == nil {
					r.UID = &n
				}
			}
		}
	}
	if b, err := os.ReadFile(dir + "/cgroup"); err == nil {
		r.Cgroup = cgroupOf(string(b))
	}
}

// cgroupOf picks the group of version 2, else that of systemd, else the first that is not the root.
func cgroupOf(s string) string {
	best := ""
	for line := range strings.Lines(s) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) < 3 {
			continue
		}
		if (f[0] == "0" || f[1] == "name=systemd") && f[2] != "/" || best == "" {
			best = f[2]
		}
	}
	return best
}
