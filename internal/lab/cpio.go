//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"io"
)

// cpio writes the archive format of an initramfs ("newc", Linux Documentation/driver-api/early-userspace).
type cpio struct {
	b     bytes.Buffer
	inode int
}

const (
	modeDir     = 0o040755
	modeFile    = 0o100755
	modeConsole = 0o020600
)

func (c *cpio) entry(name string, mode, major, minor int, data []byte) {
	c.inode++
	links := 1
	fmt.Fprintf(&c.b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.b.WriteString(name)
	c.b.WriteByte(0)
	c.pad()
	c.b.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.b.Len()%4 != 0 {
		c.b.WriteByte(0)
	}
}

func (c *cpio) dir(name string)               { c.entry(name, modeDir, 0, 0, nil) }
func (c *cpio) file(name string, data []byte) { c.entry(name, modeFile, 0, 0, data) }

// console makes the device that the kernel opens as the first program's standard input and outputs.
func (c *cpio) console(name string) { c.entry(name, modeConsole, 5, 1, nil) }

// bytes ends the archive and returns it.
func (c *cpio) bytes() []byte {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	b, _ := io.ReadAll(&c.b)
	return b
}
