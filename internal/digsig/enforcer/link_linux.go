package enforcer

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// link is the socket between supervisor and worker: whole messages, of which the first octet is the kind.
type link struct{ fd int }

// Kinds of messages. To the worker: begin, adopt, drain. The others are the worker's.
const (
	msgBegin = 'C' // begin, in JSON
	msgReady = 'R' // everything is marked
	msgFail  = 'F' // a text: it cannot begin
	msgBeat  = 'B' // the thread that reads events goes round
	msgHold  = 'H' // a token, and a descriptor with a lease: hold it
	msgDrop  = 'D' // a token: drop it
	msgText  = 'L' // a text for the supervisor's log
	msgStop  = 'S' // end, somebody asked for it
	msgMode  = 'M' // the mode that somebody set, for the worker that comes next
	msgAdopt = 'A' // adopted, in JSON: another supervisor reads this link now
	msgHere  = 'I' // here, in JSON: all marks are taken back, and what was held for them is void
	msgDrain = 'Q' // take no more questions, answer those that were taken, and end
)

// maxMessage bounds a message.
const maxMessage = 64 << 10

// newLink makes a socket and gives its two ends.
func newLink() (link, *os.File, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return link{}, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range p {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20)
	}
	return link{p[0]}, os.NewFile(uintptr(p[1]), "link"), nil
}

// send sends without waiting; EAGAIN says that the other is too slow.
func (l link) send(kind byte, body []byte, fd int) error {
	if fd < 0 {
		return l.sendFDs(kind, body)
	}
	return l.sendFDs(kind, body, fd)
}

func (l link) sendFDs(kind byte, body []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(l.fd, append([]byte{kind}, body...), oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (l link) sendToken(kind byte, token uint64, fd int) error {
	return l.send(kind, binary.LittleEndian.AppendUint64(nil, token), fd)
}

// recv waits for a message, for so long at most (negative: for ever). It returns kind 0 when there is none. A descriptor
// that came along is the caller's, else it is -1.
func (l link) recv(b []byte, wait time.Duration) (kind byte, body []byte, fd int, err error) {
	kind, body, fds, err := l.recvFDs(b, wait)
	if len(fds) == 0 {
		return kind, body, -1, err
	}
	closeAll(fds[1:])
	return kind, body, fds[0], err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// recvFDs is recv with as many descriptors as came along.
func (l link) recvFDs(b []byte, wait time.Duration) (kind byte, body []byte, fds []int, err error) {
	ms := -1
	if wait >= 0 {
		ms = int((wait + time.Millisecond - 1) / time.Millisecond)
	}
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, ms); n == 0 || errors.Is(err, unix.EINTR) {
		return 0, nil, nil, nil
	} else if err != nil {
		return 0, nil, nil, os.NewSyscallError("poll", err)
	}
	var oob [64]byte
	n, on, _, _, err := unix.Recvmsg(l.fd, b, oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, nil, nil, nil
	case err != nil:
		return 0, nil, nil, os.NewSyscallError("recvmsg", err)
	case n == 0:
		return 0, nil, nil, os.ErrClosed
	}
	if on > 0 {
		if cms, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
			for i := range cms {
				if got, err := unix.ParseUnixRights(&cms[i]); err == nil {
					fds = append(fds, got...)
				}
			}
		}
	}
	return b[0], b[1:n], fds, nil
}

// over says whether nobody has the other end any more.
func (l link) over() bool { return hungUp(l.fd) }

// hungUp says whether nobody has the other end of a pipe or socket.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	_, _ = unix.Poll(p, 0)
	return p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func token(body []byte) uint64 {
	if len(body) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(body)
}
