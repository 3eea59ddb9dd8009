package digsig

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"midplane/internal/digsig/elfsig/elftest"
	"midplane/internal/lab"
)

func write(t testing.TB, name string, b []byte, mode fs.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// leftOver complains of temporary files.
func leftOver(t *testing.T, dir string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), tempPrefix) {
			t.Errorf("%s was left behind", path)
		}
		return nil
	})
}

// Mode, owner and attributes stay; the file runs; signing twice gives the same octets.
func TestSignFileKeeps(t *testing.T) {
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	dir := t.TempDir()
	name := write(t, filepath.Join(dir, "prog"), elftest.Build(elftest.Spec{}).Bytes, 0o755)
	mode := fs.FileMode(0o751) | fs.ModeSetuid | fs.ModeSetgid
	if os.Geteuid() == 0 {
		if err := os.Chown(name, 1234, 2345); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	xattr := syscall.Setxattr(name, "user.test", []byte("kept"), 0) == nil
	if xattr {
		if err := syscall.Setxattr(name, XattrUser, []byte("of the old content"), 0); err != nil {
			t.Fatal(err)
		}
	}
	old, _ := os.Stat(name)
	o := SignOptions{Template: Template{Name: "prog", Version: 1, Issued: now}}
	if _, err := SignFile(t.Context(), name, o, key); err != nil {
		t.Fatal(err)
	}
	info, _ := os.Stat(name)
	if was, is := old.Sys().(*syscall.Stat_t), info.Sys().(*syscall.Stat_t); info.Mode() != mode|old.Mode()&^fs.ModePerm&^fs.ModeSetuid&^fs.ModeSetgid || was.Uid != is.Uid || was.Gid != is.Gid {
		t.Errorf("mode %v owner %d:%d, was %v %d:%d", info.Mode(), is.Uid, is.Gid, old.Mode(), was.Uid, was.Gid)
	}
	if xattr {
		b := make([]byte, 100)
		if n, err := syscall.Getxattr(name, "user.test", b); err != nil || string(b[:n]) != "kept" {
			t.Errorf("attribute %q, %v", b[:max(n, 0)], err)
		}
		if _, err := syscall.Getxattr(name, XattrUser, b); err == nil {
			t.Error("a signature of the old content is still there")
		}
	}
	want(t, v.VerifyFile(t.Context(), name, Request{Use: UseExec, At: now}), Signed, "")
	first := readFile(t, name)
	if _, err := SignFile(t.Context(), name, o, key); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, readFile(t, name)) {
		t.Error("the same key and time give other octets")
	}
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(name).CombinedOutput(); err != nil {
		t.Errorf("it does not run: %v %s", err, out)
	}
	leftOver(t, dir)

	// ECDSA of the standard library is deterministic here too.
	hardware := p256Key(t)
	if a, b := embed(t, first, o.Template, hardware), embed(t, first, o.Template, hardware); !bytes.Equal(a, b) {
		t.Error("P-256: the same key and time give other octets")
	}
}

// What cannot be signed stays as it is, and nothing is left beside it.
func TestSignFileRefused(t *testing.T) {
	key := testKey(t, 1)
	dir := t.TempDir()
	elf := elftest.Build(elftest.Spec{}).Bytes
	o := SignOptions{Template: Template{Issued: now}}
	sign := func(name, words string) {
		t.Helper()
		before, _ := os.ReadFile(name)
		_, err := SignFile(t.Context(), name, o, key)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v: want an error with %q", err, words)
		}
		if after, _ := os.ReadFile(name); !bytes.Equal(before, after) {
			t.Errorf("%s is another file now", name)
		}
		leftOver(t, dir)
	}
	sign(write(t, filepath.Join(dir, "script"), []byte("#!/bin/sh\n"), 0o755), "not an ELF file")
	sign(write(t, filepath.Join(dir, "appimage"), append(slices.Clone(elf), "squashfs"...), 0o755), "manifest")
	sign(filepath.Join(dir, "nothing"), "no such file")
	sign(dir, "not a regular file")
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := SignFile(t.Context(), filepath.Join(dir, "fifo"), o, key); !errors.Is(err, ErrNotRegular) {
		t.Error(err)
	}
	two := write(t, filepath.Join(dir, "one"), elf, 0o755)
	if err := os.Link(two, filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	sign(two, "2 names")
	o.Name = strings.Repeat("x", 255)
	keys := []*Signer{}
	for i := range byte(8) {
		keys = append(keys, testKey(t, 10+i))
	}
	long := write(t, filepath.Join(dir, "long"), elf, 0o755)
	if _, err := SignFile(t.Context(), long, o, keys...); err == nil || !strings.Contains(err.Error(), "slot") {
		t.Error(err)
	}
	if _, err := SignFile(t.Context(), long, o); err == nil || !strings.Contains(err.Error(), "no signer") {
		t.Error(err)
	}
	o.Name = ""
	if _, err := SignFile(t.Context(), long, SignOptions{}, key); err == nil || !strings.Contains(err.Error(), "issued") {
		t.Error(err)
	}
	leftOver(t, dir)
	// Through a symbolic link the file is signed, and the link stays.
	link := filepath.Join(dir, "link")
	if err := os.Symlink("long", link); err != nil {
		t.Fatal(err)
	}
	if _, err := SignFile(t.Context(), link, o, key); err != nil {
		t.Error(err)
	}
	if info, _ := os.Lstat(link); info.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link is a file now")
	}
}

// fullFor fails the nth write, as a disk that was full for a moment.
type fullFor struct {
	n   int
	err error
}

func (f *fullFor) WriteAt(b []byte, _ int64) (int, error) {
	if f.n--; f.n == 0 {
		return 0, f.err
	}
	return len(b), nil
}

// A write that fails is told, whichever it is: else a file with a hole would replace the good one.
func TestWriteFails(t *testing.T) {
	key := testKey(t, 1)
	big := elftest.Build(elftest.Spec{Sections: []elftest.Section{{Name: ".data", Type: 1, Data: make([]byte, 3<<20)}}}).Bytes
	signed := embed(t, big, Template{Issued: now}, key)
	for what, f := range map[string]func(w *fullFor) error{
		"Embed": func(w *fullFor) error {
			_, err := Embed(t.Context(), w, bytes.NewReader(big), int64(len(big)), Template{Issued: now}, key)
			return err
		},
		"Remove": func(w *fullFor) error {
			_, err := Remove(t.Context(), w, bytes.NewReader(signed), int64(len(signed)))
			return err
		},
	} {
		all := &fullFor{n: 1 << 30, err: syscall.ENOSPC}
		if err := f(all); err != nil {
			t.Fatal(err)
		}
		writes := 1<<30 - all.n
		if writes < 3 {
			t.Errorf("%s: %d writes: want some more", what, writes)
		}
		for n := range writes {
			if err := f(&fullFor{n: n + 1, err: syscall.ENOSPC}); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: write %d of %d failed: %v", what, n+1, writes, err)
			}
		}
	}
}

// A program that runs is refused, and with Busy replaced, while it goes on with the old file.
func TestSignBusy(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	key := testKey(t, 1)
	name := write(t, filepath.Join(t.TempDir(), "sleep"), readFile(t, sleep), 0o755)
	cmd := exec.Command(name, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	o := SignOptions{Template: Template{Issued: now}}
	if _, err := SignFile(t.Context(), name, o, key); !errors.Is(err, ErrBusy) {
		t.Errorf("%v: want ErrBusy", err)
	}
	o.Busy = true
	if _, err := SignFile(t.Context(), name, o, key); err != nil {
		t.Error(err)
	}
	want(t, verifier(t, Config{Trust: trusting(t, key)}).VerifyFile(t.Context(), name, Request{Use: UseExec, At: now}), Signed, "")
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error(err)
	}
}

// What an extended attribute carries is checked like any other signature.
func TestXattr(t *testing.T) {
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	content := []byte("#!/bin/sh\necho hello\n")
	name := write(t, filepath.Join(t.TempDir(), "script"), content, 0o755)
	st, err := StatementOf(t.Context(), bytes.NewReader(content), int64(len(content)), Template{Issued: now})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := SignStatement(st, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetXattr(name, XattrUser, signed); err != nil {
		t.Skip(err)
	}
	if err := SetXattr(name, "user.other", signed); err == nil {
		t.Error("another attribute was set")
	}
	q := Request{Use: UseExec, At: now}
	if got := v.VerifyFile(t.Context(), name, q); got.Carrier != InXattr || got.Reason != Signed {
		t.Error(got)
	}
	if os.Geteuid() == 0 { // what only root can set is looked at first
		if err := SetXattr(name, XattrSecurity, []byte("nonsense")); err == nil {
			want(t, v.VerifyFile(t.Context(), name, q), Broken, "xattr signature")
			if err := SetXattr(name, XattrSecurity, signed); err != nil {
				t.Error(err)
			}
		}
	}
	write(t, name, append(slices.Clone(content), "rm -rf /\n"...), 0o755)
	want(t, v.VerifyFile(t.Context(), name, q), Broken, "changed")
	syscall.Removexattr(name, XattrSecurity)
	if err := SetXattr(name, XattrUser, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	want(t, v.VerifyFile(t.Context(), name, q), Broken, "xattr signature")
}

// Tools that rewrite a file leave no good signature, and what those leave that keep notes is told from what is unsigned.
func TestChangedByTools(t *testing.T) {
	lab.RequireTool(t, "strip", "binutils")
	lab.RequireTool(t, "patchelf", "patchelf")
	lab.RequireTool(t, "eu-strip", "elfutils")
	lab.RequireTool(t, "llvm-strip-14", "llvm-14")
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	self := readFile(t, "/proc/self/exe")
	dir := t.TempDir()
	for i, c := range []struct {
		command string
		reasons []Reason
	}{
		{"strip", []Reason{Broken}},
		{"strip --strip-debug", []Reason{Broken}},
		{"objcopy --add-section .x=/etc/hostname", []Reason{Broken}},
		{"patchelf --set-rpath /tmp", []Reason{Broken}},
		{"eu-strip", []Reason{Broken, Unsigned}},
		{"llvm-strip-14", []Reason{Broken, Unsigned}},
	} {
		name := write(t, filepath.Join(dir, string(rune('a'+i))), readFile(t, "/bin/true"), 0o755)
		if strings.HasPrefix(c.command, "strip") { // there must be something to strip
			write(t, name, self, 0o755)
		}
		o := SignOptions{Template: Template{Issued: now}}
		if _, err := SignFile(t.Context(), name, o, key); err != nil {
			t.Fatal(err)
		}
		before := readFile(t, name)
		args := append(strings.Fields(c.command), name)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", c.command, err, out)
		}
		if bytes.Equal(before, readFile(t, name)) {
			t.Errorf("%s: nothing was changed", c.command)
		}
		got := v.VerifyFile(t.Context(), name, Request{Use: UseAny, At: now})
		if !slices.Contains(c.reasons, got.Reason) {
			t.Errorf("%s: %s", c.command, got)
		}
		t.Logf("%s: %s", c.command, got)
		// Signed again it is good, and has one note.
		if _, err := SignFile(t.Context(), name, o, key); err != nil {
			t.Errorf("%s: %v", c.command, err)
			continue
		}
		want(t, v.VerifyFile(t.Context(), name, Request{Use: UseAny, At: now}), Signed, "")
	}
}

// A crash at any step leaves the old or the new file: a child is killed at random moments while it signs.
func TestSignFileCrash(t *testing.T) {
	if name := os.Getenv("DIGSIG_TEST_SIGN"); name != "" {
		for {
			if _, err := SignFile(t.Context(), name, SignOptions{Template: Template{Issued: now}}, testKey(t, 1)); err != nil {
				t.Fatal(err)
			}
			if err := UnsignFile(t.Context(), name, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plain := elftest.Build(program).Bytes
	signed := embed(t, plain, Template{Issued: now}, testKey(t, 1))
	name := write(t, filepath.Join(dir, "prog"), plain, 0o755)
	changed := map[bool]int{}
	for i := range 20 {
		cmd := exec.Command(self, "-test.run", "^TestSignFileCrash$")
		cmd.Env = append(os.Environ(), "DIGSIG_TEST_SIGN="+name)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Stat(name)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if now, err := os.Stat(name); err == nil && !os.SameFile(before, now) {
				break // it is at work
			}
		}
		time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
		switch b := readFile(t, name); {
		case bytes.Equal(b, plain):
			changed[false]++
		case bytes.Equal(b, signed):
			changed[true]++
		default:
			t.Fatalf("kill %d: the file is neither the old nor the new one", i)
		}
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o755 {
			t.Fatal(info, err)
		}
	}
	t.Logf("old %d times, new %d times", changed[false], changed[true])
}
