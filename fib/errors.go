package fib

import (
	"errors"
	"fmt"
)

// Errors of tables. They are wrapped in an [*OpError] that says what they are about.
var (
	ErrExists   = errors.New("exists already")
	ErrNotFound = errors.New("does not exist")
	ErrInUse    = errors.New("is in use")
	ErrFull     = errors.New("no room is left in the image")
	ErrTooMany  = errors.New("too many")
	ErrRemoved  = errors.New("the FIB was removed")
)

// FieldError says which field of a request is wrong, and what would be right.
type FieldError struct {
	Field string // by its documented name
	Value string // as given
	Want  string // what would be right
}

// Error implements error.
func (e *FieldError) Error() string { return fmt.Sprintf("%s %q: want %s", e.Field, e.Value, e.Want) }

// OpError says what an operation was about.
type OpError struct {
	Op   string // "create", "insert", "delete", "remove", …
	What string // the FIB, prefix or next hop
	Err  error  // never nil
}

// Error implements error.
func (e *OpError) Error() string { return e.Op + " " + e.What + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
