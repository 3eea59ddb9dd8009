//go:build linux

package bpflsm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The object that is committed is that of the sources. Only who changes them needs the compiler.
func TestObjectIsOfTheSources(t *testing.T) {
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
	cmd.Env = append(os.Environ(), "GOPACKAGE=bpflsm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"lsm_bpfel.o", "lsm_bpfel.go"} {
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
