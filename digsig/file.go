package digsig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"midplane/internal/dirsync"
)

// ErrNotRegular is returned for what is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenRegular opens a regular file to read, and returns what it is like. It waits for no FIFO or device; for those the error is
// ErrNotRegular. Symbolic links are followed.
func OpenRegular(name string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// WriteFile writes a file so that it is the old or the new one whatever happens: a file beside it is written, synced, and
// renamed to it, and the directory is synced.
func WriteFile(name string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), tempPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err := finish(f, name, err); err != nil {
		return err
	}
	return dirsync.Sync(filepath.Dir(name))
}

// finish puts a temporary file in its place, or removes it. The directory is not synced yet.
func finish(f *os.File, name string, err error) error {
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// VerifyFile opens a file and verifies it, with the signature of its extended attribute if there is one and the request has
// none. Symbolic links are followed. A file whose absolute path, without its first slash, is a name in a manifest that lists
// another content is Broken, not Unsigned.
func (v *Verifier) VerifyFile(ctx context.Context, name string, q Request) Verdict {
	out := Verdict{Use: q.Use, Generation: v.generation}
	f, info, err := OpenRegular(name)
	if errors.Is(err, ErrNotRegular) {
		return v.deny(out, NotRegular, "it is no regular file")
	}
	if err != nil {
		return v.deny(out, Unreadable, err.Error())
	}
	defer f.Close()
	return v.verifyOpened(ctx, f, info, name, q)
}

func (v *Verifier) verifyOpened(ctx context.Context, f *os.File, info fs.FileInfo, name string, q Request) Verdict {
	if q.Path == "" {
		q.Path = name
	}
	if q.Signature == nil {
		q.Signature, q.Carrier = SignatureXattr(f), InXattr
	}
	return v.namesake(v.Check(ctx, f, info.Size(), q), q.Path)
}

// namesake looks whether a file that no manifest lists has the name of one that a manifest lists: then it was changed, or may
// have been.
func (v *Verifier) namesake(got Verdict, path string) Verdict {
	if got.Reason != Unsigned && got.Cause != Unsigned {
		return got
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return got
	}
	name := filepath.ToSlash(path)
	for _, m := range v.manifests {
		if !slices.Contains(slices.Collect(maps.Values(m.good)), true) {
			continue
		}
		whole := false
		i, ok := m.list.Named(func(b []byte) bool {
			whole = len(b)+1 == len(name) && string(b) == name[1:]
			return whole || (bytes.IndexByte(b, '/') > 0 && len(b) < len(name) && name[len(name)-len(b)-1] == '/' && string(b) == name[len(name)-len(b):])
		})
		if !ok {
			continue
		}
		e := m.list.At(i)
		got.Detail = fmt.Sprintf("manifest %q lists %q with another content", m.list.Name, e.Name)
		if whole {
			got.Detail += ": it was changed after it was signed"
			if got.Name, got.Version = e.Name, e.Version; got.Cause != 0 {
				got.Cause = Broken
			} else {
				got.Reason = Broken
			}
		}
		return got
	}
	return got
}

// SignOptions says how a file is signed.
type SignOptions struct {
	Template
	Busy bool // sign programs that run: who runs them keeps the old file
}

// ErrBusy is returned for a program that runs, unless SignOptions.Busy is set.
var ErrBusy = errors.New("the program is running")

// ErrLinked is returned for a file with several names (hard links), of which one only would get the new file.
var ErrLinked = errors.New("hard links")

// SignFile embeds a signature in an ELF file. The file is replaced by a new one with the mode, owner and extended attributes
// of the old: whatever happens, there is the old or the new one. Symbolic links are followed. A file with several names
// is refused with ErrLinked; SignTrees handles those.
func SignFile(ctx context.Context, name string, o SignOptions, signers ...*Signer) (*Statement, error) {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	f, before, err := OpenRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if n := links(before); n > 1 {
		return nil, fmt.Errorf("sign %s: %w: it has %d names", name, ErrLinked, n)
	}
	var st *Statement
	err = replace(name, f, before, o.Busy, func(w *os.File) (err error) {
		st, err = Embed(ctx, w, f, before.Size(), o.Template, signers...)
		return err
	})
	if err == nil {
		err = dirsync.Sync(filepath.Dir(name))
	}
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", name, err)
	}
	return st, nil
}

// UnsignFile takes the embedded signature out of an ELF file, as safely as SignFile puts it in.
func UnsignFile(ctx context.Context, name string, busy bool) error {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	f, before, err := OpenRegular(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if n := links(before); n > 1 {
		return fmt.Errorf("unsign %s: %w: it has %d names", name, ErrLinked, n)
	}
	err = replace(name, f, before, busy, func(w *os.File) error {
		_, err := Remove(ctx, w, f, before.Size())
		return err
	})
	if err == nil {
		err = dirsync.Sync(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("unsign %s: %w", name, err)
	}
	return nil
}

// replace writes a new file in the place of an open one. The directory is not synced yet.
func replace(name string, f *os.File, before fs.FileInfo, busy bool, write func(*os.File) error) error {
	if !busy {
		if err := notRunning(name); err != nil {
			return err
		}
	}
	w, err := os.CreateTemp(filepath.Dir(name), tempPrefix+"*")
	if err != nil {
		return err
	}
	err = write(w)
	if err == nil {
		err = copyAttributes(w, f, before)
	}
	if err == nil {
		err = unchanged(name, before)
	}
	return finish(w, name, err)
}

// unchanged says whether the file that was read is still there as it was.
func unchanged(name string, before fs.FileInfo) error {
	now, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if !os.SameFile(before, now) || now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime()) {
		return errors.New("the file was changed meanwhile")
	}
	return nil
}

// notRunning says whether the kernel would let somebody write to the file: not while it is run as a program.
func notRunning(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return ErrBusy
	case err != nil: // not writable, which a rename does not need
		return nil
	}
	return f.Close()
}
