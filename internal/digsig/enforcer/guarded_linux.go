package enforcer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/fanotify"
)

// errBye ends a supervisor whose place another has taken.
var errBye = errors.New("another supervisor has taken over")

// errThere says that there is a supervisor, which somebody started.
var errThere = errors.New("an enforcer runs already")

// inheritance is what a guardian kept.
type inheritance struct {
	begin begin
	fds   []int // local, foreign, control, alive, and the link to the worker if there was one
}

// adopted is what a worker is told of its new supervisor.
type adopted struct {
	PID      int
	Guardian string
}

// here is a worker's answer to adopted.
type here struct {
	PID   int
	Ready bool
}

// greet makes the guardian this supervisor's, if there is one: fd -1 says that there is none.
func greet(path string, main bool) (link, *inheritance, error) {
	none := link{-1}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, nil, os.NewSyscallError("socket", err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})
	if unix.Connect(fd, &unix.SockaddrUnix{Name: path}) != nil {
		unix.Close(fd)
		return none, nil, nil
	}
	l := link{fd}
	body, err := json.Marshal(hello{main})
	if err == nil {
		err = l.send(guardHello, body, -1)
	}
	buf := make([]byte, maxMessage)
	var kind byte
	var fds []int
	if err == nil { // it may have to end another first
		kind, body, fds, err = l.recvFDs(buf, 3*guardPatience)
	}
	switch {
	case err != nil:
	case kind == guardNo:
		err = errThere
	case kind != guardHave || len(body) > 0 && len(fds) < 4:
		err = fmt.Errorf("the guardian says %q", kind)
	case len(body) == 0:
		return l, nil, nil
	default:
		h := &inheritance{fds: fds}
		if err = json.Unmarshal(body, &h.begin); err == nil {
			return l, h, nil
		}
	}
	closeAll(fds)
	unix.Close(fd)
	return none, nil, err
}

// tell gives the guardian what it must keep.
func (s *supervisor) tell(kind byte, fds ...int) {
	if s.guard.fd < 0 {
		return
	}
	var body []byte
	var err error
	if kind != guardLink {
		body, err = json.Marshal(begin{Config: s.cfg, Mode: s.mode, Command: s.command, Supervisor: s.info, PID: s.pid, First: s.first})
	}
	if err == nil {
		err = s.guard.sendFDs(kind, body, fds...)
	}
	if err != nil {
		s.log.Error("the guardian is not told", "err", err)
		s.unguard()
	}
}

// keep gives a guardian that has nothing everything, in one message: what it has without a link has no worker.
func (s *supervisor) keep() {
	fds := []int{s.groups[0].FD(), s.groups[1].FD(), s.control, s.alive}
	if s.pid != 0 {
		fds = append(fds, s.link.fd)
	}
	s.tell(guardKeep, fds...)
}

func (s *supervisor) unguard() {
	if s.guard.fd >= 0 {
		unix.Close(s.guard.fd)
		s.guard = link{-1}
	}
}

// often is how often a supervisor looks for a guardian. One that stands in for systemd's own looks soon, as that one waits for it.
func (s *supervisor) often() time.Duration {
	if s.main || s.guard.fd >= 0 {
		return time.Second
	}
	return 100 * time.Millisecond
}

// reguard finds a guardian that was started anew.
func (s *supervisor) reguard() error {
	if s.guard.fd >= 0 || time.Since(s.asked) < s.often() {
		return nil
	}
	s.asked = time.Now()
	l, h, err := greet(s.cfg.Guardian, s.main)
	if errors.Is(err, errThere) {
		return errBye
	}
	if h != nil {
		closeAll(h.fds)
	}
	if s.guard = l; l.fd >= 0 {
		s.keep()
	}
	return nil
}

// release has the guardian keep nothing, and waits until it has let go.
func (s *supervisor) release() {
	if s.guard.fd < 0 {
		return
	}
	s.tell(guardEnd)
	for deadline := time.Now().Add(guardPatience); s.guard.fd >= 0 && time.Now().Before(deadline); {
		kind, _, fds, err := s.guard.recvFDs(s.buf, guardPatience)
		closeAll(fds)
		if err != nil || kind == guardEnd {
			break
		}
	}
}

// inherit takes over from a supervisor that has ended: what it held, and its worker. That one goes on if it is of the same
// program and configuration; else it answers what it has taken and ends.
func (s *supervisor) inherit(h *inheritance) {
	s.groups = [2]*fanotify.Group{fanotify.FromFD(h.fds[0]), fanotify.FromFD(h.fds[1])}
	s.control, s.alive = h.fds[2], h.fds[3]
	s.numbers = h.begin.Config.files()
	s.command, s.first = h.begin.Command, h.begin.First
	s.info.Restarts, s.info.Total = h.begin.Supervisor.Restarts, h.begin.Supervisor.Total
	for _, g := range s.groups {
		if err := g.IgnoreFile(self); err != nil {
			s.log.Error("own mark", "err", err)
		}
	}
	if len(h.fds) < 5 || (link{h.fds[4]}).over() {
		closeAll(h.fds[4:])
		s.log.Warn("took over, without a worker", "denied", s.forget())
		return
	}
	s.link = link{h.fds[4]}
	is, err := s.adopt()
	if is.PID == 0 {
		is.PID = h.begin.PID
	}
	pidfd, bad := unix.PidfdOpen(is.PID, 0)
	if bad != nil || s.link.over() {
		if bad == nil {
			unix.Close(pidfd)
		}
		unix.Close(s.link.fd)
		s.log.Warn("took over, and the worker ended", "denied", s.forget())
		return
	}
	now := time.Now()
	s.pid, s.pidfd, s.ready, s.beat, s.started, s.why = is.PID, pidfd, is.Ready, now, now, ""
	s.log.Warn("took over", "worker", s.pid, "err", err)
	s.tell(guardKnow)
	if err != nil {
		s.why, s.ready = "it does not answer its new supervisor", true
		_ = s.bury()
		return
	}
	if !s.fits(h.begin.Config) {
		s.replace()
		return
	}
	if s.ready {
		s.notify.ready()
	}
}

// adopt tells the worker of its new supervisor, and reads over what was meant for the one before.
func (s *supervisor) adopt() (is here, err error) {
	body, err := json.Marshal(adopted{os.Getpid(), s.info.Guardian})
	if err == nil {
		err = s.link.send(msgAdopt, body, -1)
	}
	if err != nil {
		return is, err
	}
	for deadline := time.Now().Add(guardPatience); time.Now().Before(deadline); {
		s.notify.alive()
		kind, body, fds, err := s.link.recvFDs(s.buf, time.Second)
		closeAll(fds)
		if err != nil {
			return is, err
		}
		if kind == msgHere {
			return is, json.Unmarshal(body, &is)
		}
	}
	return is, fmt.Errorf("nothing within %v", guardPatience)
}

// fits says whether the worker is of this program and this configuration.
func (s *supervisor) fits(was Config) bool {
	mine, err := os.Stat(self)
	if err != nil {
		return false
	}
	its, err := os.Stat("/proc/" + strconv.Itoa(s.pid) + "/exe")
	if err != nil || !os.SameFile(mine, its) {
		return false
	}
	old, err := json.Marshal(was)
	if err != nil {
		return false
	}
	now, err := json.Marshal(s.cfg)
	return err == nil && bytes.Equal(old, now)
}

// replace ends the worker in order: what it has taken is answered, and what comes later waits for the next one.
func (s *supervisor) replace() {
	s.why, s.ready = "replaced", true
	if s.link.send(msgDrain, nil, -1) == nil {
		for deadline := time.Now().Add(2 * guardPatience); !s.gone() && time.Now().Before(deadline); {
		}
	}
	_ = s.bury()
}
