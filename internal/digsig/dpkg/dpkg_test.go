package dpkg

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"midplane/digsig"
)

// tree writes files below a directory and returns it.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const status = `Package: one
Status: install ok installed
Architecture: amd64
Version: 1:2.0-3
Description: first
 more of it
 .

Package: lib
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 1

Package: left
Status: deinstall ok config-files
Architecture: all
Version: 9

Package: gone
Status: purge ok not-installed
`

func TestDatabase(t *testing.T) {
	root := tree(t, map[string]string{
		"var/lib/dpkg/status":              status,
		"var/lib/dpkg/info/one.list":       "/.\n/usr/bin/one\n/usr/bin/renamed\n/lib/deleted\n/etc\n",
		"var/lib/dpkg/info/one.md5sums":    "8b2b5c5ea3b2d46d2e3e0be6ebdee9ae  usr/bin/one\n",
		"var/lib/dpkg/info/one.postinst":   "#!/bin/sh\n",
		"var/lib/dpkg/info/lib:amd64.list": "/usr/lib/lib.so\n",
		"var/lib/dpkg/info/left.postrm":    "#!/bin/sh\n#left\n",
		"var/lib/dpkg/diversions":          "/usr/bin/renamed\n/usr/bin/renamed.one\nlib\n",
		"usr/bin/one":                      "#!/bin/sh\necho one\n",
		"usr/bin/renamed":                  "#!/bin/sh\necho of lib\n",
		"usr/bin/renamed.one":              "#!/bin/sh\necho of one\n",
		"usr/lib/lib.so":                   "\x7fELF, hardly",
		"usr/local/bin/own":                "#!/bin/sh\n#own\n",
		"usr/share/doc/readme":             "read\n",
	})
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	db, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var ids []string
	for _, p := range db.Packages() {
		ids = append(ids, p.ID())
	}
	if want := []string{"one_1%3a2.0-3_amd64", "lib_1_amd64", "left_9_all"}; !slices.Equal(ids, want) {
		t.Errorf("%v: want %v", ids, want)
	}
	one, err := db.Find("one:amd64")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Find("gone"); err == nil {
		t.Error("a package that is not there was found")
	}
	files, err := db.Files(one)
	if want := []string{"usr/bin/one", "usr/bin/renamed.one", "lib/deleted", "etc", "var/lib/dpkg/info/one.postinst"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v, %v: want %v", files, err, want)
	}
	b := &Builder{Issued: time.Unix(1000, 0)}
	var entries, failed int
	err = b.Installed(context.Background(), db, nil, 2, func(r *Built) {
		entries += len(r.Entries)
		for _, f := range r.Failed {
			failed++
			if f.Path != "/usr/bin/one" || !strings.Contains(f.Err.Error(), "not as its package came") {
				t.Error(f)
			}
		}
	})
	// renamed.one, one.postinst, lib.so, left.postrm; one differs from its sum.
	if err != nil || entries != 4 || failed != 1 {
		t.Errorf("%d entries, %d failed, %v", entries, failed, err)
	}
	b.Changed = true
	entries = 0
	if err = b.Installed(context.Background(), db, []*Package{one}, 1, func(r *Built) { entries = len(r.Entries) }); err != nil || entries != 3 {
		t.Errorf("%d entries, %v", entries, err)
	}
	var own []string
	err = b.Unowned(context.Background(), db, []string{"usr", "bin", "none"}, func(name string, e digsig.ManifestEntry, err error) {
		own = append(own, name)
		if err != nil || e.Name != "/"+name {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	})
	if want := []string{"usr/bin/renamed", "usr/local/bin/own"}; err != nil || !slices.Equal(own, want) {
		t.Errorf("%v, %v: want %v", own, err, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Installed(ctx, db, nil, 2, func(*Built) { t.Error("done") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Names that lead out of the root reach nothing there.
func TestOutOfRoot(t *testing.T) {
	outside := tree(t, map[string]string{"secret": "#!/bin/sh\n"})
	root := tree(t, map[string]string{
		"var/lib/dpkg/status":      "Package: p\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
		"var/lib/dpkg/info/p.list": "/../../../../" + outside + "/secret\n/link\n",
	})
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	db, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b := &Builder{Issued: time.Unix(1000, 0)}
	err = b.Installed(context.Background(), db, nil, 1, func(r *Built) {
		if len(r.Entries) > 0 {
			t.Errorf("%+v", r.Entries)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestMalformed(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no database":     {},
		"no package":      {"var/lib/dpkg/status": "Status: install ok installed\n"},
		"short status":    {"var/lib/dpkg/status": "Package: p\nStatus: installed\n"},
		"no field":        {"var/lib/dpkg/status": "Package\n"},
		"diversions":      {"var/lib/dpkg/status": "", "var/lib/dpkg/diversions": "/a\n/b\n"},
		"a line too long": {"var/lib/dpkg/status": "Package: " + strings.Repeat("p", maxLine) + "\n"},
	} {
		if db, err := Open(tree(t, files)); err == nil {
			t.Errorf("%s: %v", name, db.Packages())
		}
	}
	root := tree(t, map[string]string{
		"var/lib/dpkg/status":         "Package: p\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
		"var/lib/dpkg/info/p.list":    "/x\n",
		"var/lib/dpkg/info/p.md5sums": "short  x\n",
	})
	db, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := (&Builder{}).Installed(context.Background(), db, nil, 1, func(*Built) {}); err == nil || !strings.Contains(err.Error(), "package p") {
		t.Error(err)
	}
}

// A package whose names would lead elsewhere is refused, and so is what is no package.
func TestIdentify(t *testing.T) {
	deb := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(deb, []byte("!<arch>\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := Identify(context.Background(), deb); err == nil {
		t.Error(p)
	}
	if p := (&Package{Name: "a", Version: "2:1.0~rc1", Architecture: "amd64"}); p.ID() != "a_2%3a1.0~rc1_amd64" {
		t.Error(p.ID())
	}
}
