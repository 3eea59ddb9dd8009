// Package dirsync puts names on stable storage.
package dirsync

import (
	"errors"
	"os"
	"runtime"
	"syscall"
)

// Sync returns when the names in a directory, as they are now, are on stable storage: what was renamed to one survives a crash of
// the machine. It waits for the disk. Where directories cannot be synced (Windows, some file systems) it does nothing.
func Sync(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
