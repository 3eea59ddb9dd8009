package trust

import (
	"bytes"
	"crypto/ed25519"
	"reflect"
	"strings"
	"testing"
	"time"

	"midplane/internal/digsig/envelope"
)

func key(t testing.TB) *Key {
	t.Helper()
	pub, err := envelope.FromCrypto(ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
	if err != nil {
		t.Fatal(err)
	}
	return &Key{
		Public: pub, Comment: `the "release" key`, Purposes: Content | Manifest, Kinds: []envelope.Kind{envelope.KindELF, envelope.KindScript},
		Roles: envelope.RoleExec | envelope.RoleLib, Names: []string{"nginx*", "open ssl"},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func TestKeyFile(t *testing.T) {
	k := key(t)
	b, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var got Key
	if err := got.UnmarshalText(b); err != nil || !reflect.DeepEqual(&got, k) {
		t.Fatalf("%+v, %v\n%s", got, err, b)
	}
	// Comments and the order of lines do not matter.
	if err := got.UnmarshalText([]byte(strings.Replace(string(b), "\n", "\n# a comment\n\n", 1))); err != nil {
		t.Error(err)
	}
	for change, want := range map[[2]string]string{
		{"midplane digsig key 1", "midplane digsig key 2"}: "line 1",
		{"ed25519", "rsa"}:                                          "algorithm",
		{"algorithm ed25519\n", ""}:                                 "without algorithm",
		{"public ", "public !"}:                                     "base64",
		{"\nid ", "\nid 0"}:                                         "id",
		{"purposes content", "purposes root"}:                       "purpose",
		{"kind elf", "kind exe"}:                                    "kind",
		{"roles exec", "roles all"}:                                 "role",
		{"roles exec,lib\n", ""}:                                    "without roles",
		{"not-after 2030", "not-after 2025"}:                        "not-after",
		{"not-after 2030-01-01T", "not-after 2030-01-01 "}:          "its value",
		{"not-before 2026-01-01T00:00:00Z", "not-before yesterday"}: "want a time",
		{"comment", "remark"}:                                       "remark",
		{"purposes", "purposes content\npurposes"}:                  "twice",
		{`"the \"release\" key"`, "\"a\u202eb\""}:                   "control",
		{"algorithm ed25519", "algorithm ecdsa-p256"}:               "curve",
	} {
		x := strings.Replace(string(b), change[0], change[1], 1)
		if x == string(b) {
			t.Fatalf("nothing to change: %q", change[0])
		}
		if err := got.UnmarshalText([]byte(x)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v: want one with %q", change[1], err, want)
		}
	}
}

func TestMaySign(t *testing.T) {
	k := key(t)
	for _, c := range []struct {
		kind  envelope.Kind
		roles envelope.Role
		name  string
		good  bool
	}{
		{envelope.KindELF, envelope.RoleExec, "nginx-core", true},
		{envelope.KindScript, envelope.RoleLib, "open ssl", true},
		{envelope.KindFile, envelope.RoleExec, "nginx", false},
		{envelope.KindELF, envelope.RoleExec | envelope.RoleModule, "nginx", false},
		{envelope.KindELF, envelope.RoleExec, "bash", false},
		{envelope.KindELF, envelope.RoleExec, "", false},
	} {
		if err := k.MaySign(c.kind, c.roles, c.name); (err == nil) != c.good {
			t.Errorf("%v: %v", c, err)
		}
	}
	free := &Key{Public: k.Public, Purposes: Content, Roles: envelope.AllRoles}
	if err := free.MaySign(envelope.KindFile, envelope.AllRoles, ""); err != nil {
		t.Error(err)
	}
}

func TestStore(t *testing.T) {
	k := key(t)
	if _, err := NewStore(k, key(t)); err == nil {
		t.Error("a key is there twice")
	}
	if _, err := NewStore(&Key{Public: k.Public}); err == nil {
		t.Error("a key without purposes")
	}
	s, err := NewStore(k)
	if err != nil || s.Key(k.ID()) != k || s.Key(envelope.KeyID{}) != nil || s.Len() != 1 || s.Keys()[0] != k {
		t.Error(s, err)
	}
	if p, err := ParsePurposes(AllPurposes.String()); err != nil || p != AllPurposes {
		t.Error(p, err)
	}
}

// FuzzKeyFile reads any text: what is a key can be written and read again.
func FuzzKeyFile(f *testing.F) {
	b, err := key(f).MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var k, again Key
		if k.UnmarshalText(b) != nil {
			return
		}
		out, err := k.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(out); err != nil {
			t.Fatal(err)
		}
		if third, err := again.MarshalText(); err != nil || !bytes.Equal(third, out) {
			t.Fatalf("%q, then %q", out, third)
		}
	})
}
