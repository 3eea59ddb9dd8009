//go:build unix

package keyfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// open does not wait for the other end of a FIFO.
func open(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) }

// private refuses files that others than the owner can read or write.
func private(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if m := fi.Mode().Perm(); m&0o077 != 0 {
		return fmt.Errorf("mode %#o lets others than its owner at it: want 0600 or 0400", m)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d: want root or the user who signs, %d", st.Uid, os.Geteuid())
	}
	return nil
}
