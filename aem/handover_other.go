//go:build !unix

package aem

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

var past = time.Unix(1, 0)

var errHandover = fmt.Errorf("aem: handing descriptors over: %w", errors.ErrUnsupported)

func sendAll(*net.UnixConn, []passing) error { return errHandover }

// Takeover exists on Unix systems only.
func Takeover(context.Context, *net.UnixConn) ([]Inherited, func() error, error) {
	return nil, nil, errHandover
}
