// Package binding is what the kernel side of FIBs and the programs that run in FIBs have in common: the record, one a
// FIB, of how a socket or a process gets into it on this host. The kernel side writes the records, in one file below a
// runtime directory; dialers, listeners and `midplane fib exec` read them, so they need no daemon.
package binding

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Backend is a way of keeping FIBs apart in the kernel.
type Backend string

// Back ends.
const (
	VRF   Backend = "vrf"   // a VRF device a FIB; Linux 4.8
	Rules Backend = "rules" // ip rules by device and mark, and sockets bound to ports
	Netns Backend = "netns" // a network namespace a FIB
)

// Binding is how one FIB is entered.
type Binding struct {
	FIB     uint32   `json:"fib"`
	Name    string   `json:"name,omitempty"`
	Backend Backend  `json:"backend"`
	Device  string   `json:"device,omitempty"` // vrf: the VRF device
	Mark    uint32   `json:"mark,omitempty"`   // rules: the mark of its packets
	Netns   string   `json:"netns,omitempty"`  // netns: path of the namespace's file
	Ports   []string `json:"ports,omitempty"`  // its devices, sorted
	DNS     []string `json:"dns,omitempty"`    // name servers for its processes
}

// DefaultDir is where the record is kept unless configured: $MIDPLANE_FIB_DIR, else /run/midplane/fib.
func DefaultDir() string {
	if d := os.Getenv("MIDPLANE_FIB_DIR"); d != "" {
		return d
	}
	return "/run/midplane/fib"
}

const file = "bindings.json"

// Load reads all records below dir, none if there is no such file.
func Load(dir string) ([]Binding, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var l []Binding
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, file), err)
	}
	return l, nil
}

// Save replaces all records, in one step: a reader sees the old or the new ones.
func Save(dir string, l []Binding) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, file+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is not there any more when all went well
	_, werr := f.Write(append(b, '\n'))
	if err := errors.Join(werr, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, file))
}

// NotFoundError says that no FIB of that name or number is set up on this host.
type NotFoundError struct{ FIB, Dir string }

// Error implements error.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("fib %q: none of that name or number is set up here (%s); add it with: midplane fib add", e.FIB, filepath.Join(e.Dir, file))
}

// Find returns the record of a FIB by its name or number.
func Find(dir, which string) (Binding, error) {
	l, err := Load(dir)
	if err != nil {
		return Binding{}, err
	}
	for _, b := range l {
		if which != "" && (b.Name == which || strconv.FormatUint(uint64(b.FIB), 10) == which) {
			return b, nil
		}
	}
	return Binding{}, &NotFoundError{which, dir}
}

// Remove removes all records. That there are none is no error.
func Remove(dir string) error {
	if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
