package enrol

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/verity"
	"midplane/internal/lab"
)

// TestIntegrationVerity runs in a guest with three disks: one whose blocks are as big as pages, one with smaller ones, and
// one without the feature.
func TestIntegrationVerity(t *testing.T) {
	disks := func() []string {
		return []string{lab.Ext4Image(t, lab.Ext4{}), lab.Ext4Image(t, lab.Ext4{BlockSize: 1024}), lab.Ext4Image(t, lab.Ext4{NoVerity: true})}
	}
	lab.InVM(t, lab.VMConfig{}, disks, func(t *testing.T) {
		root := t.TempDir()
		for name, disk := range map[string]string{"big": "vda", "small": "vdb", "without": "vdc"} {
			dir := filepath.Join(root, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("/dev/"+disk, dir, "ext4", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
		}
		t.Run("digests", func(t *testing.T) { digests(t, root) })
		t.Run("errors", func(t *testing.T) { lacks(t, root) })
		t.Run("tree", func(t *testing.T) { tree(t, filepath.Join(root, "big")) })
		t.Run("writer", func(t *testing.T) { writer(t, filepath.Join(root, "big")) })
	})
}

// write makes a file and opens it for reading.
func write(t *testing.T, path string, content []byte) *os.File {
	t.Helper()
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// digests compares what this module computes with what the kernel does.
func digests(t *testing.T, root string) {
	n := 0
	for _, dir := range []string{"big", "small"} {
		for _, a := range []verity.Algorithm{verity.SHA256, verity.SHA512} {
			for _, block := range []int{1024, 4096} {
				if dir == "small" && block > 1024 {
					continue
				}
				for _, size := range []int{0, 1, 4096, 4097, 300_000} {
					p := verity.Params{Algorithm: a, BlockSize: block, Salt: bytes.Repeat([]byte{7}, n%33)}
					n++
					name := fmt.Sprintf("%s: %+v, %d octets", dir, p, size)
					content := bytes.Repeat([]byte{1, 2, 3, 5, 8}, size/5+1)[:size]
					f := write(t, filepath.Join(root, dir, fmt.Sprintf("d%d", n)), content)
					want, err := verity.Sum(bytes.NewReader(content), p)
					if err != nil {
						t.Fatal(err)
					}
					if err := Enable(f, p); err != nil {
						t.Errorf("%s: %v", name, err)
						continue
					}
					if got, err := Measure(f); err != nil || got != want {
						t.Errorf("%s: the kernel measures %v, want %v; %v", name, got, want, err)
					}
					if a == verity.SHA256 {
						descriptor(t, f, want)
					}
					if w, err := os.OpenFile(f.Name(), os.O_RDWR, 0); !errors.Is(err, unix.EPERM) {
						t.Errorf("%s: opened for writing: %v", name, err)
						w.Close()
					}
				}
			}
		}
	}
}

// descriptor reads what the kernel keeps.
func descriptor(t *testing.T, f *os.File, want verity.Digest) {
	t.Helper()
	b := make([]byte, 512)
	n, err := ReadMetadata(f, Descriptor, b, 0)
	sum := sha256.Sum256(b[:n])
	if err != nil || n != 256 || !bytes.Equal(sum[:], want.Bytes()) {
		t.Errorf("descriptor of %d octets with sum %x, want %v; %v", n, sum, want, err)
	}
	if n, err := ReadMetadata(f, Signature, b, 0); n != 0 || err != nil {
		t.Errorf("a signature of %d octets, %v", n, err)
	}
	if n, err := ReadMetadata(f, Descriptor, b, 256); n != 0 || err != nil {
		t.Errorf("%d octets after the end, %v", n, err)
	}
}

// lacks wants errors that say what would help.
func lacks(t *testing.T, root string) {
	says := func(name string, err error, want ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", name)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", name, err, w)
			}
		}
	}
	plain := write(t, filepath.Join(root, "big", "plain"), []byte("x"))
	if _, err := Measure(plain); !errors.Is(err, ErrNotEnabled) {
		t.Errorf("a file without fs-verity: %v", err)
	}
	if _, err := ReadMetadata(plain, Descriptor, make([]byte, 1), 0); !errors.Is(err, ErrNotEnabled) {
		t.Errorf("the descriptor of a file without fs-verity: %v", err)
	}
	without := write(t, filepath.Join(root, "without", "f"), []byte("x"))
	err := Enable(without, verity.Params{})
	says("a file system without the feature", err, "tune2fs -O verity", without.Name())
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v is not ErrUnsupported", err)
	}
	_, err = Measure(without)
	says("measure there", err, "tune2fs -O verity")
	tmpfs := write(t, "/dev/shm/f", []byte("x"))
	says("tmpfs", Enable(tmpfs, verity.Params{}), "not supported", "btrfs")
	says("a tree with blocks above the file system's", Enable(write(t, filepath.Join(root, "small", "f"), []byte("x")), verity.Params{BlockSize: 4096}), "block size")
	says("a salt that is too long", Enable(plain, verity.Params{Salt: make([]byte, 33)}), "33 octets")
	says("no such hash", Enable(plain, verity.Params{Algorithm: 9}), "block size")
	busy := write(t, filepath.Join(root, "big", "busy"), []byte("x"))
	w, err := os.OpenFile(busy.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	says("a file that somebody writes to", Enable(busy, verity.Params{}), "open for writing")
	w.Close()
	if err := Enable(busy, verity.Params{}); err != nil {
		t.Error(err)
	}
	says("twice", Enable(busy, verity.Params{}), "enabled already")
	if n, err := ReadMetadata(busy, MerkleTree, nil, 0); n != 0 || err != nil {
		t.Errorf("nothing read: %d, %v", n, err)
	}
}

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// signer is a key, and a verifier that trusts it.
func signer(t *testing.T) (*digsig.Signer, Config) {
	t.Helper()
	s, err := digsig.NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := digsig.NewTrustStore(&digsig.Key{Public: s.Public(), Comment: "test", Purposes: digsig.AllPurposes, Roles: digsig.AllRoles})
	if err != nil {
		t.Fatal(err)
	}
	v, err := digsig.NewVerifier(digsig.Config{Trust: trust, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return s, Config{Verifier: v, Now: func() time.Time { return now }}
}

// sign signs a script in its extended attribute; vouch also for its fs-verity digest.
func sign(t *testing.T, path string, s *digsig.Signer, vouch *[32]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st, err := digsig.StatementOf(t.Context(), f, info.Size(), digsig.Template{Issued: now.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	st.Verity = vouch
	b, err := digsig.SignStatement(st, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := digsig.SetXattr(path, digsig.XattrUser, b); err != nil {
		t.Fatal(err)
	}
}

func tree(t *testing.T, disk string) {
	dir := filepath.Join(disk, "tree")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, c := signer(t)
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte("#!/bin/sh\n"+text))
		return path
	}
	sum := func(path string) *[32]byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d, err := verity.Sum(bytes.NewReader(b), verity.Params{})
		if err != nil {
			t.Fatal(err)
		}
		x, _ := d.SHA256()
		return &x
	}
	good, vouched, lie := script("good", "echo good"), script("sub/vouched", "echo vouched"), script("lie", "echo lie")
	sign(t, good, s, nil)
	sign(t, vouched, s, sum(vouched))
	sign(t, lie, s, sum(good))
	unsigned, changed := script("unsigned", ""), script("changed", "echo one")
	sign(t, changed, s, nil)
	if err := os.WriteFile(changed, []byte("#!/bin/sh\necho two"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "text"), []byte("no code"))
	if err := os.Link(good, filepath.Join(dir, "sub", "hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	all := func(c Config) map[string]Result {
		m := map[string]Result{}
		if err := Tree(t.Context(), dir, c, func(r Result) { m[r.Path] = r }); err != nil {
			t.Fatal(err)
		}
		return m
	}
	scan := c
	scan.Scan = true
	for path, r := range all(scan) {
		if want := map[string]Outcome{good: Plain, vouched: Plain, lie: Plain, unsigned: Refused, changed: Refused}[path]; r.Outcome != want || !r.New {
			t.Errorf("scan: %+v, want %v", r, want)
		}
	}
	for _, again := range []bool{false, true} {
		results := all(c)
		if len(results) != 5 {
			t.Errorf("%d results, want 5", len(results))
		}
		for _, path := range []string{good, vouched} {
			r := results[path]
			if want := sum(path); r.Outcome != Enrolled || r.New == again || !slices.Equal(r.Digest.Bytes(), want[:]) || r.Verdict.Roles != digsig.RoleScript {
				t.Errorf("%+v, want digest %x", r, *want)
			}
		}
		var bad *DigestError
		if r := results[lie]; r.Outcome != Failed || !errors.As(r.Err, &bad) || bad.File == bad.Signed {
			t.Errorf("%+v", r)
		}
		for path, reason := range map[string]digsig.Reason{unsigned: digsig.Unsigned, changed: digsig.Broken} {
			if r := results[path]; r.Outcome != Refused || r.Verdict.Reason != reason || !r.New {
				t.Errorf("%+v, want %v", r, reason)
			}
			if err := os.WriteFile(path, []byte("#!/bin/sh\necho two"), 0o755); err != nil {
				t.Errorf("a file that was refused was made immutable: %v", err)
			}
		}
	}
	if r := File(t.Context(), dir, c); r.Outcome != Failed || !errors.Is(r.Err, digsig.ErrNotRegular) {
		t.Errorf("a directory: %+v", r)
	}
	if r := File(t.Context(), filepath.Join(dir, "link"), c); r.Outcome != Failed {
		t.Errorf("a symbolic link: %+v", r)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Tree(ended, dir, c, func(Result) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

// writer has somebody change a file all the time while it is enrolled: what is enrolled in the end is what is signed.
func writer(t *testing.T, disk string) {
	s, c := signer(t)
	signed, other := []byte("#!/bin/sh\necho signed"), []byte("#!/bin/sh\necho others")
	outcomes := map[Outcome]int{}
	for i := range 40 {
		path := filepath.Join(disk, fmt.Sprintf("w%d", i))
		write(t, path, signed)
		sign(t, path, s, nil)
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; !stop.Load(); n++ {
				_ = os.WriteFile(path, [][]byte{other, signed}[n%2], 0o755)
			}
		}()
		r := File(t.Context(), path, c)
		stop.Store(true)
		<-done
		outcomes[r.Outcome]++
		b, err := os.ReadFile(path)
		if r.Outcome == Enrolled && (err != nil || !bytes.Equal(b, signed)) {
			t.Errorf("enrolled: %q, %v", b, err)
		}
	}
	t.Logf("enrolled %d, refused %d, failed %d", outcomes[Enrolled], outcomes[Refused], outcomes[Failed])
}
