//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// setup turns a bare kernel into a guest: modules, the host's root read-only under an overlay, and the directory
// that host and guest share at /run/lab. It returns what went wrong, one line each; the guest goes on without it.
func setup() string {
	var bad []string
	note := func(what string, err error) {
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", what, err))
		}
	}
	mount := func(source, target, fs string, flags uintptr, data string) {
		note("mkdir "+target, os.MkdirAll(target, 0o755))
		note("mount "+fs+" on "+target, syscall.Mount(source, target, fs, flags, data))
	}
	param := kernelParameters()
	modules, _ := filepath.Glob("/mods/*.ko")
	for _, m := range modules {
		note(m, insertModule(m))
	}
	mount("none", "/up", "tmpfs", 0, "")
	note("overlay", errors.Join(os.Mkdir("/up/u", 0o755), os.Mkdir("/up/w", 0o755)))
	mountHost := func(target string, flags uintptr, dir string) { mount("none", target, "hostfs", flags, dir) }
	if virtual(param) {
		mountHost = func(target string, flags uintptr, dir string) {
			source, cache := "share", "none"
			if dir == "/" {
				source, cache = "root", "loose"
			}
			mount(source, target, "9p", flags, "trans=virtio,version=9p2000.L,msize=262144,cache="+cache)
		}
	}
	mountHost("/lower", syscall.MS_RDONLY, "/")
	mount("overlay", "/new", "overlay", 0, "lowerdir=/lower,upperdir=/up/u,workdir=/up/w")
	mount("none", "/new/proc", "proc", 0, "")
	mount("none", "/new/sys", "sysfs", 0, "")
	mount("none", "/new/dev", "devtmpfs", 0, "")
	mount("none", "/new/dev/shm", "tmpfs", 0, "")
	mount("none", "/new/dev/pts", "devpts", 0, "")
	mount("none", "/new/run", "tmpfs", 0, "")
	if dir := param["lab.share"]; dir != "" {
		mountHost("/new/run/lab", 0, dir)
	}
	if virtual(param) {
		mount("none", "/new/sys/kernel/security", "securityfs", 0, "")
		mount("none", "/new/sys/fs/bpf", "bpf", 0, "")
		mount("none", "/new/sys/fs/cgroup", "cgroup2", 0, "")
	}
	if name := param["lab.name"]; name != "" {
		note("hostname", syscall.Sethostname([]byte(name)))
	}
	if virtual(param) {
		// Moved to the top, not only chrooted: who is chrooted gets no user namespaces.
		note("chdir", syscall.Chdir("/new"))
		note("move", syscall.Mount("/new", "/", "", syscall.MS_MOVE, ""))
		note("chroot", syscall.Chroot("."))
	} else {
		note("chroot", syscall.Chroot("/new"))
	}
	note("chdir", syscall.Chdir("/"))
	note("loopback up", interfaceUp("lo"))
	return strings.Join(bad, "\n")
}

// proc mounts /proc, where the kernel's command line is.
func proc() error {
	if err := os.MkdirAll("/proc", 0o755); err != nil {
		return err
	}
	return syscall.Mount("none", "/proc", "proc", 0, "")
}

// virtual says whether the guest is a virtual machine rather than a User-Mode Linux.
func virtual(param map[string]string) bool { return param["lab.machine"] == "virtual" }

func kernelParameters() map[string]string {
	b, _ := os.ReadFile("/proc/cmdline")
	m := map[string]string{}
	for word := range strings.FieldsSeq(string(b)) {
		k, v, _ := strings.Cut(word, "=")
		m[k] = v
	}
	return m
}

func insertModule(path string) error {
	image, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	parameters := []byte{0}
	_, _, errno := syscall.Syscall(syscall.SYS_INIT_MODULE,
		uintptr(unsafe.Pointer(&image[0])), uintptr(len(image)), uintptr(unsafe.Pointer(&parameters[0])))
	if errno != 0 && errno != syscall.EEXIST {
		return errno
	}
	return nil
}

// interfaceUp sets IFF_UP on a device.
func interfaceUp(name string) error {
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(s)
	var ifreq struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(ifreq.name[:], name)
	ifreq.flags = syscall.IFF_UP
	return ioctl(s, syscall.SIOCSIFFLAGS, unsafe.Pointer(&ifreq))
}

func ioctl(fd int, request uintptr, p unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}
