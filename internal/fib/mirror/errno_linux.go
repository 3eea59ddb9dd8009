package mirror

import (
	"errors"
	"syscall"
)

// unknown says that the kernel does not know a kind of message, as next hops before Linux 5.3.
func unknown(err error) bool { return errors.Is(err, syscall.EOPNOTSUPP) }

// absent says that the kernel has no such table (with strict dumps ENOENT), or not that family: there are no routes.
func absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP)
}
