//go:build !unix

package keyfile

import (
	"errors"
	"os"
)

func open(path string) (*os.File, error) { return os.Open(path) }

// private has no modes to look at here: who can read the file is for its access control list.
func private(f *os.File) error {
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	return err
}
