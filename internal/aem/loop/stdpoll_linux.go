package loop

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller watches descriptors for the portable back end: an epoll instance of its own, whose readiness the runtime tells.
// It takes one goroutine, and only if something is watched.
type poller struct {
	mu    sync.Mutex
	file  *os.File
	fds   map[*stdEnd]*stdWatch
	ended chan struct{}
}

type stdWatch struct {
	fd    int
	mask  Mask
	armed bool
}

func (l *stdLoop) Poll(fd int, mask Mask, tag any) (Handle, error) {
	if err := l.poller.start(l); err != nil {
		return 0, err
	}
	e := &stdEnd{kind: stdPoll, tag: tag}
	h, err := l.add(e, nil)
	if err != nil {
		return 0, err
	}
	if err := l.poller.add(e, &stdWatch{fd: fd, mask: mask, armed: true}); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ends.drop(h)
		return 0, err
	}
	return h, nil
}

func (l *stdLoop) Rearm(h Handle) error {
	l.mu.Lock()
	e, err := l.find(h, stdPoll)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return l.poller.rearm(e)
}

func (p *poller) start(l *stdLoop) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	p.file, p.fds, p.ended = os.NewFile(uintptr(fd), "epoll"), map[*stdEnd]*stdWatch{}, make(chan struct{})
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	go p.run(l, raw)
	return nil
}

func (p *poller) ctl(op int, e *stdEnd, w *stdWatch) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	ev := unix.EpollEvent{Events: uint32(w.mask) | unix.EPOLLONESHOT, Fd: int32(uint32(e.h)), Pad: int32(e.h >> 32)}
	cerr := raw.Control(func(ep uintptr) { err = unix.EpollCtl(int(ep), op, w.fd, &ev) })
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (p *poller) add(e *stdEnd, w *stdWatch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.ctl(unix.EPOLL_CTL_ADD, e, w)
	if err == nil {
		p.fds[e] = w
	}
	return err
}

func (p *poller) rearm(e *stdEnd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.fds[e]
	if w == nil {
		return ErrClosed
	}
	w.armed = true
	return p.ctl(unix.EPOLL_CTL_MOD, e, w)
}

// remove is called with the loop's mu locked.
func (p *poller) remove(e *stdEnd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.fds[e]; w != nil {
		_ = p.ctl(unix.EPOLL_CTL_DEL, e, w)
		delete(p.fds, e)
	}
}

func (p *poller) run(l *stdLoop, raw syscall.RawConn) {
	defer close(p.ended)
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
		if err != nil {
			return // it is closed
		}
		l.mu.Lock()
		for _, k := range events[:max(n, 0)] {
			e := l.ends.get(Handle(uint32(k.Pad))<<32 | Handle(uint32(k.Fd)))
			if e != nil && !e.gone && !e.closing && p.disarm(e) {
				l.tell(e, Event{Op: OpReady, Mask: Mask(k.Events) & (In | Pri | Out | Err | Hup)})
			}
		}
		l.mu.Unlock()
	}
}

func (p *poller) disarm(e *stdEnd) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.fds[e]
	was := w != nil && w.armed
	if was {
		w.armed = false
	}
	return was
}

func (p *poller) stop() {
	p.mu.Lock()
	f := p.file
	p.mu.Unlock()
	if f != nil {
		f.Close()
		<-p.ended
	}
}
