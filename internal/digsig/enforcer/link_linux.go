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

// Kinds of messages. To the worker: begin. The others are the worker's.
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
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
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
	ms := -1
	if wait >= 0 {
		ms = int((wait + time.Millisecond - 1) / time.Millisecond)
	}
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, ms); n == 0 || errors.Is(err, unix.EINTR) {
		return 0, nil, -1, nil
	} else if err != nil {
		return 0, nil, -1, os.NewSyscallError("poll", err)
	}
	var oob [64]byte
	n, on, _, _, err := unix.Recvmsg(l.fd, b, oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, nil, -1, nil
	case err != nil:
		return 0, nil, -1, os.NewSyscallError("recvmsg", err)
	case n == 0:
		return 0, nil, -1, os.ErrClosed
	}
	fd = -1
	if on > 0 {
		if cms, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
			for i := range cms {
				if fds, err := unix.ParseUnixRights(&cms[i]); err == nil {
					for _, got := range fds {
						if fd >= 0 {
							unix.Close(fd)
						}
						fd = got
					}
				}
			}
		}
	}
	return b[0], b[1:n], fd, nil
}

func token(body []byte) uint64 {
	if len(body) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(body)
}
