//go:build linux

package pkcs11

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// buildHelper builds it once.
var buildHelper = sync.OnceValues(func() (string, error) {
	var err error
	if helperDir, err = os.MkdirTemp("", "mph"); err != nil {
		return "", err
	}
	path := filepath.Join(helperDir, helperName)
	cmd := exec.Command("go", "build", "-o", path, "midplane/cmd/midplane-pkcs11")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func realHelper(t *testing.T) string {
	t.Helper()
	path, err := buildHelper()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// softHSM makes a store of tokens that this test alone has, with the tokens that are named; PIN 1234.
func softHSM(t *testing.T, tokens ...string) Config {
	t.Helper()
	libraries, _ := filepath.Glob("/usr/lib/*/softhsm/libsofthsm2.so")
	tool, err := exec.LookPath("softhsm2-util")
	if err != nil || len(libraries) == 0 {
		why := "SoftHSM is not there: apt-get install softhsm2"
		if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	store := filepath.Join(dir, "tokens")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+store+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range tokens {
		if out, err := exec.Command(tool, "--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "87654321").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return Config{Helper: realHelper(t), Module: libraries[0]}
}

func parse(t *testing.T, s string) URI {
	t.Helper()
	u, err := ParseURI(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestSoftHSM(t *testing.T) {
	cfg := softHSM(t, "one", "the other")
	ctx := context.Background()
	for _, alg := range []string{"ed25519", "p256"} {
		u := parse(t, "pkcs11:token=one;object=key-"+alg+"?pin-value=1234")
		s, err := Generate(ctx, u, alg, cfg)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		public := s.Public()
		s.Close()
		if _, err := Generate(ctx, u, alg, cfg); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "there already") {
			t.Errorf("%s: made twice: %v", alg, err)
		}
		if s, err = Open(ctx, u, cfg); err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(s.Public()) {
			t.Errorf("%s: another public key", alg)
		}
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				for j := range 5 {
					message := fmt.Appendf(nil, "message %d of %d", j, i)
					sig, err := crypto.SignMessage(s, rand.Reader, message, hashOf(s.Public()))
					if err != nil || !verify(s.Public(), message, sig) {
						t.Errorf("%s: %v", alg, err)
					}
				}
			})
		}
		wg.Wait()
		s.Close()
	}
	for _, c := range []struct {
		uri string
		is  error
	}{
		{"pkcs11:token=one?pin-value=1234", ErrKey}, // two fit
		{"pkcs11:token=one;object=none?pin-value=1234", ErrKey},
		{"pkcs11:token=three;object=key-p256?pin-value=1234", ErrToken},
		{"pkcs11:object=key-p256?pin-value=1234", ErrToken}, // two fit
		{"pkcs11:token=one;serial=0;object=key-p256?pin-value=1234", ErrToken},
		{"pkcs11:token=the%20other;object=key-p256?pin-value=1234", ErrKey},
		{"pkcs11:token=one;object=key-p256?pin-value=9999", ErrPIN},
		{"pkcs11:token=one;object=key-p256", ErrNoPIN},
		{"pkcs11:token=one;object=key-p256?pin-value=1234&module-path=/none.so", ErrModule},
		{"pkcs11:token=one;object=key-p256?pin-value=1234&module-path=/etc/passwd", ErrModule},
	} {
		if s, err := Open(ctx, parse(t, c.uri), cfg); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, %v: want %v", c.uri, s, err, c.is)
		}
	}
	// A library that is none of PKCS #11.
	if libc, _ := filepath.Glob("/lib/*/libc.so.6"); len(libc) > 0 {
		if _, err := Open(ctx, parse(t, "pkcs11:token=one?pin-value=1234&module-path="+libc[0]), cfg); !errors.Is(err, ErrModule) || !strings.Contains(err.Error(), "no PKCS #11 library") {
			t.Error(err)
		}
	}
}

func TestSoftHSMPIN(t *testing.T) {
	cfg := softHSM(t, "one")
	ctx := context.Background()
	u := parse(t, "pkcs11:token=one;object=k")
	asked := 0
	cfg.PIN = func(what string) ([]byte, error) {
		asked++
		if what != "token one" {
			t.Errorf("asked for the PIN of %q", what)
		}
		return []byte("1234"), nil
	}
	s, err := Generate(ctx, u, "p256", cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.PINSource = "file:" + file
	if s, err = Open(ctx, u, cfg); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if asked != 1 {
		t.Error("asked though there is a file")
	}
}

// SIGKILL of the helper while the key is open: an error that says so, and nothing that hangs.
func TestSoftHSMHelperKilled(t *testing.T) {
	cfg := softHSM(t, "one")
	ctx := context.Background()
	s, err := Generate(ctx, parse(t, "pkcs11:token=one;object=k?pin-value=1234"), "p256", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.h.kill()
	<-s.h.ended
	for range 2 {
		if _, err := s.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, ErrHelper) || !strings.Contains(err.Error(), "signal: killed") {
			t.Errorf("after SIGKILL: %v", err)
		}
	}
}
