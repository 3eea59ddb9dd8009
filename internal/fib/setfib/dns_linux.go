package setfib

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/enter"
)

// resolvConf is what a program looks up its name servers in (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// mountResolvConf gives the calling thread a mount namespace in which /etc/resolv.conf has the FIB's name servers. The file
// below dir is the same for all processes of the FIB, and written in place: they see a change (glibc 2.26 reads it again).
func mountResolvConf(b binding.Binding, dir string) error {
	file, err := writeResolvConf(b, dir)
	if err != nil {
		return fmt.Errorf("fib %s: name servers: %w", enter.Title(b), err)
	}
	if b.Backend != binding.Netns { // which has a mount namespace already
		if err := privateMounts(b, "the FIB has name servers of its own, and "+resolvConf+" is mounted for its processes"); err != nil {
			return err
		}
	}
	err = unix.Mount(file, resolvConf, "", unix.MS_BIND, "")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("fib %s: name servers: there is no %s that the FIB's could be mounted over; make an empty one", enter.Title(b), resolvConf)
	}
	if err != nil {
		return fmt.Errorf("fib %s: name servers: mount over %s: %w", enter.Title(b), resolvConf, err)
	}
	return nil
}

func resolvPath(dir string, id uint32) string {
	return filepath.Join(dir, "resolv", strconv.FormatUint(uint64(id), 10)+".conf")
}

// writeResolvConf writes the file of a FIB unless it is as it should be, and returns its path.
func writeResolvConf(b binding.Binding, dir string) (string, error) {
	file := resolvPath(dir, b.FIB)
	text := resolvText(b)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
		return file, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	return file, os.WriteFile(file, text, 0o644)
}

// resolvText is the host's resolv.conf with the FIB's name servers: search list and options stay.
func resolvText(b binding.Binding) []byte {
	var t bytes.Buffer
	fmt.Fprintf(&t, "# name servers of FIB %s, written by midplane\n", enter.Title(b))
	host, _ := os.ReadFile(resolvConf)
	for line := range strings.Lines(string(host)) {
		f := strings.Fields(line)
		if len(f) > 1 && (f[0] == "search" || f[0] == "domain" || f[0] == "options") {
			fmt.Fprintln(&t, strings.Join(f, " "))
		}
	}
	for _, s := range b.DNS {
		fmt.Fprintln(&t, "nameserver", s)
	}
	return t.Bytes()
}
