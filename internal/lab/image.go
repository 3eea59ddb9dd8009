//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Ext4 says what [Ext4Image] makes. The zero value is good: 64 MB in blocks of 4 KiB, with fs-verity, empty.
type Ext4 struct {
	Size      int    // MB; default 64
	BlockSize int    // octets; default 4096
	NoVerity  bool   // without the feature verity
	From      string // directory whose content it has
}

// Ext4Image makes a file system in a file, for a VM's disk or a loop device, and returns the file's path. It goes with
// the test.
func Ext4Image(t testing.TB, c Ext4) string {
	t.Helper()
	if c.Size == 0 {
		c.Size = 64
	}
	if c.BlockSize == 0 {
		c.BlockSize = 4096
	}
	path := filepath.Join(t.TempDir(), "ext4.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatalf("lab: %v", err)
	}
	argv := []string{"mke2fs", "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(c.BlockSize), "-O", "^has_journal"}
	if !c.NoVerity {
		argv = append(argv, "-O", "verity")
	}
	if c.From != "" {
		argv = append(argv, "-d", c.From)
	}
	if _, err := run("/", append(argv, path, fmt.Sprintf("%dM", c.Size))...); err != nil {
		t.Fatalf("lab: %v", err)
	}
	return path
}
