//go:build unix

package pkcs11

import (
	"errors"
	"syscall"
)

// isPipe says whether nobody reads any more what was written.
func isPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
