//go:build linux

package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Leased says whether a file has a lease (fcntl(2), F_SETLEASE), by anybody.
func Leased(t testing.TB, path string) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "LEASE") && strings.Contains(line, file) {
			return true
		}
	}
	return false
}
