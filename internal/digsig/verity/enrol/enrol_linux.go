package enrol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/verity"
)

// Config says what is enrolled.
type Config struct {
	Verifier *digsig.Verifier
	Now      func() time.Time // nil: time.Now
	Scan     bool             // enable nothing: tell what is enrolled already
	Workers  int              // files at the same time; 0: runtime.GOMAXPROCS(0)
}

// Outcome is what became of a file.
type Outcome uint8

// The outcomes.
const (
	Enrolled Outcome = iota + 1 // its signature is good, and fs-verity is on
	Refused                     // its signature is not good; see Result.Verdict
	Plain                       // its signature is good, fs-verity is off, and Config.Scan wanted it so
	Failed                      // see Result.Err
)

// Result is what became of one file.
type Result struct {
	Path    string
	Outcome Outcome
	New     bool // fs-verity was off before
	Digest  verity.Digest
	Verdict digsig.Verdict // its roles are what the digest is good for
	Err     error
}

// ErrChanged says that a file's content was another after fs-verity was on than when its signature was verified. It stays
// as it is, immutable, and is not good for anything.
var ErrChanged = errors.New("the content changed between its verification and fs-verity")

// DigestError says that a signature vouches for another fs-verity digest than the file has.
type DigestError struct{ Signed, File verity.Digest }

// Error names both.
func (e *DigestError) Error() string {
	return fmt.Sprintf("the signature vouches for fs-verity digest %v, and the file has %v", e.Signed, e.File)
}

// uses are the ways in which a file can be code; it is enrolled if its signature is good for one.
var uses = []digsig.Use{digsig.UseExec, digsig.UseLib, digsig.UseInterp, digsig.UseScript, digsig.UseModule}

func (c *Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// verify asks for the file that f has open, whatever its name is by now.
func (c *Config) verify(ctx context.Context, f *os.File, path string) digsig.Verdict {
	at := c.now()
	v := c.Verifier.VerifyFile(ctx, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), digsig.Request{Use: uses[0], At: at, Path: path})
	for _, use := range uses[1:] {
		if v.Reason != digsig.RoleMissing && v.Cause != digsig.RoleMissing {
			break
		}
		v = c.Verifier.Recheck(v, use, at)
	}
	return v
}

// File enrols one file: it verifies the signature, turns fs-verity on, and verifies the signature of what can no longer
// change, so that no writer can come in between. A permissive policy does not make a signature good.
func File(ctx context.Context, path string, c Config) Result {
	r := Result{Path: path}
	fail := func(err error) Result {
		r.Outcome, r.Err = Failed, err
		return r
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if !info.Mode().IsRegular() {
		return fail(&fs.PathError{Op: "enrol", Path: path, Err: digsig.ErrNotRegular})
	}
	r.Digest, err = Measure(f)
	if r.New = errors.Is(err, ErrNotEnabled); err != nil && !r.New {
		return fail(err)
	}
	if r.Verdict = c.verify(ctx, f, path); r.Verdict.Reason != digsig.Signed {
		r.Outcome = Refused
		return r
	}
	if r.New {
		if c.Scan {
			r.Outcome = Plain
			return r
		}
		before := r.Verdict
		if err := Enable(f, verity.Params{}); err != nil {
			return fail(err)
		}
		if r.Digest, err = Measure(f); err != nil {
			return fail(err)
		}
		if r.Verdict = c.verify(ctx, f, path); r.Verdict.Reason != digsig.Signed || r.Verdict.File != before.File {
			return fail(fmt.Errorf("%s: %w", path, ErrChanged))
		}
	}
	// The digest that is signed is that of blocks of 4096 octets without salt; a file system with smaller blocks has another.
	if want := r.Verdict.Verity; want != nil && blockSize(f) == verity.DefaultBlockSize {
		signed, err := verity.NewDigest(verity.SHA256, want[:])
		if err != nil {
			return fail(err)
		}
		if signed != r.Digest {
			return fail(fmt.Errorf("%s: %w", path, &DigestError{signed, r.Digest}))
		}
	}
	r.Outcome = Enrolled
	return r
}

// Tree enrols every program, library, script and module under root. It calls report for each, one at a time and in no
// particular order; of a file with several names it takes one. Other files are passed over, and symbolic links not
// followed. The error is about the walk, or ctx; what became of each file is in its Result.
func Tree(ctx context.Context, root string, c Config, report func(Result)) error {
	workers := c.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	paths := make(chan string, 64)
	var mu sync.Mutex // of report
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for p := range paths {
				if !isCode(p) {
					continue
				}
				r := File(ctx, p, c)
				mu.Lock()
				report(r)
				mu.Unlock()
			}
		})
	}
	type inode struct{ dev, ino uint64 }
	linked := map[inode]bool{} // that have several names
	seen := func(path string) bool {
		var s unix.Stat_t
		if unix.Lstat(path, &s) != nil || s.Nlink < 2 {
			return false
		}
		id := inode{uint64(s.Dev), s.Ino}
		was := linked[id]
		linked[id] = true
		return was
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && d.Type().IsRegular() && !seen(path) {
			select {
			case paths <- path:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		return err
	})
	close(paths)
	group.Wait()
	return err
}

// isCode says whether a file is an ELF file or begins with #!. A file that cannot be read is for File to complain about.
func isCode(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return true
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return true
	}
	kind, _, err := digsig.DefaultRoles(f, info.Size())
	return err != nil || kind != digsig.KindFile
}
