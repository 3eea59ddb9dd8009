//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"midplane/internal/lab/proto"
)

// GuestConfig says what a guest has. The zero value is good: one Ethernet device, 192 MB.
type GuestConfig struct {
	Name    string // host name and TIPC identity, up to 15 octets; default "g" and the station's number
	NICs    int    // Ethernet devices, eth0 and so on, each on a bridge of its own; default 1
	Memory  string // as the kernel's mem=; default "192M"
	NetID   uint32 // TIPC network; default the kernel's own, 4711
	Address uint32 // TIPC node address to be set in place of Identity, for legacy addressing; 0: identity
}

// Guest is a running Linux 6.1 of its own with kernel TIPC, and its devices on a network.
type Guest struct {
	GuestConfig
	Index int     // which station of the network it is, from 1
	Ports []*Port // its plugs, one a device
	t     testing.TB

	share   string // directory of the host, /run/lab in the guest
	network *Network
	cmd     *exec.Cmd
	console *console
	control *control
	gone    chan struct{} // closed when the kernel's process has ended
}

// bootPatience bounds one boot. It takes 2 s on an idle machine.
const bootPatience = 60 * time.Second

// Guest boots a guest and gives its devices addresses (Addr4, Addr6), and TIPC its identity and network; no TIPC bearer
// is enabled. It fails the test when the guest does not come up. Call Require first.
func (n *Network) Guest(c GuestConfig) *Guest {
	n.t.Helper()
	g := n.addGuest(c)
	g.Boot()
	return g
}

// Guests boots count guests at once, which is quicker than one after the other.
func (n *Network) Guests(count int, c GuestConfig) []*Guest {
	n.t.Helper()
	guests := make([]*Guest, count)
	errs := make([]error, count)
	var wg sync.WaitGroup
	for i := range guests {
		guests[i] = n.addGuest(c)
		wg.Go(func() { errs[i] = guests[i].boot() })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			n.t.Fatalf("lab: boot of %s: %v", guests[i].Name, err)
		}
	}
	return guests
}

// addGuest makes everything of a guest except that it runs.
func (n *Network) addGuest(c GuestConfig) *Guest {
	n.t.Helper()
	n.stations++
	c.NICs = max(c.NICs, 1)
	if c.Name == "" {
		c.Name = fmt.Sprintf("g%d", n.stations)
	}
	if c.Memory == "" {
		c.Memory = "192M"
	}
	n.needBridges(c.NICs)
	g := &Guest{GuestConfig: c, Index: n.stations, t: n.t, network: n, share: n.t.TempDir()}
	for nic := range c.NICs {
		g.Ports = append(g.Ports, n.tap(fmt.Sprintf("g%de%d", g.Index, nic), nic))
	}
	if err := writeKit(g.share); err != nil {
		n.t.Fatalf("lab: %v", err)
	}
	n.t.Cleanup(func() {
		g.Kill()
		if n.t.Failed() && g.console != nil {
			n.t.Logf("lab: console of %s:\n%s", g.Name, tail(g.Console()))
		}
	})
	return g
}

// Boot starts a guest that was killed or shut down. Its devices and addresses are as before.
func (g *Guest) Boot() {
	g.t.Helper()
	if err := g.boot(); err != nil {
		g.t.Fatalf("lab: boot of %s: %v", g.Name, err)
	}
}

func (g *Guest) boot() error {
	k, err := findKernel()
	if err != nil {
		return err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	near, far := os.NewFile(uintptr(pair[0]), "serial line"), os.NewFile(uintptr(pair[1]), "guest's serial line")
	args := []string{
		"mem=" + g.Memory, "initrd=" + k.initrd, "rdinit=/init", "quiet",
		"con0=null,fd:1", "con=null", "ssl0=fd:3", "ssl=null", "uml_dir=" + g.share + "/", "umid=" + g.Name,
		"lab.share=" + g.share, "lab.name=" + g.Name,
	}
	for nic, p := range g.Ports {
		args = append(args, fmt.Sprintf("eth%d=tuntap,%s,%s", nic, p.name, mac(g.Index, nic)))
	}
	if bigFPState() {
		args = append(args, smallFPEnv...)
	}
	g.console = &console{}
	g.cmd = exec.Command(k.program, args...)
	g.cmd.Stdout, g.cmd.Stderr = g.console, g.console
	g.cmd.ExtraFiles = []*os.File{far}
	g.cmd.WaitDelay = time.Second
	// As process 1 of a process namespace the kernel takes every process of the guest with it, and the parent-death
	// signal takes the kernel when the test binary is killed.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Setsid: true, Pdeathsig: syscall.SIGKILL}
	g.gone = make(chan struct{})
	if err := g.start(g.gone); err != nil {
		_ = near.Close()
		_ = far.Close()
		return err
	}
	_ = far.Close()
	g.control = newControl(near)
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait()
		_ = near.Close()
		close(gone)
	}(g.cmd, g.gone)

	select {
	case report := <-g.control.hello:
		if report != "" {
			g.Kill()
			return fmt.Errorf("guest's own report:\n%s", report)
		}
	case <-g.gone:
		return fmt.Errorf("the kernel ended\n%s", tail(g.Console()))
	case <-time.After(bootPatience):
		g.Kill()
		return fmt.Errorf("not up after %v\n%s", bootPatience, tail(g.Console()))
	}
	return g.configure()
}

// start starts the kernel's process in the network's namespace. gone will be closed when it has ended.
func (g *Guest) start(gone <-chan struct{}) error {
	if !bigFPState() {
		return g.network.Do(g.cmd.Start)
	}
	started := make(chan error, 2)
	go func() {
		started <- g.network.Do(func() error {
			if err := refuseXState(); err != nil {
				return err
			}
			err := g.cmd.Start()
			started <- err
			if err == nil {
				<-gone // the parent-death signal is that of this thread
			}
			return err
		})
	}()
	return <-started
}

// configure gives the booted guest its addresses and its place in TIPC.
func (g *Guest) configure() error {
	var script strings.Builder
	script.WriteString("set -e\nip -batch - <<END\n")
	for nic := range g.Ports {
		script.WriteString(addressing(g.Index, nic, fmt.Sprintf("eth%d", nic)))
	}
	script.WriteString("END\n")
	if g.NetID != 0 {
		fmt.Fprintf(&script, "tipc node set netid %d\n", g.NetID)
	}
	if g.Address != 0 {
		fmt.Fprintf(&script, "tipc node set address %d.%d.%d\n", g.Address>>24, g.Address>>12&0xfff, g.Address&0xfff)
	} else {
		fmt.Fprintf(&script, "tipc node set identity %s\n", g.Name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	r, err := g.Run(ctx, script.String())
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("configuration: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	return err
}

// Kill switches the guest off as a power cut would, at once, and waits until it is gone. Killing what is not running
// does nothing.
func (g *Guest) Kill() {
	if g.cmd == nil || g.cmd.Process == nil {
		return
	}
	_ = g.cmd.Process.Kill()
	<-g.gone
}

// Shutdown lets the guest sync and switch itself off, and waits until it is gone. Nothing in it says good-bye to peers.
func (g *Guest) Shutdown() {
	g.t.Helper()
	_ = g.control.send(proto.Frame{Kind: proto.Poweroff})
	select {
	case <-g.gone:
	case <-time.After(Patience):
		g.t.Errorf("lab: %s does not shut down", g.Name)
		g.Kill()
	}
}

// Reboot is Kill and Boot: the guest comes back without memory, with the same addresses and identity.
func (g *Guest) Reboot() {
	g.t.Helper()
	g.Kill()
	g.Boot()
}

// Console returns what the kernel printed since its boot.
func (g *Guest) Console() string { return g.console.String() }

// Addr is the IPv4 address of the guest's device number nic.
func (g *Guest) Addr(nic int) netip.Addr { return Addr4(g.Index, nic) }

// MAC is the Ethernet address of the guest's device number nic.
func (g *Guest) MAC(nic int) string { return mac(g.Index, nic) }

// Addr6 is the IPv6 address of the guest's device number nic.
func (g *Guest) Addr6(nic int) netip.Addr { return Addr6(g.Index, nic) }

// Share writes a file that the guest finds under the returned path, and the host under SharePath.
func (g *Guest) Share(name string, data []byte) string {
	g.t.Helper()
	if err := os.WriteFile(g.SharePath(name), data, 0o755); err != nil {
		g.t.Fatalf("lab: %v", err)
	}
	return "/run/lab/" + name
}

// SharePath is where the host finds the guest's file /run/lab/name. A guest's file is complete when the program that
// wrote it has closed it.
func (g *Guest) SharePath(name string) string { return filepath.Join(g.share, name) }

// Result is how a command ended. Code is the exit code, or 128 plus the signal.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a shell command (bash) in the guest to its end. The error is about the lab or ctx; when ctx ends first, the
// command is killed. Safe for concurrent use.
func (g *Guest) Run(ctx context.Context, command string) (Result, error) {
	p, err := g.control.start(g.t, g.Name+": "+firstLine(command), proto.Command{Argv: []string{"bash", "-c", command}})
	if err != nil {
		return Result{}, err
	}
	_ = p.Stdin.Close()
	code, err := p.Wait(ctx)
	if err != nil {
		_ = p.signal(syscall.SIGKILL)
	}
	return Result{p.Stdout.String(), p.Stderr.String(), code}, err
}

// Sh runs a shell command in the guest and fails the test when it fails. It returns the standard output.
func (g *Guest) Sh(format string, args ...any) string {
	g.t.Helper()
	command := fmt.Sprintf(format, args...)
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	r, err := g.Run(ctx, command)
	if err != nil || r.Code != 0 {
		g.t.Fatalf("%s: %s: exit %d, %v\n%s%s", g.Name, command, r.Code, err, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Start starts a program in the guest and leaves it running until it ends or the guest does.
func (g *Guest) Start(argv ...string) *Proc {
	g.t.Helper()
	p, err := g.control.start(g.t, g.Name+": "+strings.Join(argv, " "), proto.Command{Argv: argv})
	if err != nil {
		g.t.Fatalf("lab: %s: %v", g.Name, err)
	}
	return p
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// console keeps what a guest's kernel printed.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.b.Len() > maxOutput {
		return len(b), nil
	}
	return c.b.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}
