package digsig

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"midplane/internal/digsig/elfsig"
	"midplane/internal/digsig/elfsig/elftest"
)

// tree makes some files of every sort.
func tree(t *testing.T) string {
	dir := t.TempDir()
	elf := elftest.Build(program).Bytes
	write(t, filepath.Join(dir, "bin/prog"), elf, 0o755)
	write(t, filepath.Join(dir, "bin/static"), elftest.Build(elftest.Spec{}).Bytes, 0o700)
	write(t, filepath.Join(dir, "lib/lib.so"), elftest.Build(elftest.Spec{Type: 3}).Bytes, 0o644)
	write(t, filepath.Join(dir, "lib/appended"), append(slices.Clone(elf), "data"...), 0o755)
	write(t, filepath.Join(dir, "lib/mod.ko"), elftest.Build(elftest.Spec{Type: 1, Sections: []elftest.Section{{Name: ".modinfo", Type: 1, Data: []byte("x")}}}).Bytes, 0o644)
	write(t, filepath.Join(dir, "bin/script"), []byte("#!/bin/sh\n"), 0o755)
	write(t, filepath.Join(dir, "share/data"), []byte("data"), 0o644)
	write(t, filepath.Join(dir, "share/empty"), nil, 0o644)
	write(t, filepath.Join(dir, "bin/.digsig-left"), elf, 0o755)
	for link, to := range map[string]string{"bin/link": "prog", "lib/outside": "/bin/true", "loop": "."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "bin/prog"), filepath.Join(dir, "lib/prog2")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func verdicts(t *testing.T, v *Verifier, dir string, o TreeOptions) map[string]Reason {
	t.Helper()
	got := map[string]Reason{}
	err := v.VerifyTree(t.Context(), dir, Request{Use: UseAny, At: now}, o, func(path string, v Verdict) {
		rel, _ := filepath.Rel(dir, path)
		got[rel] = v.Reason
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTree(t *testing.T) {
	dir := tree(t)
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	got := verdicts(t, v, dir, TreeOptions{})
	if len(got) != 7 {
		t.Errorf("%v", got)
	}
	for path, r := range got {
		if r != Unsigned {
			t.Errorf("%s: %s", path, r)
		}
	}
	var last Progress
	steps := 0
	o := TreeOptions{Workers: 3, Progress: func(p Progress) {
		steps++
		if p.Files != steps || p.Files > p.TotalFiles || p.Bytes > p.TotalBytes || p.Path == "" {
			t.Errorf("step %d: %+v", steps, p)
		}
		last = p
	}}
	done, err := SignTree(t.Context(), dir, SignOptions{Template: Template{Version: 2, Issued: now}}, o, key)
	if err != nil {
		t.Fatal(err)
	}
	if last.Files != last.TotalFiles || last.Bytes != last.TotalBytes || steps != 8 {
		t.Errorf("at the end of %d steps %+v", steps, last)
	}
	var names []string
	for _, e := range done.Listed {
		if (e.Roles == RoleModule) != strings.HasSuffix(e.Name, ".ko") {
			t.Errorf("%s is for %s", e.Name, e.Roles)
		}
		names = append(names, e.Name)
	}
	slices.Sort(names)
	if done.Embedded != 3 || len(done.Failed) != 0 || strings.Join(names, " ") != "bin/script lib/appended lib/mod.ko" {
		t.Errorf("%+v, listed %q", done, names)
	}
	a, _ := os.Stat(filepath.Join(dir, "bin/prog"))
	if b, _ := os.Stat(filepath.Join(dir, "lib/prog2")); !os.SameFile(a, b) {
		t.Error("a file with two names became two files")
	}
	if info, _ := os.Stat(filepath.Join(dir, "bin/static")); info.Mode() != 0o700 {
		t.Error(info.Mode())
	}
	list, err := SignManifest(ManifestHeader{Name: "rest", Version: 1, Issued: now}, done.Listed, key)
	if err != nil {
		t.Fatal(err)
	}
	v, err = v.WithManifests([][]byte{list}, now)
	if err != nil {
		t.Fatal(err)
	}
	got = verdicts(t, v, dir, TreeOptions{Workers: 1})
	for path, r := range got {
		if r != Signed {
			t.Errorf("%s: %s", path, r)
		}
	}
	if got = verdicts(t, v, dir, TreeOptions{Data: true}); got["share/data"] != Unsigned || got["share/empty"] != Unsigned || got["lib/prog2"] != Signed || len(got) != 9 {
		t.Errorf("%v", got)
	}
	// A manifest of all of it.
	entries, err := ManifestTree(t.Context(), dir, Template{}, TreeOptions{Data: true}, nil)
	if err != nil || len(entries) != 8 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	list, err = SignManifest(ManifestHeader{Name: "all", Version: 1, Issued: now}, entries, key)
	if err != nil {
		t.Fatal(err)
	}
	for path, r := range verdicts(t, verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{list}}), dir, TreeOptions{Data: true}) {
		if r != Signed {
			t.Errorf("%s: %s", path, r)
		}
	}
}

// What a manifest lists by its whole path is broken when it is another content, and else still unsigned; a compressed kernel
// module is one by its name.
func TestManifestTreeNames(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "usr/bin/x"), []byte("#!/bin/sh\n"), 0o755)
	write(t, filepath.Join(dir, "lib/modules/a.ko.xz"), []byte("compressed"), 0o644)
	write(t, filepath.Join(dir, "share/a.xz"), []byte("compressed too"), 0o644)
	key := testKey(t, 1)
	for _, whole := range []bool{true, false} {
		var name func(string) string
		if whole {
			name = func(path string) string { return path[1:] }
		}
		entries, err := ManifestTree(t.Context(), dir, Template{}, TreeOptions{}, name)
		if err != nil || len(entries) != 2 {
			t.Fatalf("%v, %v", entries, err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name, "a.ko.xz") != (e.Roles == RoleModule) {
				t.Errorf("%s is for %s", e.Name, e.Roles)
			}
		}
		list, err := SignManifest(ManifestHeader{Name: "names", Issued: now}, entries, key)
		if err != nil {
			t.Fatal(err)
		}
		v := verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{list}})
		q := Request{Use: UseExec, At: now}
		x := filepath.Join(dir, "usr/bin/x")
		want(t, v.VerifyFile(t.Context(), x, q), Signed, "manifest")
		write(t, x, []byte("#!/bin/sh\nrm -rf /\n"), 0o755)
		r := Unsigned
		if whole {
			r = Broken
		}
		want(t, v.VerifyFile(t.Context(), x, q), r, "another content")
		want(t, v.VerifyFile(t.Context(), write(t, filepath.Join(dir, "usr/bin/y"), []byte("#!/bin/sh\n# other\n"), 0o755), q), Unsigned, "no manifest")
		os.Remove(filepath.Join(dir, "usr/bin/y"))
		write(t, x, []byte("#!/bin/sh\n"), 0o755)
	}
}

// Signing and unsigning trees gives every file back to the octet, with all its names, and nothing else is touched.
func TestUnsignTrees(t *testing.T) {
	dir := tree(t)
	key := testKey(t, 1)
	bin, lib := filepath.Join(dir, "bin"), filepath.Join(dir, "lib")
	data := write(t, filepath.Join(dir, "share/data2"), []byte("data"), 0o644)
	if err := os.Link(data, filepath.Join(dir, "bin/data")); err != nil { // no program, and a name of it is elsewhere
		t.Fatal(err)
	}
	os.Remove(filepath.Join(bin, ".digsig-left"))
	write(t, filepath.Join(lib, tempPrefix+"prog2"), []byte("of a run that was killed"), 0o600)
	before := map[string]string{}
	each := func(f func(rel, content string)) {
		for _, rel := range []string{"bin/prog", "bin/static", "lib/lib.so", "lib/appended", "lib/mod.ko", "bin/script", "share/data", "lib/prog2", "bin/data"} {
			f(rel, string(readFile(t, filepath.Join(dir, rel))))
		}
	}
	each(func(rel, content string) { before[rel] = content })
	o := SignOptions{Template: Template{Issued: now}}
	// A root within another changes nothing, a file may be a root.
	done, err := SignTrees(t.Context(), []string{bin, lib, bin, filepath.Join(lib, "lib.so")}, o, TreeOptions{}, key)
	if err != nil || done.Embedded != 3 || len(done.Failed) != 0 || len(done.Linked) != 0 || len(done.Listed) != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	a, _ := os.Stat(filepath.Join(bin, "prog"))
	if b, _ := os.Stat(filepath.Join(lib, "prog2")); !os.SameFile(a, b) {
		t.Error("a file with a name in each tree became two")
	}
	leftOver(t, dir)
	// Half of a file's names are not enough.
	gone, err := UnsignTrees(t.Context(), []string{lib}, false, TreeOptions{})
	if err != nil || gone.Removed != 1 || len(gone.Failed) != 1 || !strings.Contains(gone.Failed[0].Error(), "prog2: it has 2 names (hard links), and 1 of them") {
		t.Errorf("%+v, %v", gone, err)
	}
	steps := 0
	gone, err = UnsignTrees(t.Context(), []string{dir}, false, TreeOptions{Workers: 2, Progress: func(p Progress) { steps++ }})
	if err != nil || gone.Removed != 2 || len(gone.Failed) != 0 || steps != 9 {
		t.Errorf("%+v, %v, %d steps", gone, err, steps)
	}
	each(func(rel, content string) {
		if content != before[rel] {
			t.Errorf("%s is not what it was", rel)
		}
	})
	a, _ = os.Stat(filepath.Join(bin, "prog"))
	if b, _ := os.Stat(filepath.Join(lib, "prog2")); !os.SameFile(a, b) || a.Mode() != 0o755 {
		t.Error("its names parted", a.Mode())
	}
	leftOver(t, dir)
	// A second time there is nothing to do, but for a file that was named.
	gone, err = UnsignTrees(t.Context(), []string{dir}, false, TreeOptions{})
	if err != nil || gone.Removed != 0 || len(gone.Failed) != 0 {
		t.Errorf("%+v, %v", gone, err)
	}
	gone, err = UnsignTrees(t.Context(), []string{filepath.Join(bin, "prog"), filepath.Join(lib, "prog2"), filepath.Join(bin, "script")}, false, TreeOptions{})
	if err != nil || len(gone.Failed) != 2 || !errors.Is(gone.Failed[0], elfsig.ErrUnsigned) {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, err := UnsignTrees(t.Context(), []string{filepath.Join(dir, "nothing")}, false, TreeOptions{}); err == nil {
		t.Error("there is nothing")
	}
	// What was changed after it was signed stays as it is, and is told.
	static := filepath.Join(bin, "static")
	if _, err := SignFile(t.Context(), static, o, key); err != nil {
		t.Fatal(err)
	}
	broken := append(readFile(t, static), "more"...)
	write(t, static, broken, 0o700)
	if gone, err = UnsignTrees(t.Context(), []string{bin}, false, TreeOptions{}); err != nil || len(gone.Failed) != 1 || !bytes.Equal(readFile(t, static), broken) {
		t.Errorf("%+v, %v", gone, err)
	}
}

// A directory that may not be read is told, and the rest is done nevertheless.
func TestUnreadableDirectory(t *testing.T) {
	dir := tree(t)
	lib := filepath.Join(dir, "lib")
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, lib: 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 { // trees are walked by who calls
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		defer syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
	} else if err := os.Chmod(lib, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(lib, 0o700)
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	got := verdicts(t, v, dir, TreeOptions{})
	if len(got) != 4 || got["lib"] != Unreadable || got["bin/prog"] != Unsigned {
		t.Errorf("%v", got)
	}
	entries, err := ManifestTree(t.Context(), dir, Template{}, TreeOptions{}, nil)
	var f *FileError
	if len(entries) != 3 || !errors.As(err, &f) || f.Path != lib || !errors.Is(err, os.ErrPermission) {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	done, err := SignTree(t.Context(), dir, SignOptions{Template: Template{Issued: now}}, TreeOptions{}, key)
	if err != nil || len(done.Failed) != 1 || done.Failed[0].Path != lib || done.Embedded != 1 || len(done.Linked) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	gone, err := UnsignTrees(t.Context(), []string{dir}, false, TreeOptions{})
	if err != nil || len(gone.Failed) != 1 || gone.Failed[0].Path != lib || gone.Removed != 1 {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, err := SignTree(t.Context(), lib, SignOptions{Template: Template{Issued: now}}, TreeOptions{}, key); !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
}

// A name outside the tree, a key that fails and an end that is asked for: the files stay as they are.
func TestTreeFails(t *testing.T) {
	dir := tree(t)
	key := testKey(t, 1)
	before := readFile(t, filepath.Join(dir, "bin/prog"))
	o := SignOptions{Template: Template{Issued: now}}
	done, err := SignTree(t.Context(), filepath.Join(dir, "bin"), o, TreeOptions{}, key)
	if err != nil || len(done.Failed) != 0 || len(done.Linked) != 1 || filepath.Base(done.Linked[0]) != "prog" || len(done.Listed) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	if !bytes.Equal(before, readFile(t, filepath.Join(dir, "bin/prog"))) {
		t.Error("it was signed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := SignTree(ctx, dir, o, TreeOptions{}, key); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := SignTree(t.Context(), filepath.Join(dir, "nothing"), o, TreeOptions{}, key); err == nil {
		t.Error("there is nothing")
	}
	if _, err := ManifestTree(ctx, dir, Template{}, TreeOptions{}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	os.Remove(filepath.Join(dir, "bin/.digsig-left"))
	leftOver(t, dir)
}
