// Package bpftest looks after the compiled BPF objects that are committed.
package bpftest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ObjectsAreOfTheSources runs the line go:generate of the tested package's doc.go, into a directory of its own, and compares the
// files that are named with those beside it. Only who changes the sources needs the compiler: without it the test is skipped.
func ObjectsAreOfTheSources(t *testing.T, pkg string, files ...string) {
	t.Helper()
	if _, err := exec.LookPath("clang-14"); err != nil {
		t.Skip("no clang-14 here; run: apt-get install clang-14 llvm-14 libbpf-dev")
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(doc), "//go:generate ")
	line, _, _ = strings.Cut(line, "\n")
	args := strings.Fields(line)
	dir := t.TempDir()
	for i, a := range args {
		if a == "-tags" {
			args = append(args[:i], append([]string{"-output-dir", dir}, args[i:]...)...)
			break
		}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "GOPACKAGE="+pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range files {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the sources give (%v); run: make gen", name, err)
		}
	}
}
