package enforcer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
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
	alive   int  // hangs up when systemd has stopped the unit for good; never without systemd
	stored  bool // systemd keeps the other end of alive
	main    bool // somebody started it: no guardian, no worker
	first   bool // nothing was enforced before
	guard   link // to the guardian; fd -1: none
	asked   time.Time
	notify  *notifier

	link    link
	pid     int
	pidfd   int
	held    map[uint64]int
	started time.Time
	beat    time.Time
	ready   bool
	why     string // the worker's last words

	numbers  uint64 // of descriptors that a worker before had at most
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
	s := &supervisor{cfg: cfg, mode: glass, log: cfg.Logger, held: map[uint64]int{}, buf: make([]byte, maxMessage), notify: newNotifier(), main: true}
	s.info = Supervisor{PID: os.Getpid(), Guardian: "worker"}
	s.stored = s.notify.stored()
	h, err := s.begin()
	if err != nil {
		return err
	}
	if h != nil {
		s.inherit(h)
		return s.run(ctx)
	}
	s.first = true
	if s.groups, err = openGroups(); err != nil {
		unix.Close(s.control)
		return err
	}
	s.stored = false
	if s.guard.fd >= 0 { // without it the next supervisor would not find the worker
		s.alive, s.stored = s.notify.store()
	}
	if !s.stored {
		if s.alive, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil { // never hangs up
			return os.NewSyscallError("eventfd", err)
		}
	}
	s.keep()
	return s.run(ctx)
}

// begin makes the guardian this supervisor's and returns what it kept, or, where nothing is enforced, has the control socket.
// When the guardian was restarted with the unit, it is told of the worker by another supervisor, in a moment.
func (s *supervisor) begin() (h *inheritance, err error) {
	for deadline := time.Now().Add(2 * guardPatience); ; time.Sleep(50 * time.Millisecond) {
		if s.guard, h, err = greet(s.cfg.Guardian, true); err != nil {
			return nil, fmt.Errorf("guardian %s: %w", s.cfg.Guardian, err)
		}
		if s.info.Guardian = "worker"; s.guard.fd >= 0 {
			s.info.Guardian = "guardian"
		}
		if h != nil {
			return h, nil
		}
		s.control, err = listen(s.cfg.Socket)
		if !s.stored || !errors.Is(err, errThere) || time.Now().After(deadline) {
			return nil, err
		}
		s.unguard()
	}
}

// openGroups makes the groups.
func openGroups() (groups [2]*fanotify.Group, err error) {
	for i := range groups {
		if groups[i], err = fanotify.Open(); err != nil {
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

// listen makes the control socket.
func listen(path string) (int, error) {
	fd, err := listenAt(path, unix.SOCK_STREAM)
	if errors.Is(err, errListens) {
		err = errThere
	}
	if err != nil {
		return -1, fmt.Errorf("control socket %s: %w", path, err)
	}
	return fd, nil
}

// How a supervisor ends.
type ending int

const (
	open  ending = iota // everything runs again
	left                // the worker goes on, and another supervisor comes
	asked               // everything runs again, and somebody wants it so
)

// run supervises workers until ctx ends. Where systemd can tell a restart from the end, and has been asked for either, the
// worker is left to the next supervisor or to the guardian.
func (s *supervisor) run(ctx context.Context) error {
	how := open
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	after := context.AfterFunc(ctx, func() { _, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer after()
	defer func() {
		if how != left {
			s.end()
		}
		if how == asked {
			detachAnew(&s.cfg, s.log)
		}
		if how != left {
			_ = os.Remove(s.cfg.Socket)
		}
		s.close()
	}()
	for {
		if s.pid == 0 {
			if err := s.spawn(); err != nil {
				if s.first {
					return err
				}
				s.log.Error("no worker", "err", err)
				s.failures++
			}
		}
		switch end, err := s.watch(ctx, wake); {
		case errors.Is(err, errBye):
			how = left
			return nil
		case end:
			how = asked
			return nil
		case ctx.Err() != nil:
			// Also when the guardian is being restarted just now: the worker starts a supervisor that waits for it, and for
			// the end of the unit.
			if how = asked; s.stored && s.info.Guardian == "guardian" && !s.first {
				how = left
			}
			return nil
		case err != nil && s.first && !s.ready:
			return err
		}
	}
}

// close lets go of everything. The leases stay for as long as the worker has them.
func (s *supervisor) close() {
	s.unguard()
	s.closeGroups()
	closeAll([]int{s.control, s.alive})
	for _, fd := range s.held {
		unix.Close(fd)
	}
	if s.pid != 0 {
		closeAll([]int{s.link.fd, s.pidfd})
	}
}

// spawn starts a worker, after a while if those before it failed.
func (s *supervisor) spawn() error {
	if s.failures > 0 {
		time.Sleep(min(5*time.Second, 50*time.Millisecond<<min(s.failures, 10)))
	}
	l, end, err := newLink()
	if err != nil {
		return err
	}
	defer end.Close()
	b, err := json.Marshal(begin{Config: s.cfg, Mode: s.mode, Command: s.command, Supervisor: s.info, First: s.first})
	if err == nil {
		err = l.send(msgBegin, b, -1)
	}
	if err != nil {
		unix.Close(l.fd)
		return err
	}
	s.tell(guardLink, l.fd) // before the worker is there: the guardian must not miss one
	p, err := start("worker", end, s.groups, s.control, s.alive)
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
	s.tell(guardKnow)
	return nil
}

// watch serves the worker until it ends or is ended. end says that somebody asked for the enforcer to end.
func (s *supervisor) watch(ctx context.Context, wake int) (end bool, err error) {
	if s.pid == 0 {
		return false, nil
	}
	p := []unix.PollFd{{Fd: int32(s.link.fd), Events: unix.POLLIN}, {Fd: int32(s.pidfd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}, {Events: unix.POLLIN}, {Fd: -1}}
	if !s.main {
		p[4].Fd = int32(s.alive)
	}
	for {
		if err := s.reguard(); err != nil {
			return false, err
		}
		p[3].Fd = int32(s.guard.fd)
		patience := s.cfg.Watchdog
		if !s.ready {
			patience = max(patience, time.Minute) // reading the store and looking at what runs takes time
		}
		left := time.Until(s.beat.Add(patience))
		if left <= 0 {
			s.why = fmt.Sprintf("silent for %v", patience)
			return false, s.bury()
		}
		ms := int(min(left, s.often())/time.Millisecond) + 1
		if _, err := unix.Poll(p, ms); err != nil && !errors.Is(err, unix.EINTR) {
			return false, os.NewSyscallError("poll", err)
		}
		if ctx.Err() != nil || s.cfg.Owner != 0 && errors.Is(unix.Kill(s.cfg.Owner, 0), unix.ESRCH) {
			return ctx.Err() == nil, nil
		}
		if p[4].Revents != 0 {
			return true, nil // the unit was stopped
		}
		if p[3].Revents != 0 {
			if kind, _, fds, err := s.guard.recvFDs(s.buf, 0); kind == guardBye {
				closeAll(fds)
				return false, errBye
			} else if err != nil {
				s.unguard()
			}
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
		s.ready, s.first, s.failures = true, false, 0
		s.tell(guardKnow)
		s.log.Info("worker is ready", "pid", s.pid, "took", time.Since(s.started))
		s.notify.ready()
	case msgFail:
		s.why = string(body)
	case msgMode:
		s.command = string(body)
		s.tell(guardKnow)
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
	for _, g := range s.groups {
		s.notify.alive()
		denied += g.DenyAll(int(max(s.cfg.files(), s.numbers)))
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
	s.release() // while the worker still answers
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
	closeAll([]int{s.link.fd, s.pidfd})
	s.pid = 0
}

// adoptMain is a supervisor that a worker has started because the one before was killed, or a guardian because both were.
func adoptMain() error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	l, groups, control, alive, b, err := inherit()
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
	s := &supervisor{cfg: cfg, mode: b.Mode, command: b.Command, log: cfg.Logger, groups: groups, control: control, alive: alive, first: b.First, notify: &notifier{}, link: l, pid: pid, pidfd: pidfd,
		held: map[uint64]int{}, started: now, beat: now, ready: true, info: b.Supervisor, buf: make([]byte, maxMessage)}
	s.info.PID, s.guard = os.Getpid(), link{-1}
	if err := s.reguard(); err != nil {
		s.log.Warn("it is not wanted", "err", err)
		return nil
	}
	s.log.Warn("a new supervisor: the one before was killed", "worker", b.PID)
	if pid == 0 {
		unix.Close(l.fd)
		s.forget()
	}
	return s.run(context.Background())
}
