package digsig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"midplane/internal/digsig/envelope"
)

// Progress tells how far work on a tree is.
type Progress struct {
	Files, TotalFiles int
	Bytes, TotalBytes int64
	Path              string // the file that is done now
}

// TreeOptions says how a tree is worked on.
type TreeOptions struct {
	Workers  int            // files at the same time; 0: runtime.GOMAXPROCS(0)
	Progress func(Progress) // called after each file, by one goroutine at a time; nil: not
	Data     bool           // files too that are neither ELF nor begin with #!
}

// FileError says what went wrong with one file of a tree.
type FileError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".digsig-"

// node is a regular file of a tree, with all its names there.
type node struct {
	paths []string
	info  fs.FileInfo
}

// walk lists the regular files under root, in the order of their names, each inode once. Symbolic links are not followed,
// except if root is one.
func walk(ctx context.Context, root string) ([]*node, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	var all []*node
	linked := map[inode]*node{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() || strings.HasPrefix(d.Name(), tempPrefix) {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if links(info) > 1 {
			if id, ok := inodeOf(info); ok {
				if n := linked[id]; n != nil {
					n.paths = append(n.paths, path)
					return nil
				}
				n := &node{[]string{path}, info}
				linked[id] = n
				all = append(all, n)
				return nil
			}
		}
		all = append(all, &node{[]string{path}, info})
		return nil
	})
	return all, err
}

// each works on the files of a tree by several workers, and reports their errors; work and report run concurrently, report by
// one at a time and with the work's result. It stops early when ctx ends.
func each[R any](ctx context.Context, root string, o TreeOptions, work func(*node) (R, error), report func(*node, R, error)) error {
	nodes, err := walk(ctx, root)
	if err != nil {
		return err
	}
	p := Progress{TotalFiles: len(nodes)}
	for _, n := range nodes {
		p.TotalBytes += n.info.Size()
	}
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var mu sync.Mutex // guards next, p and calls of report
	next := 0
	var group sync.WaitGroup
	for range min(workers, len(nodes)) {
		group.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				if next == len(nodes) {
					mu.Unlock()
					return
				}
				n := nodes[next]
				next++
				mu.Unlock()
				r, err := work(n)
				mu.Lock()
				if err == nil || ctx.Err() == nil {
					report(n, r, err)
					p.Files++
					p.Bytes += n.info.Size()
					p.Path = n.paths[0]
					if o.Progress != nil {
						o.Progress(p)
					}
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// errSkip is a file that is not worked on.
var errSkip = errors.New("skipped")

// wanted says whether a file is a program, script or library, or all files are wanted.
func (o TreeOptions) wanted(f *os.File, size int64) (bool, error) {
	if o.Data {
		return true, nil
	}
	kind, err := sniff(f, size)
	return kind != KindFile, err
}

// VerifyTree verifies every ELF file and script under root, and with o.Data all regular files. It calls verdict for each of
// their names, one at a time, in no particular order. The request's Path and Signature are set for each file.
func (v *Verifier) VerifyTree(ctx context.Context, root string, q Request, o TreeOptions, verdict func(path string, v Verdict)) error {
	return each(ctx, root, o, func(n *node) (Verdict, error) {
		f, info, err := OpenRegular(n.paths[0])
		if err != nil {
			return v.deny(Verdict{Use: q.Use, Generation: v.generation}, Unreadable, err.Error()), nil
		}
		defer f.Close()
		if ok, err := o.wanted(f, n.info.Size()); err == nil && !ok {
			return Verdict{}, errSkip
		}
		return v.verifyOpened(ctx, f, info, n.paths[0], q), nil
	}, func(n *node, got Verdict, err error) {
		if err == nil {
			for _, p := range n.paths {
				verdict(p, got)
			}
		}
	})
}

// ManifestTree reads every ELF file, script and compressed kernel module under root, and with o.Data all regular files, and
// returns them as entries of a manifest, in the order of their digests. What name a file gets is said by name; nil: its path below root. Times of the
// template are not used. Files that cannot be read are in the error, joined; the rest is there nevertheless.
func ManifestTree(ctx context.Context, root string, t Template, o TreeOptions, name func(path string) string) ([]ManifestEntry, error) {
	if name == nil {
		name = below(root)
	}
	var entries []ManifestEntry
	var failed []error
	err := each(ctx, root, o, func(n *node) (*Statement, error) { return statementOfFile(ctx, n, t, o) },
		func(n *node, st *Statement, err error) {
			if err == nil {
				e := EntryOf(st)
				if t.Name == "" {
					e.Name = name(n.paths[0])
				}
				entries = append(entries, e)
			} else if !errors.Is(err, errSkip) {
				failed = append(failed, &FileError{n.paths[0], err})
			}
		})
	slices.SortFunc(entries, func(a, b ManifestEntry) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return entries, errors.Join(append(failed, err)...)
}

func below(root string) func(string) string {
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real
	}
	return func(path string) string {
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			rel = filepath.Base(path)
		}
		return envelope.Printable(filepath.ToSlash(rel))
	}
}

// compressedModule says whether a file is a kernel module, by its name: what is compressed has no other mark.
func compressedModule(path string) bool {
	base, ext := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path)
	return strings.HasSuffix(base, ".ko") && (ext == ".xz" || ext == ".zst" || ext == ".gz")
}

func statementOfFile(ctx context.Context, n *node, t Template, o TreeOptions) (*Statement, error) {
	f, info, err := OpenRegular(n.paths[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	module := compressedModule(n.paths[0])
	if ok, err := o.wanted(f, info.Size()); err != nil || !(ok || module) {
		if err == nil {
			err = errSkip
		}
		return nil, err
	}
	if module && t.Roles == 0 {
		t.Roles = RoleModule
	}
	if t.Issued.IsZero() {
		t.Issued = time.Unix(1, 0) // the manifest says when
	}
	t.Expires = time.Time{}
	return StatementOf(ctx, f, info.Size(), t)
}

// TreeSigned is what SignTree did.
type TreeSigned struct {
	Embedded int             // files that have a signature inside now
	Listed   []ManifestEntry // files that take none: scripts, kernel modules and others; they are for a manifest
	Failed   []*FileError    // files that are as they were
}

// SignTree embeds a signature in every ELF file under root that takes one, as SignFile does, and returns the scripts and the
// ELF files that take none (with o.Data all other files too) for a manifest. Files with several names keep them, if all of
// them are under root. It fails as a whole only when root cannot be walked or ctx ends.
func SignTree(ctx context.Context, root string, s SignOptions, o TreeOptions, signers ...*Signer) (*TreeSigned, error) {
	out := &TreeSigned{}
	name := below(root)
	var dirs directories
	err := each(ctx, root, o, func(n *node) (*Statement, error) {
		err := signNode(ctx, n, s, signers, &dirs)
		var cannot *CannotEmbedError
		if !errors.As(err, &cannot) {
			return nil, err
		}
		return statementOfFile(ctx, n, s.Template, o)
	}, func(n *node, st *Statement, err error) {
		switch {
		case errors.Is(err, errSkip):
		case err != nil:
			out.Failed = append(out.Failed, &FileError{n.paths[0], err})
		case st == nil:
			out.Embedded++
		default:
			e := EntryOf(st)
			if s.Name == "" {
				e.Name = name(n.paths[0])
			}
			out.Listed = append(out.Listed, e)
		}
	})
	err = errors.Join(err, dirs.sync())
	slices.SortFunc(out.Listed, func(a, b ManifestEntry) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	slices.SortFunc(out.Failed, func(a, b *FileError) int { return strings.Compare(a.Path, b.Path) })
	return out, err
}

// directories are those in which files were renamed. They are synced once, in the end: until then a crash may bring back old
// files, which are whole.
type directories struct {
	mu    sync.Mutex
	names map[string]bool // guarded by mu
}

func (d *directories) add(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[string]bool{}
	}
	d.names[dir] = true
}

func (d *directories) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var failed []error
	for dir := range d.names {
		failed = append(failed, syncDir(dir))
	}
	return errors.Join(failed...)
}

// signNode signs a file and gives the new one all the names of the old.
func signNode(ctx context.Context, n *node, s SignOptions, signers []*Signer, dirs *directories) error {
	if have := links(n.info); have != uint64(len(n.paths)) && have > 1 {
		return fmt.Errorf("it has %d names, and %d of them are in this tree", have, len(n.paths))
	}
	f, before, err := OpenRegular(n.paths[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if !os.SameFile(before, n.info) || links(before) != links(n.info) {
		return errors.New("the file was changed meanwhile")
	}
	err = replace(n.paths[0], f, before, s.Busy, func(w *os.File) error {
		_, err := Embed(ctx, w, f, before.Size(), s.Template, signers...)
		return err
	})
	if err != nil {
		return err
	}
	dirs.add(filepath.Dir(n.paths[0]))
	for _, p := range n.paths[1:] {
		temp := filepath.Join(filepath.Dir(p), tempPrefix+filepath.Base(p))
		if err := os.Link(n.paths[0], temp); err != nil {
			return err
		}
		if err := os.Rename(temp, p); err != nil {
			os.Remove(temp)
			return err
		}
		dirs.add(filepath.Dir(p))
	}
	return nil
}
