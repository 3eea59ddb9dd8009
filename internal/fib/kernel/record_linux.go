package kernel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"midplane/fib"
	"midplane/internal/fib/kernel/plan"
)

// recordFile holds what has to survive a crash of this process. After a crash of the machine it says nothing any more.
const recordFile = "kernel.json"

const recordVersion = 1

type record struct {
	Version int         `json:"version"`
	Boot    string      `json:"boot"`  // of the machine
	Netns   uint64      `json:"netns"` // inode of the namespace that is worked on
	Record  plan.Record `json:"record"`
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

func (k *Kernel) home() string {
	if k.config.Netns != "" {
		return k.config.Netns
	}
	return "/proc/self/ns/net"
}

// load reads the record. One of another boot is of things that are gone.
func (k *Kernel) load() error {
	path := filepath.Join(k.config.Dir, recordFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.parseRecord(path, b)
}

func (k *Kernel) parseRecord(path string, b []byte) error {
	var r record
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return fmt.Errorf("%s: %w; remove it if no FIB is set up", path, err)
	}
	if r.Version != recordVersion {
		return &fib.FieldError{Field: path + ": version", Value: fmt.Sprint(r.Version), Want: fmt.Sprint(recordVersion)}
	}
	boot, err := bootID()
	if err != nil || boot != r.Boot {
		return err
	}
	if r.Netns != k.netns {
		return &fib.FieldError{Field: path + ": netns", Value: fmt.Sprint(r.Netns), Want: fmt.Sprintf("%d, that of %s; use another directory, or remove the file if that namespace is gone", k.netns, k.home())}
	}
	if err := r.Record.Validate(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	k.rec = r.Record
	return nil
}

// save writes the record, in one step; none when it is empty.
func (k *Kernel) save(r plan.Record) error {
	path := filepath.Join(k.config.Dir, recordFile)
	if r.Empty() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	b, err := json.Marshal(record{recordVersion, boot, k.netns, r})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
