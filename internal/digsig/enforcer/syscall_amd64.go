//go:build linux

package enforcer

import "golang.org/x/sys/unix"

const (
	sysOpen  = unix.SYS_OPEN
	sysCreat = unix.SYS_CREAT
)
