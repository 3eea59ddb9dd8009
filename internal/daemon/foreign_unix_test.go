//go:build unix

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"midplane/internal/api"
	"midplane/internal/ctlpath"
	"midplane/tipc"
)

// In the user's own directory below that for temporary files, neither the daemon nor its clients use what is not his.
func TestForeignControlDirectory(t *testing.T) {
	tmp, err := os.MkdirTemp("", "mp") // short: it is for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	t.Setenv("TMPDIR", tmp)
	dir := filepath.Join(tmp, "midplane-"+strconv.Itoa(os.Getuid()))
	path := filepath.Join(dir, "control")
	d, err := Start(Config{Control: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	attached := open(t, d) // which works, as the directory is the user's
	ask := func() error { _, err := api.NewClient(path).Node(t.Context()); return err }
	if err := ask(); err != nil {
		t.Fatal(err)
	}

	theirs := filepath.Join(tmp, "theirs")
	if err := errors.Join(os.Rename(dir, theirs), os.Symlink(theirs, dir)); err != nil {
		t.Fatal(err)
	}
	_, start := Start(Config{Control: path}, nil)
	_, openErr := tipc.Open(&tipc.OpenConfig{Control: path})
	_, dial := attached.ListenPacket(nil, nil)
	for who, err := range map[string]error{"daemon": start, "Open": openErr, "a new socket": dial, "api": ask()} {
		var foreign *ctlpath.Error
		if !errors.As(err, &foreign) {
			t.Errorf("%s: %v", who, err)
		}
	}
}
