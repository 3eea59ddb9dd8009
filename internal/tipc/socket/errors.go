package socket

import "syscall"

// Error is one of this package's errors. They are compared by identity, and each unwraps to the errno that Linux
// returns in its place.
type Error struct {
	text  string
	errno syscall.Errno
}

// Error implements error.
func (e *Error) Error() string { return "tipc/socket: " + e.text }

// Unwrap returns the [syscall.Errno].
func (e *Error) Unwrap() error { return e.errno }

// Errors of sockets.
var (
	ErrWouldBlock   = &Error{"not possible yet", syscall.EAGAIN}
	ErrInProgress   = &Error{"connection setup has begun", syscall.EINPROGRESS}
	ErrAlready      = &Error{"connection setup is under way already", syscall.EALREADY}
	ErrIsConnected  = &Error{"socket is connected", syscall.EISCONN}
	ErrNotConnected = &Error{"socket is not connected", syscall.ENOTCONN}
	ErrPipe         = &Error{"connection has ended", syscall.EPIPE}
	ErrConnRefused  = &Error{"connection refused", syscall.ECONNREFUSED}
	ErrConnReset    = &Error{"connection was aborted by the peer", syscall.ECONNRESET}
	ErrConnAborted  = &Error{"peer no longer answers", syscall.ECONNABORTED}
	ErrTimedOut     = &Error{"connection setup timed out", syscall.ETIMEDOUT}
	ErrHostUnreach  = &Error{"nobody is bound there, or the node cannot be reached", syscall.EHOSTUNREACH}
	ErrMsgSize      = &Error{"message is too long", syscall.EMSGSIZE}
	ErrNoBufs       = &Error{"link has no room for system messages", syscall.ENOBUFS}
	ErrInvalid      = &Error{"invalid argument or state", syscall.EINVAL}
	ErrAccess       = &Error{"service types below 64 are reserved", syscall.EACCES}
	ErrAddrInUse    = &Error{"socket has used up its bindings", syscall.EADDRINUSE}
	ErrDestRequired = &Error{"no destination", syscall.EDESTADDRREQ}
	ErrOpNotSupp    = &Error{"not for a socket of this type or with bindings", syscall.EOPNOTSUPP}
	ErrNoOption     = &Error{"no such option for this type of socket", syscall.ENOPROTOOPT}
	ErrNotSupported = &Error{"communication groups are not supported", syscall.EOPNOTSUPP}
	ErrTooMany      = &Error{"too many sockets", syscall.ENFILE}
	ErrClosed       = &Error{"socket is closed", syscall.EBADF}

	// ErrLinkCong is for a [Net] to return: the message was taken, but the sender has to wait for a SOCK_WAKEUP message
	// before it sends more. Users of sockets never see it.
	ErrLinkCong = &Error{"link is congested", syscall.EAGAIN}
)
