//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Binary builds the midplane binary as it is now and returns its path. It is static, so it runs in a guest under the
// same path as well.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := buildBinary()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return path
}

// buildBinary builds once a test binary. The file stays in the cache, one for each test process at most, and is replaced by
// the next of the same package directory.
var buildBinary = sync.OnceValues(func() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	wd, err := os.Getwd() // tests run in their package's directory
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "midplane-for-"+filepath.Base(wd))
	work := fmt.Sprintf("%s.%d", path, os.Getpid())
	build := exec.Command("go", "build", "-trimpath", "-o", work, "midplane/cmd/midplane")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		_ = os.Remove(work)
		return "", fmt.Errorf("build midplane: %w\n%s", err, out)
	}
	// Renaming gives a new file under the name: a program that still runs the old one is not disturbed.
	return path, os.Rename(work, path)
})
