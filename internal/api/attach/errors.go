package attach

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

// causes are the errors that keep their identity across the connection. The index is part of the protocol: append only.
var causes = []error{
	1: io.EOF, 2: net.ErrClosed, 3: os.ErrDeadlineExceeded, 4: errors.ErrUnsupported,
	5: syscall.ECONNREFUSED, 6: syscall.ECONNRESET, 7: syscall.EPIPE, 8: syscall.EHOSTUNREACH, 9: syscall.EMSGSIZE,
	10: syscall.EACCES, 11: syscall.EADDRINUSE, 12: syscall.EINVAL, 13: syscall.ETIMEDOUT, 14: syscall.ENOTCONN,
	15: syscall.EISCONN, 16: syscall.EADDRNOTAVAIL, 17: syscall.EOPNOTSUPP, 18: syscall.ENOBUFS, 19: syscall.EAFNOSUPPORT,
	20: syscall.EDESTADDRREQ, 21: syscall.EALREADY, 22: syscall.ENOMEM, 23: syscall.ENOTSUP, 24: syscall.ENETUNREACH,
	25: syscall.EAGAIN, 26: syscall.ENOENT, 27: syscall.EEXIST, 28: syscall.EPERM,
}

// err appends an error; nil is one octet of 0.
func (e enc) err(err error) enc {
	if err == nil {
		return e.u8(0)
	}
	var code wire.ErrCode
	var se *sockif.Error
	if errors.As(err, &se) {
		code = se.Code
	}
	cause := findCause(err)
	text := ""
	if cause == 0 || err.Error() != causes[cause].Error() {
		text = err.Error()
	}
	text = text[:min(len(text), 1024)]
	return append(e.u8(1).u8(uint8(code)).u8(uint8(cause)).u32(uint32(len(text))), text...)
}

// findCause returns the index of the error that err is or wraps; else of one that it only matches; else 0.
func findCause(err error) int {
	for e := err; e != nil; e = errors.Unwrap(e) {
		for i, c := range causes {
			if e == c {
				return i
			}
		}
	}
	for i, c := range causes {
		if i > 0 && errors.Is(err, c) {
			return i
		}
	}
	return 0
}

func (d *dec) err() error {
	if d.u8() == 0 {
		return nil
	}
	code, cause := wire.ErrCode(d.u8()), int(d.u8())
	text := string(d.take(min(int(d.u32()), len(d.b))))
	var err error
	if cause > 0 && cause < len(causes) {
		err = causes[cause]
	}
	if text != "" || err == nil {
		err = &remoteError{text, err}
	}
	if code != 0 {
		err = &sockif.Error{Code: code, Err: err}
	}
	return err
}

// remoteError is an error of the daemon with its own words.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }
