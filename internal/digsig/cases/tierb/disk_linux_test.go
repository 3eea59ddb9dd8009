package tierb

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"midplane/digsig"
	"midplane/internal/lab"
)

// key is the administrator's, and stranger's nobody trusts.
var key, stranger = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))

func signerOf(t *testing.T, k ed25519.PrivateKey) *digsig.Signer {
	t.Helper()
	s, err := digsig.NewSigner(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// loader is where programs of this processor name their loader.
const loader = "/lib64/ld-linux-x86-64.so.2"

// disk makes the image that the guest mounts at /mnt: prog with what is signed, bad with what is not, and meta.
func disk(t *testing.T) []string {
	lab.RequireTool(t, "gcc", "gcc libc6-dev")
	lab.RequireVM(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"prog", "bad", "meta", "fs", "low"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	gcc := func(to, source string, flags ...string) {
		t.Helper()
		out, err := exec.Command("gcc", append(append([]string{"-O1", "-o", at(to)}, flags...), filepath.Join("testdata", source))...).CombinedOutput()
		if err != nil {
			t.Fatalf("gcc %s: %v\n%s", source, err, out)
		}
	}
	write := func(to string, b []byte) {
		t.Helper()
		if err := os.WriteFile(at(to), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	gcc("prog/hello", "hello.c")
	gcc("prog/static", "hello.c", "-static")
	gcc("prog/hello32", "hello32.c", "-m32", "-nostdlib", "-static", "-fno-pic", "-no-pie")
	gcc("prog/load", "load.c")
	gcc("prog/lib.so", "lib.c", "-shared", "-fPIC")
	gcc("prog/hijack", "load.c", "-Wl,-rpath,/mnt/bad", "-Wl,--no-as-needed", "-L"+at("prog"), "-l:lib.so")
	gcc("prog/badloader", "hello.c", "-Wl,--dynamic-linker=/mnt/bad/loader")
	write("prog/ld", read(loader))
	write("prog/shell", read("/bin/dash"))
	write("prog/probe", read("/proc/self/exe"))
	write("prog/script", []byte("#!/mnt/prog/shell\necho ran\n"))
	write("prog/badscript", []byte("#!/mnt/bad/shell\necho ran\n"))
	write("prog/magic", []byte("MPMAGIC\x00 is for binfmt_misc"))
	write("prog/dummy.ko", lab.VMModule(t, "dummy"))
	gcc("bad/hello", "hello.c", "-DUNSIGNED")
	gcc("bad/lib.so", "lib.c", "-shared", "-fPIC", "-DUNSIGNED")
	write("bad/loader", append(read(loader), "unsigned"...))
	write("bad/shell", read("/bin/dash"))
	write("bad/script", []byte("#!/mnt/prog/shell\n# unsigned\necho ran\n"))
	write("bad/marker", []byte("#!/mnt/prog/shell\necho ran > /dev/shm/marker\n"))
	write("bad/module.ko", lab.VMModule(t, "ifb"))
	for _, name := range []string{"stranger", "expired", "future", "revoked", "old"} {
		write("bad/"+name, read(at("prog/hello")))
	}
	issued := time.Now().Add(-time.Hour)
	signed := func(name string, o digsig.Template, k ed25519.PrivateKey) {
		t.Helper()
		if _, err := digsig.SignFile(t.Context(), at(name), digsig.SignOptions{Template: o}, signerOf(t, k)); err != nil {
			t.Fatalf("sign %s: %v", name, err)
		}
	}
	for _, name := range []string{"hello", "static", "hello32", "load", "lib.so", "hijack", "badloader", "ld", "shell", "probe"} {
		signed("prog/"+name, digsig.Template{Name: name, Version: 5, Issued: issued}, key)
	}
	signed("bad/stranger", digsig.Template{Issued: issued}, stranger)
	signed("bad/expired", digsig.Template{Issued: issued, Expires: issued.Add(time.Minute)}, key)
	signed("bad/future", digsig.Template{Issued: issued.Add(24 * time.Hour)}, key)
	signed("bad/revoked", digsig.Template{Name: "revoked", Version: 1, Issued: issued}, key)
	signed("bad/old", digsig.Template{Name: "old", Version: 1, Issued: issued}, key)

	// What is not signed in itself: the system's libraries, scripts, a module.
	var entries []digsig.ManifestEntry
	list := func(path string, o digsig.Template) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		o.Issued = issued
		st, err := digsig.StatementOf(t.Context(), f, info.Size(), o)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, digsig.EntryOf(st))
	}
	for _, path := range system {
		list(path, digsig.Template{Roles: digsig.RoleLib | digsig.RoleInterp})
	}
	list(at("prog/script"), digsig.Template{})
	list(at("prog/badscript"), digsig.Template{})
	list(at("prog/magic"), digsig.Template{Roles: digsig.RoleExec})
	list(at("prog/dummy.ko"), digsig.Template{Roles: digsig.RoleModule})
	b, err := digsig.SignManifest(digsig.ManifestHeader{Name: "system", Version: 1, Issued: issued.Truncate(time.Second)}, entries, signerOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	write("meta/manifest", b)
	inner := lab.Ext4Image(t, lab.Ext4{Size: 8, From: at("bad/../fs")})
	write("meta/loop.img", read(inner))
	return []string{lab.Ext4Image(t, lab.Ext4{Size: 192, From: dir})}
}

// system are the host's libraries that programs of the disk need, from the guest's root: an overlay, without fs-verity.
var system = []string{loader, "/lib/x86_64-linux-gnu/libc.so.6"}
