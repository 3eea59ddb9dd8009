package enforcer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/fanotify"
	"midplane/internal/digsig/lease"
)

// supervisor holds what must outlive the worker. It runs on one goroutine.
type supervisor struct {
	cfg     Config
	mode    string // of the kernel's command line
	command string // mode that somebody set
	log     *slog.Logger
	groups  [2]*fanotify.Group
	control int
	notify  *notifier

	link    link
	pid     int
	pidfd   int
	held    map[uint64]int
	started time.Time
	beat    time.Time
	ready   bool
	why     string // the worker's last words

	info     Supervisor
	failures int // of workers in a row that were not ready
	buf      []byte
}

// maxRestarts bounds how many ends of workers are remembered.
const maxRestarts = 32

// Run enforces until ctx ends; then, or when Client.Stop was called, everything runs again. It returns an error when it
// cannot begin: a store that cannot be read, a control socket that is in use, programs that run now and would be denied.
// The process must have called Main. It needs root (CAP_SYS_ADMIN, CAP_LEASE, CAP_DAC_READ_SEARCH) in the first user
// namespace.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	cmdline, _ := os.ReadFile("/proc/cmdline")
	glass, err := BreakGlass(string(cmdline))
	if err != nil {
		cfg.Logger.Warn("break-glass", "err", err)
	}
	warning, err := raiseFiles(&cfg)
	if err != nil {
		return err
	}
	if warning != nil {
		cfg.Logger.Warn("bounds", "err", warning)
	}
	time.Local = time.UTC // see Main
	// Who reads the log may be gone; that must not end the supervisor.
	signal.Ignore(syscall.SIGPIPE)
	s := &supervisor{cfg: cfg, mode: glass, log: cfg.Logger, held: map[uint64]int{}, buf: make([]byte, maxMessage), notify: newNotifier()}
	s.info = Supervisor{PID: os.Getpid(), Guardian: "worker"}
	found := s.notify.inherited()
	if s.groups, err = openGroups(found); err != nil {
		return err
	}
	if s.control, err = listen(cfg.Socket, found["digsig-control"]); err != nil {
		s.closeGroups()
		return err
	}
	if s.notify.store(map[string]int{"digsig-local": s.groups[0].FD(), "digsig-foreign": s.groups[1].FD(), "digsig-control": s.control}) {
		s.info.Guardian = "systemd"
	}
	if len(found) > 0 { // a supervisor before this one was killed, and its worker with it
		n := s.forget()
		s.log.Warn("took over from systemd", "denied", n)
	}
	return s.run(ctx, len(found) == 0)
}

// openGroups takes the groups that systemd kept, or makes new ones.
func openGroups(found map[string]int) (groups [2]*fanotify.Group, err error) {
	for i, name := range []string{"digsig-local", "digsig-foreign"} {
		if fd, ok := found[name]; ok {
			groups[i] = fanotify.FromFD(fd)
		} else if groups[i], err = fanotify.Open(); err != nil {
			return groups, err
		}
		if err := groups[i].IgnoreFile(self); err != nil {
			return groups, fmt.Errorf("the enforcer's own program: %w", err)
		}
	}
	return groups, nil
}

func (s *supervisor) closeGroups() {
	for _, g := range s.groups {
		_ = g.Close()
	}
}

// listen makes the control socket, for root only, and returns its descriptor. A socket that nobody listens to any more is
// replaced.
func listen(path string, found int) (int, error) {
	if found > 0 {
		return found, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return -1, fmt.Errorf("control socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return -1, fmt.Errorf("control socket %s: an enforcer runs already", path)
	}
	_ = os.Remove(path)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	old := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("control socket %s: %w", path, err)
	}
	return fd, nil
}

// run supervises workers until ctx ends.
func (s *supervisor) run(ctx context.Context, first bool) error {
	asked := false // to end
	stopped := make(chan struct{})
	defer close(stopped)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	after := context.AfterFunc(ctx, func() { _, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer after()
	defer func() {
		s.end()
		if asked {
			s.detachAnew()
		}
		s.closeGroups()
		unix.Close(s.control)
		_ = os.Remove(s.cfg.Socket)
	}()
	for {
		if s.pid == 0 {
			if err := s.spawn(first); err != nil {
				if first {
					return err
				}
				s.log.Error("no worker", "err", err)
				s.failures++
			}
		}
		switch end, err := s.watch(ctx, wake); {
		case ctx.Err() != nil || end:
			asked = true
			return nil
		case err != nil && first && !s.ready:
			return err
		}
		first = first && !s.ready
	}
}

// spawn starts a worker, after a while if those before it failed.
func (s *supervisor) spawn(first bool) error {
	if s.failures > 0 {
		time.Sleep(min(5*time.Second, 50*time.Millisecond<<min(s.failures, 10)))
	}
	l, end, err := newLink()
	if err != nil {
		return err
	}
	defer end.Close()
	b, err := json.Marshal(begin{Config: s.cfg, Mode: s.mode, Command: s.command, Supervisor: s.info, First: first})
	if err == nil {
		err = l.send(msgBegin, b, -1)
	}
	if err != nil {
		unix.Close(l.fd)
		return err
	}
	p, err := start("worker", end, s.groups, s.control)
	if err != nil {
		unix.Close(l.fd)
		return fmt.Errorf("start the worker: %w", err)
	}
	pidfd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		_ = p.Kill()
		_, _ = p.Wait()
		unix.Close(l.fd)
		return os.NewSyscallError("pidfd_open", err)
	}
	now := time.Now()
	s.link, s.pid, s.pidfd, s.ready, s.beat, s.started, s.why = l, p.Pid, pidfd, false, now, now, ""
	return nil
}

// watch serves the worker until it ends or is ended. end says that somebody asked for the enforcer to end.
func (s *supervisor) watch(ctx context.Context, wake int) (end bool, err error) {
	if s.pid == 0 {
		return false, nil
	}
	p := []unix.PollFd{{Fd: int32(s.link.fd), Events: unix.POLLIN}, {Fd: int32(s.pidfd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		patience := s.cfg.Watchdog
		if !s.ready {
			patience = max(patience, time.Minute) // reading the store and looking at what runs takes time
		}
		left := time.Until(s.beat.Add(patience))
		if left <= 0 {
			s.why = fmt.Sprintf("silent for %v", patience)
			return false, s.bury()
		}
		ms := int(min(left, time.Second)/time.Millisecond) + 1
		if _, err := unix.Poll(p, ms); err != nil && !errors.Is(err, unix.EINTR) {
			return false, os.NewSyscallError("poll", err)
		}
		if ctx.Err() != nil || s.cfg.Owner != 0 && errors.Is(unix.Kill(s.cfg.Owner, 0), unix.ESRCH) {
			return true, nil
		}
		for p[0].Revents != 0 {
			kind, body, fd, err := s.link.recv(s.buf, 0)
			if err != nil {
				p[0].Fd = -1 // it is dead or about to be
				break
			}
			if kind == 0 {
				break
			}
			if kind == msgStop {
				return true, nil
			}
			s.take(kind, body, fd)
		}
		if p[1].Revents != 0 {
			return false, s.bury()
		}
		s.notify.alive()
	}
}

// take takes one message of the worker.
func (s *supervisor) take(kind byte, body []byte, fd int) {
	keep := false
	s.beat = time.Now()
	switch kind {
	case msgReady:
		s.ready, s.failures = true, 0
		s.log.Info("worker is ready", "pid", s.pid, "took", time.Since(s.started))
		s.notify.ready()
	case msgFail:
		s.why = string(body)
	case msgMode:
		s.command = string(body)
	case msgText:
		s.log.Info(string(body))
	case msgHold:
		if t := token(body); fd >= 0 && t != 0 {
			if old, ok := s.held[t]; ok {
				unix.Close(old)
			}
			s.held[t], keep = fd, true
		}
	case msgDrop:
		if old, ok := s.held[token(body)]; ok {
			unix.Close(old)
			delete(s.held, token(body))
		}
	}
	if fd >= 0 && !keep {
		unix.Close(fd)
	}
}

// bury ends the worker for good and closes what it left open: its marks, its questions, its leases, in this order.
func (s *supervisor) bury() error {
	pid := s.pid
	_ = unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
	denied := s.flush()
	// A thread of it may still be in the kernel, taking an event. Nothing is begun before it is gone.
	for !s.gone() {
		denied += s.flush()
	}
	state := reap(pid)
	denied += s.forget()
	if s.why == "" {
		s.why = state
	}
	unix.Close(s.pidfd)
	unix.Close(s.link.fd)
	s.pid = 0
	if !s.ready {
		s.failures++
	}
	s.info.Total++
	s.info.Restarts = append(s.info.Restarts, Restart{time.Now().UTC(), pid, s.why, denied})
	if n := len(s.info.Restarts) - maxRestarts; n > 0 {
		s.info.Restarts = s.info.Restarts[n:]
	}
	s.log.Error("the worker ended", "pid", pid, "why", s.why, "denied", denied)
	return errors.New(s.why)
}

// gone waits a little for the worker's end.
func (s *supervisor) gone() bool {
	s.notify.alive()
	p := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}
	n, _ := unix.Poll(p, 20)
	return n > 0
}

// reap says how the worker ended. One that is no child of this process was begun by another supervisor.
func reap(pid int) string {
	var ws syscall.WaitStatus
	for {
		got, err := syscall.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil || got != pid:
			return "ended"
		case ws.Signaled():
			return "killed by " + ws.Signal().String()
		}
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
}

// flush takes back every mark on files and denies what was read and not answered.
func (s *supervisor) flush() (denied int) {
	for _, g := range s.groups {
		if err := g.Flush(); err != nil {
			s.log.Error("flush", "err", err)
		}
		if err := g.IgnoreFile(self); err != nil {
			s.log.Error("own mark", "err", err)
		}
	}
	limit := filesLimit()
	for _, g := range s.groups {
		s.notify.alive() // a million numbers take a slow machine seconds
		denied += g.DenyAll(limit)
	}
	s.notify.alive()
	return denied
}

// forget is flush, and then the end of the leases, when no execution that had passed by a mark can still be on its way.
func (s *supervisor) forget() int {
	denied := s.flush()
	if len(s.held) > 0 {
		time.Sleep(s.cfg.Gate.Grace)
	}
	for t, fd := range s.held {
		lease.Release(fd)
		unix.Close(fd)
		delete(s.held, t)
	}
	return denied
}

// end ends the worker: its questions are allowed when the groups are closed.
func (s *supervisor) end() {
	s.notify.stopping()
	s.notify.release("digsig-local", "digsig-foreign", "digsig-control") // while the worker still answers
	if s.pid == 0 {
		return
	}
	_ = unix.PidfdSendSignal(s.pidfd, unix.SIGTERM, nil, 0)
	for deadline := time.Now().Add(2 * time.Second); !s.gone() && time.Now().Before(deadline); {
	}
	_ = unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
	for !s.gone() {
	}
	reap(s.pid)
	s.forget()
}

// adoptMain is a supervisor that a worker has started because the one before was killed.
func adoptMain() error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	l, groups, control, b, err := inherit()
	if err != nil {
		return err
	}
	pid := b.PID
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil { // the worker was killed too, just now
		pid = 0
	}
	cfg, err := b.Config.withDefaults()
	if err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	now := time.Now()
	s := &supervisor{cfg: cfg, mode: b.Mode, command: b.Command, log: cfg.Logger, groups: groups, control: control, notify: &notifier{}, link: l, pid: pid, pidfd: pidfd,
		held: map[uint64]int{}, started: now, beat: now, ready: true, info: b.Supervisor, buf: make([]byte, maxMessage)}
	s.info.PID = os.Getpid()
	s.log.Warn("a new supervisor: the one before was killed", "worker", b.PID)
	if pid == 0 {
		s.forget()
	}
	return s.run(context.Background(), false)
}
