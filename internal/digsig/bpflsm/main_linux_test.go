package bpflsm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/verity"
	"midplane/internal/digsig/verity/enrol"
)

// roleVariable has copies of the test binary do something else than test.
const roleVariable = "MIDPLANE_BPFLSM_PROGRAM"

func TestMain(m *testing.M) {
	play, ok := map[string]func() error{"": nil, "end": func() error { return nil }, "open": playOpen, "hold": playHold, "maps": playMaps}[os.Getenv(roleVariable)]
	switch {
	case !ok:
		fmt.Fprintln(os.Stderr, "no such program")
		os.Exit(2)
	case play == nil:
		os.Exit(m.Run())
	}
	if err := play(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// playOpen opens the gate and sets its policy anew.
func playOpen() error {
	g, err := Open(Config{})
	if err != nil {
		return err
	}
	p, err := g.Policy()
	if err != nil {
		return err
	}
	return errors.Join(g.SetPolicy(p, false), g.Close())
}

// playHold replaces the programs and waits to be killed.
func playHold() error {
	if _, err := Attach(Config{}); err != nil {
		return err
	}
	fmt.Println("attached")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// playMaps takes every map of the kernel that it can, as root without leave would.
func playMaps() error {
	var got []string
	for id := range ebpf.MapID(1000) {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		if info, err := m.Info(); err == nil {
			got = append(got, info.Name)
		}
		m.Close()
	}
	fmt.Println(strings.Join(got, " "))
	return nil
}

// program makes a copy of the test binary with a content of its own, runnable as what play says.
func program(t *testing.T, path, mark string) {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(exe, mark...), 0o755); err != nil {
		t.Fatal(err)
	}
}

// enable gives a file fs-verity and returns its digest.
func enable(t *testing.T, path string) Digest {
	t.Helper()
	f := open(t, path)
	if err := enrol.Enable(f, verity.Params{}); err != nil {
		t.Fatal(err)
	}
	d, err := enrol.Measure(f)
	if err != nil {
		t.Fatal(err)
	}
	sum, _ := d.SHA256()
	return Digest{Verity, sum}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// run runs a program and returns its output; denied says that execve(2) was refused.
func run(t *testing.T, play, path string, args ...string) (out string, denied bool, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+play)
	b, err := cmd.CombinedOutput()
	return string(b), errors.Is(err, unix.EPERM), err
}

func runs(t *testing.T, path string) {
	t.Helper()
	if out, _, err := run(t, "end", path); err != nil {
		t.Errorf("%s: %v, want it to run\n%s", path, err, out)
	}
}

func denied(t *testing.T, path string) {
	t.Helper()
	if out, denied, err := run(t, "end", path); !denied {
		t.Errorf("%s: %v, want EPERM\n%s", path, err, out)
	}
}

// admitRuntime grants the libraries that this process runs with, and so the copies of its program.
func admitRuntime(t *testing.T, g *Gate) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	exe, _ := os.Readlink("/proc/self/exe")
	done := map[string]bool{exe: true}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) == 6 && strings.Contains(f[1], "x") && filepath.IsAbs(f[5]) && !done[f[5]] {
			done[f[5]] = true
			admit(t, g, f[5], envelope.RoleLib|envelope.RoleInterp)
		}
	}
}

func admit(t *testing.T, g *Gate, path string, roles envelope.Role) {
	t.Helper()
	if err := g.Admit(open(t, path), contentOf(path, roles)); err != nil {
		t.Fatal(err)
	}
}

func contentOf(path string, roles envelope.Role) func() (Grant, bool, error) {
	return func() (Grant, bool, error) {
		b, err := os.ReadFile(path)
		return Grant{Digest: Digest{Content, sha256.Sum256(b)}, Roles: roles}, true, err
	}
}
