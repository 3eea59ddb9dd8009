package agent

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

const domain = "test domain\n"

// serve answers each connection with handle, at a socket that ends with the test.
func serve(t *testing.T, handle func(io.ReadWriter)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); handle(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return path
}

func ring(t *testing.T, keys ...sshagent.AddedKey) sshagent.Agent {
	t.Helper()
	r := sshagent.NewKeyring()
	for _, k := range keys {
		if err := r.Add(k); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func newKeys(t *testing.T) (ed25519.PrivateKey, *ecdsa.PrivateKey) {
	t.Helper()
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return e, p
}

// verify checks a signature by the standard library alone.
func verify(p crypto.PublicKey, message, sig []byte) bool {
	switch p := p.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(p, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(p, sum[:], sig)
	}
	return false
}

func hashOf(p crypto.PublicKey) crypto.SignerOpts {
	if _, ok := p.(ed25519.PublicKey); ok {
		return crypto.Hash(0)
	}
	return crypto.SHA256
}

func TestChooseAndSign(t *testing.T) {
	e, p := newKeys(t)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := ring(t, sshagent.AddedKey{PrivateKey: r, Comment: "rsa"}, sshagent.AddedKey{PrivateKey: q, Comment: "p384"},
		sshagent.AddedKey{PrivateKey: &e, Comment: "edwards"}, sshagent.AddedKey{PrivateKey: p, Comment: "nist"})
	cfg := Config{Socket: serve(t, func(c io.ReadWriter) { _ = sshagent.ServeAgent(a, c) }), Domain: domain}
	ctx := context.Background()
	keys, err := List(ctx, cfg)
	if err != nil || len(keys) != 2 || keys[0].Comment != "edwards" || keys[1].Comment != "nist" {
		t.Fatalf("%v, %v", keys, err)
	}
	if _, err := Open(ctx, "", cfg); err == nil || !strings.Contains(err.Error(), "2 keys") {
		t.Errorf("two keys fit: %v", err)
	}
	for _, name := range []string{"rsa", "p384", "SHA256:none"} {
		if _, err := Open(ctx, name, cfg); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, which := range []string{"edwards", "nist", keys[0].Fingerprint, keys[1].Fingerprint} {
		s, err := Open(ctx, which, cfg)
		if err != nil {
			t.Fatal(err)
		}
		message := []byte(domain + "statement")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				sig, err := crypto.SignMessage(s, rand.Reader, message, hashOf(s.Public()))
				if err != nil || !verify(s.Public(), message, sig) {
					t.Errorf("%s: %v", which, err)
				}
			})
		}
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := crypto.SignMessage(s, rand.Reader, message, hashOf(s.Public())); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: after Close: %v", which, err)
		}
	}
}

// What could be a login or an SSHSIG signature is refused before the agent sees it.
func TestDomain(t *testing.T) {
	e, p := newKeys(t)
	a := ring(t, sshagent.AddedKey{PrivateKey: &e, Comment: "e"}, sshagent.AddedKey{PrivateKey: p, Comment: "p"})
	cfg := Config{Socket: serve(t, func(c io.ReadWriter) { _ = sshagent.ServeAgent(a, c) }), Domain: domain}
	for _, d := range []string{"", "\x00\x00\x00\x20", "SSHSIG\x00"} {
		if _, err := Open(context.Background(), "e", Config{Socket: cfg.Socket, Domain: d}); err == nil {
			t.Errorf("domain %q was taken", d)
		}
	}
	s, err := Open(context.Background(), "e", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	login := append([]byte{0, 0, 0, 32}, make([]byte, 32)...)
	for _, m := range [][]byte{login, []byte("SSHSIG\x00\x00\x00\x04file"), nil, []byte(domain[:5]), []byte(domain + strings.Repeat("x", maxMessage))} {
		if _, err := s.SignMessage(nil, m, crypto.Hash(0)); err == nil {
			t.Errorf("signed %.20q", m)
		}
	}
	if _, err := s.SignMessage(nil, []byte(domain), crypto.SHA256); err == nil {
		t.Error("Ed25519 over a digest")
	}
	n, err := Open(context.Background(), "p", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("ECDSA signed a digest, which the agent would have hashed again")
	}
	if _, err := n.SignMessage(nil, []byte(domain), crypto.SHA512); err == nil {
		t.Error("ECDSA over SHA-512")
	}
}

// lying is an agent that signs something else, or in another form.
type lying struct {
	sshagent.Agent
	answer func(ssh.PublicKey, []byte) (*ssh.Signature, error)
}

func (l lying) Sign(k ssh.PublicKey, m []byte) (*ssh.Signature, error) { return l.answer(k, m) }

func TestHostileAgent(t *testing.T) {
	e, p := newKeys(t)
	honest := ring(t, sshagent.AddedKey{PrivateKey: &e, Comment: "e"}, sshagent.AddedKey{PrivateKey: p, Comment: "p"})
	for _, c := range []struct {
		name   string
		answer func(ssh.PublicKey, []byte) (*ssh.Signature, error)
	}{
		{"refuses", func(ssh.PublicKey, []byte) (*ssh.Signature, error) { return nil, errors.New("no") }},
		{"another message", func(k ssh.PublicKey, m []byte) (*ssh.Signature, error) { return honest.Sign(k, append(m, 'x')) }},
		{"empty", func(k ssh.PublicKey, _ []byte) (*ssh.Signature, error) { return &ssh.Signature{Format: k.Type()}, nil }},
		{"another type", func(k ssh.PublicKey, m []byte) (*ssh.Signature, error) {
			s, err := honest.Sign(k, m)
			if err == nil {
				s.Format = "ssh-rsa"
			}
			return s, err
		}},
		{"rest", func(k ssh.PublicKey, m []byte) (*ssh.Signature, error) {
			s, err := honest.Sign(k, m)
			if err == nil {
				s.Rest = []byte{1}
			}
			return s, err
		}},
		{"negative", func(k ssh.PublicKey, _ []byte) (*ssh.Signature, error) {
			blob := ssh.Marshal(struct{ R, S *big.Int }{big.NewInt(-1), big.NewInt(0)})
			return &ssh.Signature{Format: k.Type(), Blob: blob}, nil
		}},
	} {
		cfg := Config{Socket: serve(t, func(rw io.ReadWriter) { _ = sshagent.ServeAgent(lying{honest, c.answer}, rw) }), Domain: domain}
		for _, which := range []string{"e", "p"} {
			s, err := Open(context.Background(), which, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if sig, err := crypto.SignMessage(s, nil, []byte(domain), hashOf(s.Public())); err == nil {
				t.Errorf("%s, %s: signature %x", c.name, which, sig)
			}
			s.Close()
		}
	}
}

func TestAgentThatIsNone(t *testing.T) {
	ctx := context.Background()
	t.Setenv("SSH_AUTH_SOCK", "")
	if _, err := Open(ctx, "", Config{Domain: domain}); !errors.Is(err, ErrNoAgent) {
		t.Errorf("no agent: %v", err)
	}
	if _, err := List(ctx, Config{Domain: domain, Socket: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("no socket")
	}
	for name, handle := range map[string]func(io.ReadWriter){
		"closes": func(io.ReadWriter) {},
		"long answer": func(rw io.ReadWriter) {
			_, _ = rw.Write([]byte{255, 255, 255, 255, 12})
			_, _ = io.Copy(io.Discard, rw)
		},
		"many keys": func(rw io.ReadWriter) {
			_, _ = rw.Write([]byte{0, 0, 0, 5, 12, 255, 255, 255, 255})
			_, _ = io.Copy(io.Discard, rw)
		},
		"silent": func(rw io.ReadWriter) { _, _ = io.Copy(io.Discard, rw) },
	} {
		if k, err := List(ctx, Config{Domain: domain, Socket: serve(t, handle), Timeout: 50 * time.Millisecond}); err == nil {
			t.Errorf("%s: %v", name, k)
		}
	}
}

func FuzzVerified(f *testing.F) {
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	var keys []Key
	for _, s := range []crypto.Signer{e, p} {
		sp, err := ssh.NewPublicKey(s.Public())
		if err != nil {
			f.Fatal(err)
		}
		keys = append(keys, Key{Public: s.Public(), ssh: sp})
	}
	message := []byte(domain)
	sum := sha256.Sum256(message)
	f.Add(0, "ssh-ed25519", ed25519.Sign(e, message), []byte(nil))
	der, err := ecdsa.SignASN1(rand.Reader, p, sum[:])
	if err != nil {
		f.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		f.Fatal(err)
	}
	f.Add(1, "ecdsa-sha2-nistp256", ssh.Marshal(rs), []byte(nil))
	f.Fuzz(func(t *testing.T, which int, format string, blob, rest []byte) {
		k := keys[which&1]
		out, err := verified(k, message, &ssh.Signature{Format: format, Blob: blob, Rest: rest})
		if err == nil && !verify(k.Public, message, out) {
			t.Errorf("%x does not verify", out)
		}
	})
}
