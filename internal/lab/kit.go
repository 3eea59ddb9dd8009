//go:build linux

package lab

import (
	"embed"
	"os"
	"path/filepath"
)

// kit holds the programs that run in guests: python's socket module speaks AF_TIPC.
//
//go:embed guest/*.py
var kit embed.FS

// writeKit writes the programs into the directory that a guest shares with its host, where it has them at /run/lab/kit.
func writeKit(share string) error {
	dir := filepath.Join(share, "kit")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := kit.ReadDir("guest")
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := kit.ReadFile("guest/" + e.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), b, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Program starts a program of the kit in the guest. The programs and their arguments are described in guest/README.md.
func (g *Guest) Program(name string, args ...string) *Proc {
	g.t.Helper()
	return g.Start(append([]string{"python3", "-u", "/run/lab/kit/" + name}, args...)...)
}
