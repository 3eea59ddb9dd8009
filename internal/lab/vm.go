//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// VMConfig says what a [VM] has. The zero value is good: one processor, 512 MB, no disks.
type VMConfig struct {
	Name   string   // host name; default "vm"
	Memory int      // MB; default 512
	CPUs   int      // default 1
	Append string   // words for the kernel's command line
	Disks  []string // image files of the host, /dev/vda and so on in the guest; the guest writes into them
	Root   bool     // the first disk is the root, and its /sbin/init process 1: the guest sees nothing of this machine
}

// VM is a running Debian 13 under qemu, in software emulation: what its kernel does is real, how fast it does it says
// nothing. It has every program and file of this machine, as a [Guest] does, and no network.
type VM struct {
	VMConfig
	machine
}

// vmPatience bounds one boot. It takes 10 s on an idle machine.
const vmPatience = 5 * time.Minute

// NewVM boots a virtual machine that ends with the test, and fails the test when it does not come up. Call RequireVM
// first. With Root the tree must have a service that runs AgentProgram.
func NewVM(t testing.TB, c VMConfig) *VM {
	t.Helper()
	if c.Name == "" {
		c.Name = "vm"
	}
	if c.Memory == 0 {
		c.Memory = 512
	}
	c.CPUs = max(c.CPUs, 1)
	v := &VM{VMConfig: c, machine: machine{t: t, name: c.Name, share: t.TempDir()}}
	t.Cleanup(func() {
		v.Kill()
		if t.Failed() && v.console != nil {
			t.Logf("lab: console of %s:\n%s", v.Name, tail(v.Console()))
		}
	})
	v.Boot()
	return v
}

// Boot starts a VM that was killed or shut down. Its disks are as they were left. The emulator now and then runs code that the
// kernel is patching on another processor, and the kernel panics within seconds: then it is tried again, which is logged.
func (v *VM) Boot() {
	v.t.Helper()
	for try := 1; ; try++ {
		err := v.boot()
		if err == nil {
			return
		}
		if try == 3 || !strings.Contains(v.Console(), "Kernel panic - not syncing") {
			v.t.Fatalf("lab: boot of %s: %v", v.Name, err)
		}
		v.t.Logf("lab: boot %d of %s: %v; console:\n%s", try, v.Name, err, tail(v.Console()))
		v.Kill()
	}
}

// Reboot is Kill and Boot.
func (v *VM) Reboot() {
	v.t.Helper()
	v.Kill()
	v.Boot()
}

func (v *VM) boot() error {
	k, err := findDebian()
	if err != nil {
		return err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	near, far := os.NewFile(uintptr(pair[0]), "line"), os.NewFile(uintptr(pair[1]), "guest's line")
	defer far.Close()
	words := v.Append
	if v.Root {
		words += " lab.root=/dev/vda"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-smp", strconv.Itoa(v.CPUs), "-m", strconv.Itoa(v.Memory), "-kernel", k.program, "-initrd", k.initrd,
		"-append", strings.Join([]string{
			"console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests rdinit=/init lab.machine=virtual lab.share=" + v.share, "lab.name=" + v.Name, words,
		}, " "),
		"-chardev", "socket,id=line,fd=3", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=line,name=lab",
		"-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
		"-virtfs", "local,path=" + strings.ReplaceAll(v.share, ",", ",,") + ",mount_tag=share,security_model=none",
	}
	for i, d := range v.Disks {
		args = append(args, "-drive", fmt.Sprintf("file=%s,if=none,id=d%d,format=raw,cache=unsafe", strings.ReplaceAll(d, ",", ",,"), i),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d", i))
	}
	v.console = &console{}
	v.cmd = exec.Command("qemu-system-x86_64", args...)
	v.cmd.Stdout, v.cmd.Stderr = v.console, v.console
	v.cmd.ExtraFiles = []*os.File{far}
	v.cmd.WaitDelay = time.Second
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	v.gone = make(chan struct{})
	if err := v.cmd.Start(); err != nil {
		_ = near.Close()
		return err
	}
	if v.Root { // a whole system comes up, not only a kernel
		return v.await(near, 3*vmPatience)
	}
	return v.await(near, vmPatience)
}

// AgentProgram returns the path of the lab's agent, a static program for the tree of a VM with Root: started there as a
// service it runs what Run, Sh and Start say.
func AgentProgram(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab-agent")
	if err := buildAgent(path); err != nil {
		t.Fatalf("lab: %v", err)
	}
	return path
}

// Ended waits until the guest has switched itself off, and says whether it did so in time.
func (v *VM) Ended(patience time.Duration) bool {
	select {
	case <-v.gone:
		return true
	case <-time.After(patience):
		return false
	}
}
