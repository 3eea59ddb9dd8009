package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// cheap is the least that the format allows.
var cheap = Cost{Passes: 1, Memory: minMemory, Lanes: 1}

func give(p string) Phrase { return func(string) ([]byte, error) { return []byte(p), nil } }

func generate(t *testing.T, a Algorithm) *Key {
	t.Helper()
	k, err := Generate(a)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func same(a, b crypto.PublicKey) bool { return a.(interface{ Equal(crypto.PublicKey) bool }).Equal(b) }

func TestRoundTrip(t *testing.T) {
	for _, a := range []Algorithm{Ed25519, P256} {
		k := generate(t, a)
		data, err := Marshal(k, []byte("correct horse"), cheap)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := ParsePublic(data); err != nil || !same(p, k.Public()) {
			t.Errorf("%s: public key %v, %v", a, p, err)
		}
		got, err := Parse(data, Options{Phrase: give("correct horse")})
		if err != nil || !same(got.Public(), k.Public()) {
			t.Fatalf("%s: %v", a, err)
		}
		if _, err := crypto.SignMessage(got, rand.Reader, []byte("m"), options(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if _, err := Parse(data, Options{Phrase: give("wrong")}); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s: wrong passphrase: %v", a, err)
		}
		if _, err := Parse(data, Options{}); err == nil {
			t.Errorf("%s: opened without a passphrase", a)
		}
		again, err := Marshal(k, []byte("correct horse"), cheap)
		if err != nil || bytes.Equal(again, data) {
			t.Errorf("%s: two files of one key are the same: salt or nonce is fixed (%v)", a, err)
		}
	}
}

func options(a Algorithm) crypto.SignerOpts {
	if a == P256 {
		return crypto.SHA256
	}
	return crypto.Hash(0)
}

// Every octet of an encrypted file is covered: what is not refused by its form is refused by the cipher.
func TestEveryBitCounts(t *testing.T) {
	data, err := Marshal(generate(t, Ed25519), []byte("x"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	for i := 0; i < len(block.Bytes); i++ {
		if i > 60 {
			i += 4 // each costs a derivation
		}
		b := bytes.Clone(block.Bytes)
		i := min(i, len(b)-1)
		b[i] ^= 1
		if i >= 3 && i < 12 {
			// Higher cost is legal to ask for and slow to compute; that the header is covered shows below.
			b[i] ^= 1
			b[9], b[10] = 0, 33 // memory
		}
		if k, err := Parse(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: b}), Options{Phrase: give("x")}); err == nil {
			t.Fatalf("octet %d altered, and the key opens: %v", i, k.Public())
		}
	}
}

func TestHostileFiles(t *testing.T) {
	good, err := Marshal(generate(t, Ed25519), []byte("x"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	edit := func(f func(b []byte) []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: f(bytes.Clone(block.Bytes))})
	}
	set := func(at int, v uint32) []byte {
		return edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return b })
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(k any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: plainType, Bytes: der})
	}
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"empty", "no PEM block", nil},
		{"text", "no PEM block", []byte("hello\n")},
		{"long", "longer than", bytes.Repeat([]byte("a"), maxFile+1)},
		{"two blocks", "behind the PEM block", append(bytes.Clone(good), good...)},
		{"headers", "with headers", pem.EncodeToMemory(&pem.Block{Type: pemType, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: block.Bytes})},
		{"other type", `"CERTIFICATE"`, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})},
		{"truncated", "truncated", edit(func(b []byte) []byte { return b[:41] })},
		{"version", "format 2", edit(func(b []byte) []byte { b[0] = 2; return b })},
		{"derivation", "derivation 0", edit(func(b []byte) []byte { b[1] = 0; return b })},
		{"cipher", "cipher 9", edit(func(b []byte) []byte { b[2] = 9; return b })},
		{"lanes", "0 lanes", edit(func(b []byte) []byte { b[3] = 0; return b })},
		{"passes", "4294967295 passes", set(4, 1<<32-1)},
		{"memory", "4294967295 KiB", set(8, 1<<32-1)},
		{"little memory", "1 KiB", set(8, 1)},
		{"public key longer than the file", "65535 octets", edit(func(b []byte) []byte { b[40], b[41] = 255, 255; return b })},
		{"nothing encrypted", "a public key of", edit(func(b []byte) []byte { return b[:fixedSize+44+15] })},
		{"much encrypted", "a public key of", edit(func(b []byte) []byte { return append(b, make([]byte, maxPrivate)...) })},
		{"RSA", "Ed25519 or ECDSA P-256", plain(rsaKey)},
		{"P-384", "want P-256", plain(p384)},
	} {
		k, err := Parse(c.data, Options{Phrase: give("x"), Plain: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v: want %q", c.name, k, err, c.want)
		}
	}
}

// A file whose public key was exchanged for another's would make somebody enrol the wrong key.
func TestPublicKeyIsOfThePrivate(t *testing.T) {
	a, b := generate(t, Ed25519), generate(t, Ed25519)
	mixed := &Key{pair{a.Signer, b.Public()}}
	public, err := x509.MarshalPKIXPublicKey(mixed.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := sealed{public: public, salt: make([]byte, saltSize), nonce: make([]byte, 12), header: []byte("h"), cost: cheap}
	aead, err := derive([]byte("x"), s.salt, cheap)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(a.Signer)
	if err != nil {
		t.Fatal(err)
	}
	s.ciphertext = aead.Seal(nil, s.nonce, private, s.header)
	if _, err := s.open(give("x")); err == nil || !strings.Contains(err.Error(), "not that of the public key") {
		t.Error(err)
	}
}

type pair struct {
	crypto.Signer
	public crypto.PublicKey
}

func (p pair) Public() crypto.PublicKey { return p.public }

func TestPlainOnlyWhenAllowed(t *testing.T) {
	k := generate(t, P256)
	data, err := MarshalPlain(k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(data, Options{Phrase: give("x")}); !errors.Is(err, ErrPlain) {
		t.Errorf("plain key, not allowed: %v", err)
	}
	if got, err := Parse(data, Options{Plain: true}); err != nil || !same(got.Public(), k.Public()) {
		t.Errorf("plain key, allowed: %v", err)
	}
}

func TestMarshalRefuses(t *testing.T) {
	k := generate(t, Ed25519)
	if _, err := Marshal(k, nil, cheap); err == nil {
		t.Error("an empty passphrase was taken")
	}
	if _, err := Marshal(k, make([]byte, maxPhrase+1), cheap); err == nil {
		t.Error("an endless passphrase was taken")
	}
	for _, c := range []Cost{{}, {1, minMemory, 0}, {0, minMemory, 1}, {1, minMemory - 1, 1}, {maxPasses + 1, minMemory, 1}, {1, maxMemory + 1, 1}} {
		if _, err := Marshal(k, []byte("x"), c); err == nil {
			t.Errorf("cost %v was taken", c)
		}
	}
	if _, err := Generate("rsa"); err == nil {
		t.Error("an RSA key was made")
	}
}

func TestCloseOverwrites(t *testing.T) {
	k := generate(t, Ed25519)
	p := k.Signer.(ed25519.PrivateKey)
	if err := k.Close(); err != nil || !bytes.Equal(p, make([]byte, len(p))) {
		t.Errorf("%x, %v", p, err)
	}
}

func TestOpenSSH(t *testing.T) {
	k := generate(t, Ed25519)
	sum := sha256.Sum256([]byte("m"))
	for _, a := range []Algorithm{Ed25519, P256} {
		if a == P256 {
			k = generate(t, a)
		}
		var raw crypto.PrivateKey = k.Signer
		block, err := ssh.MarshalPrivateKeyWithPassphrase(raw, "me", []byte("pass"))
		if err != nil {
			t.Fatal(err)
		}
		data := pem.EncodeToMemory(block)
		if got, err := Parse(data, Options{Phrase: give("pass")}); err != nil || !same(got.Public(), k.Public()) {
			t.Errorf("%s: %v", a, err)
		}
		if _, err := Parse(data, Options{Phrase: give("other")}); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s: wrong passphrase: %v", a, err)
		}
		if block, err = ssh.MarshalPrivateKey(raw, "me"); err != nil {
			t.Fatal(err)
		}
		data = pem.EncodeToMemory(block)
		if _, err := Parse(data, Options{Phrase: give("pass")}); !errors.Is(err, ErrPlain) {
			t.Errorf("%s: unencrypted: %v", a, err)
		}
		got, err := Parse(data, Options{Plain: true})
		if err != nil || !same(got.Public(), k.Public()) {
			t.Fatalf("%s: unencrypted, allowed: %v", a, err)
		}
		if a == P256 {
			sig, err := got.Sign(rand.Reader, sum[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
				t.Errorf("%s: %v", a, err)
			}
		}
	}
}

// Keys as ssh-keygen itself writes them.
func TestOpenSSHTool(t *testing.T) {
	tool, err := exec.LookPath("ssh-keygen")
	if err != nil {
		skip(t, "ssh-keygen is not there: apt-get install openssh-client")
	}
	for _, kind := range []string{"ed25519", "ecdsa"} {
		path := filepath.Join(t.TempDir(), "id")
		if out, err := exec.Command(tool, "-q", "-t", kind, "-N", "open sesame", "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		k, err := Read(path, Options{Phrase: give("open sesame")})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		line, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		want, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := want.(ssh.CryptoPublicKey).CryptoPublicKey(); !same(got, k.Public()) {
			t.Errorf("%s: another key than in %s", kind, line)
		}
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
		t.Fatal(why)
	}
	t.Skip(why)
}

func FuzzParse(f *testing.F) {
	for _, a := range []Algorithm{Ed25519, P256} {
		k, err := Generate(a)
		if err != nil {
			f.Fatal(err)
		}
		data, err := Marshal(k, []byte("x"), cheap)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if data, err = MarshalPlain(k); err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		block, err := ssh.MarshalPrivateKeyWithPassphrase(k.Signer, "", []byte("x"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pem.EncodeToMemory(block))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ParsePublic(data)
		// Without a passphrase nothing is derived, so that the fuzzer does not spend its time on that.
		k, err := Parse(data, Options{Plain: true})
		if err != nil {
			return
		}
		again, err := MarshalPlain(k)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(again, Options{Plain: true}); err != nil || !same(got.Public(), k.Public()) {
			t.Fatalf("what was parsed does not come back: %v", err)
		}
	})
}
