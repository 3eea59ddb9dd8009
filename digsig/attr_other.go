//go:build !linux

package digsig

import (
	"errors"
	"io/fs"
	"os"
)

func links(fs.FileInfo) uint64 { return 1 }

type inode struct{}

func inodeOf(fs.FileInfo) (inode, bool) { return inode{}, false }

// SignatureXattr returns nil: extended attributes are for Linux only.
func SignatureXattr(*os.File) []byte { return nil }

// SetXattr is for Linux only.
func SetXattr(string, string, []byte) error {
	return errors.New("signatures in extended attributes: not on this system, only on Linux")
}

// copyAttributes gives a new file the mode of the old.
func copyAttributes(w, _ *os.File, info fs.FileInfo) error { return w.Chmod(info.Mode()) }
