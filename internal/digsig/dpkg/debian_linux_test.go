package dpkg_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"midplane/internal/digsig/dpkg/debiantest"
)

type system struct{ *debiantest.System }

// deb builds a package of a program, a script and maintainer scripts, and returns its name in the tree.
func (s system) deb(version, program string) string {
	s.T.Helper()
	dir := s.T.TempDir()
	for name, f := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"DEBIAN/control":       {fmt.Sprintf("Package: tool\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n", version), 0o644},
		"DEBIAN/preinst":       {"#!/bin/sh\nset -e\necho preinst of " + version + "\n", 0o755},
		"DEBIAN/postinst":      {"#!/bin/sh\nset -e\necho postinst of " + version + "\n", 0o755},
		"DEBIAN/prerm":         {"#!/bin/sh\nset -e\necho prerm of " + version + "\n", 0o755},
		"usr/bin/tool":         {string(s.Read(program)), 0o755},
		"usr/bin/tool-script":  {"#!/bin/sh\necho script of " + version + "\n", 0o755},
		"usr/share/tool/notes": {"no program\n", 0o644},
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			s.T.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), f.mode); err != nil {
			s.T.Fatal(err)
		}
	}
	name := "root/tool_" + strings.ReplaceAll(version, ":", "%3a") + "_amd64.deb"
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", dir, filepath.Join(s.Root, name)).CombinedOutput(); err != nil {
		s.T.Fatalf("%v: %s", err, out)
	}
	return name
}

func (s system) manifests() (names []string) {
	s.T.Helper()
	all, err := filepath.Glob(s.Store + "/manifests/tool_*.mdm")
	if err != nil {
		s.T.Fatal(err)
	}
	for _, n := range all {
		names = append(names, filepath.Base(n))
	}
	return names
}

// A whole Debian system is signed; packages are installed and upgraded by apt with their manifests and not without; what
// somebody plants or alters is found.
func TestIntegrationDebian(t *testing.T) {
	s := system{debiantest.New(t)}
	s.WantGood("signed as a whole")
	if n := strings.Count(s.Run("verify", "-v", "--store", s.Store, filepath.Join(s.Root, "usr/bin")), "good: "); n < 200 {
		t.Errorf("%d programs in /usr/bin are good: want 200 or more", n)
	}
	t.Run("install", s.testInstall)
	t.Run("upgrade", s.testUpgrade)
	t.Run("hello", s.testHello)
	t.Run("planted", s.testPlanted)
}

func (s system) testInstall(t *testing.T) {
	s.T = t
	first := s.deb("1:1.0", "usr/bin/true")
	out, code := s.Inside("apt-get", "-y", "install", "/"+first)
	if code == 0 || !strings.Contains(out, "no manifest tool_1%3a1.0_amd64.mdm beside the package file") {
		t.Fatalf("without a manifest: code %d\n%s", code, out)
	}
	if _, err := os.Stat(filepath.Join(s.Root, "usr/bin/tool")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("it was unpacked all the same")
	}
	s.Run("manifest", "make", "--deb", "--key", s.Key(), "--out", filepath.Join(s.Root, "root"), filepath.Join(s.Root, first))
	if out, code = s.Inside("apt-get", "-y", "install", "/"+first); code != 0 || !strings.Contains(out, "postinst of 1:1.0") {
		t.Fatalf("with its manifest: code %d\n%s", code, out)
	}
	if !strings.Contains(out, "1 manifests put in place") || !strings.Contains(out, "programs and scripts verified") {
		t.Errorf("the hook did not say what it did:\n%s", out)
	}
	s.WantGood("after the installation")
}

func (s system) testUpgrade(t *testing.T) {
	s.T = t
	second := s.deb("1:2.0", "usr/bin/false")
	tampered := filepath.Join(s.Root, second)
	s.Run("manifest", "make", "--deb", "--key", s.Key(), "--out", filepath.Join(s.Root, "root"), tampered)
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
	out, code := s.Inside("apt-get", "-y", "install", "/"+second)
	if code == 0 || !strings.Contains(out, "/usr/bin/tool-script: unsigned") {
		t.Fatalf("an altered package: code %d\n%s", code, out)
	}
	if err := os.WriteFile(tampered, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code = s.Inside("apt-get", "-y", "install", "/"+second); code != 0 || !strings.Contains(out, "postinst of 1:2.0") {
		t.Fatalf("upgrade: code %d\n%s", code, out)
	}
	s.WantGood("after the upgrade")
	if got := s.manifests(); !slices.Equal(got, []string{"tool_1%3a2.0_amd64.mdm"}) {
		t.Errorf("manifests of the package: %v: want that of the version that is there", got)
	}
	if out, code = s.Inside("apt-get", "-y", "purge", "tool"); code != 0 {
		t.Fatalf("purge: code %d\n%s", code, out)
	}
	if got := s.manifests(); len(got) > 0 {
		t.Errorf("manifests of the package that is gone: %v", got)
	}
	s.WantGood("after it was purged")
}

// A package of Debian's own, with a manifest from the signing host that the system finds in its incoming directory.
func (s system) testHello(t *testing.T) {
	s.T = t
	debs, err := filepath.Glob(filepath.Join(s.Root, "var/cache/lab/hello_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v, %v", debs, err)
	}
	incoming := filepath.Join(s.Root, "var/lib/midplane/digsig/incoming")
	if err := os.MkdirAll(incoming, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Run("manifest", "make", "--deb", "--key", s.Key(), "--out", incoming, debs[0])
	if out, code := s.Inside("apt-get", "-y", "install", strings.TrimPrefix(debs[0], s.Root)); code != 0 {
		t.Fatalf("code %d\n%s", code, out)
	}
	if out, code := s.Inside("hello"); code != 0 || !strings.Contains(out, "Hello") {
		t.Errorf("code %d, %s", code, out)
	}
	s.WantGood("with hello")
}

// Twenty unsigned or altered files, each of which is found, and nothing else is.
func (s system) testPlanted(t *testing.T) {
	s.T = t
	flip := func(from, to string, at func(n int) int) {
		b := bytes.Clone(s.Read(from))
		b[at(len(b))] ^= 1
		s.Write(to, string(b), 0o755)
	}
	middle := func(n int) int { return n / 2 }
	last := func(n int) int { return n - 1 }
	elf := string(s.Read("usr/bin/true"))
	library := "usr/lib/x86_64-linux-gnu/libz.so.1"
	want := map[string]string{}
	plant := func(name, reason string, how func(name string)) {
		how(name)
		want["/"+name] = reason
	}
	plant("usr/bin/ls", "unsigned", func(n string) { flip(n, n, middle) })
	plant("usr/bin/cat", "unsigned", func(n string) { flip(n, n, last) })
	plant("usr/bin/chmod", "unsigned", func(n string) { flip(n, n, func(int) int { return 24 }) }) // entry point
	plant("usr/bin/cp", "unsigned", func(n string) { s.Write(n, string(s.Read(n))+"\x00", 0o755) })
	plant("usr/bin/mv", "unsigned", func(n string) { b := s.Read(n); s.Write(n, string(b[:len(b)-1]), 0o755) })
	plant("usr/bin/ldd", "unsigned", func(n string) { s.Write(n, string(s.Read(n))+"\n", 0o755) })
	plant("usr/bin/midplane", "broken", func(n string) { flip(n, n, middle) })
	plant("usr/local/bin/new", "unsigned", func(n string) { flip("usr/bin/true", n, middle) })
	plant("usr/local/bin/new.sh", "unsigned", func(n string) { s.Write(n, "#!/bin/sh\necho new\n", 0o755) })
	plant("usr/local/lib/libnew.so", "unsigned", func(n string) { flip(library, n, middle) })
	plant("tmp/x", "unsigned", func(n string) { flip("usr/bin/false", n, last) })
	plant("var/tmp/.hidden", "unsigned", func(n string) { s.Write(n, elf+"more", 0o755) })
	plant("dev/shm/x", "unsigned", func(n string) { s.Write(n, "#!/usr/bin/perl\n", 0o755) })
	plant("root/not-executable", "unsigned", func(n string) { s.Write(n, elf+"more.", 0o644) })
	plant("home/user/a name with blanks", "unsigned", func(n string) { s.Write(n, "#!/bin/sh\n#blanks\n", 0o755) })
	plant("etc/cron.daily/job", "unsigned", func(n string) { s.Write(n, "#!/bin/sh\n#job\n", 0o755) })
	plant("etc/init.d/job", "unsigned", func(n string) { s.Write(n, "#!/bin/sh\n#init\n", 0o755) })
	plant("var/lib/dpkg/info/bash.postinst", "unsigned", func(n string) { s.Write(n, "#!/bin/sh\n#postinst\n", 0o755) })
	plant("usr/bin/cut", "unsigned", func(n string) { s.Write(n, "\x7fELF", 0o755) })
	plant("opt/truncated", "unsigned", func(n string) { s.Write(n, elf[:100], 0o755) })
	if len(want) != 20 {
		t.Fatalf("%d planted: want 20", len(want))
	}
	// What is signed stays good under any name.
	s.Write("usr/local/bin/copy", elf, 0o755)
	got := s.Bad()
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
