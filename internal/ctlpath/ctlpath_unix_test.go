//go:build unix

package ctlpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ownDir returns the path of a control socket in the user's directory for it, which is not there yet.
func ownDir(t *testing.T) (path, dir string) {
	t.Setenv("TMPDIR", t.TempDir())
	dir = private(os.Getuid())
	return filepath.Join(dir, "control"), dir
}

func mode(t *testing.T, dir string) fs.FileMode {
	t.Helper()
	fi, err := os.Lstat(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}

// A user's directory in that for temporary files is made, and kept, closed to others.
func TestPrivateDirectory(t *testing.T) {
	path, dir := ownDir(t)
	if err := Check(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a client, before there is a directory: %v", err)
	}
	defer syscall.Umask(syscall.Umask(0o277))
	for _, was := range []fs.FileMode{0, 0o700, 0o755, 0o777} {
		if was != 0 {
			if err := os.Chmod(dir, was); err != nil {
				t.Fatal(err)
			}
		}
		var refused *Error
		if err := Check(path); was == 0o777 && !errors.As(err, &refused) {
			t.Errorf("a client trusts a directory of mode %#o", was)
		}
		if err := errors.Join(Prepare(path), Check(path)); err != nil {
			t.Fatalf("mode %#o: %v", was, err)
		}
		if m := mode(t, dir); m != 0o700 {
			t.Errorf("mode %#o became %#o", was, m)
		}
	}
}

// What somebody else has put there is refused, with words that say what is wrong and what would be right.
func TestForeignDirectory(t *testing.T) {
	path, dir := ownDir(t)
	both := func(want string) {
		t.Helper()
		for _, err := range []error{Prepare(path), Check(path)} {
			var refused *Error
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir+" is") || !strings.Contains(err.Error(), "0700") {
				t.Errorf("want an error with %q and %q, got: %v", dir, want, err)
			}
		}
	}
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	both("not a directory")
	os.Remove(dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := owned(path, os.Getuid()+1); err == nil || !strings.Contains(err.Error(), "a directory of user ") {
		t.Errorf("another user's directory: %v", err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, 4711, -1); err != nil {
			t.Fatal(err)
		}
		both("a directory of user 4711; want a directory of user 0")
	}
}

// A directory that was chosen is made if it is not there, and else left as it is.
func TestChosenDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "control")
	if err := errors.Join(Prepare(path), os.Chmod(dir, 0o777), Prepare(path), Check(path)); err != nil {
		t.Fatal(err)
	}
	if m := mode(t, dir); m != 0o777 {
		t.Errorf("mode became %#o", m)
	}
}
