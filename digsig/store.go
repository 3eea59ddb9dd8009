package digsig

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/revoke"
)

// Where a store's parts are, by default and within its directories.
const (
	DefaultDir      = "/etc/midplane/digsig"
	DefaultStateDir = "/var/lib/midplane/digsig"

	TrustDir        = "trust"       // key files, *.pub
	ManifestDir     = "manifests"   // envelopes, *.mdm
	RevocationsFile = "revocations" // envelope
	PolicyFile      = "policy"      // envelope
	stateFile       = "state.json"
)

// Bounds of what a store reads.
const (
	maxKeys      = 4096
	maxKeyFile   = 64 << 10
	maxManifests = 4096
	maxListFile  = 1<<28 + 1<<17
)

// Store is a directory with keys, manifests, revocations and policy, and one that remembers the highest of each. It holds no
// file open, and is safe for concurrent use as far as the directories are.
type Store struct {
	Dir      string
	StateDir string // empty: nothing is remembered
}

// OpenStore returns the store of a directory; empty is DefaultDir. The directory must be there. Nothing is remembered until
// StateDir is set.
func OpenStore(dir string) (*Store, error) {
	if dir == "" {
		dir = DefaultDir
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("store: %s: want a directory", dir)
	}
	return &Store{Dir: dir}, nil
}

// Load reads everything anew and returns a Verifier. now is the clock's time. Where the store holds an older list than the
// one that is remembered, or none, the remembered one stays in force, and the error says so as well: it is a *ListError with
// ErrOlder or ErrMissing, and the Verifier is there. With any other error it is not, and whoever has one goes on with it.
func (s *Store) Load(now time.Time) (*Verifier, error) { return s.Reload(nil, now) }

// Reload is Load for a process that has a Verifier already: its lists are the ones that are remembered, its manifests are
// not decoded again where they are the same, and the new generation follows its own.
func (s *Store) Reload(old *Verifier, now time.Time) (*Verifier, error) {
	c, prior, err := s.remembered(old)
	if err != nil {
		return nil, err
	}
	kept := map[string][]byte{"revocations": c.Revocations, "policy": c.Policy}
	c.Now = now
	if c.Trust, err = LoadTrust(filepath.Join(s.Dir, TrustDir)); err != nil {
		return nil, err
	}
	if c.Manifests, err = s.Manifests(); err != nil {
		return nil, err
	}
	old.share(c.Manifests)
	if c.Revocations, err = optional(filepath.Join(s.Dir, RevocationsFile)); err != nil {
		return nil, err
	}
	if c.Policy, err = optional(filepath.Join(s.Dir, PolicyFile)); err != nil {
		return nil, err
	}
	v, err := newVerifier(c, old, prior)
	var refused error
	for range kept { // the one list, then the other
		var list *ListError
		if !errors.As(err, &list) || !(errors.Is(err, ErrOlder) || errors.Is(err, ErrMissing)) || kept[list.List] == nil {
			break
		}
		refused = &ListError{list.List, fmt.Errorf("%w; the remembered one stays in force", list.Err)}
		if list.List == "policy" {
			c.Policy = kept[list.List]
		} else {
			c.Revocations = kept[list.List]
		}
		v, err = newVerifier(c, old, prior)
	}
	if err != nil {
		return nil, err
	}
	return v, refused
}

// saved is the state file: one file, so that no crash can part the lists from what is known of them.
type saved struct {
	State
	RevocationList []byte // envelope
	PolicyList     []byte // envelope
}

// remembered returns the lists that were in force last, and their state.
func (s *Store) remembered(old *Verifier) (c Config, prior *Revocations, err error) {
	if old != nil {
		return Config{State: old.state, Revocations: old.config.Revocations, Policy: old.config.Policy}, old.revocations, nil
	}
	if s.StateDir == "" {
		return c, nil, nil
	}
	name := filepath.Join(s.StateDir, stateFile)
	b, err := optional(name)
	if err != nil || b == nil {
		return c, nil, err
	}
	var was saved
	if err := json.Unmarshal(b, &was); err != nil {
		return c, nil, fmt.Errorf("%s: %w", name, err)
	}
	c = Config{State: was.State, Revocations: was.RevocationList, Policy: was.PolicyList}
	if c.Revocations == nil {
		return c, nil, nil
	}
	e, err := envelope.Decode(c.Revocations)
	if err == nil && sha256.Sum256(e.Body) != c.State.RevocationsSum {
		err = errors.New("it is not the list that was in force")
	}
	if err == nil {
		prior, err = revoke.Decode(e.Body)
	}
	if err != nil {
		return c, nil, fmt.Errorf("%s: RevocationList: %w", name, err)
	}
	return c, prior, nil
}

// share puts the Verifier's own octets in the place of manifests that are the same.
func (v *Verifier) share(manifests [][]byte) {
	if v == nil {
		return
	}
	for i, b := range manifests {
		for _, m := range v.manifests {
			if bytes.Equal(m.raw, b) {
				manifests[i] = m.raw
			}
		}
	}
}

// Save remembers the lists of a Verifier that is now in force, and the time, in one file: a crash leaves what was remembered
// before, or this.
func (s *Store) Save(v *Verifier, now time.Time) error {
	if s.StateDir == "" {
		return nil
	}
	if err := os.MkdirAll(s.StateDir, 0o755); err != nil {
		return err
	}
	b, err := json.Marshal(saved{v.State(now), v.config.Revocations, v.config.Policy})
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(s.StateDir, stateFile), b, 0o644)
}

// LoadTrust reads the key files (*.pub) of a directory. One that is not there holds none. An error names the file; that
// anybody may write to the directory or a file is one too.
func LoadTrust(dir string) (*TrustStore, error) {
	names, err := list(dir, ".pub", maxKeys)
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{dir}, names...) {
		if err := private(name); err != nil {
			return nil, err
		}
	}
	var keys []*Key
	for _, name := range names {
		b, err := read(name, maxKeyFile)
		if err != nil {
			return nil, err
		}
		k := &Key{}
		if err := k.UnmarshalText(b); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, k)
	}
	s, err := NewTrustStore(keys...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return s, nil
}

// private says whether not everybody may write to what decides whom to trust.
func private(name string) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || runtime.GOOS == "windows" {
		return nil
	}
	if err == nil && info.Mode()&0o002 != 0 {
		err = fmt.Errorf("%s: anybody may write to it (mode %s): want chmod o-w", name, info.Mode())
	}
	return err
}

// Manifests reads the manifests of the store, unverified, in the order of their names.
func (s *Store) Manifests() ([][]byte, error) {
	names, err := list(filepath.Join(s.Dir, ManifestDir), ".mdm", maxManifests)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, name := range names {
		b, err := read(name, maxListFile)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// list returns the files of a directory whose names end so, in their order.
func list(dir, suffix string, limit int) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	if len(names) > limit {
		return nil, fmt.Errorf("%s: %d files *%s: want at most %d", dir, len(names), suffix, limit)
	}
	slices.Sort(names)
	return names, nil
}

// optional reads a file that need not be there; it is nil then.
func optional(name string) ([]byte, error) {
	b, err := read(name, maxListFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func read(name string, limit int64) ([]byte, error) {
	f, _, err := OpenRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d octets", name, limit)
	}
	return b, nil
}
