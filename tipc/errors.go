package tipc

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
)

// Code is the protocol's reason for returning a message or ending a connection (include/uapi/linux/tipc.h TIPC_ERR_*).
// As an error it matches, with errors.Is, the errno that Linux would report to a connecting program.
type Code uint8

// Codes.
const (
	CodeNoName       Code = 1 // nobody is bound to the service address
	CodeNoPort       Code = 2 // the destination socket does not exist
	CodeNoNode       Code = 3 // the destination node cannot be reached
	CodeOverload     Code = 4 // the receiver's queue is full
	CodeConnShutdown Code = 5 // the peer ended the connection
)

// String returns a short description.
func (c Code) String() string {
	switch c {
	case 0:
		return "no error"
	case CodeNoName:
		return "no such service"
	case CodeNoPort:
		return "no such socket"
	case CodeNoNode:
		return "node unreachable"
	case CodeOverload:
		return "receiver overloaded"
	case CodeConnShutdown:
		return "connection shut down"
	}
	return "error code " + strconv.Itoa(int(c))
}

// Error implements error.
func (c Code) Error() string { return c.String() }

// Errors that have no errno of their own.
var (
	// ErrUnsupported is what a feature answers that this build or this node lacks. It matches errors.ErrUnsupported.
	ErrUnsupported = errors.ErrUnsupported

	// ErrNodeClosed is returned by the calls of a node that was closed. It matches net.ErrClosed.
	ErrNodeClosed error = nodeClosed{}
)

type nodeClosed struct{}

func (nodeClosed) Error() string        { return "node closed" }
func (nodeClosed) Is(target error) bool { return target == net.ErrClosed }

// OpError is the error of every operation on sockets and nodes, except that io.EOF stays bare. It is a net.Error.
// With errors.Is it matches what Err matches, for example:
//
//	net.ErrClosed            the socket or its node was closed by this program
//	os.ErrDeadlineExceeded   a deadline passed
//	context.Canceled, context.DeadlineExceeded
//	syscall.ECONNREFUSED     nobody accepts connections there
//	syscall.ECONNRESET       the peer socket, its process or its node is gone
//	syscall.EPIPE            the connection was ended, nothing can be sent
//	syscall.EHOSTUNREACH     no such service or node
//	syscall.EMSGSIZE         the message is larger than MaxMessage
//	syscall.EACCES           the service type is reserved
//	syscall.EADDRINUSE       the listener's socket is taken
//	syscall.EINVAL           the address or argument does not fit the operation
//	errors.ErrUnsupported    the feature is absent
type OpError struct {
	Op   string   // "dial", "listen", "accept", "bind", "read", "write", "subscribe", ...
	Addr net.Addr // what the operation was about; nil if nothing in particular
	Code Code     // protocol reason, if one was received; else 0
	Err  error    // cause, never nil
}

// Error implements error.
func (e *OpError) Error() string {
	s := "tipc: " + e.Op
	if e.Addr != nil {
		s += " " + e.Addr.String()
	}
	s += ": " + e.Err.Error()
	if e.Code != 0 && e.Err != error(e.Code) {
		s += " (" + e.Code.String() + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Is matches the protocol code as well as the cause.
func (e *OpError) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code && c != 0
}

// Timeout implements net.Error: it tells whether a deadline or a time limit passed.
func (e *OpError) Timeout() bool {
	return errors.Is(e.Err, os.ErrDeadlineExceeded) || errors.Is(e.Err, context.DeadlineExceeded) ||
		errors.Is(e.Err, syscall.ETIMEDOUT)
}

// Temporary implements net.Error; it is true of timeouts.
func (e *OpError) Temporary() bool { return e.Timeout() }

var _ net.Error = (*OpError)(nil)
