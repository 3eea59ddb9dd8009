package setfib

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/enter"
	"midplane/internal/sys"
)

// joinAttempts bounds how often the cgroup of a FIB is made anew, because another process removed it as empty before
// this one was in it.
const joinAttempts = 8

// Exec replaces the calling process by a program that runs in a FIB; it returns only if that fails. argv[0] is looked up
// in PATH unless it has a slash. The process keeps its number, environment, standard files and privileges; sockets that
// it has inherited stay where they are. When the FIB has name servers, /etc/resolv.conf is another file for it, in a
// mount namespace of its own. Without privileges and with name servers, the program is a child in a user namespace
// instead, for which the process waits, to which it passes SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2, and with whose exit code it ends.
//
// Errors: *MissingError, *fib.PrivilegeError, *sys.UnsupportedError; those of exec(2). After an error the process should
// end: it may be in the FIB's cgroup, and the calling goroutine stays locked to a thread that may be in the FIB.
func Exec(b binding.Binding, argv, env []string, o Options) error {
	if len(argv) == 0 {
		return errors.New("no command to run in the FIB")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if o.Port != "" && b.Backend != binding.Rules {
		return &enter.PortError{FIB: enter.Title(b), Port: o.Port, Want: "none: sockets are bound to single ports in back end rules only, and this is " + string(b.Backend)}
	}
	if o.Dir == "" {
		o.Dir = binding.DefaultDir()
	}
	runtime.LockOSThread() // namespaces and filters are of the thread that execs, the only one that is left
	if o.HostDNS {
		b.DNS = nil
	}
	switch b.Backend {
	case binding.Netns:
		err = enterNamespace(b)
	case binding.VRF, binding.Rules:
		var r rule
		if r, err = ruleFor(b, o.Port); err != nil {
			return err
		}
		err = enterGroup(b, r, o)
		if refused(err) {
			missing := &MissingError{enter.Title(b), lacks(), err}
			if len(o.Supervisor) == 0 || r.device == 0 {
				if r.device == 0 {
					missing.Missing = append(missing.Missing, "or, without these, one port to run at (the FIB has several)")
				}
				return missing
			}
			if len(b.DNS) > 0 {
				err = runStaged(job{b, path, argv, env, o})
			} else if env, err = supervise(b, env, r, o); err == nil {
				return execve(path, argv, env)
			}
			return fmt.Errorf("%w; and without privileges: %w", missing, err)
		}
	default:
		err = &sys.UnsupportedError{Feature: fmt.Sprintf("back end %q of FIB %s", b.Backend, enter.Title(b))}
	}
	if err != nil {
		return err
	}
	if len(b.DNS) > 0 {
		if err := mountResolvConf(b, o.Dir); err != nil {
			return err
		}
	}
	return execve(path, argv, env)
}

func execve(path string, argv, env []string) error {
	return &fs.PathError{Op: "exec", Path: path, Err: unix.Exec(path, argv, env)}
}

// enterGroup moves the process into the cgroup of a FIB, which enforces a rule.
func enterGroup(b binding.Binding, r rule, o Options) error {
	h, err := openHierarchy(true)
	if err != nil {
		return err
	}
	defer h.Close()
	for attempt := 1; ; attempt++ {
		err = enterGroupOnce(h, b, r, o)
		if attempt == joinAttempts || !(errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
}

func enterGroupOnce(h *hierarchy, b binding.Binding, r rule, o Options) error {
	ns, err := ownNetns()
	if err != nil {
		return err
	}
	dir, err := openGroup(h, group{b.FIB, ns, o.Port})
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := enforce(dir, r); err != nil {
		return err
	}
	return join(dir)
}

// leaveGroup moves the process out of the cgroup of the FIB that it is in, if any: its programs bind sockets to devices
// that are not in other namespaces.
func leaveGroup() error {
	path, err := processGroup("self")
	if err != nil {
		return nil // no cgroups, so in none
	}
	base, name := splitGroup(path)
	if name == "" {
		return nil
	}
	h, err := openHierarchy(true)
	if err != nil {
		return err
	}
	defer h.Close()
	dir, err := os.Open(filepath.Join(h.root, base))
	if err != nil {
		return err
	}
	defer dir.Close()
	return join(dir)
}

// refused says whether an error is for want of a privilege.
func refused(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)
}

// lacks lists what cgroup and BPF need that the process does not have.
func lacks() []string {
	var l []string
	if !capable(unix.CAP_BPF) && !capable(unix.CAP_SYS_ADMIN) {
		l = append(l, "CAP_BPF (before Linux 5.8 CAP_SYS_ADMIN), to load the program that puts sockets into the FIB")
	}
	if !capable(unix.CAP_NET_ADMIN) && !capable(unix.CAP_SYS_ADMIN) {
		l = append(l, "CAP_NET_ADMIN, to attach it to a cgroup")
	}
	path, err := processGroup("self")
	if err != nil {
		return append(l, "cgroup v2: "+err.Error())
	}
	base, _ := splitGroup(path)
	switch h, err := openHierarchy(true); {
	case err != nil:
		l = append(l, fmt.Sprintf("a cgroup that can be written: %v", err))
	default:
		defer h.Close()
		if err := unix.Access(h.root+base, unix.W_OK); err != nil {
			l = append(l, fmt.Sprintf("write access to the cgroup of the process, %s (%v); in a systemd unit: Delegate=yes, ProtectControlGroups=no", base, err))
		}
	}
	if len(l) == 0 {
		l = append(l, "these capabilities in the initial user namespace, or the consent of a security module")
	}
	return l
}

// capable says whether the process has a capability in effect.
func capable(c int) bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	return unix.Capget(&h, &d[0]) == nil && d[c/32].Effective&(1<<(c%32)) != 0
}

// enterNamespace moves the calling thread into the network namespace of a FIB, and gives it a mount namespace with the
// /sys that goes with it, as ip-netns(8) does.
func enterNamespace(b binding.Binding) error {
	if err := leaveGroup(); err != nil {
		return fmt.Errorf("fib %s: leave the cgroup of the FIB that this process is in: %w", enter.Title(b), err)
	}
	if err := enter.EnterNetns(b); err != nil {
		return err
	}
	if err := privateMounts(b, "/sys shows the devices of the namespace"); err != nil {
		return err
	}
	// A /sys that is busy stays below the new one; where there is none (a container), none is needed.
	if _, err := os.Stat("/sys/class/net"); err != nil {
		return nil
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	var cgroups string
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		cgroups = findMount(string(mounts))
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", flags, ""); err != nil {
		return fmt.Errorf("fib %s: mount /sys of the network namespace: %w", enter.Title(b), err)
	}
	if cgroups != "" {
		// The new /sys hides it; programs look for it there. Without it they find none, as after ip netns exec.
		_ = unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, "")
	}
	return nil
}

// privateMounts gives the calling thread a mount namespace from which nothing comes back; why is what for.
func privateMounts(b binding.Binding, why string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		if errors.Is(err, unix.EPERM) {
			return &enter.PrivilegeError{FIB: enter.Title(b), Op: "make a mount namespace", Need: "CAP_SYS_ADMIN", Why: why, Err: err}
		}
		return fmt.Errorf("fib %s: make a mount namespace: %w", enter.Title(b), err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("fib %s: detach the mount namespace: %w", enter.Title(b), err)
	}
	return nil
}
