package fib

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"midplane/internal/fib/binding"
)

func TestLookUpSeesEveryChange(t *testing.T) {
	dir := t.TempDir()
	var none *NotSetUpError
	if _, err := lookUp(dir, "blue"); !errors.As(err, &none) {
		t.Errorf("without a record: %v", err)
	}
	for round := range uint32(50) {
		l := []binding.Binding{{FIB: 1000 + round, Name: "blue"}, {FIB: 7, Name: fmt.Sprint(1000 + round)}, {FIB: 8}}
		if err := binding.Save(dir, l); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 { // as if it had been there for a while
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(dir, recordFile), old, old); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // read, and kept
			for _, which := range []string{"blue", fmt.Sprint(1000 + round), "7", "8", "9", ""} {
				want, werr := binding.Find(dir, which)
				got, err := lookUp(dir, which)
				if got.FIB != want.FIB || (err == nil) != (werr == nil) || err != nil && err.Error() != werr.Error() {
					t.Fatalf("round %d, %q: %+v, %v; want %+v, %v", round, which, got, err, want, werr)
				}
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, recordFile), []byte("["), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := lookUp(dir, "blue"); err == nil || errors.As(err, &none) {
		t.Errorf("a broken record: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, recordFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := lookUp(dir, "blue"); !errors.As(err, &none) {
		t.Errorf("after the record went: %v", err)
	}
}

func TestLookUpKeepsABoundedNumber(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for range maxRecords + 5 {
		dir := t.TempDir()
		if err := binding.Save(dir, []binding.Binding{{FIB: 1}}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, recordFile), old, old); err != nil {
			t.Fatal(err)
		}
		if _, err := lookUp(dir, "1"); err != nil {
			t.Fatal(err)
		}
	}
	records.Lock()
	defer records.Unlock()
	if n := len(records.of); n == 0 || n > maxRecords {
		t.Errorf("%d records are kept", n)
	}
}

func BenchmarkLookUp(b *testing.B) {
	dir := b.TempDir()
	var l []binding.Binding
	for i := range uint32(10_000) {
		l = append(l, binding.Binding{FIB: i + 1, Name: fmt.Sprintf("customer%d", i), Backend: binding.VRF, Device: fmt.Sprintf("customer%d", i), Ports: []string{"eth0.100"}})
	}
	if err := binding.Save(dir, l); err != nil {
		b.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, recordFile), old, old); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := lookUp(dir, "customer9999"); err != nil {
			b.Fatal(err)
		}
	}
}
