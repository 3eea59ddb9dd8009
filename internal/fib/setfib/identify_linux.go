package setfib

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"midplane/internal/fib/binding"
)

// ErrNone says that a process is in no FIB.
var ErrNone = errors.New("is in no FIB")

// Identify says which FIB a process is in; dir is where the record of FIBs is, "" for the default. The FIBs are those of
// the caller's network namespace, as for Exec. Errors: ErrNone;
// fs.ErrNotExist when there is no such process; fs.ErrPermission when it may not be looked at.
func Identify(dir string, pid int) (Membership, error) {
	l, err := bindings(dir)
	if err != nil {
		return Membership{}, err
	}
	spaces, err := namespaces(l)
	if err != nil {
		return Membership{}, err
	}
	m, err := identify(l, spaces, pid)
	if err != nil {
		return m, fmt.Errorf("process %d: %w", pid, err)
	}
	return m, nil
}

// Pids lists the processes in a FIB, in order. Processes that the caller may not look at are left out: those of other
// users, for back end netns and for programs that were started without privileges.
func Pids(dir string, b binding.Binding) ([]int, error) {
	l, err := bindings(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	spaces, err := namespaces(l)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if m, err := identify(l, spaces, pid); err == nil && m.FIB == b.FIB {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func bindings(dir string) ([]binding.Binding, error) {
	if dir == "" {
		dir = binding.DefaultDir()
	}
	return binding.Load(dir)
}

// namespace is the identity of a network namespace: that of its file.
type namespace struct{ dev, ino uint64 }

func namespaceOf(path string) (namespace, error) {
	s, err := os.Stat(path)
	if err != nil {
		return namespace{}, err
	}
	t := s.Sys().(*syscall.Stat_t)
	return namespace{uint64(t.Dev), t.Ino}, nil
}

// ownNetns returns the inode of the calling thread's network namespace.
func ownNetns() (uint64, error) {
	n, err := namespaceOf("/proc/thread-self/ns/net")
	return n.ino, err
}

// spaces are the network namespaces that tell processes of FIBs apart.
type spaces struct {
	own uint64 // the caller's
	of  map[namespace]binding.Binding
}

func namespaces(l []binding.Binding) (spaces, error) {
	own, err := ownNetns()
	s := spaces{own, map[namespace]binding.Binding{}}
	for _, b := range l {
		if b.Backend == binding.Netns {
			if n, err := namespaceOf(b.Netns); err == nil {
				s.of[n] = b
			}
		}
	}
	return s, err
}

func identify(l []binding.Binding, spaces spaces, pid int) (Membership, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil || ended(status) {
		return Membership{}, fs.ErrNotExist
	}
	path, err := processGroup(strconv.Itoa(pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return Membership{}, fs.ErrNotExist
	}
	if err == nil {
		if _, name := splitGroup(path); name != "" {
			if g, ok := parseGroup(name); ok && g.netns == spaces.own {
				return member(l, g.fib, ByCgroup), nil
			}
		}
		if device := vrfGroup(path); device != "" {
			for _, b := range l {
				if b.Backend == binding.VRF && b.Device == device {
					return Membership{b.FIB, b.Name, ByVRFCgroup}, nil
				}
			}
		}
	}
	n, nerr := namespaceOf(filepath.Join(proc, "ns/net"))
	if b, ok := spaces.of[n]; ok && nerr == nil {
		return Membership{b.FIB, b.Name, ByNetns}, nil
	}
	env, eerr := os.ReadFile(filepath.Join(proc, "environ"))
	if filtered(status) {
		if id, ok := environmentFIB(env); ok {
			return member(l, id, BySupervisor), nil
		}
	}
	for _, err := range []error{nerr, eerr} {
		if errors.Is(err, fs.ErrPermission) {
			return Membership{}, err
		}
	}
	return Membership{}, ErrNone
}

func member(l []binding.Binding, id uint32, how How) Membership {
	m := Membership{FIB: id, How: how}
	for _, b := range l {
		if b.FIB == id {
			m.Name = b.Name
		}
	}
	return m
}

// filtered says whether /proc/PID/status is that of a process with a seccomp filter, which supervised ones have.
func filtered(status []byte) bool { return statusField(status, "Seccomp:") == "2" } // SECCOMP_MODE_FILTER

// ended says whether it is that of a process of which only the exit code is left: it is still shown in its cgroup.
func ended(status []byte) bool {
	state := statusField(status, "State:")
	return state == "" || state[0] == 'Z' || state[0] == 'X'
}

func statusField(status []byte, name string) string {
	for line := range bytes.Lines(status) {
		if v, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}

// environmentFIB finds Variable in /proc/PID/environ.
func environmentFIB(env []byte) (uint32, bool) {
	for _, v := range bytes.Split(env, []byte{0}) {
		if number, ok := bytes.CutPrefix(v, []byte(Variable+"=")); ok {
			n, err := strconv.ParseUint(string(number), 10, 32)
			return uint32(n), err == nil && n > 0
		}
	}
	return 0, false
}
