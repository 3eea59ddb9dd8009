package setfib

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"midplane/internal/fib/binding"
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

// setup runs ip commands, one a line, in the box.
func (b *box) setup(format string, args ...any) {
	b.t.Helper()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		if f := strings.Fields(line); len(f) > 0 {
			b.run(f...)
		}
	}
}

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
		ns.IP("link", "add", fmt.Sprintf("p%d", c), "address", serverMAC(c), "type", "veth", "peer", "name", "eth0", "address", clientMAC(c), "netns", client.Name())
		b.macs = append(b.macs, serverMAC(c))
		client.IP("addr", "add", clientAddr+"/24", "dev", "eth0")
		client.IP("link", "set", "eth0", "up")
		if c%ports > 0 { // further ports of a FIB have other networks
			client.IP("addr", "add", fmt.Sprintf("198.51.%d.2/24", 100+c%ports), "dev", "eth0")
			client.IP("addr", "del", clientAddr+"/24", "dev", "eth0")
		}
	}
	if backend == binding.Rules { // the rule for table local comes after those of FIBs, and leaves their ports out
		for _, family := range []string{"-4", "-6"} {
			ns.IP(family, "rule", "add", "pref", "32765", "lookup", "local", "suppress_ifgroup", "73")
			ns.IP(family, "rule", "del", "pref", "0")
		}
	}
	for i, name := range fibNames {
		fib := binding.Binding{FIB: uint32(fibID(i)), Name: name, Backend: backend, DNS: []string{clientAddr}}
		for p := range ports {
			fib.Ports = append(fib.Ports, fmt.Sprintf("p%d", i*ports+p))
		}
		where := ns
		if backend == binding.Netns {
			where = lab.NewNamespace(t)
			fib.Netns = "/run/netns/" + where.Name()
		} else {
			fib.Mark = uint32(fibID(i))
		}
		for p, port := range fib.Ports {
			if backend == binding.Netns {
				ns.IP("link", "set", port, "netns", where.Name())
			}
			where.Run("sysctl", "-qw", "net.ipv4.conf."+port+".rp_filter=0", "net.ipv4.conf.all.rp_filter=0", "net.ipv6.conf."+port+".accept_dad=0")
			where.IP("addr", "add", fmt.Sprintf("198.51.%d.1/24", 100+p), "dev", port)
			where.IP("link", "set", port, "up")
			if backend == binding.Rules {
				ns.IP("link", "set", port, "group", "73")
				for _, key := range []string{"iif", "oif"} {
					ns.IP("rule", "add", key, port, "lookup", fmt.Sprint(fibID(i)))
				}
				ns.IP("route", "del", fmt.Sprintf("198.51.%d.0/24", 100+p), "dev", port)
				ns.IP("route", "add", fmt.Sprintf("198.51.%d.0/24", 100+p), "dev", port, "table", fmt.Sprint(fibID(i)))
				ns.IP("route", "add", "local", fmt.Sprintf("198.51.%d.1", 100+p), "dev", port, "table", fmt.Sprint(fibID(i)))
			}
			b.capture = append(b.capture, captured{where, port})
		}
		if backend == binding.Rules {
			ns.IP("rule", "add", "fwmark", fmt.Sprint(fibID(i)), "lookup", fmt.Sprint(fibID(i)))
			ns.IP("route", "add", "unreachable", "default", "metric", "4278198272", "table", fmt.Sprint(fibID(i)))
		}
		b.bindings = append(b.bindings, fib)
	}
	b.save()
	return b
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
