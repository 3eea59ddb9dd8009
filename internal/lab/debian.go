//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// suite is the Debian release whose kernel a [VM] runs: Debian 13.
const suite = "trixie"

// vmModules are the kernel modules that a VM loads, in this order.
var vmModules = []string{
	"netfs", "9pnet", "9pnet_virtio", "9p", "overlay",
	"crc16", "mbcache", "jbd2", "crc32c_generic", "crc32c-intel", "ext4", "virtio_blk", "loop", "squashfs", "binfmt_misc",
}

// findDebian makes Debian's kernel ready once a process, as findKernel does it with User-Mode Linux.
var findDebian = sync.OnceValues(func() (kernel, error) {
	dir, unlock, err := lockCache()
	if err != nil {
		return kernel{}, err
	}
	defer unlock()
	root := filepath.Join(dir, suite)
	if found, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*")); len(found) == 0 {
		if err := fetchDebian(root); err != nil {
			return kernel{}, err
		}
	}
	found, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if len(found) != 1 {
		return kernel{}, fmt.Errorf("%d kernels in %s, want one; remove it and run the test again", len(found), root)
	}
	files, err := findVMModules(root)
	if err != nil {
		return kernel{}, err
	}
	initrd, err := makeInitrd(dir, files)
	return kernel{found[0], initrd}, err
})

// fetchDebian downloads the kernel package of the suite from the mirror that this machine uses, with lists of its own so
// that the machine's apt stays as it is, and unpacks it into root. apt checks the signatures.
func fetchDebian(root string) error {
	work := root + ".new"
	download := filepath.Join(work, "download")
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(filepath.Join(download, "lists/partial"), 0o755),
		os.MkdirAll(filepath.Join(download, "cache/archives/partial"), 0o755)); err != nil {
		return err
	}
	sources := filepath.Join(download, "sources.list")
	line := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror(), suite)
	if err := os.WriteFile(sources, []byte(line), 0o644); err != nil {
		return err
	}
	options := []string{
		"-qq", "-o", "APT::Sandbox::User=root", "-o", "Dir::Etc::sourcelist=" + sources, "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(download, "lists"), "-o", "Dir::Cache=" + filepath.Join(download, "cache"),
	}
	apt := func(program string, args ...string) (string, error) {
		return run(download, slices.Concat([]string{program}, options, args)...)
	}
	if _, err := apt("apt-get", "update"); err != nil {
		return err
	}
	depends, err := apt("apt-cache", "depends", "linux-image-amd64")
	if err != nil {
		return err
	}
	_, rest, ok := strings.Cut(depends, "Depends: ")
	image, _, _ := strings.Cut(rest, "\n")
	if !ok || !strings.HasPrefix(image, "linux-image-") {
		return fmt.Errorf("linux-image-amd64 of %s depends on no kernel: %q", suite, depends)
	}
	if _, err := apt("apt-get", "download", image); err != nil {
		return err
	}
	packages, _ := filepath.Glob(filepath.Join(download, image+"_*.deb"))
	if len(packages) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", image, len(packages))
	}
	if _, err := run(work, "dpkg", "-x", packages[0], work); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(download), os.RemoveAll(root), os.Rename(work, root))
}

// mirror returns where this machine gets Debian's packages from.
func mirror() string {
	out, _ := run("/", "apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages")
	for line := range strings.Lines(out) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "Debian" && words[1] == "Debian" {
			return words[2]
		}
	}
	return "http://deb.debian.org/debian"
}

// findVMModules returns the files of the modules, in loading order.
func findVMModules(root string) ([]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, "usr/lib/modules"), func(path string, _ os.DirEntry, err error) error {
		name, _, ok := strings.Cut(filepath.Base(path), ".ko")
		if ok && slices.Contains(vmModules, name) {
			found[name] = path
		}
		return err
	})
	var files []string
	for _, m := range vmModules {
		if found[m] == "" {
			err = errors.Join(err, fmt.Errorf("the kernel of %s has no module %s", suite, m))
		}
		files = append(files, found[m])
	}
	return files, err
}

// VMModule returns a module of the VM's kernel, as the kernel takes it. Call RequireVM first.
func VMModule(t testing.TB, name string) []byte {
	t.Helper()
	dir, err := cacheDir()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	found := ""
	err = filepath.WalkDir(filepath.Join(dir, suite, "usr/lib/modules"), func(path string, _ os.DirEntry, err error) error {
		if base, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && base == name {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("lab: module %s of %s: %v", name, suite, err)
	}
	b, err := readModule(found)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return b
}
