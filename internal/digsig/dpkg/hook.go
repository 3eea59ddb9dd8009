package dpkg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"midplane/digsig"
)

// pendingFile, in a store's state directory, names the packages whose manifests were put in place before dpkg ran and
// whose files were not verified since.
const pendingFile = "dpkg-pending"

// Problem is a file that would not run, or a package that has no manifest.
type Problem struct {
	Package string // NAME_VERSION_ARCHITECTURE
	Path    string // empty: the package as a whole
	Why     string
}

func (p Problem) String() string {
	if p.Path == "" {
		return p.Package + ": " + p.Why
	}
	return p.Package + ": " + p.Path + ": " + p.Why
}

// Hook is what apt calls before and after it runs dpkg.
type Hook struct {
	Store   *digsig.Store
	Root    string   // of the system
	Sources []string // directories with manifests, besides that of a package file
	Now     time.Time
}

// Before looks for the manifest of every package file, verifies all programs and scripts in the file by it and by what
// the store says, and if all is good puts the manifests into the store, beside those of the versions that are still
// there. With problems it puts in those that are good only when lax is set. It changes nothing when it returns an error.
func (h *Hook) Before(ctx context.Context, debs []string, lax bool) (placed int, problems []Problem, err error) {
	v, err := h.Store.Load(h.Now)
	if v == nil {
		return 0, nil, err
	}
	have, err := h.Store.Manifests()
	if err != nil {
		return 0, nil, err
	}
	ready := map[string][]byte{}
	for _, deb := range debs {
		p, err := Identify(ctx, deb)
		if err != nil {
			return 0, nil, err
		}
		var manifest []byte
		if name := Beside(deb, p, h.Sources...); name != "" {
			if manifest, err = os.ReadFile(name); err != nil {
				return 0, nil, err
			}
		}
		bad, err := h.verify(ctx, v, deb, p, have, manifest)
		if err != nil {
			return 0, nil, err
		}
		problems = append(problems, bad...)
		if manifest != nil && len(bad) == 0 {
			ready[p.ID()] = manifest
		}
	}
	if len(problems) > 0 && !lax {
		return 0, problems, nil
	}
	return len(ready), problems, h.place(ready)
}

// verify verifies what is in a package file as it will be once it is unpacked.
func (h *Hook) verify(ctx context.Context, v *digsig.Verifier, deb string, p *Package, have [][]byte, manifest []byte) (bad []Problem, err error) {
	// What the store has already counts too: files that did not change, keys of an organisation that signs inside.
	if manifest != nil {
		if v, err = v.WithManifests(append(slices.Clip(have), manifest), h.Now); err != nil {
			return []Problem{{p.ID(), "", "its manifest: " + err.Error()}}, nil
		}
	}
	err = Walk(ctx, deb, func(name string, size int64, content io.ReaderAt) error {
		kind, _, err := digsig.DefaultRoles(content, size)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if kind == digsig.KindFile {
			return nil
		}
		got := v.Check(ctx, content, size, digsig.Request{Use: digsig.UseAny, At: h.Now, Path: "/" + name})
		if why := refused(got); why != "" {
			bad = append(bad, Problem{p.ID(), "/" + name, why})
		}
		return nil
	})
	if len(bad) > 0 && manifest == nil {
		bad = []Problem{{p.ID(), "", fmt.Sprintf("no manifest %s.mdm beside the package file or in %s, and %d of its programs and scripts are unsigned", p.ID(), strings.Join(h.Sources, ", "), len(bad))}}
	}
	return bad, err
}

// refused says why something would not run if the mode were enforce; empty: it would.
func refused(v digsig.Verdict) string {
	if v.Cause != 0 {
		return v.Cause.String() + ": " + v.Detail
	}
	if v.Allow {
		return ""
	}
	return v.Reason.String() + ": " + v.Detail
}

func (h *Hook) dir() string { return filepath.Join(h.Store.Dir, digsig.ManifestDir) }

// place writes the manifests and remembers what to verify later.
func (h *Hook) place(ready map[string][]byte) error {
	if len(ready) == 0 {
		return nil
	}
	if err := errors.Join(os.MkdirAll(h.dir(), 0o755), os.MkdirAll(h.Store.StateDir, 0o755)); err != nil {
		return err
	}
	pending, err := h.pending()
	if err != nil {
		return err
	}
	for id := range ready {
		pending = append(pending, id)
	}
	slices.Sort(pending)
	text := strings.Join(slices.Compact(pending), "\n") + "\n"
	if err := digsig.WriteFile(filepath.Join(h.Store.StateDir, pendingFile), []byte(text), 0o644); err != nil {
		return err
	}
	for id, b := range ready {
		if err := digsig.WriteFile(filepath.Join(h.dir(), id+".mdm"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hook) pending() ([]string, error) {
	b, err := os.ReadFile(filepath.Join(h.Store.StateDir, pendingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(b)), err
}

// After verifies the files of the packages that Before put manifests in place for, and takes out manifests of versions
// that are no longer there, which it returns by their file names: Restore puts them back. It takes none out while dpkg
// left a package half done.
func (h *Hook) After(ctx context.Context) (verified int, removed map[string][]byte, problems []Problem, err error) {
	db, err := Open(h.Root)
	if err != nil {
		return 0, nil, nil, err
	}
	defer db.Close()
	v, err := h.Store.Load(h.Now)
	if v == nil {
		return 0, nil, nil, err
	}
	pending, err := h.pending()
	if err != nil {
		return 0, nil, nil, err
	}
	for _, p := range db.Packages() {
		if !slices.Contains(pending, p.ID()) {
			continue
		}
		n, bad, err := h.installed(ctx, v, db, p)
		if err != nil {
			return 0, nil, nil, err
		}
		verified += n
		problems = append(problems, bad...)
	}
	if done, err := db.settled(); err != nil || !done {
		return verified, nil, problems, err
	}
	if removed, err = h.prune(db); err != nil {
		return verified, removed, problems, err
	}
	err = os.Remove(filepath.Join(h.Store.StateDir, pendingFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return verified, removed, problems, err
}

// installed verifies the files of one package where they are.
func (h *Hook) installed(ctx context.Context, v *digsig.Verifier, db *Database, p *Package) (n int, bad []Problem, err error) {
	files, err := db.Files(p)
	if err != nil {
		return 0, nil, err
	}
	for _, name := range files {
		why, ok, err := h.one(ctx, v, db, name)
		if err != nil {
			return n, bad, err
		}
		if ok {
			n++
		}
		if why != "" {
			bad = append(bad, Problem{p.ID(), "/" + name, why})
		}
	}
	return n, bad, nil
}

func (h *Hook) one(ctx context.Context, v *digsig.Verifier, db *Database, name string) (why string, ok bool, err error) {
	fi, err := db.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	f, err := db.root.Open(name)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	kind, _, err := digsig.DefaultRoles(f, fi.Size())
	if err != nil || kind == digsig.KindFile {
		return "", false, err
	}
	return refused(v.Check(ctx, f, fi.Size(), digsig.Request{Use: digsig.UseAny, At: h.Now, Path: "/" + name})), true, nil
}

// settled says whether every package is installed or gone.
func (db *Database) settled() (bool, error) {
	b, err := db.root.ReadFile(statusFile)
	if err != nil {
		return false, err
	}
	for _, l := range bytes.Split(b, []byte("\n")) {
		if state, ok := bytes.CutPrefix(l, []byte("Status: ")); ok {
			f := strings.Fields(string(state))
			if len(f) != 3 || f[1] != "ok" || !slices.Contains([]string{"installed", "config-files", "not-installed"}, f[2]) {
				return false, nil
			}
		}
	}
	return true, nil
}

// prune takes out manifests that are named like a package's and belong to none that is there.
func (h *Hook) prune(db *Database) (removed map[string][]byte, err error) {
	here := map[string]bool{}
	for _, p := range db.Packages() {
		here[p.ID()] = true
	}
	names, err := filepath.Glob(filepath.Join(h.dir(), "*_*_*.mdm"))
	if err != nil {
		return nil, err
	}
	removed = map[string][]byte{}
	for _, name := range names {
		if here[strings.TrimSuffix(filepath.Base(name), ".mdm")] {
			continue
		}
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.Remove(name)
		}
		if err != nil {
			return removed, err
		}
		removed[name] = b
	}
	return removed, nil
}

// Restore puts back what After took out: programs of those packages run still, and an enforcer does not take a store that
// would deny them. A later After takes them out.
func (h *Hook) Restore(removed map[string][]byte) error {
	var failed error
	for name, b := range removed {
		failed = errors.Join(failed, digsig.WriteFile(name, b, 0o644))
	}
	return failed
}
