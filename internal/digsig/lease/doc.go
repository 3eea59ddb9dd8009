// Package lease holds read leases on files (fcntl(2), F_SETLEASE): while one is held, nobody opens the file for writing or
// truncates it; who tries waits, and the holder is told, until the lease is released or 45 seconds have gone by
// (/proc/sys/fs/lease-break-time). A lease cannot be had while somebody has the file open for writing or mapped
// writable. See fs/locks.c in the kernel.
//
// A lease belongs to the open file, not to the process: who was sent the descriptor holds it too, and it is gone when the
// last has closed it, or when one has released it.
package lease

import "errors"

// Why a lease was not given.
var (
	ErrWriter  = errors.New("lease: the file is open for writing")
	ErrNoLease = errors.New("lease: this file system has none")
)
