package sys

import (
	"errors"
	"io"
	"testing"
)

func TestUnsupportedError(t *testing.T) {
	var err error = &UnsupportedError{Feature: "a thing", MinKernel: "6.1", Err: io.ErrUnexpectedEOF}
	if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the error is not what it wraps")
	}
	if want := "a thing is not supported here, it needs Linux 6.1: unexpected EOF"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
