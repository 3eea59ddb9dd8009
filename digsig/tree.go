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

	"midplane/internal/digsig/elfsig"
	"midplane/internal/digsig/envelope"
	"midplane/internal/dirsync"
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

// node is a regular file of trees, with all its names there.
type node struct {
	paths []string
	info  fs.FileInfo
	root  string // of the tree in which the first name is
	whole bool   // the root is this file
}

// walk lists the regular files under the roots, in the order of their names, each inode once, and the directories that cannot
// be read. Symbolic links are not followed, except if a root is one.
func walk(ctx context.Context, roots []string) (all []*node, unread []*FileError, err error) {
	linked := map[inode]*node{}
	seen := map[string]bool{} // of several roots one may be in another
	for _, root := range roots {
		root, err := filepath.EvalSymlinks(root)
		if err != nil {
			return nil, nil, err
		}
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				if path == root {
					return err
				}
				unread = append(unread, &FileError{path, bare(path, err)})
				return nil
			}
			if !d.Type().IsRegular() || strings.HasPrefix(d.Name(), tempPrefix) || seen[path] {
				return nil
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if len(roots) > 1 {
				seen[path] = true
			}
			n := &node{[]string{path}, info, root, path == root}
			if id, ok := inodeOf(info); ok && links(info) > 1 {
				if first := linked[id]; first != nil {
					first.paths = append(first.paths, path)
					return nil
				}
				linked[id] = n
			}
			all = append(all, n)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return all, unread, nil
}

// bare takes the path out of an error, which is told with it.
func bare(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Path == path {
		return pe.Err
	}
	return err
}

// each works on the files of trees by several workers, and reports their errors, and of directories that cannot be read; work and
// report run concurrently, report by one at a time and with the work's result. It stops early when ctx ends.
func each[R any](ctx context.Context, roots []string, o TreeOptions, work func(*node) (R, error), report func(*node, R, error)) error {
	nodes, unread, err := walk(ctx, roots)
	if err != nil {
		return err
	}
	for _, f := range unread {
		var none R
		report(&node{paths: []string{f.Path}}, none, f.Err)
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

// wanted says whether a file is a program, script or library, or all files are wanted. A file that is itself a root is.
func (o TreeOptions) wanted(n *node, f *os.File, size int64) (bool, error) {
	if o.Data || n.whole {
		return true, nil
	}
	kind, err := sniff(f, size)
	return kind != KindFile, err
}

// VerifyTree verifies every ELF file and script under root, and with o.Data all regular files. It calls verdict for each of
// their names, one at a time, in no particular order; a directory that cannot be read is Unreadable. The request's Path and
// Signature are set for each file.
func (v *Verifier) VerifyTree(ctx context.Context, root string, q Request, o TreeOptions, verdict func(path string, v Verdict)) error {
	return each(ctx, []string{root}, o, func(n *node) (Verdict, error) {
		f, info, err := OpenRegular(n.paths[0])
		if err != nil {
			return v.deny(Verdict{Use: q.Use, Generation: v.generation}, Unreadable, err.Error()), nil
		}
		defer f.Close()
		if ok, err := o.wanted(n, f, n.info.Size()); err == nil && !ok {
			return Verdict{}, errSkip
		}
		return v.verifyOpened(ctx, f, info, n.paths[0], q), nil
	}, func(n *node, got Verdict, err error) {
		if err != nil && !errors.Is(err, errSkip) {
			got, err = v.deny(Verdict{Use: q.Use, Generation: v.generation}, Unreadable, err.Error()), nil
		}
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
	err := each(ctx, []string{root}, o, func(n *node) (*Statement, error) { return statementOfFile(ctx, n, t, o) },
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
	if ok, err := o.wanted(n, f, info.Size()); err != nil || !(ok || module) {
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
	Linked   []string        // of Listed those that would take one, but have names outside of the trees, one name of each
	Failed   []*FileError    // files that are as they were, and directories that cannot be read
}

// SignTree is SignTrees for one tree.
func SignTree(ctx context.Context, root string, s SignOptions, o TreeOptions, signers ...*Signer) (*TreeSigned, error) {
	return SignTrees(ctx, []string{root}, s, o, signers...)
}

// SignTrees embeds a signature in every ELF file under the roots that takes one, as SignFile does, and returns the scripts and
// the ELF files that take none (with o.Data all other files too) for a manifest. Files with several names (hard links) are
// replaced under all of them if all are under the roots; a file that has others takes none, since those would go on naming
// the unsigned one. A root may be a file. It fails as a whole only when a root cannot be walked or ctx ends.
func SignTrees(ctx context.Context, roots []string, s SignOptions, o TreeOptions, signers ...*Signer) (*TreeSigned, error) {
	out := &TreeSigned{}
	var dirs directories
	err := each(ctx, roots, o, func(n *node) (*Statement, error) {
		var err error
		if why := n.elsewhere(); why != "" {
			err = &CannotEmbedError{Why: why}
		} else {
			err = replaceNode(n, s.Busy, &dirs, func(w *os.File, f *os.File, size int64) error {
				_, err := Embed(ctx, w, f, size, s.Template, signers...)
				return err
			})
		}
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
				e.Name = below(n.root)(n.paths[0])
			}
			out.Listed = append(out.Listed, e)
			if st.Kind == KindELF && n.elsewhere() != "" {
				out.Linked = append(out.Linked, n.paths[0])
			}
		}
	})
	err = errors.Join(err, dirs.sync())
	slices.SortFunc(out.Listed, func(a, b ManifestEntry) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	slices.Sort(out.Linked)
	slices.SortFunc(out.Failed, func(a, b *FileError) int { return strings.Compare(a.Path, b.Path) })
	return out, err
}

// TreeUnsigned is what UnsignTrees did.
type TreeUnsigned struct {
	Removed int          // files that had a signature inside
	Failed  []*FileError // files that are as they were, and directories that cannot be read
}

// UnsignTrees takes the embedded signature out of every file under the roots that has one, as UnsignFile does: what was signed is
// to the octet what it was. Files with several names are replaced under all of them, if all are under the roots, else they
// fail. Files without a signature are passed over; those that are themselves roots fail. It fails as a whole only when a
// root cannot be walked or ctx ends.
func UnsignTrees(ctx context.Context, roots []string, busy bool, o TreeOptions) (*TreeUnsigned, error) {
	out := &TreeUnsigned{}
	var dirs directories
	err := each(ctx, roots, o, func(n *node) (struct{}, error) {
		var none struct{}
		f, _, err := OpenRegular(n.paths[0])
		if err != nil {
			return none, bare(n.paths[0], err)
		}
		defer f.Close()
		_, err = elfsig.Remove(f, n.info.Size())
		var malformed *elfsig.FormatError // it cannot be signed by us
		if !n.whole && (errors.Is(err, elfsig.ErrUnsigned) || errors.Is(err, elfsig.ErrNotELF) || errors.As(err, &malformed)) {
			return none, errSkip
		}
		if why := n.elsewhere(); err == nil && why != "" {
			err = errors.New(why)
		}
		if err != nil {
			return none, err
		}
		return none, replaceNode(n, busy, &dirs, func(w *os.File, f *os.File, size int64) error {
			_, err := Remove(ctx, w, f, size)
			return err
		})
	}, func(n *node, _ struct{}, err error) {
		switch {
		case errors.Is(err, errSkip):
		case err != nil:
			out.Failed = append(out.Failed, &FileError{n.paths[0], err})
		default:
			out.Removed++
		}
	})
	err = errors.Join(err, dirs.sync())
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
		failed = append(failed, dirsync.Sync(dir))
	}
	return errors.Join(failed...)
}

// elsewhere says that a file has names outside of the trees, if it has.
func (n *node) elsewhere() string {
	if have := links(n.info); have > uint64(len(n.paths)) {
		return fmt.Sprintf("it has %d names (hard links), and %d of them are here: the others would go on naming the file as it was", have, len(n.paths))
	}
	return ""
}

// replaceNode writes a new file in the place of another and gives it all the names of the old, which are all in the trees.
func replaceNode(n *node, busy bool, dirs *directories, write func(w *os.File, f *os.File, size int64) error) error {
	f, before, err := OpenRegular(n.paths[0])
	if err != nil {
		return bare(n.paths[0], err)
	}
	defer f.Close()
	if !os.SameFile(before, n.info) || links(before) != links(n.info) {
		return errors.New("the file was changed meanwhile")
	}
	err = replace(n.paths[0], f, before, busy, func(w *os.File) error { return write(w, f, before.Size()) })
	if err != nil {
		return err
	}
	dirs.add(filepath.Dir(n.paths[0]))
	for i, p := range n.paths[1:] {
		if err := relink(n.paths[0], p); err != nil {
			return fmt.Errorf("%d of its %d names are of the new file, %s and others of the old: %w", i+1, len(n.paths), p, err)
		}
		dirs.add(filepath.Dir(p))
	}
	return nil
}

// relink makes name another name of a file, in one step.
func relink(file, name string) error {
	temp := filepath.Join(filepath.Dir(name), tempPrefix+filepath.Base(name))
	err := os.Link(file, temp)
	if errors.Is(err, fs.ErrExist) { // of a run that was killed
		if err = os.Remove(temp); err == nil {
			err = os.Link(file, temp)
		}
	}
	if err == nil {
		if err = os.Rename(temp, name); err != nil {
			os.Remove(temp)
		}
	}
	return err
}
