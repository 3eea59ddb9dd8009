package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"midplane/internal/digsig/envelope"

	"pgregory.net/rapid"
)

var header = Header{Name: "debian", Version: 12, Issued: time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC)}

func entry(i int) Entry {
	return Entry{Digest: sha256.Sum256(fmt.Append(nil, i)), Size: uint64(i), Kind: envelope.KindELF, Roles: envelope.RoleExec, Name: fmt.Sprint("file ", i), Version: uint64(i)}
}

func encode(t testing.TB, h Header, entries []Entry) []byte {
	t.Helper()
	b, err := Append(nil, h, entries)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A manifest finds what was put into it and nothing else, as a map does.
func TestManifestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 50).Draw(t, "files")
		want := map[[32]byte]Entry{}
		var entries []Entry
		for range n {
			e := entry(rapid.IntRange(0, 60).Draw(t, "which"))
			e.Roles = envelope.Role(rapid.IntRange(1, int(envelope.AllRoles)).Draw(t, "roles"))
			if rapid.Bool().Draw(t, "verity") {
				e.Verity = &[32]byte{5}
			}
			entries = append(entries, e)
			if was, twice := want[e.Digest]; twice {
				e.Roles |= was.Roles
				if e.Verity == nil {
					e.Verity = was.Verity
				}
			}
			want[e.Digest] = e
		}
		b, err := Append(nil, header, entries)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header != header || m.Len() != len(want) {
			t.Fatalf("%+v of %d files, want %d", m.Header, m.Len(), len(want))
		}
		for i := range 61 {
			d := entry(i).Digest
			at, found := m.Find(&d)
			e, there := want[d]
			if found != there || (found && (!reflect.DeepEqual(m.At(at), e) || m.SizeAt(at) != e.Size || m.DigestAt(at) != d)) {
				t.Fatalf("file %d: found %v, want %v", i, found, there)
			}
		}
		for i := range m.Len() {
			name := m.At(i).Name
			if at, ok := m.Named(func(b []byte) bool { return string(b) == name }); !ok || m.At(at).Name != name {
				t.Fatalf("%q is found at %d, %v", name, at, ok)
			}
		}
		if _, ok := m.Named(func([]byte) bool { return false }); ok {
			t.Fatal("nothing has no name")
		}
		if again, err := Append(nil, m.Header, slices.Collect(m.All())); err != nil || !bytes.Equal(again, b) {
			t.Fatal("it does not encode to the same octets")
		}
	})
}

// Of 100,000 files one is found without allocation, in a bounded number of comparisons.
func TestHundredThousand(t *testing.T) {
	entries := make([]Entry, 100_000)
	for i := range entries {
		entries[i] = entry(i)
	}
	b := encode(t, header, entries)
	m, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		d := entries[i*97].Digest
		if at, ok := m.Find(&d); !ok || m.SizeAt(at) != uint64(i*97) {
			t.Errorf("file %d is not found", i*97)
		}
		d[0] ^= 0x80
		if _, ok := m.Find(&d); ok {
			t.Errorf("what is not there is found")
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	t.Logf("%d octets, %.1f a file", len(b), float64(len(b))/float64(m.Len()))
}

func TestManifestRefused(t *testing.T) {
	for what, entries := range map[string][]Entry{
		"none":      nil,
		"kind":      {{Roles: 1}},
		"role":      {{Kind: 1}},
		"name":      {{Kind: 1, Roles: 1, Name: "a\nb"}},
		"two sizes": {entry(1), func() Entry { e := entry(1); e.Size = 9; return e }()},
		"two verities": {func() Entry { e := entry(1); e.Verity = &[32]byte{1}; return e }(),
			func() Entry { e := entry(1); e.Verity = &[32]byte{2}; return e }()},
	} {
		if _, err := Append(nil, header, entries); err == nil {
			t.Errorf("%s: it encodes", what)
		}
	}
	if _, err := Append(nil, Header{Issued: header.Issued, Name: " x"}, []Entry{entry(1)}); err == nil {
		t.Error("name: it encodes")
	}
	if _, err := Append(nil, Header{}, []Entry{entry(1)}); err == nil {
		t.Error("never issued: it encodes")
	}
	b := encode(t, header, []Entry{entry(1), entry(2), entry(3)})
	for n := range b {
		if _, err := Decode(b[:n]); err == nil {
			t.Errorf("cut to %d octets it decodes", n)
		}
	}
	first := headerSize + len(header.Name)
	for _, c := range []struct {
		what string
		do   func(b []byte)
	}{
		{"count 0", func(b []byte) { binary.BigEndian.PutUint32(b, 0) }},
		{"count 2", func(b []byte) { binary.BigEndian.PutUint32(b, 2) }},
		{"count huge", func(b []byte) { binary.BigEndian.PutUint32(b, 0xffffffff) }},
		{"names huge", func(b []byte) { binary.BigEndian.PutUint32(b[4:], 0xffffffff) }},
		{"never issued", func(b []byte) { binary.BigEndian.PutUint64(b[16:], 0) }},
		{"expired at once", func(b []byte) { copy(b[24:32], b[16:24]) }},
		{"issued far away", func(b []byte) { b[16] = 0x7f }},
		{"reserved", func(b []byte) { b[39] = 1 }},
		{"control in the name", func(b []byte) { b[headerSize] = 7 }},
		{"order", func(b []byte) { copy(b[first+entrySize:first+entrySize+32], b[first:first+32]) }},
		{"kind", func(b []byte) { b[first+48] = 0 }},
		{"roles", func(b []byte) { b[first+49] = 0 }},
		{"flags", func(b []byte) { b[first+50] = 2 }},
		{"verity without flag", func(b []byte) { b[first+56] = 1 }},
		{"name elsewhere", func(b []byte) { b[first+55] = 1 }},
		{"name too long", func(b []byte) { b[first+51] = 255 }},
		{"name too short", func(b []byte) { b[first+51] = 5 }},
		{"names left over", func(b []byte) { b[first+2*entrySize+51]-- }},
		{"control in a name", func(b []byte) { b[len(b)-1] = 7 }},
	} {
		x := slices.Clone(b)
		c.do(x)
		if _, err := Decode(x); err == nil {
			t.Errorf("%s: it decodes", c.what)
		}
	}
	if _, err := Decode(append(slices.Clone(b), 0)); err == nil {
		t.Error("octets behind: it decodes")
	}
}

// FuzzManifest decodes any octets: what decodes encodes to the same octets and finds each of its files.
func FuzzManifest(f *testing.F) {
	v := entry(4)
	v.Verity = &[32]byte{1}
	f.Add(encode(f, header, []Entry{entry(1), entry(2), v}))
	f.Add(encode(f, Header{Issued: header.Issued, Expires: header.Issued.Add(time.Hour)}, []Entry{entry(1)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Append(nil, m.Header, slices.Collect(m.All()))
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes to %x, %v", b, again, err)
		}
		for i := range m.Len() {
			d := m.DigestAt(i)
			if at, ok := m.Find(&d); !ok || at != i {
				t.Fatalf("file %d is found at %d, %v", i, at, ok)
			}
		}
	})
}
