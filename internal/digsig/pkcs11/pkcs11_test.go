package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"midplane/internal/digsig/pkcs11/proto"
)

// roleVariable makes the test binary a helper that misbehaves.
const roleVariable = "MIDPLANE_TEST_HELPER_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		misbehave(role)
		os.Exit(0)
	}
	code := m.Run()
	if helperDir != "" {
		os.RemoveAll(helperDir)
	}
	os.Exit(code)
}

// helperDir is where the real helper was built, if it was.
var helperDir string

// misbehave is a helper with a hostile library in it.
func misbehave(role string) {
	in, out := os.Stdin, os.Stdout
	var q proto.Request
	if role == "dead" {
		os.Stderr.WriteString("cannot\x1b[2J start\n")
		os.Exit(3)
	}
	if proto.Read(in, &q) != nil {
		os.Exit(4)
	}
	k := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	good, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		os.Exit(5)
	}
	raw := func(b []byte) { _, _ = out.Write(b) }
	answer := func(r *proto.Response) {
		if proto.Write(out, r) != nil {
			os.Exit(6)
		}
	}
	open := &proto.Response{Public: good}
	switch role {
	case "endless":
		raw([]byte{255, 255, 255, 255})
		_, _ = os.Stdin.Read(make([]byte, 1))
	case "short":
		raw([]byte{0, 0, 0, 9, '{'})
	case "junk":
		raw(append(binary.BigEndian.AppendUint32(nil, 4), "junk"...))
		_, _ = os.Stdin.Read(make([]byte, 1))
	case "member":
		raw(append(binary.BigEndian.AppendUint32(nil, 9), `{"key":1}`...))
	case "two":
		raw(append(binary.BigEndian.AppendUint32(nil, 4), `{}{}`...))
	case "nokey":
		answer(&proto.Response{})
	case "p384":
		p, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		der, _ := x509.MarshalPKIXPublicKey(p.Public())
		answer(&proto.Response{Public: der})
	case "code":
		answer(&proto.Response{Code: "new", Error: "what\x1b[31m"})
	case "silent":
		_, _ = os.Stdin.Read(make([]byte, 1))
	case "lies", "dies", "sleeps":
		answer(open)
		if proto.Read(in, &q) != nil {
			return
		}
		switch role {
		case "lies":
			answer(&proto.Response{Signature: ed25519.Sign(k, append(q.Data, 'x'))})
			if proto.Read(in, &q) == nil {
				answer(&proto.Response{Signature: []byte("short")})
			}
		case "sleeps":
			_, _ = os.Stdin.Read(make([]byte, 1))
		}
	case "stays":
		answer(open)
		time.Sleep(time.Hour)
	}
}

// hostile is the configuration for a role.
func hostile(t *testing.T, role string) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(roleVariable, role)
	return Config{Helper: self, Module: "/none.so", Timeout: 30 * time.Second}
}

func TestHostileHelper(t *testing.T) {
	for _, c := range []struct {
		role, want string
		is         error
	}{
		{"dead", "exit status 3): cannot?[2J start", ErrHelper},
		{"endless", "frame of more than", ErrHelper},
		{"short", "it ended", ErrHelper},
		{"junk", "invalid character", ErrHelper},
		{"member", "unknown field", ErrHelper},
		{"two", "more than one value", ErrHelper},
		{"nokey", "its public key", ErrHelper},
		{"p384", "want Ed25519 or ECDSA P-256", ErrKey},
		{"code", "what?[31m", nil},
	} {
		t.Run(c.role, func(t *testing.T) {
			s, err := Open(context.Background(), URI{}, hostile(t, c.role))
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v, %v: want %q, %v", s, err, c.want, c.is)
			}
		})
	}
}

func TestHelperThatDoesNotAnswer(t *testing.T) {
	cfg := hostile(t, "silent")
	cfg.Timeout = 50 * time.Millisecond
	if _, err := Open(context.Background(), URI{}, cfg); err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Error(err)
	}
	cfg.Timeout = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	cfg.PIN = func(string) ([]byte, error) { time.AfterFunc(10*time.Millisecond, cancel); return nil, nil }
	if _, err := Open(ctx, URI{}, cfg); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSignaturesThatDoNotVerify(t *testing.T) {
	s, err := Open(context.Background(), URI{}, hostile(t, "lies"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if sig, err := s.Sign(nil, []byte("message"), crypto.Hash(0)); err == nil || !strings.Contains(err.Error(), "does not verify") {
			t.Errorf("%x, %v", sig, err)
		}
	}
	if _, err := s.Sign(nil, []byte("message"), crypto.SHA256); err == nil {
		t.Error("a digest for Ed25519")
	}
}

// A helper that ends or hangs while it signs fails that request and all later ones, at once.
func TestHelperEnds(t *testing.T) {
	for _, role := range []string{"dies", "sleeps"} {
		s, err := Open(context.Background(), URI{}, hostile(t, role))
		if err != nil {
			t.Fatal(err)
		}
		if role == "sleeps" {
			s.h.timeout = 50 * time.Millisecond // from here on: opening may take its time
		}
		for range 2 {
			if _, err := s.Sign(nil, []byte("m"), crypto.Hash(0)); !errors.Is(err, ErrHelper) {
				t.Errorf("%s: %v", role, err)
			}
		}
		s.Close()
		if _, err := s.Sign(nil, []byte("m"), crypto.Hash(0)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: after Close: %v", role, err)
		}
	}
}

// One that does not end when it should is ended.
func TestHelperThatStays(t *testing.T) {
	s, err := Open(context.Background(), URI{}, hostile(t, "stays"))
	if err != nil {
		t.Fatal(err)
	}
	ended := s.h.ended
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Error("the helper outlives its signer")
	}
}

// Secrets of the environment do not reach a vendor's library.
func TestHelperEnvironment(t *testing.T) {
	t.Setenv("MIDPLANE_PASSPHRASE", "secret")
	t.Setenv("CREDENTIALS_DIRECTORY", "/x")
	h, err := startHelper(hostile(t, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	<-h.ended
	h.close()
	for _, v := range h.cmd.Env {
		if strings.Contains(v, "PASSPHRASE") || strings.HasPrefix(v, "CREDENTIALS") {
			t.Error(v)
		}
	}
}

func TestConfiguration(t *testing.T) {
	ctx := context.Background()
	t.Setenv(ModuleVariable, "")
	t.Setenv(HelperVariable, "")
	for _, c := range []struct {
		name string
		uri  URI
		cfg  Config
		want string
	}{
		{"relative module", URI{ModulePath: "lib.so"}, Config{}, "absolute path"},
		{"relative helper", URI{ModulePath: "/lib.so"}, Config{Helper: "x"}, "absolute path"},
		{"no helper", URI{ModulePath: "/lib.so"}, Config{Helper: "/none/x"}, "no such file"},
		{"helper not found", URI{ModulePath: "/lib.so"}, Config{}, HelperVariable},
		{"pin-source", URI{ModulePath: "/lib.so", PINSource: "|echo 1"}, Config{}, "want file:"},
		{"pin file", URI{ModulePath: "/lib.so", PINSource: "file:/none"}, Config{}, "no such file"},
		{"no PIN to be had", URI{ModulePath: "/lib.so"}, Config{PIN: func(string) ([]byte, error) { return nil, errors.New("nobody there") }}, "nobody there"},
	} {
		if _, err := Open(ctx, c.uri, c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v: want %q", c.name, err, c.want)
		}
	}
	if _, err := Generate(ctx, URI{}, "p256", Config{}); err == nil || !strings.Contains(err.Error(), "object=") {
		t.Error(err)
	}
	if _, err := Generate(ctx, URI{Match: proto.Match{Object: "x"}}, "rsa", Config{}); err == nil || !strings.Contains(err.Error(), `"rsa"`) {
		t.Error(err)
	}
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
