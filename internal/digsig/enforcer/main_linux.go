package enforcer

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/fanotify"
)

// roleVariable says what a process that the enforcer started is.
const roleVariable = "MIDPLANE_DIGSIG_ROLE"

// Descriptors that a started process finds.
const (
	fdLink = 3 + iota
	fdLocal
	fdForeign
	fdControl
	fdAlive
)

// self is the program that runs, whatever happened to its name.
const self = "/proc/self/exe"

// Main must be called first of all in the main function of a program that calls Run (and in TestMain of its tests): the
// enforcer's processes are started from the program itself. It returns in every other process.
func Main() {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	// Times in local time would have the time zone read from a file at any moment.
	time.Local = time.UTC
	_ = os.Unsetenv(roleVariable)
	var err error
	switch role {
	case "worker":
		err = workerMain()
	case "supervisor":
		err = adoptMain()
	case "guardian":
		err = guardianMain()
	case "detach":
		err = detach()
	default:
		err = fmt.Errorf("%s=%s: want worker, supervisor, guardian or detach", roleVariable, role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "midplane digsig:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// begin is what the supervisor tells a new worker and the guardian, or they a new supervisor.
type begin struct {
	Config     Config
	Mode       string // of the kernel's command line
	Command    string // mode that somebody set; empty: none
	Supervisor Supervisor
	PID        int  // of the worker, for a new supervisor; 0: there is none
	First      bool // nothing was enforced before
}

// start starts this program anew in a role, with its end of a link and what a process of the enforcer holds. What it
// writes to its standard error is this process's.
func start(role string, end *os.File, groups [2]*fanotify.Group, control, alive int) (*os.Process, error) {
	files := []*os.File{end}
	for _, fd := range []int{groups[0].FD(), groups[1].FD(), control, alive} {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
		}
		f := os.NewFile(uintptr(n), "")
		defer f.Close()
		files = append(files, f)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	cmd := &exec.Cmd{Path: self, Args: []string{os.Args[0], "digsig", role}, Stdin: null, Stdout: null, Stderr: os.Stderr,
		Env: append(environ(), roleVariable+"="+role), ExtraFiles: files, Dir: "/",
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd.Process, nil
}

// environ is the environment without what systemd meant for the supervisor.
func environ() []string {
	var env []string
	for _, v := range []string{"PATH", "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK", "GOCOVERDIR"} {
		if s, ok := os.LookupEnv(v); ok {
			env = append(env, v+"="+s)
		}
	}
	return env
}

// inherit takes over what start gave.
func inherit() (l link, groups [2]*fanotify.Group, control, alive int, b begin, err error) {
	for fd := fdLink; fd <= fdAlive; fd++ {
		unix.CloseOnExec(fd)
	}
	l = link{fdLink}
	groups = [2]*fanotify.Group{fanotify.FromFD(fdLocal), fanotify.FromFD(fdForeign)}
	buf := make([]byte, maxMessage)
	kind, body, _, err := l.recv(buf, time.Minute)
	if err == nil && kind != msgBegin {
		err = fmt.Errorf("message %q, want %q", kind, msgBegin)
	}
	if err == nil {
		err = json.Unmarshal(body, &b)
	}
	return l, groups, fdControl, fdAlive, b, err
}

// raiseFiles makes room for as many descriptors as the bounds of the gate need, and for no more: whoever denies what a dead
// worker has read tries every number. Where the limit cannot be raised, the
// bounds are lowered to what there is room for; it says so in the error, which is a warning then.
func raiseFiles(c *Config) (warning, err error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return nil, os.NewSyscallError("getrlimit", err)
	}
	want := c.files()
	more := unix.Rlimit{Cur: want, Max: want}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &more) == nil {
		return nil, nil
	}
	more = unix.Rlimit{Cur: r.Max, Max: r.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &more); err != nil {
		return nil, os.NewSyscallError("setrlimit", err)
	}
	const others = 512
	if r.Max < 2*others {
		return nil, fmt.Errorf("%d descriptors are allowed (RLIMIT_NOFILE), want %d, or %d at the least", r.Max, want, 2*others)
	}
	share := int(r.Max-others) / 3
	c.Gate.MaxEntries, c.Gate.MaxPending = min(c.Gate.MaxEntries, share), min(c.Gate.MaxPending, share)
	return fmt.Errorf("%d descriptors are wanted, %d are allowed (RLIMIT_NOFILE): %d files are kept and %d questions wait at most", want, r.Max,
		c.Gate.MaxEntries, c.Gate.MaxPending), nil
}
