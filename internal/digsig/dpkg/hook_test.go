package dpkg

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"midplane/digsig"
)

// hookOf makes a system with one package, of version 2, and a store with manifests of two versions and one of no package.
func hookOf(t *testing.T, state string) (*Hook, string) {
	t.Helper()
	root := tree(t, map[string]string{
		"var/lib/dpkg/status":      "Package: p\nStatus: " + state + "\nArchitecture: all\nVersion: 2\n",
		"var/lib/dpkg/info/p.list": "/usr/bin/p\n/usr/bin/q\n",
		"usr/bin/p":                "#!/bin/sh\n# p\n",
		"usr/bin/q":                "#!/bin/sh\n# q, which nobody signed\n",
	})
	signer, err := digsig.NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	b := &Builder{Issued: time.Unix(1_700_000_000, 0)}
	k := digsig.Key{Public: signer.Public(), Comment: "k", Purposes: digsig.PurposeManifest, Roles: digsig.AllRoles}
	pub, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(root, "usr/bin/p"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := b.entry(context.Background(), "p", "usr/bin/p", fi.Size(), f)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := digsig.SignManifest(b.Header("p", time.Time{}), []digsig.ManifestEntry{e}, signer)
	if err != nil {
		t.Fatal(err)
	}
	store := tree(t, map[string]string{
		"trust/k.pub": string(pub), "manifests/p_1_all.mdm": string(manifest), "manifests/p_2_all.mdm": string(manifest), "manifests/local.mdm": string(manifest),
	})
	s, err := digsig.OpenStore(store)
	if err != nil {
		t.Fatal(err)
	}
	s.StateDir = tree(t, map[string]string{pendingFile: "p_2_all\n"})
	return &Hook{Store: s, Root: root, Now: time.Now()}, filepath.Join(store, "manifests")
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestAfter(t *testing.T) {
	h, dir := hookOf(t, "install ok installed")
	all := names(t, dir)
	verified, removed, problems, err := h.After(context.Background())
	if err != nil || verified != 2 || len(removed) != 1 || len(problems) != 1 || !strings.HasPrefix(problems[0].String(), "p_2_all: /usr/bin/q: unsigned: ") {
		t.Fatalf("%d verified, %d removed, %v, %v", verified, len(removed), problems, err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"local.mdm", "p_2_all.mdm"}) {
		t.Error(got)
	}
	if err := h.Restore(removed); err != nil || !slices.Equal(names(t, dir), all) {
		t.Errorf("%v, %v", names(t, dir), err)
	}
	// Nothing is pending any more; what was put back goes now.
	verified, removed, problems, err = h.After(context.Background())
	if err != nil || verified != 0 || len(removed) != 1 || len(problems) != 0 {
		t.Errorf("%d verified, %d removed, %v, %v", verified, len(removed), problems, err)
	}
}

// While a package is half done, its old scripts may still be wanted.
func TestAfterHalfDone(t *testing.T) {
	h, dir := hookOf(t, "install ok half-configured")
	for range 2 {
		verified, removed, problems, err := h.After(context.Background())
		if err != nil || verified != 2 || len(removed) != 0 || len(problems) != 1 {
			t.Errorf("%d verified, %d removed, %v, %v", verified, len(removed), problems, err)
		}
	}
	if got := names(t, dir); len(got) != 3 {
		t.Error(got)
	}
}
