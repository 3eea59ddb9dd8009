//go:build linux

package lab

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// CacheVariable names the environment variable that overrides where the lab keeps what it downloaded and built.
const CacheVariable = "MIDPLANE_LAB_CACHE"

// sources are what the agent is built from, so that a change of them changes the name of what was built.
//
//go:embed agent/*.go proto/*.go
var sources embed.FS

// modules are the kernel modules that a guest loads, in this order.
var modules = []string{
	"gf128mul", "ghash-generic", "ctr", "gcm", "crc-ccitt",
	"ipv6", "udp_tunnel", "ip6_udp_tunnel", "tipc", "diag",
	"vrf", "overlay", "veth", "dummy", "sch_netem",
	"llc", "stp", "garp", "mrp", "8021q", "sch_ingress", "cls_bpf",
}

func cacheDir() (string, error) {
	dir := os.Getenv(CacheVariable)
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache directory: %w (set %s)", err, CacheVariable)
		}
		dir = filepath.Join(base, "midplane-lab")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// lockCache returns the cache's directory, locked: tests of several packages run at once; one of them fills the cache and
// the others wait for it.
func lockCache() (dir string, unlock func(), err error) {
	if dir, err = cacheDir(); err != nil {
		return "", nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		_ = lock.Close()
		return "", nil, err
	}
	return dir, func() { _ = lock.Close() }, nil
}

// kernel is a User-Mode Linux that can be booted: its program and the first file system of a guest.
type kernel struct {
	program string // path of linux.uml
	initrd  string // path of the initramfs
}

// findKernel makes the guest kernel ready once a process: it unpacks Debian's package into the cache when it is not
// there (it is not installed on the machine), builds the agent and writes the initramfs.
var findKernel = sync.OnceValues(func() (kernel, error) {
	dir, unlock, err := lockCache()
	if err != nil {
		return kernel{}, err
	}
	defer unlock()
	root := filepath.Join(dir, "uml")
	program := filepath.Join(root, "usr/bin/linux.uml")
	if _, err := os.Stat(program); err != nil {
		if err := fetchUML(root); err != nil {
			return kernel{}, err
		}
	}
	files, err := findModules(root)
	if err != nil {
		return kernel{}, err
	}
	initrd, err := makeInitrd(dir, files)
	return kernel{program, initrd}, err
})

// fetchUML downloads Debian's package user-mode-linux and unpacks it into root.
func fetchUML(root string) error {
	work := root + ".new"
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(filepath.Join(work, "download"), 0o755)); err != nil {
		return err
	}
	download := filepath.Join(work, "download")
	if _, err := run(download, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "user-mode-linux"); err != nil {
		return err
	}
	packages, _ := filepath.Glob(filepath.Join(download, "user-mode-linux_*.deb"))
	if len(packages) != 1 {
		return fmt.Errorf("apt-get download user-mode-linux left %d packages", len(packages))
	}
	if _, err := run(work, "dpkg", "-x", packages[0], work); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(download), os.RemoveAll(root), os.Rename(work, root))
}

func run(dir string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// makeInitrd writes the initramfs, the agent as /init and the modules (files of the host, in loading order), unless it is
// in the cache.
func makeInitrd(dir string, files []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), files)
	for _, pattern := range []string{"agent", "proto"} {
		entries, err := sources.ReadDir(pattern)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			b, err := sources.ReadFile(pattern + "/" + e.Name())
			if err != nil {
				return "", err
			}
			fmt.Fprintln(h, e.Name(), len(b))
			h.Write(b)
		}
	}
	path := filepath.Join(dir, fmt.Sprintf("initrd-%x.cpio", h.Sum(nil)[:8]))
	if _, err := os.Stat(path); err == nil {
		now := time.Now()
		return path, os.Chtimes(path, now, now)
	}
	pruneInitrds(dir)
	agent := path + ".agent"
	defer os.Remove(agent)
	if err := buildAgent(agent); err != nil {
		return "", err
	}
	var archive cpio
	for _, d := range []string{"dev", "proc", "mods", "lower", "up", "new", "root"} {
		archive.dir(d)
	}
	archive.console("dev/console")
	init, err := os.ReadFile(agent)
	if err != nil {
		return "", err
	}
	archive.file("init", init)
	for i, f := range files {
		b, err := readModule(f)
		if err != nil {
			return "", err
		}
		archive.file(fmt.Sprintf("mods/%02d-%s", i, strings.TrimSuffix(filepath.Base(f), ".xz")), b)
	}
	if err := os.WriteFile(path+".new", archive.bytes(), 0o644); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

func buildAgent(path string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "midplane/internal/lab/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	return nil
}

// readModule returns a module as the kernel takes it.
func readModule(file string) ([]byte, error) {
	if !strings.HasSuffix(file, ".xz") {
		return os.ReadFile(file)
	}
	out, err := exec.Command("xz", "-dc", file).Output()
	if err != nil {
		return nil, fmt.Errorf("xz -dc %s: %w", file, err)
	}
	return out, nil
}

// pruneInitrds removes what nobody booted for a week.
func pruneInitrds(dir string) {
	old, _ := filepath.Glob(filepath.Join(dir, "initrd-*"))
	for _, f := range old {
		if s, err := os.Stat(f); err == nil && time.Since(s.ModTime()) > 7*24*time.Hour {
			_ = os.Remove(f)
		}
	}
}

// findModules returns the files of the modules, in loading order.
func findModules(root string) ([]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, "usr/lib/uml/modules"), func(path string, _ os.DirEntry, err error) error {
		name, ok := strings.CutSuffix(filepath.Base(path), ".ko")
		// Two more modules are called diag; TIPC's is the one that is meant.
		if ok && slices.Contains(modules, name) && (name != "diag" || strings.Contains(path, "/tipc/")) {
			found[name] = path
		}
		return err
	})
	var files []string
	for _, m := range modules {
		if found[m] == "" {
			err = errors.Join(err, fmt.Errorf("the guest kernel has no module %s", m))
		}
		files = append(files, found[m])
	}
	return files, err
}
