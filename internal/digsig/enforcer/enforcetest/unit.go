//go:build linux

package enforcetest

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"midplane/internal/digsig/enforcer"
)

// Unit does for an enforcer what systemd does for midplane-digsig.service: it keeps descriptors while the process is not
// there (FileDescriptorStoreMax=, FileDescriptorStorePreserve=restart), and leaves the unit's other processes alone
// (KillMode=process).
type Unit struct {
	r      *Rig
	socket *net.UnixConn
	name   string

	mu    sync.Mutex
	store map[string]int // guarded by mu
	ready chan struct{}  // guarded by mu
	done  chan error
}

// Unit makes a unit of the rig's enforcer. The end of the test stops it.
func (r *Rig) Unit() *Unit {
	r.T.Helper()
	u := &Unit{r: r, name: filepath.Join(r.Dir, "notify"), store: map[string]int{}, ready: make(chan struct{})}
	var err error
	if u.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: u.name, Net: "unixgram"}); err != nil {
		r.T.Fatal(err)
	}
	go u.listen()
	r.T.Cleanup(func() {
		u.Stop()
		u.socket.Close()
	})
	return u
}

func (u *Unit) listen() {
	b, oob := make([]byte, 4096), make([]byte, 1024)
	for {
		n, on, _, _, err := u.socket.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		var fds []int
		if cms, err := syscall.ParseSocketControlMessage(oob[:on]); err == nil {
			for i := range cms {
				got, _ := syscall.ParseUnixRights(&cms[i])
				for _, fd := range got {
					syscall.CloseOnExec(fd)
				}
				fds = append(fds, got...)
			}
		}
		words := map[string]string{}
		for line := range strings.Lines(string(b[:n])) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			words[k] = v
		}
		u.mu.Lock()
		name := words["FDNAME"]
		switch {
		case words["FDSTORE"] == "1" && len(fds) == 1:
			u.store[name] = fds[0]
			fds = nil
		case words["FDSTOREREMOVE"] == "1":
			u.drop(name)
		case words["READY"] == "1":
			select {
			case <-u.ready:
			default:
				close(u.ready)
			}
		}
		u.mu.Unlock()
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}
}

// drop closes a stored descriptor. The caller holds mu.
func (u *Unit) drop(name string) {
	if fd, ok := u.store[name]; ok {
		syscall.Close(fd)
		delete(u.store, name)
	}
}

// Begin starts the process of the unit, and does not wait for it.
func (u *Unit) Begin() {
	t := u.r.T
	t.Helper()
	config, err := json.Marshal(u.r.Config)
	if err != nil {
		t.Fatal(err)
	}
	program := u.r.Program
	if program == "" {
		if program, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	if u.r.log == nil {
		u.r.log = &tail{}
	}
	var names []string
	u.mu.Lock()
	u.ready = make(chan struct{})
	// By a shell, as the process must be told its own number.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, program)
	for name, fd := range u.store {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 3)
		if errno != 0 {
			t.Fatal(errno)
		}
		f := os.NewFile(n, name)
		defer f.Close()
		names, cmd.ExtraFiles = append(names, name), append(cmd.ExtraFiles, f)
	}
	u.mu.Unlock()
	cmd.Env = append(os.Environ(), runVariable+"="+string(config), "NOTIFY_SOCKET="+u.name, "FDSTORE=4",
		fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.Stdout, cmd.Stderr = u.r.log, u.r.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Millisecond // the worker has it too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	u.r.Process, u.r.Client, u.done = cmd.Process, enforcer.Dial(u.r.Config.Socket), make(chan error, 1)
	done := u.done
	go func() { done <- cmd.Wait() }()
}

// Start starts the process and waits until it is ready.
func (u *Unit) Start() {
	u.r.T.Helper()
	u.Begin()
	u.mu.Lock()
	ready := u.ready
	u.mu.Unlock()
	select {
	case <-ready:
	case err := <-u.done:
		u.done <- err
		u.r.T.Fatalf("the enforcer ended: %v\n%s", err, u.r.log)
	case <-time.After(Patience):
		u.r.T.Fatalf("the enforcer does not come up\n%s", u.r.log)
	}
}

// End sends a signal to the process and waits for its end.
func (u *Unit) End(sig syscall.Signal) {
	u.r.T.Helper()
	if u.r.Process == nil {
		return
	}
	_ = u.r.Process.Signal(sig)
	select {
	case <-u.done:
	case <-time.After(Patience):
		_ = u.r.Process.Kill()
		u.r.T.Fatalf("the enforcer does not end\n%s", u.r.log)
	}
	u.r.Process = nil
}

// Stop ends the process and then, as the unit is not to be started again, lets go of what was kept for it.
func (u *Unit) Stop() {
	u.r.T.Helper()
	u.End(syscall.SIGTERM)
	u.mu.Lock()
	defer u.mu.Unlock()
	for name := range u.store {
		u.drop(name)
	}
}

// Guardian starts a guardian, and returns it and what waits for its end. The end of the test kills it.
func (r *Rig) Guardian() (*os.Process, func()) {
	r.T.Helper()
	program := r.Program
	if program == "" {
		program = "/proc/self/exe"
	}
	if r.log == nil {
		r.log = &tail{}
	}
	return startGuardian(r.T, program, r.Config.Guardian, r.log)
}

func startGuardian(t testing.TB, program, socket string, log *tail) (*os.Process, func()) {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "MIDPLANE_DIGSIG_ROLE=guardian", "MIDPLANE_DIGSIG_GUARDIAN="+socket)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := sync.OnceFunc(func() { _ = cmd.Wait() })
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		ended()
	})
	Eventually(t, "the guardian", func() error {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		return syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
	})
	return cmd.Process, ended
}

// Done gives the end of the process.
func (u *Unit) Done() <-chan error { return u.done }
