//go:build unix

package keyfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	k := generate(t, Ed25519)
	data, err := Marshal(k, []byte("x"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(path, data); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	got, err := Read(path, Options{Phrase: give("x")})
	if err != nil || !same(got.Public(), k.Public()) {
		t.Fatal(err)
	}
	if err := Write(path, []byte("other")); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("written over: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the key of before is gone: %v", err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o622} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, Options{Phrase: give("x")}); err == nil || !strings.Contains(err.Error(), "others than its owner") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, Options{Phrase: give("x")}); err != nil {
		t.Errorf("mode 0400: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(fifo, Options{}); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a FIFO: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, Options{Phrase: give("x")}); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("somebody else's: %v", err)
		}
	}
}

type scripted struct{ asked []string }

func (s *scripted) Ask(p string) ([]byte, error) {
	s.asked = append(s.asked, p)
	return []byte("typed"), nil
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("secret", "from file\r\nnot this\n", 0o600)
	open := write("open", "from file\n", 0o644)
	empty := write("empty", "\nx", 0o600)
	long := write("long", strings.Repeat("x", maxPhrase+1), 0o600)
	write("cred", "from credential", 0o600)
	t.Setenv("DS_TEST", "from env")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for _, c := range []struct{ spec, want, err string }{
		{"ask", "typed", ""},
		{"", "typed", ""},
		{"env:DS_TEST", "from env", ""},
		{"env:DS_TEST_NOT_SET", "", "is not set"},
		{"file:" + secret, "from file", ""},
		{"file:" + open, "", "others than its owner"},
		{"file:" + empty, "", "first line is empty"},
		{"file:" + long, "", "longer than"},
		{"file:" + dir + "/none", "", "no such file"},
		{"credential:cred", "from credential", ""},
		{"credential:../cred", "", "without slashes"},
		{"credential:..", "", "without slashes"},
		{"fd:x", "", "number of an open file descriptor"},
		{"fd:-1", "", "number of an open file descriptor"},
		{"fd:987654", "", "bad file descriptor"},
		{"env:", "", "nothing behind the colon"},
		{"secret", "", "want ask"},
	} {
		var got []byte
		p, err := Source(c.spec, &scripted{})
		if err == nil {
			got, err = p("k")
		}
		if string(got) != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %q, %v: want %q, %q", c.spec, got, err, c.want, c.err)
		}
	}
	write(CredentialName, "the default\n", 0o600)
	if p, err := Source("", nil); err != nil {
		t.Error(err)
	} else if got, err := p("k"); string(got) != "the default" {
		t.Errorf("%q, %v", got, err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if p, err := Source("", nil); err != nil {
		t.Error(err)
	} else if _, err := p("k"); !errors.Is(err, ErrNoTerminal) {
		t.Error(err)
	}
	if _, err := Source("credential:cred", nil); err == nil {
		t.Error("a credential without a directory of them")
	}
}

// A descriptor can be read once, but one command may ask twice; what follows the line stays for others.
func TestSourceDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("piped\nrest"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	fd, err := syscall.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Source("fd:"+strconv.Itoa(fd), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := p("k")
		if err != nil || string(got) != "piped" {
			t.Fatalf("%q, %v", got, err)
		}
		clear(got)
	}
	rest := make([]byte, 10)
	if n, err := r.Read(rest); err != nil || string(rest[:n]) != "rest" {
		t.Errorf("%q, %v", rest[:n], err)
	}
}
