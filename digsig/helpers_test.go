package digsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"midplane/internal/digsig/elfsig/elftest"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// testKey is a key from a seed.
func testKey(t testing.TB, seed byte) *Signer {
	t.Helper()
	s, err := NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// trusting makes a store that trusts signers for everything.
func trusting(t testing.TB, signers ...*Signer) *TrustStore {
	t.Helper()
	var keys []*Key
	for _, s := range signers {
		keys = append(keys, &Key{Public: s.Public(), Comment: "test", Purposes: AllPurposes, Roles: AllRoles})
	}
	store, err := NewTrustStore(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func verifier(t testing.TB, c Config) *Verifier {
	t.Helper()
	if c.Now.IsZero() {
		c.Now = now
	}
	v, err := NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// memory is a file in memory that can be written.
type memory struct{ b []byte }

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	if end := int(off) + len(b); end > cap(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	} else if end > len(m.b) {
		m.b = m.b[:end]
	}
	return copy(m.b[off:], b), nil
}

func embed(t testing.TB, elf []byte, o Template, signers ...*Signer) []byte {
	t.Helper()
	if o.Issued.IsZero() {
		o.Issued = now.Add(-time.Hour)
	}
	var w memory
	if _, err := Embed(t.Context(), &w, bytes.NewReader(elf), int64(len(elf)), o, signers...); err != nil {
		t.Fatal(err)
	}
	return w.b
}

func (v *Verifier) bytes(t testing.TB, b []byte, use Use) Verdict {
	return v.Verify(t.Context(), bytes.NewReader(b), int64(len(b)), use, now)
}

// program is an ELF file that has something of everything.
var program = elftest.Spec{Interp: "/lib64/ld-linux-x86-64.so.2", Sections: []elftest.Section{
	{Name: ".data", Type: 1, Data: []byte("initialised data")}, {Name: ".symtab", Type: 2, Data: make([]byte, 48)}, {Name: ".note.other", Type: 7, Data: make([]byte, 24)},
}}

func p256Key(t testing.TB) *Signer {
	t.Helper()
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func trustedFor(s *Signer, change func(*Key)) *Key {
	k := &Key{Public: s.Public(), Comment: "test", Purposes: AllPurposes, Roles: AllRoles}
	change(k)
	return k
}

func storeOf(t testing.TB, keys ...*Key) *TrustStore {
	t.Helper()
	s, err := NewTrustStore(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func revoking(t testing.TB, serial uint64, by *Signer, change func(*Revocations)) []byte {
	t.Helper()
	l := &Revocations{Serial: serial, Issued: now.Add(-time.Hour), Digests: map[[32]byte]string{}, Keys: map[KeyID]string{}, Below: map[string]Minimum{}}
	if change != nil {
		change(l)
	}
	b, err := SignRevocations(l, by)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func policyOf(t testing.TB, version uint64, by *Signer, change func(*Policy)) []byte {
	t.Helper()
	p := &Policy{Version: version, Issued: now.Add(-time.Hour), Exempt: map[[32]byte]string{}, Interpreters: map[[32]byte]Interpreter{}}
	if change != nil {
		change(p)
	}
	b, err := SignPolicy(p, by)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func want(t *testing.T, got Verdict, r Reason, words string) {
	t.Helper()
	if got.Reason != r || got.Allow != r.Allows() || !strings.Contains(got.Detail, words) {
		t.Errorf("%s: want %s with %q", got, r, words)
	}
}

func manifestOf(t testing.TB, key *Signer, files ...[]byte) []byte {
	t.Helper()
	var entries []ManifestEntry
	for i, b := range files {
		st, err := StatementOf(t.Context(), bytes.NewReader(b), int64(len(b)), Template{Issued: now, Name: fmt.Sprint("file ", i), Version: 5})
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, EntryOf(st))
	}
	b, err := SignManifest(ManifestHeader{Name: "some", Version: 1, Issued: now.Add(-time.Hour)}, entries, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// smallELF returns a small ELF file.
func smallELF(t testing.TB) []byte {
	t.Helper()
	return elftest.Build(program).Bytes
}

// errReader cannot be read.
type errReader struct{}

func (errReader) ReadAt([]byte, int64) (int, error) { return 0, errors.New("disk on fire") }
