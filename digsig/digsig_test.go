package digsig

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestEmbeddedAndDetached(t *testing.T) {
	elf, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	key, other := testKey(t, 1), testKey(t, 2)
	v := verifier(t, Config{Trust: trusting(t, key)})
	if got := v.bytes(t, elf, UseExec); got.Allow || got.Reason != Unsigned {
		t.Error(got)
	}
	signed := embed(t, elf, Template{Name: "me", Version: 3}, key)
	got := v.bytes(t, signed, UseExec)
	if !got.Allow || got.Reason != Signed || got.Name != "me" || got.Version != 3 || got.Carrier != Embedded || got.Key != key.KeyID() {
		t.Error(got)
	}
	if again := v.Recheck(got, UseExec, now); again != got {
		t.Errorf("%+v, was %+v", again, got)
	}
	if got := verifier(t, Config{Trust: trusting(t, other)}).bytes(t, signed, UseExec); got.Reason != UnknownKey {
		t.Error(got)
	}
	signed[len(signed)/2] ^= 4
	if got := v.bytes(t, signed, UseExec); got.Reason != Broken {
		t.Error(got)
	}

	st, err := StatementOf(t.Context(), bytes.NewReader(elf), int64(len(elf)), Template{Issued: now})
	if err != nil {
		t.Fatal(err)
	}
	m, err := SignManifest(ManifestHeader{Name: "all", Version: 1, Issued: now}, []ManifestEntry{EntryOf(st)}, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{m}}).bytes(t, elf, UseExec); got.Reason != Signed || got.Carrier != InManifest {
		t.Error(got)
	}
	if got := verifier(t, Config{Trust: trusting(t, other), Manifests: [][]byte{m}}).bytes(t, elf, UseExec); got.Reason != UnknownKey {
		t.Error(got)
	}
}

func TestSignFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "program")
	elf, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	defer elf.Close()
	w, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o751)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, elf); err != nil {
		t.Fatal(err)
	}
	w.Close()
	before, _ := os.ReadFile(name)
	key := testKey(t, 1)
	if _, err := SignFile(t.Context(), name, SignOptions{Template: Template{Issued: now}}, key); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o751 {
		t.Error(info.Mode())
	}
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, TrustDir), 0o755)
	pub, _ := trusting(t, key).Keys()[0].MarshalText()
	os.WriteFile(filepath.Join(dir, TrustDir, "a.pub"), pub, 0o644)
	store, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := store.Load(now)
	if err != nil {
		t.Fatal(err)
	}
	if got := v.VerifyFile(t.Context(), name, Request{Use: UseExec, At: now}); !got.Allow {
		t.Error(got)
	}
	if err := UnsignFile(t.Context(), name, false); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(name); !bytes.Equal(before, after) {
		t.Error("unsigned is not what it was before")
	}
}
