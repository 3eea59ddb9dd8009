//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// namePrefix begins the name of every namespace of the lab; the process that made it follows.
const namePrefix = "mp"

var (
	counter atomic.Uint32
	sweep   = sync.OnceFunc(sweepDead)
)

// Namespace is a network namespace of its own, with loopback up.
type Namespace struct {
	name string
	t    testing.TB
}

// NewNamespace makes a namespace that ends with the test, together with every process in it.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	sweep()
	ns := &Namespace{name: fmt.Sprintf("%s%d-%d", namePrefix, os.Getpid(), counter.Add(1)), t: t}
	if out, err := ip("netns", "add", ns.name); err != nil {
		t.Fatalf("lab: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := removeNamespace(ns.name); err != nil {
			t.Errorf("lab: %v", err)
		}
	})
	ns.IP("link", "set", "lo", "up")
	return ns
}

// Name is the name under which `ip netns` knows it.
func (ns *Namespace) Name() string { return ns.name }

// IP runs the ip command on the namespace and fails the test when it fails. It returns the output.
func (ns *Namespace) IP(args ...string) string {
	ns.t.Helper()
	out, err := ip(append([]string{"-n", ns.name}, args...)...)
	if err != nil {
		ns.t.Fatalf("lab: %v\n%s", err, out)
	}
	return out
}

func ip(args ...string) (string, error) {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("ip %s: %w", strings.Join(args, " "), err)
	}
	return string(out), err
}

// Do runs f on a thread that is in the namespace. Sockets that f opens stay there; goroutines that f starts do not
// begin there.
func (ns *Namespace) Do(f func() error) error { return inNamespace(ns.name, f) }

func inNamespace(name string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", syscall.Gettid()))
		if err != nil {
			result <- err
			return
		}
		defer own.Close()
		other, err := os.Open(filepath.Join("/run/netns", name))
		if err != nil {
			result <- err
			return
		}
		defer other.Close()
		if err := setns(other); err != nil {
			result <- fmt.Errorf("enter namespace %s: %w", name, err)
			return
		}
		finished := false
		defer func() {
			if !finished {
				result <- errors.New("the function in the namespace did not return")
			}
		}()
		err = f()
		finished = true
		// The thread goes on living only when it is back: a thread that stays locked ends with its goroutine, and
		// with the thread end the processes that were started from it (PR_SET_PDEATHSIG).
		if back := setns(own); back == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

func setns(f *os.File) error {
	_, _, errno := syscall.RawSyscall(sysSetns, f.Fd(), syscall.CLONE_NEWNET, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Start starts a program in the namespace. It dies with the test, also when the test binary is killed.
func (ns *Namespace) Start(argv ...string) *Proc {
	ns.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	return ns.StartCmd(cmd)
}

// StartCmd is Start for a command with an environment or a directory. Its input and outputs are the Proc's.
func (ns *Namespace) StartCmd(cmd *exec.Cmd) *Proc {
	ns.t.Helper()
	p := newProc(ns.t, filepath.Base(cmd.Path))
	in, err := cmd.StdinPipe()
	if err != nil {
		ns.t.Fatalf("lab: %v", err)
	}
	p.Stdin = in
	cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := ns.Do(cmd.Start); err != nil {
		ns.t.Fatalf("lab: start %s: %v", cmd.Path, err)
	}
	p.signal = func(s syscall.Signal) error {
		select {
		case <-p.done:
			return os.ErrProcessDone
		default:
			return syscall.Kill(-cmd.Process.Pid, s)
		}
	}
	go func() {
		err := cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		code := cmd.ProcessState.ExitCode()
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		p.ended(code, err)
	}()
	ns.t.Cleanup(p.Kill)
	return p
}

// Run runs a program in the namespace to its end and fails the test when it fails. It returns the standard output.
func (ns *Namespace) Run(argv ...string) string {
	ns.t.Helper()
	p := ns.Start(argv...)
	_ = p.Stdin.Close()
	return p.Finish()
}

// removeNamespace ends every process in the namespace and deletes it, and with it its devices.
func removeNamespace(name string) error {
	for deadline := time.Now().Add(Patience); ; {
		pids, err := ip("netns", "pids", name)
		if err != nil {
			return fmt.Errorf("%w: %s", err, pids)
		}
		if strings.TrimSpace(pids) == "" {
			break
		}
		for pid := range strings.FieldsSeq(pids) {
			if n, err := strconv.Atoi(pid); err == nil && n != os.Getpid() {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %s stay in namespace %s", strings.Fields(pids), name)
		}
		time.Sleep(5 * time.Millisecond) // a killed process leaves in its own time, and nothing tells when
	}
	if out, err := ip("netns", "del", name); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// sweepDead removes the namespaces of test binaries that are gone.
func sweepDead() {
	names, _ := filepath.Glob("/run/netns/" + namePrefix + "*")
	for _, path := range names {
		name := filepath.Base(path)
		pid, _, ok := strings.Cut(strings.TrimPrefix(name, namePrefix), "-")
		if n, err := strconv.Atoi(pid); ok && err == nil && syscall.Kill(n, 0) == syscall.ESRCH {
			_ = removeNamespace(name)
		}
	}
}
