package probe

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"midplane/internal/digsig/gaps"
	"midplane/internal/mountinfo"
)

// Host reads what this machine has. What cannot be read counts as absent, except that the kernel's version must be
// readable. Nothing is changed; a temporary file is made and removed. Without root the features that need it are absent.
func Host() (gaps.Host, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return gaps.Host{}, fmt.Errorf("uname: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	k, err := gaps.ParseKernel(release)
	if err != nil {
		return gaps.Host{}, err
	}
	h := gaps.Host{
		Release: release, Kernel: k, LSMs: lsms(), Fanotify: fanotify(),
		MemfdNoexec: sysctl("vm/memfd_noexec"), UserNamespaces: userNamespaces(), Yama: sysctl("kernel/yama/ptrace_scope"), Lockdown: lockdown(),
		Modules:    exists("/proc/modules") && sysctl("kernel/modules_disabled") == 0,
		ModuleSigs: text("/sys/module/module/parameters/sig_enforce") == "Y",
		Kexec:      sysctl("kernel/kexec_load_disabled") == 0,
	}
	h.BPF = bpf(h.LSMs)
	h.FileSystems, err = fileSystems()
	return h, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

// sysctl returns a number under /proc/sys, gaps.Absent when there is none.
func sysctl(name string) int {
	n, err := strconv.Atoi(text(filepath.Join("/proc/sys", name)))
	if err != nil {
		return gaps.Absent
	}
	return n
}

// userNamespaces is 0 as well where another setting keeps users from making any (Debian's and Ubuntu's own).
func userNamespaces() int {
	if sysctl("kernel/unprivileged_userns_clone") == 0 || sysctl("kernel/apparmor_restrict_unprivileged_userns") > 0 {
		return 0
	}
	return sysctl("user/max_user_namespaces")
}

// lsmNames are the numbers of include/uapi/linux/lsm.h, from 100.
var lsmNames = []string{
	"capability", "selinux", "smack", "tomoyo", "apparmor", "yama", "loadpin", "safesetid", "lockdown", "bpf", "landlock", "ima", "evm", "ipe",
}

// lsms lists the active LSMs: from securityfs, or where that is not mounted from lsm_list_modules(2) (Linux 6.8).
func lsms() []string {
	if s := text("/sys/kernel/security/lsm"); s != "" {
		return strings.Split(s, ",")
	}
	var ids [64]uint64
	size := uint32(unsafe.Sizeof(ids))
	n, _, errno := unix.Syscall(unix.SYS_LSM_LIST_MODULES, uintptr(unsafe.Pointer(&ids)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	var names []string
	for _, id := range ids[:min(int(n), len(ids))] {
		if i := int(id) - 100; i >= 0 && i < len(lsmNames) {
			names = append(names, lsmNames[i])
		} else {
			names = append(names, fmt.Sprintf("lsm%d", id))
		}
	}
	return names
}

// lockdown returns the word in brackets of "none [integrity] confidentiality".
func lockdown() string {
	_, rest, _ := strings.Cut(text("/sys/kernel/security/lockdown"), "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

func bpf(active []string) gaps.BPFFeatures {
	f := gaps.BPFFeatures{Active: slices.Contains(active, "bpf")}
	spec, err := btf.LoadKernelSpec()
	if f.BTF = err == nil; f.BTF {
		var digest *btf.Func
		f.Digest = spec.TypeByName("bpf_get_fsverity_digest", &digest) == nil
	}
	err = features.HaveProgramType(ebpf.LSM)
	if f.Load = err == nil; !f.Load {
		f.Err = err.Error()
	}
	return f
}

// fanotify tries each feature on a file of its own, so that nobody is held up.
func fanotify() gaps.FanotifyFeatures {
	var f gaps.FanotifyFeatures
	const class, flags = unix.FAN_CLASS_CONTENT | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK, unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC
	has := func(extra uint) bool {
		fd, err := unix.FanotifyInit(class|extra, flags)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err == nil
	}
	fd, err := unix.FanotifyInit(class, flags)
	if err != nil {
		f.Err = "fanotify_init: " + err.Error()
		return f
	}
	defer unix.Close(fd)
	f.Unlimited = has(unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS)
	f.PIDFD = has(unix.FAN_REPORT_PIDFD)
	file, err := os.CreateTemp("", "midplane-probe-*")
	if err != nil {
		f.Err = err.Error()
		return f
	}
	defer os.Remove(file.Name())
	defer file.Close()
	mark := func(flags uint, mask uint64) error {
		return unix.FanotifyMark(fd, flags, mask, unix.AT_FDCWD, file.Name())
	}
	if err := mark(unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM); err != nil {
		f.Err = "fanotify_mark: " + err.Error()
		return f
	}
	f.Permission = true
	// Removing a mark that is not there fails with ENOENT where the flag is known. Adding one would stop the machine.
	f.FileSystem = errors.Is(mark(unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_EXEC_PERM), unix.ENOENT)
	if err := mark(unix.FAN_MARK_REMOVE, unix.FAN_OPEN_EXEC_PERM); err == nil {
		f.Evictable = mark(unix.FAN_MARK_ADD|unix.FAN_MARK_EVICTABLE|unix.FAN_MARK_IGNORED_MASK, unix.FAN_OPEN_EXEC_PERM) == nil
	}
	return f
}

// pseudo are file systems of the kernel's own that cannot hold a program that somebody put there.
var pseudo = []string{
	"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore",
	"rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
}

// fileSystems lists the super blocks that are mounted in this mount namespace.
func fileSystems() ([]gaps.FileSystem, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []gaps.FileSystem
	at := map[string]int{} // of a device in all
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m, err := mountinfo.ParseLine(lines.Text())
		if err != nil || slices.Contains(pseudo, m.Type) {
			continue
		}
		i, known := at[m.Dev]
		if !known {
			fs := gaps.FileSystem{Mount: m.Point, Type: m.Type, NoExec: m.Has("noexec")}
			fs.Verity, fs.Lack, fs.Cure = verity(m)
			at[m.Dev] = len(all)
			all = append(all, fs)
			continue
		}
		all[i].NoExec = all[i].NoExec && m.Has("noexec")
	}
	return all, lines.Err()
}

// verity asks a mount point whether its file system measures: ENODATA says yes, and that this directory has nothing to
// be measured (fs/verity/measure.c; ext4 and f2fs answer EOPNOTSUPP before when the super block lacks the feature).
func verity(m mountinfo.Mount) (ok bool, lack, cure string) {
	fd, err := unix.Open(m.Point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, "cannot be opened: " + err.Error(), ""
	}
	defer unix.Close(fd)
	var digest struct {
		algorithm, size uint16
		octets          [64]byte
	}
	digest.size = uint16(len(digest.octets))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.FS_IOC_MEASURE_VERITY, uintptr(unsafe.Pointer(&digest)))
	switch {
	case errno == unix.ENODATA || errno == 0:
		return true, "", ""
	case errno == unix.EOPNOTSUPP && m.Type == "ext4":
		return false, "the super block lacks the feature verity", "tune2fs -O verity " + m.Source
	case errno == unix.EOPNOTSUPP && m.Type == "f2fs":
		return false, "the super block lacks the feature verity", "mkfs.f2fs -O verity anew"
	case slices.Contains([]string{"ext4", "f2fs", "btrfs"}, m.Type):
		return false, "the kernel has no fs-verity (" + errno.Error() + ")", "a kernel with CONFIG_FS_VERITY=y"
	}
	return false, m.Type + " has no fs-verity", ""
}
