package dpkg_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"midplane/internal/lab"
)

// system is a Debian tree with a store, and a signing host beside it.
type system struct {
	t        *testing.T
	root     string
	midplane string // outside
	host     string // directory with the private key
	store    string
}

// run runs midplane digsig outside the tree and wants it to succeed.
func (s *system) run(args ...string) string {
	s.t.Helper()
	out, code := s.try(args...)
	if code != 0 {
		s.t.Fatalf("midplane digsig %s: code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func (s *system) try(args ...string) (string, int) {
	s.t.Helper()
	return s.do(exec.Command(s.midplane, append([]string{"digsig"}, args...)...))
}

func (s *system) do(cmd *exec.Cmd) (string, int) {
	s.t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%v: %v", cmd.Args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// inside runs a program in the tree.
func (s *system) inside(args ...string) (string, int) {
	s.t.Helper()
	cmd := exec.Command("chroot", append([]string{s.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	return s.do(cmd)
}

func (s *system) write(name, content string, mode os.FileMode) {
	s.t.Helper()
	name = filepath.Join(s.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *system) key() string { return "plain:" + s.host + "/release.key" }

// newSystem makes a tree in which everything is signed.
func newSystem(t *testing.T) *system {
	root := lab.DebianTree(t)
	s := &system{t: t, root: root, midplane: lab.Binary(t), host: t.TempDir(), store: filepath.Join(root, "etc/midplane/digsig")}
	s.run("keygen", "--unencrypted", s.host+"/release")
	manifests := filepath.Join(s.store, "manifests")
	if err := errors.Join(os.MkdirAll(filepath.Join(s.store, "trust"), 0o755), os.MkdirAll(manifests, 0o755)); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(s.host + "/release.pub")
	if err != nil {
		t.Fatal(err)
	}
	s.write("etc/midplane/digsig/trust/release.pub", string(pub), 0o644)
	hook, err := os.ReadFile("../../../packaging/apt/90midplane-digsig")
	if err != nil {
		t.Fatal(err)
	}
	s.write("etc/apt/apt.conf.d/90midplane-digsig", string(hook), 0o644)
	program, err := os.ReadFile(s.midplane)
	if err != nil {
		t.Fatal(err)
	}
	s.write("usr/bin/midplane", string(program), 0o755)
	s.run("sign", "--key", s.key(), "--name", "midplane", filepath.Join(root, "usr/bin/midplane"))
	t.Log(strings.TrimSpace(s.run("manifest", "make", "--dpkg", "--root", root, "--key", s.key(), "--out", manifests)))
	return s
}

// bad verifies the whole tree and returns what is not good: reasons by path in the tree.
func (s *system) bad() map[string]string {
	s.t.Helper()
	var found []struct{ Path, Reason string }
	cmd := exec.Command(s.midplane, "digsig", "verify", "-j", "--store", s.store, s.root)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(out, &found); err != nil {
		s.t.Fatalf("%v: %s%s", err, out, complaints.Bytes())
	}
	reasons := map[string]string{}
	for _, f := range found {
		reasons[strings.TrimPrefix(f.Path, s.root)] = f.Reason
	}
	if (len(reasons) == 0) != (cmd.ProcessState.ExitCode() == 0) {
		s.t.Errorf("code %d with %d files not good", cmd.ProcessState.ExitCode(), len(reasons))
	}
	return reasons
}

func (s *system) wantGood(when string) {
	s.t.Helper()
	if bad := s.bad(); len(bad) > 0 {
		s.t.Fatalf("%s: %d are not good: %v", when, len(bad), bad)
	}
}

// deb builds a package of a program, a script and maintainer scripts, and returns its name in the tree.
func (s *system) deb(version, program string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	for name, f := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"DEBIAN/control":       {fmt.Sprintf("Package: tool\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n", version), 0o644},
		"DEBIAN/preinst":       {"#!/bin/sh\nset -e\necho preinst of " + version + "\n", 0o755},
		"DEBIAN/postinst":      {"#!/bin/sh\nset -e\necho postinst of " + version + "\n", 0o755},
		"DEBIAN/prerm":         {"#!/bin/sh\nset -e\necho prerm of " + version + "\n", 0o755},
		"usr/bin/tool":         {string(s.read(program)), 0o755},
		"usr/bin/tool-script":  {"#!/bin/sh\necho script of " + version + "\n", 0o755},
		"usr/share/tool/notes": {"no program\n", 0o644},
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), f.mode); err != nil {
			s.t.Fatal(err)
		}
	}
	name := "root/tool_" + strings.ReplaceAll(version, ":", "%3a") + "_amd64.deb"
	if out, code := s.do(exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", dir, filepath.Join(s.root, name))); code != 0 {
		s.t.Fatal(out)
	}
	return name
}

func (s *system) manifests() (names []string) {
	s.t.Helper()
	all, err := filepath.Glob(s.store + "/manifests/tool_*.mdm")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range all {
		names = append(names, filepath.Base(n))
	}
	return names
}

// A whole Debian system is signed; packages are installed and upgraded by apt with their manifests and not without; what
// somebody plants or alters is found.
func TestIntegrationDebian(t *testing.T) {
	s := newSystem(t)
	s.wantGood("signed as a whole")
	if n := strings.Count(s.run("verify", "-v", "--store", s.store, filepath.Join(s.root, "usr/bin")), "good: "); n < 200 {
		t.Errorf("%d programs in /usr/bin are good: want 200 or more", n)
	}
	t.Run("install", s.testInstall)
	t.Run("upgrade", s.testUpgrade)
	t.Run("hello", s.testHello)
	t.Run("planted", s.testPlanted)
}

func (s *system) testInstall(t *testing.T) {
	s.t = t
	first := s.deb("1:1.0", "usr/bin/true")
	out, code := s.inside("apt-get", "-y", "install", "/"+first)
	if code == 0 || !strings.Contains(out, "no manifest tool_1%3a1.0_amd64.mdm beside the package file") {
		t.Fatalf("without a manifest: code %d\n%s", code, out)
	}
	if _, err := os.Stat(filepath.Join(s.root, "usr/bin/tool")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("it was unpacked all the same")
	}
	s.run("manifest", "make", "--deb", "--key", s.key(), "--out", filepath.Join(s.root, "root"), filepath.Join(s.root, first))
	if out, code = s.inside("apt-get", "-y", "install", "/"+first); code != 0 || !strings.Contains(out, "postinst of 1:1.0") {
		t.Fatalf("with its manifest: code %d\n%s", code, out)
	}
	if !strings.Contains(out, "1 manifests put in place") || !strings.Contains(out, "programs and scripts verified") {
		t.Errorf("the hook did not say what it did:\n%s", out)
	}
	s.wantGood("after the installation")
}

func (s *system) testUpgrade(t *testing.T) {
	s.t = t
	second := s.deb("1:2.0", "usr/bin/false")
	tampered := filepath.Join(s.root, second)
	s.run("manifest", "make", "--deb", "--key", s.key(), "--out", filepath.Join(s.root, "root"), tampered)
	good, err := os.ReadFile(tampered)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Replace(good, []byte("echo script of 1:2.0"), []byte("echo SCRIPT of 1:2.0"), 1)
	if bytes.Equal(bad, good) {
		t.Fatal("the script is not in the package file as it is")
	}
	if err := os.WriteFile(tampered, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := s.inside("apt-get", "-y", "install", "/"+second)
	if code == 0 || !strings.Contains(out, "/usr/bin/tool-script: unsigned") {
		t.Fatalf("an altered package: code %d\n%s", code, out)
	}
	if err := os.WriteFile(tampered, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code = s.inside("apt-get", "-y", "install", "/"+second); code != 0 || !strings.Contains(out, "postinst of 1:2.0") {
		t.Fatalf("upgrade: code %d\n%s", code, out)
	}
	s.wantGood("after the upgrade")
	if got := s.manifests(); !slices.Equal(got, []string{"tool_1%3a2.0_amd64.mdm"}) {
		t.Errorf("manifests of the package: %v: want that of the version that is there", got)
	}
	if out, code = s.inside("apt-get", "-y", "purge", "tool"); code != 0 {
		t.Fatalf("purge: code %d\n%s", code, out)
	}
	if got := s.manifests(); len(got) > 0 {
		t.Errorf("manifests of the package that is gone: %v", got)
	}
	s.wantGood("after it was purged")
}

// A package of Debian's own, with a manifest from the signing host that the system finds in its incoming directory.
func (s *system) testHello(t *testing.T) {
	s.t = t
	debs, err := filepath.Glob(filepath.Join(s.root, "var/cache/lab/hello_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v, %v", debs, err)
	}
	incoming := filepath.Join(s.root, "var/lib/midplane/digsig/incoming")
	if err := os.MkdirAll(incoming, 0o755); err != nil {
		t.Fatal(err)
	}
	s.run("manifest", "make", "--deb", "--key", s.key(), "--out", incoming, debs[0])
	if out, code := s.inside("apt-get", "-y", "install", strings.TrimPrefix(debs[0], s.root)); code != 0 {
		t.Fatalf("code %d\n%s", code, out)
	}
	if out, code := s.inside("hello"); code != 0 || !strings.Contains(out, "Hello") {
		t.Errorf("code %d, %s", code, out)
	}
	s.wantGood("with hello")
}

// Twenty unsigned or altered files, each of which is found, and nothing else is.
func (s *system) testPlanted(t *testing.T) {
	s.t = t
	flip := func(from, to string, at func(n int) int) {
		b := bytes.Clone(s.read(from))
		b[at(len(b))] ^= 1
		s.write(to, string(b), 0o755)
	}
	middle := func(n int) int { return n / 2 }
	last := func(n int) int { return n - 1 }
	elf := string(s.read("usr/bin/true"))
	library := "usr/lib/x86_64-linux-gnu/libz.so.1"
	want := map[string]string{}
	plant := func(name, reason string, how func(name string)) {
		how(name)
		want["/"+name] = reason
	}
	plant("usr/bin/ls", "unsigned", func(n string) { flip(n, n, middle) })
	plant("usr/bin/cat", "unsigned", func(n string) { flip(n, n, last) })
	plant("usr/bin/chmod", "unsigned", func(n string) { flip(n, n, func(int) int { return 24 }) }) // entry point
	plant("usr/bin/cp", "unsigned", func(n string) { s.write(n, string(s.read(n))+"\x00", 0o755) })
	plant("usr/bin/mv", "unsigned", func(n string) { b := s.read(n); s.write(n, string(b[:len(b)-1]), 0o755) })
	plant("usr/bin/ldd", "unsigned", func(n string) { s.write(n, string(s.read(n))+"\n", 0o755) })
	plant("usr/bin/midplane", "broken", func(n string) { flip(n, n, middle) })
	plant("usr/local/bin/new", "unsigned", func(n string) { flip("usr/bin/true", n, middle) })
	plant("usr/local/bin/new.sh", "unsigned", func(n string) { s.write(n, "#!/bin/sh\necho new\n", 0o755) })
	plant("usr/local/lib/libnew.so", "unsigned", func(n string) { flip(library, n, middle) })
	plant("tmp/x", "unsigned", func(n string) { flip("usr/bin/false", n, last) })
	plant("var/tmp/.hidden", "unsigned", func(n string) { s.write(n, elf+"more", 0o755) })
	plant("dev/shm/x", "unsigned", func(n string) { s.write(n, "#!/usr/bin/perl\n", 0o755) })
	plant("root/not-executable", "unsigned", func(n string) { s.write(n, elf+"more.", 0o644) })
	plant("home/user/a name with blanks", "unsigned", func(n string) { s.write(n, "#!/bin/sh\n#blanks\n", 0o755) })
	plant("etc/cron.daily/job", "unsigned", func(n string) { s.write(n, "#!/bin/sh\n#job\n", 0o755) })
	plant("etc/init.d/job", "unsigned", func(n string) { s.write(n, "#!/bin/sh\n#init\n", 0o755) })
	plant("var/lib/dpkg/info/bash.postinst", "unsigned", func(n string) { s.write(n, "#!/bin/sh\n#postinst\n", 0o755) })
	plant("usr/bin/cut", "unsigned", func(n string) { s.write(n, "\x7fELF", 0o755) })
	plant("opt/truncated", "unsigned", func(n string) { s.write(n, elf[:100], 0o755) })
	if len(want) != 20 {
		t.Fatalf("%d planted: want 20", len(want))
	}
	// What is signed stays good under any name.
	s.write("usr/local/bin/copy", elf, 0o755)
	got := s.bad()
	for name, reason := range want {
		if got[name] != reason && (got[name] != "malformed" || reason != "unsigned") {
			t.Errorf("%s: %q: want %s", name, got[name], reason)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("not planted, and not good: %v", got)
	}
}
