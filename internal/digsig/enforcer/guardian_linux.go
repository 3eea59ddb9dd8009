package enforcer

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/fanotify"
)

// Messages between a supervisor and the guardian. The guardian's are those that are marked so.
const (
	guardHello = 'h' // hello, in JSON
	guardHave  = 'H' // the guardian's: what is kept; nothing, or begin in JSON with descriptors
	guardNo    = 'N' // the guardian's: systemd's own supervisor is there
	guardBye   = 'Y' // the guardian's: another takes over; end, and touch nothing
	guardKeep  = 'G' // begin in JSON, and the descriptors fdLocal to fdAlive; the link if there is a worker
	guardLink  = 'W' // the supervisor's end of the link to the worker that is about to begin
	guardKnow  = 'K' // begin in JSON, as it is now
	guardEnd   = 'E' // keep nothing any more; the guardian's answer is the same
)

// hello is how a supervisor begins.
type hello struct {
	Main bool // somebody started it; else a guardian or worker did, in place of one that was killed
}

// guardianVariable names the socket of a guardian.
const guardianVariable = "MIDPLANE_DIGSIG_GUARDIAN"

// guardPatience is that of the guardian and with it.
const guardPatience = 5 * time.Second

// helpless says how long a supervisor may be without a worker: longer than it waits after one that failed. One that has none
// for so long is stopped, or hangs.
func helpless(c *Config) time.Duration { return max(8*time.Second, 6*c.Watchdog) }

// guardian keeps what a supervisor needs to take over from one before it, for as long as there is one, its worker, or
// neither. It reads no events and answers none. Where both have ended it starts another supervisor, from its own program.
type guardian struct {
	log      *slog.Logger
	listener int
	boss     link // to the supervisor; fd -1: none
	main     bool // the supervisor is systemd's own, or was started by hand
	pidfd    int  // of the supervisor, -1: none
	kept     *keeping
	again    time.Time // when a supervisor may be started again
	alone    time.Time // since when the supervisor has had no worker; zero: it has
	buf      []byte
}

// keeping is what the guardian keeps.
type keeping struct {
	begin  []byte
	groups [2]*fanotify.Group
	fds    [4]int // local, foreign, control, alive
	link   int    // -1: none
}

func (k *keeping) close() {
	closeAll(k.fds[:])
	if k.link >= 0 {
		unix.Close(k.link)
	}
}

// worker says whether there is one.
func (k *keeping) worker() bool { return k.link >= 0 && !hungUp(k.link) }

func (k *keeping) told() (b begin) {
	_ = json.Unmarshal(k.begin, &b)
	return b
}

// guardianMain is the guardian's process.
func guardianMain() error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	path := os.Getenv(guardianVariable)
	if path == "" {
		path = DefaultGuardian
	}
	ln, err := listenAt(path, unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	g := &guardian{log: slog.New(slog.NewTextHandler(os.Stderr, nil)), listener: ln, boss: link{-1}, pidfd: -1, buf: make([]byte, maxMessage)}
	n := newNotifier()
	n.ready()
	for {
		if err := g.turn(); err != nil {
			return err
		}
		n.alive()
		if g.kept != nil {
			if owner := g.kept.told().Config.Owner; owner != 0 && errors.Is(unix.Kill(owner, 0), unix.ESRCH) {
				g.end()
				return nil
			}
		}
	}
}

// turn waits for one thing to happen and does what it asks for.
func (g *guardian) turn() error {
	p := []unix.PollFd{{Fd: int32(g.listener), Events: unix.POLLIN}, {Fd: int32(g.boss.fd), Events: unix.POLLIN}, {Fd: -1}, {Fd: -1}}
	if g.kept != nil && g.boss.fd < 0 {
		p[2].Fd = int32(g.kept.fds[3])
		if g.kept.worker() {
			p[3].Fd = int32(g.kept.link)
		}
	}
	if _, err := unix.Poll(p, int(time.Second/time.Millisecond)); err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	if p[1].Revents != 0 {
		g.hear()
	}
	g.look()
	if p[0].Revents != 0 {
		g.accept()
	}
	return nil
}

// look does what the absence of a supervisor asks for.
func (g *guardian) look() {
	if g.kept == nil {
		return
	}
	if g.boss.fd >= 0 {
		switch {
		case g.kept.worker():
			g.alone = time.Time{}
		case g.alone.IsZero():
			g.alone = time.Now()
		default:
			b := g.kept.told()
			if patience := helpless(&b.Config); time.Since(g.alone) > patience {
				g.log.Error("the supervisor has had no worker and starts none: it is killed", "for", patience)
				g.dismiss(true)
			}
		}
		return
	}
	switch {
	case hungUp(g.kept.fds[3]):
		g.end()
	case !g.kept.worker() && time.Now().After(g.again):
		g.again = time.Now().Add(2 * time.Second)
		if err := g.revive(); err != nil {
			g.log.Error("no supervisor", "err", err)
		}
	}
}

// accept takes a supervisor.
func (g *guardian) accept() {
	fd, _, err := unix.Accept4(g.listener, unix.SOCK_CLOEXEC)
	if err != nil {
		g.log.Error("accept", "err", err)
		return
	}
	l := link{fd}
	var h hello
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err == nil && cred.Uid != 0 {
		err = errors.New("only root may begin")
	}
	if err == nil {
		kind, body, fds, e := l.recvFDs(g.buf, guardPatience)
		closeAll(fds)
		if err = e; err == nil && kind != guardHello {
			err = fmt.Errorf("message %q, want %q", kind, guardHello)
		}
		if err == nil {
			err = json.Unmarshal(body, &h)
		}
	}
	if err != nil {
		g.log.Error("supervisor", "err", err)
		unix.Close(fd)
		return
	}
	if g.boss.fd >= 0 && g.boss.over() {
		g.dismiss(false)
	}
	if g.boss.fd >= 0 && g.main {
		_ = l.send(guardNo, nil, -1)
		unix.Close(fd)
		return
	}
	g.dismiss(false)
	pidfd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil { // it has ended
		unix.Close(fd)
		return
	}
	g.boss, g.main, g.pidfd, g.alone = l, h.Main, pidfd, time.Time{}
	if g.kept == nil {
		_ = l.send(guardHave, nil, -1)
		return
	}
	fds := g.kept.fds[:]
	if g.kept.link >= 0 {
		fds = append(fds[:len(fds):len(fds)], g.kept.link)
	}
	if err := l.sendFDs(guardHave, g.kept.begin, fds...); err != nil {
		g.log.Error("supervisor", "err", err)
	}
}

// dismiss has the supervisor end without touching anything, by force if it must be.
func (g *guardian) dismiss(force bool) {
	if g.boss.fd < 0 {
		return
	}
	p := []unix.PollFd{{Fd: int32(g.pidfd), Events: unix.POLLIN}}
	if !force && g.boss.send(guardBye, nil, -1) == nil {
		_, _ = unix.Poll(p, int(guardPatience/time.Millisecond))
	}
	if p[0].Revents == 0 {
		_ = unix.PidfdSendSignal(g.pidfd, unix.SIGKILL, nil, 0)
		_, _ = unix.Poll(p, int(guardPatience/time.Millisecond))
	}
	g.lost()
}

// lost forgets a supervisor that has ended.
func (g *guardian) lost() {
	for g.hearOne() { // what it still said
	}
	unix.Close(g.boss.fd)
	unix.Close(g.pidfd)
	g.boss, g.pidfd = link{-1}, -1
}

// hear takes what the supervisor says.
func (g *guardian) hear() {
	for g.hearOne() {
	}
	if g.boss.over() {
		g.lost()
	}
}

func (g *guardian) hearOne() bool {
	kind, body, fds, err := g.boss.recvFDs(g.buf, 0)
	if err != nil || kind == 0 {
		return false
	}
	body = append([]byte(nil), body...)
	switch {
	case kind == guardKeep && len(fds) >= 4:
		if g.kept != nil {
			g.kept.close()
		}
		g.kept = &keeping{begin: body, fds: [4]int(fds[:4]), link: -1, groups: [2]*fanotify.Group{fanotify.FromFD(fds[0]), fanotify.FromFD(fds[1])}}
		if len(fds) > 4 {
			g.kept.link = fds[4]
			closeAll(fds[5:])
		}
		return true
	case kind == guardLink && len(fds) == 1 && g.kept != nil:
		if g.kept.link >= 0 {
			unix.Close(g.kept.link)
		}
		g.kept.link = fds[0]
		return true
	case kind == guardKnow && g.kept != nil:
		g.kept.begin = body
	case kind == guardEnd:
		if g.kept != nil {
			g.kept.close()
			g.kept = nil
		}
		_ = g.boss.send(guardEnd, nil, -1)
	}
	closeAll(fds)
	return true
}

// revive starts a supervisor, which denies what was read and not answered, and starts a worker. Nothing of this asks: the
// program has a mark of its own.
func (g *guardian) revive() error {
	for _, f := range g.kept.groups {
		if err := f.IgnoreFile(self); err != nil {
			return fmt.Errorf("own mark: %w", err)
		}
	}
	l, end, err := newLink()
	if err != nil {
		return err
	}
	defer unix.Close(l.fd)
	defer end.Close()
	b := g.kept.told()
	b.PID = 0
	text, err := json.Marshal(b)
	if err == nil {
		err = l.send(msgBegin, text, -1)
	}
	if err != nil {
		return err
	}
	p, err := start("supervisor", end, g.kept.groups, g.kept.fds[2], g.kept.fds[3])
	if err != nil {
		return err
	}
	go func() { _, _ = p.Wait() }()
	g.log.Warn("supervisor and worker were killed: another supervisor", "pid", p.Pid)
	return nil
}

// end ends a worker whose unit was stopped, and then everything runs again.
func (g *guardian) end() {
	b := g.kept.told()
	if pidfd, err := unix.PidfdOpen(b.PID, 0); b.PID > 0 && err == nil {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			if !g.kept.worker() { // else it may be another process's number
				break
			}
			_ = unix.PidfdSendSignal(pidfd, sig, nil, 0)
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(guardPatience/time.Millisecond))
		}
		unix.Close(pidfd)
	}
	g.kept.close()
	g.kept = nil
	detachAnew(&b.Config, g.log)
	_ = os.Remove(b.Config.Socket)
	g.log.Info("the unit was stopped: nothing is enforced any more")
}

// errListens says that a process listens at a path.
var errListens = errors.New("somebody listens there")

// listenAt makes a socket for root only. One that nobody listens to any more is replaced.
func listenAt(path string, kind int) (int, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	name := &unix.SockaddrUnix{Name: path}
	if probe, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err == nil {
		err = unix.Connect(probe, name)
		unix.Close(probe)
		if err == nil || errors.Is(err, unix.EAGAIN) {
			unix.Close(fd)
			return -1, fmt.Errorf("%s: %w", path, errListens)
		}
	}
	_ = os.Remove(path)
	old := unix.Umask(0o177)
	err = unix.Bind(fd, name)
	unix.Umask(old)
	if err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}
