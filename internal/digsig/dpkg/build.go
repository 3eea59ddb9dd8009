package dpkg

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"midplane/digsig"
)

// Builder makes entries of manifests.
type Builder struct {
	Issued  time.Time // when it is signed, whole seconds count
	Version uint64    // of the entries; 0: the seconds of Issued since 1970, which grow
	Data    bool      // list files too that are neither ELF nor scripts
	// ScriptNames are patterns (path.Match) of last parts of names; files that fit and that are neither ELF nor begin with
	// #! are listed with the role script: what interpreters read.
	ScriptNames []string
	// Changed takes files that differ from what their package came with; else they are errors.
	Changed bool
}

// number is the version of entries and manifest.
func (b *Builder) number() uint64 {
	if b.Version != 0 {
		return b.Version
	}
	return uint64(b.Issued.Unix())
}

// Header is a manifest's, for entries of this builder.
func (b *Builder) Header(name string, expires time.Time) digsig.ManifestHeader {
	return digsig.ManifestHeader{Name: name, Version: b.number(), Issued: b.Issued, Expires: expires}
}

// entry reads a file; ok is false for one that needs no signature. The names of files get lost: what counts is what is in
// them. The name is the package's, so that a revocation list can name it.
func (b *Builder) entry(ctx context.Context, pkg, name string, size int64, content io.ReaderAt) (e digsig.ManifestEntry, ok bool, err error) {
	kind, roles, err := digsig.DefaultRoles(content, size)
	if err != nil {
		return e, false, err
	}
	if kind == digsig.KindFile {
		script := slices.ContainsFunc(b.ScriptNames, func(p string) bool { fits, _ := path.Match(p, path.Base(name)); return fits })
		switch {
		case script:
			roles = digsig.RoleScript | digsig.RoleData
		case !b.Data:
			return e, false, nil
		}
	}
	st, err := digsig.StatementOf(ctx, content, size, digsig.Template{Name: pkg, Version: b.number(), Roles: roles, Issued: b.Issued})
	if err != nil {
		return e, false, err
	}
	return digsig.EntryOf(st), true, nil
}

// Deb reads what is in a package file.
func (b *Builder) Deb(ctx context.Context, deb string) (*Package, []digsig.ManifestEntry, error) {
	p, err := Identify(ctx, deb)
	if err != nil {
		return nil, nil, err
	}
	var entries []digsig.ManifestEntry
	err = Walk(ctx, deb, func(name string, size int64, content io.ReaderAt) error {
		e, ok, err := b.entry(ctx, p.Name, name, size, content)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if ok {
			entries = append(entries, e)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", deb, err)
	}
	return p, entries, nil
}

// Built is what was found of one package.
type Built struct {
	Package *Package
	Entries []digsig.ManifestEntry
	Failed  []*digsig.FileError
}

// Installed reads the files of packages, several at a time; nil packages means all. done is called after each, by one
// goroutine at a time.
func (b *Builder) Installed(ctx context.Context, db *Database, packages []*Package, workers int, done func(*Built)) error {
	if packages == nil {
		packages = db.Packages()
	}
	var mu sync.Mutex // guards next and done
	var next int
	var failed error
	var group sync.WaitGroup
	for range max(1, min(workers, len(packages))) {
		group.Go(func() {
			for {
				mu.Lock()
				if next == len(packages) || failed != nil || ctx.Err() != nil {
					mu.Unlock()
					return
				}
				p := packages[next]
				next++
				mu.Unlock()
				built, err := b.installed(ctx, db, p)
				mu.Lock()
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("package %s: %w", p.Name, err))
				} else if ctx.Err() == nil {
					done(built)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return errors.Join(failed, ctx.Err())
}

func (b *Builder) installed(ctx context.Context, db *Database, p *Package) (*Built, error) {
	files, err := db.Files(p)
	if err != nil {
		return nil, err
	}
	sums, err := db.Sums(p)
	if err != nil {
		return nil, err
	}
	out := &Built{Package: p}
	for _, name := range files {
		e, ok, err := b.file(ctx, db, p.Name, name, sums[name])
		switch {
		case err != nil:
			out.Failed = append(out.Failed, &digsig.FileError{Path: "/" + name, Err: err})
		case ok:
			out.Entries = append(out.Entries, e)
		}
	}
	return out, nil
}

// file reads one file below the root. sum is its MD5 as it came, or empty.
func (b *Builder) file(ctx context.Context, db *Database, pkg, name, sum string) (e digsig.ManifestEntry, ok bool, err error) {
	fi, err := db.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil // deleted by the administrator, or by the package's own scripts
	}
	if err != nil || !fi.Mode().IsRegular() {
		return e, false, err
	}
	f, err := db.root.Open(name)
	if err != nil {
		return e, false, err
	}
	defer f.Close()
	if fi, err = f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return e, false, err
	}
	if e, ok, err = b.entry(ctx, pkg, name, fi.Size(), f); err != nil || !ok || sum == "" || b.Changed {
		return e, ok, err
	}
	h := md5.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, fi.Size())); err != nil {
		return e, false, err
	}
	want, err := hex.DecodeString(sum)
	if err != nil {
		return e, false, err
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return e, false, errors.New("it is not as its package came with it; --changed signs it all the same")
	}
	return e, true, nil
}

// Unowned lists the ELF files and scripts below dirs (relative to the root) that belong to no package.
func (b *Builder) Unowned(ctx context.Context, db *Database, dirs []string, use func(name string, e digsig.ManifestEntry, err error)) error {
	owned := map[string]bool{}
	real := db.resolver()
	for _, p := range db.packages {
		files, err := db.Files(p)
		if err != nil {
			return err
		}
		for _, f := range files {
			owned[real(f)] = true
		}
	}
	tree := db.root.FS()
	for _, dir := range dirs {
		if fi, err := db.root.Lstat(dir); err != nil || !fi.IsDir() {
			continue // not there, or a link to another of them
		}
		err := fs.WalkDir(tree, dir, func(name string, d fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if !d.Type().IsRegular() || owned[name] {
				return nil
			}
			if e, ok, err := b.file(ctx, db, "", name, ""); ok || err != nil {
				e.Name = "/" + name
				use(name, e, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// resolver returns a function that resolves symbolic links in the directory part of a name: dpkg lists some files under
// /lib that are in /usr/lib.
func (db *Database) resolver() func(string) string {
	known := map[string]string{".": "."}
	var dir func(string, int) string
	dir = func(d string, depth int) string {
		if r, ok := known[d]; ok {
			return r
		}
		parent := dir(path.Dir(d), depth)
		r := path.Join(parent, path.Base(d))
		if to, err := db.root.Readlink(r); err == nil && depth < 40 {
			if !path.IsAbs(to) {
				to = path.Join("/", parent, to)
			}
			if to = strings.Trim(path.Clean(to), "/"); to == "" {
				to = "."
			}
			r = dir(to, depth+1)
		}
		known[d] = r
		return r
	}
	return func(name string) string { return path.Join(dir(path.Dir(name), 0), path.Base(name)) }
}

// FileName is the manifest's in a store or beside a package file.
func FileName(dir string, p *Package) string { return filepath.Join(dir, p.ID()+".mdm") }
