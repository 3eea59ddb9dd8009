// Package pkcs11 signs with keys in PKCS #11 tokens: smart cards, security modules, SoftHSM.
//
// A token's library is code of its vendor that wants to be loaded with dlopen. midplane is one static program without
// cgo and loads nothing; a program of its own, midplane-pkcs11, does it (cmd/midplane-pkcs11). It is started for each
// key and ends with it, so that a library that crashes, hangs or lies harms no more than that one key's use: answers
// are bounded, have a deadline, and no signature is taken that does not verify.
//
// A PIN goes to the helper over its standard input, never in an argument or in the environment, and is tried once: tokens
// lock after a few wrong ones.
package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"midplane/internal/digsig/pkcs11/proto"
)

// Variables of the environment.
const (
	HelperVariable = "MIDPLANE_PKCS11_HELPER" // path of midplane-pkcs11
	ModuleVariable = "MIDPLANE_PKCS11_MODULE" // path of the token's library
)

// helperName is the program's; it lies beside midplane, or in libexec.
const helperName = "midplane-pkcs11"

// Errors that callers tell apart. What is returned wraps them with the details.
var (
	ErrHelper = errors.New("the helper midplane-pkcs11 failed")
	ErrModule = errors.New("the token's library cannot be used")
	ErrToken  = errors.New("no such token")
	ErrKey    = errors.New("no such key in the token")
	ErrNoPIN  = errors.New("the token wants a PIN and there is none")
	ErrPIN    = errors.New("the PIN is wrong; it was tried once")
	ErrLocked = errors.New("the token's PIN is locked")
)

// Config is how keys are reached. The zero value is good.
type Config struct {
	// Helper is the path of midplane-pkcs11. Empty: $MIDPLANE_PKCS11_HELPER, else beside this program, else in
	// ../libexec/midplane from there.
	Helper string
	// Module is the path of the token's library, when the URI names none. Empty: $MIDPLANE_PKCS11_MODULE, else p11-kit's
	// proxy where distributions put it.
	Module string
	// PIN gives the token's PIN when the URI does not; the result is overwritten after use. nil: there is none, which
	// is right for tokens that have a key pad.
	PIN func(what string) ([]byte, error)
	// Timeout bounds each request; a user may have to touch the token. 0: two minutes.
	Timeout time.Duration
}

// Signer signs with one key. It is a crypto.Signer, safe for concurrent use; the token signs one after the other. Close
// it after use. When the helper fails, everything fails from then on.
type Signer struct {
	public crypto.PublicKey
	mu     sync.Mutex
	h      *helper // guarded by mu
}

// Open starts the helper and finds the key. ctx bounds the opening alone.
func Open(ctx context.Context, u URI, c Config) (*Signer, error) {
	return start(ctx, u, c, proto.Request{Op: proto.OpOpen})
}

// Generate makes a new key in the token, with the label and id of the URI, which must have an object; algorithm is
// "ed25519" or "p256". The private key cannot leave the token. A key with that label must not be there yet.
func Generate(ctx context.Context, u URI, algorithm string, c Config) (*Signer, error) {
	if u.Match.Object == "" {
		return nil, errors.New("PKCS #11: a new key needs a name: object=…")
	}
	if algorithm != proto.Ed25519 && algorithm != proto.P256 {
		return nil, fmt.Errorf("PKCS #11: key algorithm %q: want %s or %s", algorithm, proto.Ed25519, proto.P256)
	}
	return start(ctx, u, c, proto.Request{Op: proto.OpGenerate, Algorithm: algorithm})
}

func start(ctx context.Context, u URI, c Config, q proto.Request) (*Signer, error) {
	var err error
	if q.Module, err = module(u, c); err != nil {
		return nil, err
	}
	if q.PIN, err = pin(u, c); err != nil {
		return nil, err
	}
	defer clear(q.PIN)
	q.Login, q.Match = q.PIN != nil, u.Match
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Minute
	}
	h, err := startHelper(c)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, h.kill)
	a, err := h.ask(&q)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	var s *Signer
	if err == nil {
		s, err = newSigner(h, a)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return s, nil
}

func newSigner(h *helper, a *proto.Response) (*Signer, error) {
	p, err := x509.ParsePKIXPublicKey(a.Public)
	if err != nil {
		return nil, fmt.Errorf("%w: its public key: %w", ErrHelper, err)
	}
	switch p := p.(type) {
	case ed25519.PublicKey:
		return &Signer{public: p, h: h}, nil
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() {
			return &Signer{public: p, h: h}, nil
		}
	}
	return nil, fmt.Errorf("%w: a public key of type %T: want Ed25519 or ECDSA P-256", ErrKey, p)
}

// module is the path of the library.
func module(u URI, c Config) (string, error) {
	for _, m := range []string{u.ModulePath, c.Module, os.Getenv(ModuleVariable)} {
		if m == "" {
			continue
		}
		// dlopen would search a name without a slash in places that somebody else may write to.
		if !filepath.IsAbs(m) {
			return "", fmt.Errorf("%w: %s: want an absolute path", ErrModule, m)
		}
		return m, nil
	}
	for _, pattern := range []string{"/usr/lib/*/p11-kit-proxy.so", "/usr/lib64/p11-kit-proxy.so", "/usr/lib/p11-kit-proxy.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("%w: none is named: set module-path in the URI or %s", ErrModule, ModuleVariable)
}

// pin is the PIN, or nil.
func pin(u URI, c Config) ([]byte, error) {
	switch {
	case u.pin != "":
		return []byte(u.pin), nil
	case u.PINSource != "":
		path := strings.TrimPrefix(u.PINSource, "file:")
		if rest, ok := strings.CutPrefix(path, "//"); ok {
			path = rest
		}
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("PKCS #11 URI: pin-source %q: want file: and an absolute path", u.PINSource)
		}
		b, err := readPIN(path)
		if err != nil {
			return nil, fmt.Errorf("PKCS #11 PIN: %w", err)
		}
		return b, nil
	case c.PIN != nil:
		what := "the PKCS #11 token"
		if u.Match.Token != "" {
			what = "token " + u.Match.Token
		}
		return c.PIN(what)
	}
	return nil, nil
}

func readPIN(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 256)
	n, err := io.ReadFull(f, b)
	if err == nil {
		clear(b)
		return nil, fmt.Errorf("%s is too long for a PIN", path)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	line, _, _ := bytes.Cut(b[:n], []byte("\n"))
	if len(line) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return line, nil
}

// Public is the public key, an ed25519.PublicKey or an *ecdsa.PublicKey on P-256.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign signs what crypto.Signer says: a message with an Ed25519 key (opts.HashFunc() is 0), a SHA-256 digest with one on
// P-256, whose signature comes in ASN.1. It blocks until the token has signed or the configured time is over.
func (s *Signer) Sign(_ io.Reader, data []byte, opts crypto.SignerOpts) ([]byte, error) {
	_, edwards := s.public.(ed25519.PublicKey)
	if h := opts.HashFunc(); edwards && h != 0 || !edwards && (h != crypto.SHA256 || len(data) != sha256.Size) {
		return nil, fmt.Errorf("PKCS #11: %d octets with hash function %v for a key of type %T", len(data), h, s.public)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h == nil {
		return nil, os.ErrClosed
	}
	a, err := s.h.ask(&proto.Request{Op: proto.OpSign, Data: data})
	if err != nil {
		return nil, err
	}
	return s.verified(data, a.Signature)
}

// verified is the signature as the standard library would make it.
func (s *Signer) verified(data, sig []byte) ([]byte, error) {
	if len(sig) == 64 {
		switch p := s.public.(type) {
		case ed25519.PublicKey:
			if ed25519.Verify(p, data, sig) {
				return sig, nil
			}
		case *ecdsa.PublicKey:
			der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
			if err != nil {
				return nil, err
			}
			if ecdsa.VerifyASN1(p, data, der) {
				return der, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: the token's signature does not verify", ErrHelper)
}

// Close ends the helper, and with it the session in the token.
func (s *Signer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h == nil {
		return nil
	}
	s.h.close()
	s.h = nil
	return nil
}

// findHelper is the path of the program.
func findHelper(c Config) (string, error) {
	for _, p := range []string{c.Helper, os.Getenv(HelperVariable)} {
		if p == "" {
			continue
		}
		if !filepath.IsAbs(p) {
			return "", fmt.Errorf("%w: %s: want an absolute path", ErrHelper, p)
		}
		return p, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	for _, p := range []string{filepath.Join(dir, helperName), filepath.Join(dir, "..", "libexec", "midplane", helperName)} {
		if _, err := exec.LookPath(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: it is neither in %s nor in ../libexec/midplane from there; %s can name it", ErrHelper, dir, HelperVariable)
}
