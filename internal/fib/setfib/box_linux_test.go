package setfib

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/kernel"
	"midplane/internal/lab"
)

// box is the host with FIBs under test: a namespace of this machine, or a guest.
//
//	client c0 ─ eth0 ── p0 ┐
//	                       │ box: FIB blue (10) has p0, FIB red (20) has p1
//	client c1 ─ eth0 ── p1 ┘
//
// All clients have 198.51.100.2, the box has 198.51.100.1 on each port.
type box struct {
	t        testing.TB
	dir      string // of bindings, as the box sees it
	self     string // this test binary
	bindings []binding.Binding
	clients  []*lab.Namespace
	macs     []string // of the ports
	shared   string   // a directory of this machine
	sharedAs string   // the same as the box sees it

	netns uint64 // inode of its namespace; of a native box only

	do      func(func() error) error // in the namespace; of a native box only
	start   func(argv ...string) *lab.Proc
	run     func(argv ...string) string // fails the test
	capture []captured                  // devices that packets of the FIBs pass
}

type captured struct {
	ns     *lab.Namespace
	device string
}

const (
	serverAddr = "198.51.100.1"
	clientAddr = "198.51.100.2"
)

var fibNames = []string{"blue", "red"}

// fibID is the number of FIB i.
func fibID(i int) int { return 10 * (i + 1) }

func clientMAC(i int) string { return fmt.Sprintf("02:00:00:00:c1:%02x", i) }
func serverMAC(i int) string { return fmt.Sprintf("02:00:00:00:5e:%02x", i) }

// exec starts a command in FIB i of the box.
func (b *box) exec(i int, argv ...string) *lab.Proc {
	b.t.Helper()
	return b.start(b.execArgs(b.bindings[i].Name, argv...)...)
}

func (b *box) execArgs(which string, argv ...string) []string {
	return append([]string{b.self, "fib-exec", b.dir, which, "--"}, argv...)
}

// tool starts one of toolMain's programs in FIB i.
func (b *box) tool(i int, args ...string) *lab.Proc {
	b.t.Helper()
	return b.exec(i, append([]string{b.self}, args...)...)
}

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newClients makes the clients, each with an Ethernet device to the device of the box that has the same number.
func newClients(t testing.TB, n int) (clients []*lab.Namespace) {
	for range n {
		clients = append(clients, lab.NewNamespace(t))
	}
	return clients
}

// fibs is what the box has, as the kernel side is told. ports is how many ports each FIB has, device names them.
func fibs(backend binding.Backend, ports int, device func(n int) string) (l []kernel.FIB) {
	for i, name := range fibNames {
		f := kernel.FIB{ID: uint32(fibID(i)), Name: name, Backend: kernel.Backend(backend), DNS: []netip.Addr{netip.MustParseAddr(clientAddr)}}
		for p := range ports {
			// Each FIB has the same networks, and one address that no other has.
			addrs := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("198.51.%d.1/24", 100+p)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::1/64", p))}
			if p == 0 {
				addrs = append(addrs, netip.MustParsePrefix(ownAddr(i)+"/32"))
			}
			f.Ports = append(f.Ports, kernel.Port{Device: device(i*ports + p), Addresses: addrs, NoDAD: true})
		}
		l = append(l, f)
	}
	return l
}

// ownAddr is the address that only FIB i has, peerAddr that of a client which only it has a route to.
func ownAddr(i int) string  { return fmt.Sprintf("203.0.113.%d", 10*i+1) }
func peerAddr(i int) string { return fmt.Sprintf("203.0.113.%d", 10*i+2) }

// configureClient gives a client the addresses of the network at port p of its FIB.
func configureClient(client *lab.Namespace, p int) {
	client.IP("addr", "add", fmt.Sprintf("198.51.%d.2/24", 100+p), "dev", "eth0")
	client.IP("addr", "add", fmt.Sprintf("2001:db8:%d::2/64", p), "dev", "eth0", "nodad")
	client.IP("link", "set", "eth0", "up")
}

// newNativeBox makes a box of back end rules or netns in a namespace. ports is how many ports each FIB has.
func newNativeBox(t testing.TB, backend binding.Backend, ports int) *box {
	t.Helper()
	lab.RequireNamespaces(t)
	b := &box{t: t, dir: t.TempDir(), self: self(t)}
	var ns *lab.Namespace
	t.Cleanup(func() { // after the processes of the namespaces have ended
		clean := func() bool {
			if _, err := Refresh(b.dir); err != nil {
				t.Fatal(err)
			}
			return len(b.groups()) == 0
		}
		if _, ok := lab.Until(lab.Patience, clean); !ok {
			t.Errorf("cgroups %v stay behind", b.groups())
		}
	})
	ns = lab.NewNamespace(t)
	b.start, b.run, b.do = ns.Start, ns.Run, ns.Do
	if err := ns.Do(func() (err error) { b.netns, err = ownNetns(); return err }); err != nil {
		t.Fatal(err)
	}
	b.clients = newClients(t, len(fibNames)*ports)
	b.shared = t.TempDir()
	b.sharedAs = b.shared
	if err := os.Chmod(filepath.Dir(b.dir), 0o755); err != nil { // others than root read it
		t.Fatal(err)
	}
	for c, client := range b.clients {
		b.macs = append(b.macs, serverMAC(c))
		ns.IP("link", "add", nativePort(c), "address", serverMAC(c), "type", "veth", "peer", "name", "eth0", "address", clientMAC(c), "netns", client.Name())
		configureClient(client, c%ports)
		if backend != binding.Netns {
			b.capture = append(b.capture, captured{ns, nativePort(c)})
		}
	}
	k, err := kernel.Open(kernel.Config{Dir: b.dir, NetnsDir: filepath.Join(b.dir, "netns"), Netns: "/run/netns/" + ns.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.killAll()
		if _, err := k.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		_ = k.Close()
	})
	if r, err := k.Apply(t.Context(), fibs(backend, ports, nativePort)); err != nil {
		t.Fatalf("%v after %s", err, strings.Join(r.Operations, "\n"))
	}
	if b.bindings, err = binding.Load(b.dir); err != nil || len(b.bindings) != len(fibNames) {
		t.Fatalf("bindings %v, %v", b.bindings, err)
	}
	return b
}

func nativePort(n int) string { return fmt.Sprintf("p%d", n) }

// killAll ends the processes of all FIBs.
func (b *box) killAll() {
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	l, err := binding.Load(b.dir)
	if err != nil {
		b.t.Error(err)
	}
	for _, f := range l {
		if err := b.do(func() error { return Remove(ctx, b.dir, f, true) }); err != nil {
			b.t.Error(err)
		}
	}
}

// inFIB runs a command where the devices of FIB i are, which is the box or, for back end netns, the FIB's namespace.
func (b *box) inFIB(i int, argv ...string) string {
	b.t.Helper()
	if b.bindings[i].Backend == binding.Netns {
		argv = append([]string{"nsenter", "--net=" + b.bindings[i].Netns}, argv...)
	}
	return b.run(argv...)
}

// route gives FIB i a route of its own, to its client's address.
func (b *box) route(i int, to string) {
	b.t.Helper()
	argv := []string{"ip", "route", "add", to, "dev", b.bindings[i].Ports[0]}
	if b.bindings[i].Backend != binding.Netns {
		argv = append(argv, "table", fmt.Sprint(fibID(i)))
	}
	b.inFIB(i, argv...)
}

// save writes the record of FIBs.
func (b *box) save() {
	b.t.Helper()
	if err := binding.Save(b.dir, b.bindings); err != nil {
		b.t.Fatal(err)
	}
}

// groups lists the cgroups of the box's FIBs.
func (b *box) groups() (l []string) {
	b.t.Helper()
	h, err := openHierarchy(true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer h.Close()
	err = h.groups(func(dir string) error {
		if g, ok := parseGroup(filepath.Base(dir)); ok && g.netns == b.netns {
			l = append(l, dir)
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}
