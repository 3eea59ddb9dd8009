//go:build !linux

package journal

import (
	"os"
	"path/filepath"
)

// lockDir only opens the file: two daemons in one directory are kept apart by their control socket here.
func lockDir(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
}

func datasync(f *os.File) error { return f.Sync() }
