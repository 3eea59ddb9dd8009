package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"midplane/internal/dirsync"
)

// Read reads a key from a file, which must be a regular one that only its owner can read, the owner being this user or
// root. It may block as long as Options.Phrase does.
func Read(path string, o Options) (*Key, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := private(f); err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	data, err := readAll(f)
	defer clear(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	k, err := Parse(data, o)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

// Write puts a new file of a key there, which only its owner can read; one that exists is never replaced. When it
// returns nil, file and name are on stable storage.
func Write(path string, data []byte) error { return create(path, data, 0o600) }

// WritePublic is Write for a public key, which everybody can read.
func WritePublic(path string, data []byte) error { return create(path, data, 0o644) }

func create(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already; a key is never overwritten", path)
		}
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return dirsync.Sync(filepath.Dir(path))
}
