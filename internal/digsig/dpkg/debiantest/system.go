//go:build linux

// Package debiantest makes Debian systems of which every program is signed, for tests.
package debiantest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"midplane/internal/lab"
)

// System is a Debian tree with a store, and a signing host beside it.
type System struct {
	T        testing.TB
	Root     string // of the tree
	Midplane string // the program, outside; a signed copy is in the tree
	Host     string // directory with the signing host's key, release.key and release.pub
	Store    string // etc/midplane/digsig of the tree
}

// Run runs midplane digsig outside the tree and wants it to succeed.
func (s *System) Run(args ...string) string {
	s.T.Helper()
	out, code := s.Try(args...)
	if code != 0 {
		s.T.Fatalf("midplane digsig %s: code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// Try is Run that returns the exit code.
func (s *System) Try(args ...string) (string, int) {
	s.T.Helper()
	return s.do(exec.Command(s.Midplane, append([]string{"digsig"}, args...)...))
}

func (s *System) do(cmd *exec.Cmd) (string, int) {
	s.T.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.T.Fatalf("%v: %v", cmd.Args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Inside runs a program in the tree.
func (s *System) Inside(args ...string) (string, int) {
	s.T.Helper()
	cmd := exec.Command("chroot", append([]string{s.Root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	return s.do(cmd)
}

// Write writes a file of the tree.
func (s *System) Write(name, content string, mode os.FileMode) {
	s.T.Helper()
	name = filepath.Join(s.Root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.T.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		s.T.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		s.T.Fatal(err)
	}
}

// Read reads one.
func (s *System) Read(name string) []byte {
	s.T.Helper()
	b, err := os.ReadFile(filepath.Join(s.Root, name))
	if err != nil {
		s.T.Fatal(err)
	}
	return b
}

// Key is the signing host's key, as sign wants it named.
func (s *System) Key() string { return "plain:" + s.Host + "/release.key" }

// New makes a tree in which everything is signed and apt calls the hook. prepare is called before it is signed, to install
// more, say. It needs root and debootstrap (lab.RequireTree).
func New(t testing.TB, prepare ...func(*System)) *System {
	root := lab.DebianTree(t)
	s := &System{T: t, Root: root, Midplane: lab.Binary(t), Host: t.TempDir(), Store: filepath.Join(root, "etc/midplane/digsig")}
	for _, p := range prepare {
		p(s)
	}
	s.Run("keygen", "--unencrypted", s.Host+"/release")
	manifests := filepath.Join(s.Store, "manifests")
	if err := errors.Join(os.MkdirAll(filepath.Join(s.Store, "trust"), 0o755), os.MkdirAll(manifests, 0o755)); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(s.Host + "/release.pub")
	if err != nil {
		t.Fatal(err)
	}
	s.Write("etc/midplane/digsig/trust/release.pub", string(pub), 0o644)
	_, here, _, _ := runtime.Caller(0)
	hook, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../../../packaging/apt/90midplane-digsig"))
	if err != nil {
		t.Fatal(err)
	}
	s.Write("etc/apt/apt.conf.d/90midplane-digsig", string(hook), 0o644)
	program, err := os.ReadFile(s.Midplane)
	if err != nil {
		t.Fatal(err)
	}
	s.Write("usr/bin/midplane", string(program), 0o755)
	s.Run("sign", "--key", s.Key(), "--name", "midplane", filepath.Join(root, "usr/bin/midplane"))
	t.Log(strings.TrimSpace(s.Run("manifest", "make", "--dpkg", "--root", root, "--key", s.Key(), "--out", manifests)))
	return s
}

// Bad verifies the whole tree and returns what is not good: reasons by path in the tree.
func (s *System) Bad() map[string]string {
	s.T.Helper()
	var found []struct{ Path, Reason string }
	cmd := exec.Command(s.Midplane, "digsig", "verify", "-j", "--store", s.Store, s.Root)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.T.Fatal(err)
	}
	if err := json.Unmarshal(out, &found); err != nil {
		s.T.Fatalf("%v: %s%s", err, out, complaints.Bytes())
	}
	reasons := map[string]string{}
	for _, f := range found {
		reasons[strings.TrimPrefix(f.Path, s.Root)] = f.Reason
	}
	if (len(reasons) == 0) != (cmd.ProcessState.ExitCode() == 0) {
		s.T.Errorf("code %d with %d files not good", cmd.ProcessState.ExitCode(), len(reasons))
	}
	return reasons
}

// WantGood ends the test unless everything is.
func (s *System) WantGood(when string) {
	s.T.Helper()
	if bad := s.Bad(); len(bad) > 0 {
		s.T.Fatalf("%s: %d are not good: %v", when, len(bad), bad)
	}
}
