package tierb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// probeVariable makes the signed copy of the test binary a program that tries something.
const probeVariable = "MIDPLANE_TIERB_PROBE"

func TestMain(m *testing.M) {
	what := os.Getenv(probeVariable)
	if what == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	try, ok := probes[what]
	if !ok {
		fmt.Println("no such probe")
		os.Exit(2)
	}
	switch err := try(os.Args[1:]); {
	case errors.Is(err, unix.EPERM):
		fmt.Println("denied")
	case err != nil:
		fmt.Println("error:", err)
	default:
		fmt.Println("ran")
	}
	os.Exit(0)
}

// probes say nil for what went through, and EPERM for what was denied.
var probes = map[string]func([]string) error{
	"memfd": func(a []string) error {
		b, err := os.ReadFile(a[0])
		if err != nil {
			return err
		}
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, b); err != nil {
			return err
		}
		return execute(fmt.Sprintf("/proc/self/fd/%d", fd))
	},
	"unlinked": func(a []string) error {
		b, err := os.ReadFile(a[0])
		if err != nil {
			return err
		}
		const path = "/dev/shm/unlinked"
		if err := os.WriteFile(path, b, 0o755); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return execute(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	},
	// In namespaces of its own, made by who started it.
	"tmpfs": func(a []string) error {
		if err := unix.Mount("none", "/tmp", "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount: %v", err)
		}
		b, err := os.ReadFile(a[0])
		if err != nil {
			return err
		}
		if err := os.WriteFile("/tmp/x", b, 0o755); err != nil {
			return fmt.Errorf("write: %v", err)
		}
		return execute("/tmp/x")
	},
	// Descriptor 3 was opened before anything was enforced.
	"mapfd":    func([]string) error { return mapped(3, unix.PROT_READ|unix.PROT_EXEC) },
	"mprotect": func(a []string) error { return withFile(a[0], protected) },
	"personality": func(a []string) error {
		const readImpliesExec = 0x0400000
		if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, readImpliesExec, 0, 0); errno != 0 {
			return errno
		}
		return withFile(a[0], func(fd int) error { return mapped(fd, unix.PROT_READ) })
	},
	"anonymous": func([]string) error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	},
	"anonymous mprotect": func([]string) error {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
	},
	// A private copy of a signed file's page, written, and then made executable.
	"patched": func(a []string) error {
		return withFile(a[0], func(fd int) error {
			b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
			if err != nil {
				return err
			}
			b[0]++
			return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
		})
	},
	"ptrace": func(a []string) error {
		pid, err := strconv.Atoi(a[0])
		if err != nil {
			return err
		}
		if err := unix.PtraceAttach(pid); err != nil {
			return err
		}
		_, _ = unix.Wait4(pid, nil, 0, nil)
		return unix.PtraceDetach(pid)
	},
	"memory": func(a []string) error {
		f, err := os.OpenFile("/proc/"+a[0]+"/mem", os.O_RDWR, 0)
		if err != nil {
			return errors.Join(unix.EPERM, err) // EACCES there
		}
		return f.Close()
	},
	"check": func(a []string) error {
		path, err := unix.BytePtrFromString(a[0])
		if err != nil {
			return err
		}
		none := []*byte{nil}
		const atFDCWD, execveCheck = -100, 0x10000
		dir := atFDCWD
		_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(dir), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&none[0])), uintptr(unsafe.Pointer(&none[0])), execveCheck, 0)
		if errno != 0 {
			return errno
		}
		return nil
	},
	"module": func(a []string) error {
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return err
		}
		return unix.DeleteModule("dummy", 0)
	},
	"module from memory": func(a []string) error {
		b, err := os.ReadFile(a[0])
		if err != nil {
			return err
		}
		return unix.InitModule(b, "")
	},
	"write":  func(a []string) error { return writable(a[0]) },
	"detach": func([]string) error { return detach() },
	"crash": func([]string) error {
		debug.SetTraceback("crash") // dumps core
		panic("crash")
	},
	"modprobe": func([]string) error { return requestModule() },
	"sleep":    func([]string) error { _, err := io.Copy(io.Discard, os.Stdin); return err },
}

// execute replaces the process, so that nil never comes back: the program says itself that it ran.
func execute(path string) error { return unix.Exec(path, []string{path}, nil) }

func withFile(path string, f func(fd int) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return f(int(file.Fd()))
}

func mapped(fd, prot int) error {
	_, err := unix.Mmap(fd, 0, 4096, prot, unix.MAP_PRIVATE)
	return err
}

func protected(fd int) error {
	b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("mmap: %v", err)
	}
	return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
}

func writable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// requestModule asks for an address family that a module would bring.
func requestModule() error {
	fd, err := unix.Socket(unix.AF_LLC, unix.SOCK_DGRAM, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return nil
}

// detach tries every link of the kernel.
func detach() error {
	got := 0
	for id := range link.ID(500) {
		l, err := link.NewFromID(id)
		if err != nil {
			continue
		}
		got++
		if err := l.Detach(); err == nil {
			return nil
		}
		l.Close()
	}
	if got == 0 {
		return errors.New("no links found")
	}
	return unix.EPERM
}

// patience bounds what one program may take; the guest is slow.
const patience = time.Minute

// output runs a program to its end. One that hangs is killed, and says where it hung.
func output(cmd *exec.Cmd) ([]byte, error) {
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	hung := time.AfterFunc(patience, func() {
		stacks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", cmd.Process.Pid))
		for _, s := range stacks {
			text, _ := os.ReadFile(s)
			fmt.Printf("%v hangs: %s\n%s%s", cmd.Args, s, text, b.String())
		}
		_ = cmd.Process.Kill()
	})
	defer hung.Stop()
	err := cmd.Wait()
	return b.Bytes(), err
}

// outcome runs a program and tells in the table's words what came of it.
func outcome(cmd *exec.Cmd) string {
	b, err := output(cmd)
	out := strings.TrimSpace(string(b))
	lines := strings.Split(out, "\n")
	switch last := lines[len(lines)-1]; {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ETXTBSY), last == "denied":
		return deny
	case err == nil && (last == "ran" || last == "loaded"):
		return allow
	case strings.Contains(out, "ran") || strings.Contains(out, "loaded"):
		return "ran, and " + out
	case strings.Contains(out, "failed to map") || strings.Contains(out, "not permitted"):
		return deny
	case err == nil && out == "":
		return allow
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return deny + " (" + exit.Sys().(syscall.WaitStatus).Signal().String() + ")"
	}
	return fmt.Sprintf("%v: %s", err, out)
}

func program(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"LC_ALL=C"}
	return cmd
}

func tries(what string, args ...string) *exec.Cmd {
	cmd := program("/mnt/prog/probe", args...)
	cmd.Env = append(cmd.Env, probeVariable+"="+what)
	return cmd
}
