package binding

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSaveLoadFind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "fib")
	if l, err := Load(dir); l != nil || err != nil {
		t.Fatalf("without a file: %v, %v", l, err)
	}
	want := []Binding{{FIB: 10, Name: "blue", Backend: VRF, Device: "blue"}, {FIB: 20, Backend: Rules, Mark: 20, Ports: []string{"eth1", "eth2"}}}
	if err := Save(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Fatal(err, d)
	}
	for which, id := range map[string]uint32{"blue": 10, "10": 10, "20": 20} {
		if b, err := Find(dir, which); err != nil || b.FIB != id {
			t.Errorf("%s: %v, %v", which, b, err)
		}
	}
	var nf *NotFoundError
	for _, which := range []string{"", "30", "red"} {
		if _, err := Find(dir, which); !errors.As(err, &nf) {
			t.Errorf("%q: %v", which, err)
		}
	}
	if l, _ := filepath.Glob(filepath.Join(dir, "*")); len(l) != 1 {
		t.Errorf("left behind: %v", l)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a broken file was read")
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	if err := Remove(dir); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if err := Save(dir, []Binding{{FIB: 1, Backend: Netns}}); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir); err != nil {
		t.Error(err)
	}
	if l, err := Load(dir); l != nil || err != nil {
		t.Errorf("left: %v, %v", l, err)
	}
}
