package digsig

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"midplane/internal/digsig/elfsig"
	"midplane/internal/lab"
)

// Every ELF file of /usr is signed into a copy that verifies and becomes itself again; those that take no note are refused
// in words and verify by a manifest. Of 100 programs the signed copy has the same libraries as the original, and the
// programs of coreutils among all say the same.
func TestIntegrationEveryELFOfUsr(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: reads all of /usr")
	}
	lab.RequireTool(t, "ldd", "libc-bin")
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	nodes, _, err := walk(t.Context(), []string{"/usr"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var mu sync.Mutex
	var programs, refused []string
	var signed int
	var size int64
	var entries []ManifestEntry
	parallel(len(nodes), func(i int) {
		name := nodes[i].paths[0]
		f, _, err := OpenRegular(name)
		if err != nil {
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || info.Size() > 256<<20 {
			return
		}
		kind, err := sniff(f, info.Size())
		if err != nil || kind != KindELF {
			return
		}
		copied := &memory{make([]byte, 0, info.Size()+64<<10)}
		_, err = Embed(t.Context(), copied, f, info.Size(), Template{Name: filepath.Base(name), Issued: now}, key)
		var cannot *CannotEmbedError
		if errors.As(err, &cannot) {
			st, err := StatementOf(t.Context(), f, info.Size(), Template{Issued: now})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			mu.Lock()
			refused = append(refused, name+": "+cannot.Why)
			entries = append(entries, EntryOf(st))
			mu.Unlock()
			return
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		after := bytes.NewReader(copied.b)
		got := v.Verify(t.Context(), after, after.Size(), UseLib, now)
		if !got.Allow {
			t.Errorf("%s: %s", name, got)
		}
		again := &compare{f: f, t: t, name: name}
		if n, err := Remove(t.Context(), again, after, after.Size()); err != nil || n != info.Size() {
			t.Errorf("%s: without its note %d octets, %v: it had %d", name, n, err, info.Size())
		}
		found, err := elfsig.Find(f, info.Size())
		mu.Lock()
		signed++
		size += info.Size()
		if err == nil && found.Interp && info.Mode().Perm()&0o111 != 0 && strings.HasPrefix(name, "/usr/bin/") {
			programs = append(programs, name)
		}
		mu.Unlock()
	})
	t.Logf("%d ELF files of %d MB are signed; %d take no note, for instance %q", signed, size>>20, len(refused), refused[:min(3, len(refused))])
	if signed < 100 {
		t.Errorf("only %d ELF files", signed)
	}
	if len(entries) > 0 {
		list, err := SignManifest(ManifestHeader{Name: "usr", Issued: now}, entries, key)
		if err != nil {
			t.Fatal(err)
		}
		v := verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{list}})
		for _, line := range refused {
			name, _, _ := strings.Cut(line, ": ")
			want(t, v.VerifyFile(t.Context(), name, Request{Use: UseAny, At: now}), Signed, "manifest")
		}
	}
	rand.Shuffle(len(programs), func(i, j int) { programs[i], programs[j] = programs[j], programs[i] })
	said := 0
	for _, name := range programs[:min(100, len(programs))] {
		said += runs(t, dir, name, key, false)
	}
	for _, name := range []string{"ls", "cat", "sort", "date", "stat", "sha256sum", "env", "seq"} {
		if path, err := exec.LookPath(name); err == nil {
			said += runs(t, dir, path, key, true)
		}
	}
	if said == 0 {
		t.Error("no program said anything")
	}
}

// compare complains of the first octet that is written and is not the file's.
type compare struct {
	f    *os.File
	t    *testing.T
	name string
}

func (c *compare) WriteAt(b []byte, off int64) (int, error) {
	was := make([]byte, len(b))
	if _, err := c.f.ReadAt(was, off); err != nil || !bytes.Equal(was, b) {
		c.t.Errorf("%s: without its note it is not what it was: %v", c.name, err)
		return 0, errors.New("not the same")
	}
	return len(b), nil
}

var address = regexp.MustCompile(`\(0x[0-9a-f]+\)`)

// runs compares what a copy of a program and its signed copy say: of their libraries, and of their version where that is
// known to do nothing else. It returns whether they said anything.
func runs(t *testing.T, dir, name string, key *Signer, version bool) int {
	t.Helper()
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return 0
	}
	copied := filepath.Join(dir, filepath.Base(name))
	defer os.Remove(copied)
	say := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if ctx.Err() != nil {
			t.Errorf("%q did not end", args)
		}
		if err != nil {
			out = append(out, err.Error()...)
		}
		return address.ReplaceAllString(string(out), "")
	}
	both := func() string {
		s := say("ldd", copied)
		if version {
			s += say(copied, "--version")
		}
		return s
	}
	if err := os.WriteFile(copied, readFile(t, name), 0o755); err != nil {
		t.Fatal(err)
	}
	before := both()
	if _, err := SignFile(t.Context(), copied, SignOptions{Template: Template{Issued: now}}, key); err != nil {
		var cannot *CannotEmbedError
		if !errors.As(err, &cannot) {
			t.Errorf("%s: %v", name, err)
		}
		return 0
	}
	if after := both(); after != before {
		t.Errorf("%s says %q when it is signed, and %q before", name, after, before)
	}
	if strings.Contains(before, "=>") || strings.Contains(before, "ld-linux") {
		return 1
	}
	return 0
}
