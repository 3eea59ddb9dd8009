package digsig

import (
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"midplane/internal/digsig/elfsig/elftest"
	"midplane/internal/lab"
)

// A verifier that was written in Python from docs/digsig.md, with openssl's cryptography, says the same.
func TestSecondOpinion(t *testing.T) {
	lab.RequireTool(t, "python3", "python3")
	lab.RequireTool(t, "openssl", "openssl")
	dir := t.TempDir()
	key, hardware := testKey(t, 1), p256Key(t)
	ask := func(b []byte, s *Signer) string {
		name := write(t, filepath.Join(dir, "file"), b, 0o644)
		out, err := exec.Command("python3", "testdata/verify.py", name, s.Public().Alg().String(), hex.EncodeToString(s.Public().Raw())).CombinedOutput()
		if err != nil && !strings.HasPrefix(string(out), "bad: ") {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	every := elftest.Every(program)
	for _, name := range []string{"64le", "32be"} {
		m := every[name]
		b := embed(t, m.Bytes, Template{Name: "näme " + name, Version: 7}, key, hardware)
		for _, s := range []*Signer{key, hardware} {
			if got := ask(b, s); got != "näme "+name+" 7" {
				t.Errorf("%s, %s: %q", name, s.Public().Alg(), got)
			}
		}
		b[70] ^= 1
		if got := ask(b, key); got != "bad: content" {
			t.Errorf("%s: changed: %q", name, got)
		}
		b[70] ^= 1
		b[len(b)-1024+60] ^= 1
		if got := ask(b, key); !strings.HasPrefix(got, "bad: ") {
			t.Errorf("%s: signature changed: %q", name, got)
		}
	}
}
