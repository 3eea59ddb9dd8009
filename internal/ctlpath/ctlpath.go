// Package ctlpath says where the control socket of a daemon is, and keeps strangers from putting one there.
//
// Who has no directory of his own for such things uses one in that for temporary files, where everybody can make files:
// whoever comes first could be the node of others, or make them give theirs away. So that directory must be its user's
// and nobody else's, for the daemon and for its clients. Directories that a user chooses are his business.
package ctlpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Default is the path for a daemon that was not told another one, see tipc.DefaultControl.
func Default() string {
	if p := os.Getenv("MIDPLANE_CONTROL"); p != "" {
		return p
	}
	switch uid := os.Getuid(); {
	case uid == 0:
		return "/run/midplane/control"
	case uid < 0: // Windows
		return filepath.Join(os.TempDir(), "midplane", "control")
	default:
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return filepath.Join(dir, "midplane", "control")
		}
		return filepath.Join(private(uid), "control")
	}
}

// private is the user's directory in that for temporary files.
func private(uid int) string { return filepath.Join(os.TempDir(), "midplane-"+strconv.Itoa(uid)) }

// Error is a directory that is not its user's alone.
type Error struct {
	Path  string // of the control socket
	Found string // what its directory is
	UID   int    // whose it should be
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("control socket %s: %s is %s; want a directory of user %d with mode 0700: remove it, set XDG_RUNTIME_DIR, or choose another path with --control",
		e.Path, filepath.Dir(e.Path), e.Found, e.UID)
}

// Prepare makes the directory for a control socket.
func Prepare(path string) error {
	dir, uid := filepath.Dir(path), os.Getuid()
	if dir != private(uid) {
		return os.MkdirAll(dir, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := owned(path, uid)
	if err != nil || fi.Mode().Perm() == 0o700 {
		return err
	}
	return os.Chmod(dir, 0o700) // it is of an older version, or a umask has made it too strict
}

// Check is for clients, before they trust who answers at path.
func Check(path string) error {
	uid := os.Getuid()
	if filepath.Dir(path) != private(uid) {
		return nil
	}
	fi, err := owned(path, uid)
	if err == nil && fi.Mode().Perm()&0o022 != 0 {
		err = &Error{path, fmt.Sprintf("a directory with mode %#o, that others can write to", fi.Mode().Perm()), uid}
	}
	return err
}

// owned looks at the directory of path, which must be uid's.
func owned(path string, uid int) (fs.FileInfo, error) {
	fi, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, &Error{path, "not a directory", uid}
	}
	if o := owner(fi); o != uid {
		return nil, &Error{path, fmt.Sprintf("a directory of user %d", o), uid}
	}
	return fi, nil
}
