package api

import (
	"errors"
	"net/http"
	"syscall"
)

// Code says what kind of failure an [Error] is. The codes are part of the protocol: never reuse one.
type Code string

// Codes.
const (
	Invalid     Code = "invalid"     // a value is out of range or does not parse
	NotFound    Code = "not_found"   // no such bearer, link, medium or peer
	Exists      Code = "exists"      // it is there already
	Busy        Code = "busy"        // not while it is in use
	NotAllowed  Code = "not_allowed" // not in this state of the node, or not to this user
	Unsupported Code = "unsupported" // this node lacks the feature
	Internal    Code = "internal"    // anything else: a system call failed, ...
)

// Error is a refusal. Message is for people: it names what was wrong and what would be right.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Is makes an Unsupported error match errors.ErrUnsupported, and the others the errno that the kernel has for them.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case Unsupported:
		return target == errors.ErrUnsupported
	case Invalid:
		return target == syscall.EINVAL
	case NotFound:
		return target == syscall.ENOENT
	case Exists:
		return target == syscall.EEXIST
	case Busy:
		return target == syscall.EBUSY
	case NotAllowed:
		return target == syscall.EPERM
	}
	return false
}

// Status is the status of an HTTP answer with the code.
func (c Code) Status() int {
	switch c {
	case Invalid:
		return http.StatusBadRequest
	case NotFound:
		return http.StatusNotFound
	case Exists, Busy:
		return http.StatusConflict
	case NotAllowed:
		return http.StatusForbidden
	case Unsupported:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

// ToError makes any error an *Error.
func ToError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	code := Internal
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		code = Unsupported
	case errors.Is(err, syscall.EINVAL):
		code = Invalid
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		code = NotFound
	case errors.Is(err, syscall.EEXIST):
		code = Exists
	case errors.Is(err, syscall.EBUSY):
		code = Busy
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		code = NotAllowed
	}
	return &Error{code, err.Error()}
}
