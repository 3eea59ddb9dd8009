//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// treeExtra are package files that a [DebianTree] has in /var/cache/lab: real packages that tests install without a
// network.
var treeExtra = []string{"hello"}

// RequireTree ends the test like Require unless a [DebianTree] can be made here.
func RequireTree(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("lab: a Debian tree needs root")
	}
	RequireTool(t, "debootstrap", "debootstrap")
}

// DebianTree returns a Debian system of the VM's suite in a directory: the smallest that has apt, never booted. It is the
// test's own and goes with it. The system is made once by debootstrap, which checks the signatures of the archive, and
// kept in the cache; chroot(8) works in it.
func DebianTree(t testing.TB) string {
	t.Helper()
	return treeCopy(t, findTree)
}

// bootTreePackages are what a [BootTree] has besides the smallest system.
const bootTreePackages = "systemd-sysv,openssh-server,openssh-client,cron"

// BootTree is [DebianTree] with systemd as process 1, sshd and cron, for a VM whose root it is ([VMConfig], Root).
func BootTree(t testing.TB) string {
	t.Helper()
	return treeCopy(t, findBootTree)
}

func treeCopy(t testing.TB, find func() (string, error)) string {
	t.Helper()
	RequireTree(t)
	kept, err := find()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "debian")
	if out, err := exec.Command("cp", "-a", "--reflink=auto", kept, dir).CombinedOutput(); err != nil {
		t.Fatalf("lab: copy the Debian tree: %v\n%s", err, out)
	}
	return dir
}

var (
	findTree     = sync.OnceValues(func() (string, error) { return keepTree(suite+"-tree", "") })
	findBootTree = sync.OnceValues(func() (string, error) { return keepTree(suite+"-boot-tree", bootTreePackages) })
)

// keepTree returns a tree of the cache, and makes it when it is not there.
func keepTree(name, include string) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	tree := filepath.Join(dir, name)
	// A lock of its own, as this takes minutes and others need only what is there already.
	lock, err := os.OpenFile(tree+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	return tree, makeTree(tree, include)
}

func makeTree(tree, include string) error {
	work := tree + ".new"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	argv := []string{"debootstrap", "--variant=minbase"}
	if include != "" {
		argv = append(argv, "--include="+include)
	}
	if _, err := run("/", append(argv, suite, work, mirror())...); err != nil {
		return err
	}
	extra := filepath.Join(work, "var/cache/lab")
	if err := os.MkdirAll(extra, 0o755); err != nil {
		return err
	}
	for _, p := range treeExtra {
		// The chroot's own apt, with the lists that debootstrap left there.
		if _, err := run("/", "chroot", work, "sh", "-c", "cd /var/cache/lab && exec apt-get -qq -o APT::Sandbox::User=root download "+p); err != nil {
			return fmt.Errorf("%w (of %s)", err, p)
		}
	}
	return errors.Join(os.RemoveAll(tree), os.Rename(work, tree))
}
