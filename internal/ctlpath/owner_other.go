//go:build !unix

package ctlpath

import (
	"io/fs"
	"os"
)

// owner is the user himself where files have no owner as here: such systems have a directory for each user.
func owner(fs.FileInfo) int { return os.Getuid() }
