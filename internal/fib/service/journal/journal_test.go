package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// open opens a directory and returns what is in it.
func open(t testing.TB, dir string) (*Store, []string, Report) {
	t.Helper()
	var l []string
	s, rep, err := Open(dir, true, func(p []byte) error { l = append(l, string(p)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return s, l, rep
}

func add(t testing.TB, s *Store, payload string) {
	t.Helper()
	ticket, err := s.Append([]byte(payload))
	if err == nil {
		err = s.Wait(ticket)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// compact makes l the snapshot.
func compact(t testing.TB, s *Store, l []string) {
	t.Helper()
	if err := s.Compact(func(emit func([]byte) error) error {
		for _, p := range l {
			if err := emit([]byte(p)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestJournalKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "state")
	var want []string
	for life := range 5 {
		s, got, rep := open(t, dir)
		if !slices.Equal(got, want) || rep.Records != len(want) || rep.Dropped != 0 {
			t.Fatalf("life %d: %q, %+v; want %q", life, got, rep, want)
		}
		for i := range 4 {
			p := fmt.Sprint(life, " ", i, strings.Repeat("x", 100*i))
			add(t, s, p)
			want = append(want, p)
		}
		if life%2 == 1 {
			want = want[2:]
			compact(t, s, want)
			if snapshot, log := s.Sizes(); log != fileHead || snapshot <= fileHead {
				t.Errorf("after compaction: %d, %d octets", snapshot, log)
			}
			add(t, s, "behind")
			want = append(want, "behind")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(l) != 3 { // lock, snapshot, journal
		t.Errorf("files: %q", l)
	}
}

// Whatever was written of the last record, all before it are read and the journal goes on behind them.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s, _, _ := open(t, dir)
	add(t, s, "first")
	add(t, s, "second")
	s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, "journal.0"))
	if err != nil {
		t.Fatal(err)
	}
	second := len(whole) - headSize - len("second")
	for cut := range len(whole) {
		for _, tail := range [][]byte{nil, make([]byte, 40), bytes.Repeat([]byte{0xff}, 40)} {
			d := t.TempDir()
			if err := os.WriteFile(filepath.Join(d, "journal.0"), append(slices.Clone(whole[:cut]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			var got []string
			s, rep, err := Open(d, false, func(p []byte) error { got = append(got, string(p)); return nil })
			if cut < fileHead {
				// The head is written and on disk before the first record is: what has not even that is nothing of ours.
				if len(got) != 0 || len(tail) == 0 && err != nil {
					t.Fatalf("cut at %d, tail of %d: %q, %v", cut, len(tail), got, err)
				}
				if err == nil {
					s.Close()
				}
				continue
			}
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			want := []string{}
			if cut >= second {
				want = append(want, "first")
			}
			if !slices.Equal(got, want) || (rep.Dropped > 0) != (cut+len(tail) > fileHead && cut+len(tail) != second) && cut != fileHead {
				t.Fatalf("cut at %d, tail of %d: %q, %+v; want %q", cut, len(tail), got, rep, want)
			}
			add(t, s, "more")
			s.Close()
			s, got, rep = open(t, d)
			if !slices.Equal(got, append(want, "more")) || rep.Dropped != 0 {
				t.Fatalf("cut at %d, after: %q, %+v", cut, got, rep)
			}
			s.Close()
		}
	}
}

// Every single octet that is damaged is found out: in the journal what is before it counts, in a snapshot nothing does.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s, _, _ := open(t, dir)
	compact(t, s, []string{"a", "b"})
	add(t, s, "c")
	add(t, s, "d")
	s.Close()
	for _, name := range []string{"snapshot.1", "journal.1"} {
		whole, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			d := t.TempDir()
			for _, other := range []string{"snapshot.1", "journal.1"} {
				b, _ := os.ReadFile(filepath.Join(dir, other))
				if other == name {
					b = slices.Clone(whole)
					b[i] ^= 0x40
				}
				if err := os.WriteFile(filepath.Join(d, other), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			s, _, err := Open(d, false, func(p []byte) error { got = append(got, string(p)); return nil })
			if err == nil {
				s.Close()
			}
			switch {
			case name == "snapshot.1" && !errors.Is(err, ErrCorrupt):
				t.Fatalf("%s octet %d: %v", name, i, err)
			case name == "journal.1" && i >= fileHead && (err != nil || len(got) > 3 || !slices.Equal(got, []string{"a", "b", "c", "d"}[:len(got)])):
				t.Fatalf("%s octet %d: %q, %v", name, i, got, err)
			case name == "journal.1" && i < fileHead && err == nil:
				t.Fatalf("%s octet %d of the head: no error", name, i)
			}
		}
	}
}

// A crash between any two steps of a compaction leaves the old state or the new one, which are equal.
func TestCompactionInterrupted(t *testing.T) {
	base := t.TempDir()
	s, _, _ := open(t, base)
	add(t, s, "a")
	add(t, s, "b")
	s.Close()
	after := t.TempDir()
	copyDir(t, base, after)
	s, _, _ = open(t, after)
	compact(t, s, []string{"a", "b"})
	s.Close()
	read := func(dir, name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	old, snapshot, empty := read(base, "journal.0"), read(after, "snapshot.1"), read(after, "journal.1")
	for i, files := range []map[string][]byte{
		{"journal.0": old, "snapshot.new": snapshot[:len(snapshot)/2]},
		{"journal.0": old, "snapshot.new": snapshot},
		{"journal.0": old, "snapshot.new": snapshot, "journal.1": empty[:3]},
		{"journal.0": old, "snapshot.new": snapshot, "journal.1": empty},
		{"journal.0": old, "snapshot.1": snapshot, "journal.1": empty},
		{"snapshot.1": snapshot, "journal.1": empty},
	} {
		d := t.TempDir()
		for name, b := range files {
			if err := os.WriteFile(filepath.Join(d, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, got, _ := open(t, d)
		if !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("step %d: %q", i, got)
		}
		add(t, s, "c")
		s.Close()
		s, got, _ = open(t, d)
		if !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("step %d, after: %q", i, got)
		}
		s.Close()
		if l, _ := filepath.Glob(filepath.Join(d, "*")); len(l) > 3 {
			t.Errorf("step %d: files %q", i, l)
		}
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestOneDaemonADirectory(t *testing.T) {
	dir := t.TempDir()
	s, _, _ := open(t, dir)
	defer s.Close()
	if _, _, err := Open(dir, true, nil); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second one: %v", err)
	}
}

// Many at once share the synchronisation, and each waits for its own.
func TestAppendAtOnce(t *testing.T) {
	dir := t.TempDir()
	s, _, _ := open(t, dir)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 20 {
				ticket, err := s.Append([]byte(fmt.Sprint(i, " ", k)))
				if err == nil {
					err = s.Wait(ticket)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.Close()
	if _, err := s.Append([]byte("late")); err == nil {
		t.Error("a closed store took a record")
	}
	s, got, _ := open(t, dir)
	defer s.Close()
	if len(got) != 160 {
		t.Errorf("%d records", len(got))
	}
	if _, err := s.Append(nil); err == nil {
		t.Error("an empty record was taken")
	}
}

func TestTableFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "table")
	if err := WriteFile(name, true, func(emit func([]byte) error) error { return errors.Join(emit([]byte("x")), emit([]byte("y"))) }); err != nil {
		t.Fatal(err)
	}
	var got []string
	read := func() error {
		got = nil
		return ReadFile(name, func(p []byte) error { got = append(got, string(p)); return nil })
	}
	if err := read(); err != nil || !slices.Equal(got, []string{"x", "y"}) {
		t.Fatalf("%q, %v", got, err)
	}
	whole, _ := os.ReadFile(name)
	for cut := range len(whole) {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := read(); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, 3, []byte("one")), 3, []byte("two")))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 1, 0, 0, 0, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		good, err := scan(bytes.NewReader(b), 3, func(p []byte) error {
			again = appendRecord(again, 3, p)
			return nil
		})
		if !bytes.Equal(again, b[:good]) {
			t.Errorf("%d octets were right and are written as %x", good, again)
		}
		if (err == nil) != (int(good) == len(b)) {
			t.Errorf("%d of %d octets, %v", good, len(b), err)
		}
	})
}
