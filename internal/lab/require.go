//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Packages are the Debian packages that the lab's tests use from the machine. The guest kernel (user-mode-linux) is
// not among them: the lab unpacks it into its cache.
var Packages = []string{"iproute2", "python3", "tshark", "cpio"}

// Require ends the test unless this machine can run the lab. Where a machine lacks something, the test is skipped
// with the reason and the command that provides it; where CI=true and the user is root, such a skip would hide a
// regression, and the test fails instead.
func Require(t testing.TB) {
	t.Helper()
	refuse(t, missing())
}

// RequireNamespaces is Require for tests that make namespaces but boot no guest.
func RequireNamespaces(t testing.TB) {
	t.Helper()
	refuse(t, missingNamespaces())
}

// RequireVM is Require for tests that boot a [VM].
func RequireVM(t testing.TB) {
	t.Helper()
	refuse(t, missingVM())
}

// RequireTool ends the test like Require unless this machine has a program; pkg is the Debian package with it.
func RequireTool(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		refuse(t, fmt.Errorf("no %s here; run: apt-get install %s", program, pkg))
	}
}

func refuse(t testing.TB, reason error) {
	t.Helper()
	switch {
	case reason == nil:
	case skipFails(os.Getenv("CI"), os.Geteuid()):
		t.Fatalf("lab: %v (a skip is a failure under CI=true as root)", reason)
	default:
		t.Skipf("lab: %v", reason)
	}
}

// skipFails says whether a missing lab is a failure rather than a reason to skip.
func skipFails(ci string, uid int) bool { return ci == "true" && uid == 0 }

// missing says what this machine lacks for the lab, nil when nothing.
var missing = sync.OnceValue(func() error {
	if err := missingNamespaces(); err != nil {
		return err
	}
	if runtime.GOARCH != "amd64" {
		return errors.New("the guest kernel exists for amd64 only")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("no taps: %w; run: modprobe tun", err)
	}
	for _, program := range []string{"tipc", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("no %s here; run: apt-get install %s", program, strings.Join(Packages, " "))
		}
	}
	if _, err := findKernel(); err != nil {
		return fmt.Errorf("no guest kernel: %w; run: apt-get update, and the test again", err)
	}
	return nil
})

var missingNamespaces = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces need root; run: sudo make lab")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("no ip here; run: apt-get install iproute2")
	}
	const probe = namePrefix + "0-probe"
	name := fmt.Sprintf("%s%d", probe, os.Getpid())
	if out, err := ip("netns", "add", name); err != nil {
		return fmt.Errorf("no namespaces: %w: %s; run as root with CAP_SYS_ADMIN and CAP_NET_ADMIN", err, out)
	}
	if out, err := ip("netns", "del", name); err != nil {
		return fmt.Errorf("no namespaces: %w: %s", err, out)
	}
	return nil
})

// vmPackages are the Debian packages that a VM needs from the machine.
var vmPackages = []string{"qemu-system-x86", "e2fsprogs", "xz-utils"}

var missingVM = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("a guest that sees this machine's files needs root; run: sudo make lab")
	}
	if runtime.GOARCH != "amd64" {
		return errors.New("the guest is for amd64 only")
	}
	for _, program := range []string{"qemu-system-x86_64", "mke2fs", "xz"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("no %s here; run: apt-get install %s", program, strings.Join(vmPackages, " "))
		}
	}
	if _, err := findDebian(); err != nil {
		return fmt.Errorf("no kernel of Debian 13: %w; run: apt-get update, and the test again", err)
	}
	return nil
})
