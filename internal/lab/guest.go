//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
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
	machine

	network *Network
}

// bootPatience bounds one boot. It takes 2 s on an idle machine.
const bootPatience = 5 * time.Minute

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
	g := &Guest{GuestConfig: c, Index: n.stations, machine: machine{t: n.t, name: c.Name, share: n.t.TempDir()}, network: n}
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
	if err := g.await(near, bootPatience); err != nil {
		return err
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

// Reboot is Kill and Boot: the guest comes back without memory, with the same addresses and identity.
func (g *Guest) Reboot() {
	g.t.Helper()
	g.Kill()
	g.Boot()
}

// Addr is the IPv4 address of the guest's device number nic.
func (g *Guest) Addr(nic int) netip.Addr { return Addr4(g.Index, nic) }

// MAC is the Ethernet address of the guest's device number nic.
func (g *Guest) MAC(nic int) string { return mac(g.Index, nic) }

// Addr6 is the IPv6 address of the guest's device number nic.
func (g *Guest) Addr6(nic int) netip.Addr { return Addr6(g.Index, nic) }
