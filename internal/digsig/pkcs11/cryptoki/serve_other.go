//go:build !linux

package cryptoki

import (
	"errors"
	"io"
)

// Serve needs Linux.
func Serve(io.Reader, io.Writer) error {
	return errors.New("tokens are for Linux: the layout of PKCS #11's structures is another here")
}
