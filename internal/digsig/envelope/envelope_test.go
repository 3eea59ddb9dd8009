package envelope

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func sig(key byte, alg Alg) Signature {
	return Signature{Alg: alg, Key: KeyID{key}, Sig: bytes.Repeat([]byte{key + 1}, SignatureSize)}
}

func encode(t testing.TB, e *Envelope) []byte {
	t.Helper()
	b, err := e.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != e.Size() {
		t.Fatalf("%d octets, Size says %d", len(b), e.Size())
	}
	return b
}

func TestEnvelope(t *testing.T) {
	e := &Envelope{Domain: Content, Signatures: []Signature{sig(1, Ed25519), sig(2, ECDSAP256), {Alg: 16, Key: KeyID{3}, Sig: make([]byte, 2420)}}, Body: []byte("body")}
	b := encode(t, e)
	got, err := Decode(b)
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, rest, err := DecodePrefix(append(slices.Clone(b), 7, 8)); err != nil || !bytes.Equal(rest, []byte{7, 8}) {
		t.Errorf("rest %v, %v", rest, err)
	}
	for n := range b {
		if _, err := Decode(b[:n]); err == nil {
			t.Errorf("cut to %d octets it decodes", n)
		}
	}
	one := encode(t, &Envelope{Domain: Content, Signatures: []Signature{sig(1, Ed25519)}, Body: []byte("body")})
	for _, c := range []struct {
		what string
		at   int
		v    byte
	}{
		{"magic", 0, 'm'}, {"version", 8, 2}, {"domain 0", 9, 0}, {"domain 5", 9, 5}, {"no signature", 11, 0}, {"9 signatures", 11, 9},
		{"256 signatures", 10, 1}, {"no body", 15, 0}, {"shorter body", 15, 3}, {"longer body", 15, 5}, {"huge body", 12, 0xff},
		{"algorithm 0", 16, 0}, {"reserved", 17, 1}, {"short signature", 19, 63}, {"long signature", 18, 1},
	} {
		x := slices.Clone(one)
		x[c.at] = c.v
		if _, err := Decode(x); err == nil {
			t.Errorf("%s: it decodes", c.what)
		}
	}
	for what, e := range map[string]*Envelope{
		"descending": {Domain: Content, Signatures: []Signature{sig(2, Ed25519), sig(1, Ed25519)}, Body: []byte("b")},
		"twice":      {Domain: Content, Signatures: []Signature{sig(1, Ed25519), sig(1, Ed25519)}, Body: []byte("b")},
		"no body":    {Domain: Content, Signatures: []Signature{sig(1, Ed25519)}},
		"no domain":  {Signatures: []Signature{sig(1, Ed25519)}, Body: []byte("b")},
		"nobody":     {Domain: Content, Body: []byte("b")},
		"too many":   {Domain: Content, Signatures: make([]Signature, 9), Body: []byte("b")},
		"short":      {Domain: Content, Signatures: []Signature{{Alg: Ed25519, Sig: make([]byte, 63)}}, Body: []byte("b")},
		"endless":    {Domain: Content, Signatures: []Signature{{Alg: 16, Sig: make([]byte, MaxSignature+1)}}, Body: []byte("b")},
	} {
		if _, err := e.Append(nil); err == nil {
			t.Errorf("%s: it encodes", what)
		}
	}
	swapped := slices.Clone(encode(t, e))
	first, second := swapped[16:116], swapped[116:216]
	tmp := slices.Clone(first)
	copy(first, second)
	copy(second, tmp)
	if _, err := Decode(swapped); err == nil {
		t.Error("signatures in descending order decode")
	}
}

// Domain, algorithm, key, other signers, length and content all change the message, and it is one line of ASCII.
func TestMessage(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	want := "midplane-digsig-v1 content ed25519 " + zeros + " " + zeros + " 3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if got := string(Message(Content, Ed25519, KeyID{}, [32]byte{}, 3, sha256.Sum256([]byte("abc")))); got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	seen := map[string]bool{}
	for _, d := range []Domain{Content, Manifest, Revocations, Policy} {
		for _, a := range []Alg{Ed25519, ECDSAP256, 16} {
			for _, k := range []KeyID{{}, {1}} {
				for _, list := range [][]Signature{nil, {sig(1, Ed25519)}, {sig(1, ECDSAP256)}, {sig(1, Ed25519), sig(2, Ed25519)}} {
					for _, body := range []string{"", "abc", "abd"} {
						seen[string(Message(d, a, k, Signers(list), uint64(len(body)), sha256.Sum256([]byte(body))))] = true
					}
				}
			}
		}
	}
	if len(seen) != 4*3*2*4*3 {
		t.Errorf("only %d different messages", len(seen))
	}
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeys(t *testing.T) {
	ed := ed25519.NewKeyFromSeed(make([]byte, 32))
	pub, err := FromCrypto(ed.Public())
	if err != nil {
		t.Fatal(err)
	}
	m := []byte("message")
	good := ed25519.Sign(ed, m)
	if !pub.Verify(m, good) || pub.Verify([]byte("other"), good) || pub.Verify(m, good[:63]) || pub.Verify(m, append(good, 0)) {
		t.Error("ed25519")
	}
	ec := ecKey(t)
	p256, err := FromCrypto(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if p256.Alg() != ECDSAP256 || len(p256.Raw()) != 65 || p256.ID() == pub.ID() {
		t.Error("P-256 key")
	}
	if again, err := ParseKeyID(pub.ID().String()); err != nil || again != pub.ID() {
		t.Error(again, err)
	}
	for _, s := range []string{"", "00", strings.Repeat("x", 64), strings.Repeat("0", 66)} {
		if _, err := ParseKeyID(s); err == nil {
			t.Errorf("key id %q is taken", s)
		}
	}
	low := ecSign(t, ec, m)
	high := slices.Clone(low)
	n := elliptic.P256().Params().N
	new(big.Int).Sub(n, new(big.Int).SetBytes(low[32:])).FillBytes(high[32:])
	if !p256.Verify(m, low) {
		t.Error("a good signature does not verify")
	}
	if !ecdsa.Verify(&ec.PublicKey, sum(m), new(big.Int).SetBytes(high[:32]), new(big.Int).SetBytes(high[32:])) {
		t.Error("the test's high s is no signature at all")
	}
	if p256.Verify(m, high) {
		t.Error("s in the upper half verifies")
	}
	if p256.Verify(m, make([]byte, 64)) || p256.Verify(m, good) || pub.Verify(m, low) {
		t.Error("a signature of another kind verifies")
	}
	for _, c := range [][2]int64{{0, 1}, {1, 0}, {-1, 1}} {
		if _, err := LowS(big.NewInt(c[0]), big.NewInt(c[1])); err == nil {
			t.Errorf("r, s = %v are taken", c)
		}
	}
	if _, err := LowS(n, big.NewInt(1)); err == nil {
		t.Error("r = n is taken")
	}
	for what, f := range map[string]func() error{
		"short":      func() error { _, err := NewPublicKey(Ed25519, make([]byte, 31)); return err },
		"no point":   func() error { _, err := NewPublicKey(ECDSAP256, make([]byte, 65)); return err },
		"compressed": func() error { _, err := NewPublicKey(ECDSAP256, append([]byte{2}, p256.Raw()[1:33]...)); return err },
		"unknown":    func() error { _, err := NewPublicKey(3, make([]byte, 32)); return err },
		"RSA":        func() error { _, err := FromCrypto(&rsa.PublicKey{}); return err },
		"P-384":      func() error { _, err := FromCrypto(&ecdsa.PublicKey{Curve: elliptic.P384()}); return err },
		"algorithm":  func() error { _, err := ParseAlg("sha1-rsa"); return err },
	} {
		if f() == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func ecSign(t testing.TB, k *ecdsa.PrivateKey, m []byte) []byte {
	t.Helper()
	der, err := k.Sign(nil, sum(m), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		t.Fatal(err)
	}
	b, err := LowS(rs.R, rs.S)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sum(m []byte) []byte {
	h := crypto.SHA256.New()
	h.Write(m)
	return h.Sum(nil)
}

var issued = time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC)

func someStatement(t *rapid.T) Statement {
	s := Statement{
		Size: rapid.Uint64().Draw(t, "size"), Kind: Kind(rapid.IntRange(1, 3).Draw(t, "kind")), Version: rapid.Uint64().Draw(t, "version"),
		Roles: Role(rapid.IntRange(1, int(AllRoles)).Draw(t, "roles")), Issued: time.Unix(rapid.Int64Range(1, maxTime-1).Draw(t, "issued"), 0).UTC(),
		Name: Printable(rapid.String().Draw(t, "name")),
	}
	copy(s.Digest[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
	if rapid.Bool().Draw(t, "verity") {
		s.Verity = &[32]byte{1}
	}
	if rapid.Bool().Draw(t, "expires") {
		s.Expires = time.Unix(rapid.Int64Range(s.Issued.Unix()+1, maxTime).Draw(t, "until"), 0).UTC()
	}
	return s
}

func TestStatementRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := someStatement(t)
		b, err := s.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeStatement(b)
		if err != nil || !reflect.DeepEqual(*got, s) {
			t.Fatalf("%+v, %v: want %+v", got, err, s)
		}
		// Whatever decodes after a change encodes to the same octets again.
		x := slices.Clone(b)
		x[rapid.IntRange(0, len(x)-1).Draw(t, "at")] ^= byte(1 << rapid.IntRange(0, 7).Draw(t, "bit"))
		if other, err := DecodeStatement(x); err == nil {
			if again, err := other.Append(nil); err != nil || !bytes.Equal(again, x) {
				t.Fatalf("%x decodes and encodes to %x, %v", x, again, err)
			}
		}
	})
}

func TestStatementRefused(t *testing.T) {
	good := Statement{Kind: KindELF, Roles: RoleExec, Issued: issued}
	for what, change := range map[string]func(*Statement){
		"kind 0":             func(s *Statement) { s.Kind = 0 },
		"kind 4":             func(s *Statement) { s.Kind = 4 },
		"no role":            func(s *Statement) { s.Roles = 0 },
		"unknown role":       func(s *Statement) { s.Roles = 64 },
		"long name":          func(s *Statement) { s.Name = strings.Repeat("x", 256) },
		"control":            func(s *Statement) { s.Name = "a\x1b[2J" },
		"C1 control":         func(s *Statement) { s.Name = "a\u009b" },
		"end of line":        func(s *Statement) { s.Name = "a\nb" },
		"direction":          func(s *Statement) { s.Name = "a\u202eb" },
		"not UTF-8":          func(s *Statement) { s.Name = "a\xff" },
		"space at the end":   func(s *Statement) { s.Name = "a " },
		"never issued":       func(s *Statement) { s.Issued = time.Time{} },
		"before 1970":        func(s *Statement) { s.Issued = time.Unix(-1, 0) },
		"half a second":      func(s *Statement) { s.Issued = issued.Add(time.Second / 2) },
		"expires before":     func(s *Statement) { s.Expires = issued },
		"expires far away":   func(s *Statement) { s.Expires = time.Unix(maxTime+1, 0) },
		"expires fractional": func(s *Statement) { s.Expires = issued.Add(time.Hour + 1) },
	} {
		s := good
		change(&s)
		if _, err := s.Append(nil); err == nil {
			t.Errorf("%s: it encodes", what)
		}
	}
	b, err := good.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string][]byte{
		"short": b[:67], "octets behind": append(slices.Clone(b), 0), "flag": append(append([]byte{1}, 2), b[2:]...),
		"verity cut off": append(append([]byte{1}, 1), b[2:]...), "name cut off": append(append([]byte{1, 0, 1}, 1), b[4:]...),
	} {
		if _, err := DecodeStatement(x); err == nil {
			t.Errorf("%s: it decodes", what)
		}
	}
	if _, err := ParseRoles("exec,root"); err == nil {
		t.Error("role root")
	}
	if r, err := ParseRoles(AllRoles.String()); err != nil || r != AllRoles {
		t.Error(r, err)
	}
}

func TestPrintable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "octets"))
		if err := CheckName(Printable(s)); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
	})
	if got := Printable("usr/bin/ls"); got != "usr/bin/ls" {
		t.Errorf("%q", got)
	}
}

// FuzzEnvelope decodes any octets: what decodes encodes to the same octets, and a statement in it too.
func FuzzEnvelope(f *testing.F) {
	s := Statement{Kind: KindELF, Roles: RoleExec, Issued: issued, Name: "name", Verity: &[32]byte{}, Expires: issued.Add(time.Hour)}
	body, err := s.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(f, &Envelope{Domain: Content, Signatures: []Signature{sig(1, Ed25519), sig(2, ECDSAP256)}, Body: body}))
	f.Add(encode(f, &Envelope{Domain: Policy, Signatures: []Signature{{Alg: 16, Key: KeyID{3}, Sig: make([]byte, 1000)}}, Body: []byte("text")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := DecodePrefix(b)
		if err != nil {
			return
		}
		again, err := e.Append(nil)
		if err != nil || !bytes.Equal(append(again, rest...), b) {
			t.Fatalf("%x encodes to %x, %v", b, again, err)
		}
		if s, err := DecodeStatement(e.Body); err == nil {
			if again, err := s.Append(nil); err != nil || !bytes.Equal(again, e.Body) {
				t.Fatalf("%x encodes to %x, %v", e.Body, again, err)
			}
		}
	})
}
