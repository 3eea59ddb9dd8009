package setfib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"midplane/internal/fib/binding"
	"midplane/internal/lab"
)

// finish waits for the end of a program and returns its exit code and outputs.
func finish(t testing.TB, p *lab.Proc) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, p.Stdout, p.Stderr)
	}
	return code, p.Stdout.String(), p.Stderr.String()
}

// fetch connects from FIB i and returns what it got.
func (b *box) fetch(i int, address string) string { return b.get("fib-get", i, address) }

// miss is fetch of what should not be there.
func (b *box) miss(i int, address string) string { return b.get("fib-miss", i, address) }

func (b *box) get(verb string, i int, address string) string {
	b.t.Helper()
	code, out, errs := finish(b.t, b.tool(i, verb, "tcp", address))
	if code != 0 {
		return "error: " + strings.TrimSpace(errs)
	}
	return strings.TrimSpace(out)
}

var native = []binding.Backend{binding.Rules, binding.Netns}

func TestIntegrationExecServesInItsFIBOnly(t *testing.T) {
	for _, backend := range native {
		t.Run(string(backend), func(t *testing.T) {
			b := newNativeBox(t, backend, 1)
			for i, name := range fibNames {
				b.tool(i, "fib-serve", "tcp4", ":80", name).ExpectLine("listening")
				b.tool(i, "fib-serve", "tcp6", "[::]:80", name+"6").ExpectLine("listening")
			}
			for i, name := range fibNames {
				if got := strings.TrimSpace(b.clients[i].Run(b.self, "fib-get", "tcp", serverAddr+":80")); got != name {
					t.Errorf("client %d got %q, want %q", i, got, name)
				}
				if got := b.fetch(i, serverAddr+":80"); got != name {
					t.Errorf("a process in %s got %q from its own address", name, got)
				}
			}
			// A process that is in no FIB reaches neither.
			if code, out, _ := finish(t, b.start(b.self, "fib-miss", "tcp", serverAddr+":80")); code == 0 {
				t.Errorf("a process in no FIB got %q", out)
			}
		})
	}
}

func TestIntegrationExecKeepsFIBsApart(t *testing.T) {
	for _, backend := range native {
		t.Run(string(backend), func(t *testing.T) {
			b := newNativeBox(t, backend, 1)
			for i, name := range fibNames { // an address that only this FIB has, at the box and at its client
				b.clients[i].IP("addr", "add", peerAddr(i)+"/32", "dev", "eth0")
				b.clients[i].IP("route", "add", ownAddr(i), "dev", "eth0")
				b.route(i, peerAddr(i))
				b.tool(i, "fib-serve", "tcp4", ":80", name).ExpectLine("listening")
				b.clients[i].Start(b.self, "fib-serve", "tcp4", ":80", "client of "+name).ExpectLine("listening")
			}
			for i, name := range fibNames {
				own, other := peerAddr(i)+":80", peerAddr(1-i)+":80"
				if got := b.fetch(i, own); got != "client of "+name {
					t.Errorf("from %s, its client: %q", name, got)
				}
				if got := b.fetch(i, serverAddr+":80"); got != name {
					t.Errorf("from %s, the address that all have: %q", name, got)
				}
				if got := b.miss(i, other); !strings.HasPrefix(got, "error: ") {
					t.Errorf("from %s, the client of the other: %q", name, got)
				}
				if got := b.miss(i, ownAddr(1-i)+":80"); !strings.HasPrefix(got, "error: ") {
					t.Errorf("from %s, the server of the other: %q", name, got)
				}
				// Nor does a process in no FIB reach what is in one.
				for _, a := range []string{own, other, ownAddr(i) + ":80"} {
					if code, out, _ := finish(t, b.start(b.self, "fib-miss", "tcp", a)); code == 0 {
						t.Errorf("a process in no FIB got %q from %s", out, a)
					}
				}
			}
		})
	}
}

func TestIntegrationExecIsInherited(t *testing.T) {
	for _, backend := range native {
		t.Run(string(backend), func(t *testing.T) {
			b := newNativeBox(t, backend, 1)
			var procs []*lab.Proc
			for i, name := range fibNames {
				// A grandchild of the program that was started, by way of programs that are not Go's.
				p := b.exec(i, "sh", "-c", "env "+b.self+" fib-child sh -c '"+b.self+" fib-serve tcp4 :80 "+name+"'; true")
				p.ExpectLine("listening")
				procs = append(procs, p)
			}
			for i, name := range fibNames {
				if got := strings.TrimSpace(b.clients[i].Run(b.self, "fib-get", "tcp", serverAddr+":80")); got != name {
					t.Errorf("client %d got %q, want %q", i, got, name)
				}
				var pids []int
				err := b.do(func() (err error) { pids, err = Pids(b.dir, b.bindings[i]); return err })
				if err != nil || len(pids) != 3 { // sh, fib-child and fib-serve, at least
					if len(pids) < 3 {
						t.Errorf("processes of %s: %v, %v", name, pids, err)
					}
				}
				for _, pid := range pids {
					var m Membership
					err := b.do(func() (err error) { m, err = Identify(b.dir, pid); return err })
					want := Membership{uint32(fibID(i)), name, ByCgroup}
					if backend == binding.Netns {
						want.How = ByNetns
					}
					if m != want || err != nil {
						t.Errorf("process %d: %v, %v; want %v", pid, m, err, want)
					}
				}
			}
			err := b.do(func() error { _, err := Identify(b.dir, os.Getpid()); return err })
			if !errors.Is(err, ErrNone) {
				t.Errorf("this process: %v", err)
			}
			if _, err := Identify(b.dir, 1<<30); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("no process: %v", err)
			}
			for _, p := range procs {
				p.Kill()
			}
		})
	}
}

func TestIntegrationExecAfterKillNothingStays(t *testing.T) {
	b := newNativeBox(t, binding.Rules, 1)
	p := b.tool(0, "fib-serve", "tcp4", ":80", "x")
	p.ExpectLine("listening")
	groups := b.groups()
	if len(groups) != 1 {
		t.Fatalf("cgroups %v", groups)
	}
	programs := attachedIDs(t, groups[0])
	if len(programs) != 3 {
		t.Errorf("programs %v", programs)
	}
	refresh := func() (r Report) {
		t.Helper()
		if err := b.do(func() (err error) { r, err = Refresh(b.dir); return err }); err != nil {
			t.Fatal(err)
		}
		return r
	}
	b.tool(0, "fib-get", "tcp", serverAddr+":80").Finish()
	if r := refresh(); r.Updated != 1 || r.Removed != nil || r.Stale != nil {
		t.Errorf("refresh: %+v", r)
	}
	if again := attachedIDs(t, groups[0]); !slices.Equal(again, programs) {
		t.Errorf("programs %v became %v though nothing changed", programs, again)
	}

	// Another mark, and another port: the programs are others, and as many as are needed.
	all := slices.Clone(b.bindings)
	for mark, ports := range map[uint32][]string{11: {"p0"}, 12: {"p0", "p1"}} {
		b.bindings[0].Mark, b.bindings[0].Ports = mark, ports
		b.save()
		before := attachedIDs(t, groups[0])
		refresh()
		after := attachedIDs(t, groups[0])
		if slices.ContainsFunc(after, func(id ebpf.ProgramID) bool { return id == before[0] }) || len(after) != map[int]int{1: 3, 2: 5}[len(ports)] {
			t.Errorf("mark %d, ports %v: programs %v became %v", mark, ports, before, after)
		}
		refresh()
		if again := attachedIDs(t, groups[0]); !slices.Equal(again, after) {
			t.Errorf("mark %d, ports %v: programs %v became %v though nothing changed", mark, ports, after, again)
		}
	}
	b.bindings = slices.Clone(all)
	b.save()
	if refresh(); len(attachedIDs(t, groups[0])) != 3 {
		t.Errorf("programs %v, want three again", attachedIDs(t, groups[0]))
	}

	// The FIB is removed under the program: it stays where it is.
	b.bindings = all[1:]
	b.save()
	if r := refresh(); len(r.Stale) != 1 || len(r.Removed) != 1 { // the cgroup, and the resolv.conf file
		t.Errorf("refresh without the FIB: %+v", r)
	}
	b.bindings = all
	b.save()

	var busy *BusyError
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	if err := b.do(func() error { return Remove(ctx, b.dir, all[0], false) }); !errors.As(err, &busy) || len(busy.Pids) != 1 {
		t.Errorf("remove: %v", err)
	}
	p.Kill() // SIGKILL
	if _, ok := lab.Until(lab.Patience, func() bool { refresh(); return len(b.groups()) == 0 }); !ok {
		t.Errorf("cgroups %v stay after SIGKILL", b.groups())
	}
	if r := refresh(); r.Updated != 0 || r.Removed != nil || r.Stale != nil {
		t.Errorf("refresh when all is clean: %+v", r)
	}

	// Remove ends the processes that are left.
	p = b.tool(1, "fib-child", "sleep", "1000")
	if _, ok := lab.Until(lab.Patience, func() bool { return len(b.pids(1)) == 2 }); !ok {
		t.Fatalf("processes %v", b.pids(1))
	}
	if err := b.do(func() error { return Remove(ctx, b.dir, all[1], true) }); err != nil {
		t.Error(err)
	}
	if g := b.groups(); len(g) != 0 {
		t.Errorf("cgroups %v stay after Remove", g)
	}
	if code, _, _ := finish(t, p); code == 0 {
		t.Error("the program ended well")
	}
}

// pids lists the processes in FIB i.
func (b *box) pids(i int) (l []int) {
	b.t.Helper()
	if err := b.do(func() (err error) { l, err = Pids(b.dir, b.bindings[i]); return err }); err != nil {
		b.t.Fatal(err)
	}
	return l
}

// attachedIDs lists the programs of a cgroup.
func attachedIDs(t testing.TB, dir string) (ids []ebpf.ProgramID) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range attachments {
		l, err := attached(f, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range l {
			i, err := p.program.Info()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := i.ID()
			ids = append(ids, id)
			_ = p.program.Close()
		}
	}
	return ids
}

func TestIntegrationExecNameServers(t *testing.T) {
	for _, backend := range native {
		t.Run(string(backend), func(t *testing.T) {
			b := newNativeBox(t, backend, 1)
			// The same name and the same name server are others in each FIB.
			for i := range fibNames {
				b.clients[i].Start(b.self, "fib-dns", clientAddr+":53", peerAddr(i)).ExpectLine("listening")
			}
			for i, name := range fibNames {
				p := b.exec(i, "/usr/bin/python3", "-c", "import socket; print(socket.gethostbyname('peer.example.com'))")
				if code, got, errs := finish(t, p); strings.TrimSpace(got) != peerAddr(i) {
					t.Errorf("a name in %s is %q, want %s; exit %d, %s", name, got, peerAddr(i), code, errs)
				}
			}
			b.bindings[0].DNS = []string{"192.0.2.53", "2001:db8::53"} // the record is all that there is to name servers
			b.bindings[1].DNS = nil
			b.save()
			host, err := os.ReadFile(resolvConf)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.exec(0, "cat", resolvConf).Finish(); !strings.Contains(got, "nameserver 192.0.2.53\nnameserver 2001:db8::53\n") {
				t.Errorf("in blue: %q", got)
			}
			if got := b.exec(1, "cat", resolvConf).Finish(); got != string(host) {
				t.Errorf("in red, which has none: %q, want the host's", got)
			}
			if got, err := os.ReadFile(resolvConf); err != nil || !bytes.Equal(got, host) {
				t.Errorf("the host's is %q, %v", got, err)
			}
			// A running program sees a change.
			p := b.exec(0, "sh", "-c", "echo ready; read x; cat "+resolvConf)
			p.ExpectLine("ready")
			b.bindings[0].DNS = []string{"192.0.2.54"}
			b.save()
			if err := b.do(func() error { _, err := Refresh(b.dir); return err }); err != nil {
				t.Fatal(err)
			}
			_, _ = p.Stdin.Write([]byte("\n"))
			if got := p.Finish(); !strings.Contains(got, "nameserver 192.0.2.54\n") || strings.Contains(got, "192.0.2.53") {
				t.Errorf("in blue after the change: %q", got)
			}
		})
	}
}

// mappedServer listens on an IPv4 address in IPv6.
const mappedServer = `
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::ffff:198.51.100.1", 81))
s.listen()
print("listening")
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[1].encode())
    c.close()
`

func TestIntegrationExecSeveralPorts(t *testing.T) {
	b := newNativeBox(t, binding.Rules, 2)
	second := "198.51.101.1:80" // the address of each FIB's second port
	for i, name := range fibNames {
		b.tool(i, "fib-serve", "tcp4", serverAddr+":80", name+" first").ExpectLine("listening")
		b.tool(i, "fib-serve", "tcp4", second, name+" second").ExpectLine("listening")
		b.exec(i, "/usr/bin/python3", "-uc", mappedServer, name+" mapped").ExpectLine("listening")
	}
	for i, name := range fibNames {
		for port, a := range []string{serverAddr + ":80", second} {
			want := name + []string{" first", " second"}[port]
			client := b.clients[2*i+port]
			if got := strings.TrimSpace(client.Run(b.self, "fib-get", "tcp", a, fmt.Sprintf("198.51.%d.2:5555", 100+port))); got != want {
				t.Errorf("client got %q from %s, want %q", got, a, want)
			}
			// A program that is bound to nothing reaches both, and its own.
			if got := b.fetch(i, a); got != want {
				t.Errorf("a process in %s got %q from %s, want %q", name, got, a, want)
			}
		}
		if got := strings.TrimSpace(b.clients[2*i].Run(b.self, "fib-get", "tcp", serverAddr+":81")); got != name+" mapped" {
			t.Errorf("client got %q from port 81", got)
		}
		// All addresses at once, or one of another FIB's, are refused; with a port they are not.
		for network, a := range map[string]string{"tcp4": ":8080", "tcp6": "[::]:8080", "udp4": ":8080"} {
			p := b.tool(i, "fib-serve", network, a, "x")
			if network == "udp4" { // not a stream: a program that binds is enough
				p = b.exec(i, "/usr/bin/python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(('', 8080))")
			}
			if code, _, errs := finish(t, p); code == 0 || !strings.Contains(strings.ToLower(errs), "cannot assign requested address") {
				t.Errorf("%s %s: exit %d, %s", network, a, code, errs)
			}
		}
		p := b.start(append([]string{b.self, "fib-exec", b.dir, fmt.Sprintf("%s:p%d", name, 2*i+1), "--"}, b.self, "fib-serve", "tcp4", ":8080", name+" by port")...)
		p.ExpectLine("listening")
		if got := strings.TrimSpace(b.clients[2*i+1].Run(b.self, "fib-get", "tcp", "198.51.101.1:8080")); got != name+" by port" {
			t.Errorf("client got %q from the program at a port", got)
		}
		if code, _, _ := finish(t, b.clients[2*i].Start(b.self, "fib-miss", "tcp", serverAddr+":8080")); code == 0 {
			t.Error("the client at the other port reached it too")
		}
	}
	// No process outside reaches a server that is bound by its address.
	if code, out, _ := finish(t, b.start(b.self, "fib-miss", "tcp", serverAddr+":80")); code == 0 {
		t.Errorf("a process in no FIB got %q", out)
	}
	code, _, errs := finish(t, b.start(b.self, "fib-exec", b.dir, "blue:p3", "--", "true"))
	if code == 0 || !strings.Contains(errs, `fib blue: port "p3": want one of ["p0" "p1"]`) {
		t.Errorf("a port of the other FIB: exit %d, %s", code, errs)
	}
}

// A program in a FIB may start another in another FIB.
func TestIntegrationExecFromFIBToFIB(t *testing.T) {
	for _, backend := range native {
		t.Run(string(backend), func(t *testing.T) {
			b := newNativeBox(t, backend, 1)
			b.exec(0, b.execArgs("red", b.self, "fib-serve", "tcp4", ":80", "red")...).ExpectLine("listening")
			b.exec(1, b.execArgs("blue", b.self, "fib-serve", "tcp4", ":80", "blue")...).ExpectLine("listening")
			for i, name := range fibNames {
				if got := strings.TrimSpace(b.clients[i].Run(b.self, "fib-get", "tcp", serverAddr+":80")); got != name {
					t.Errorf("client %d got %q, want %q", i, got, name)
				}
				if pids := b.pids(i); len(pids) != 1 {
					t.Errorf("processes of %s: %v, want one", name, pids)
				}
			}
		})
	}
}

// From a FIB that is a cgroup to one that is a namespace, the cgroup is left: its programs know other devices.
func TestIntegrationExecFromRulesToNetns(t *testing.T) {
	b := newNativeBox(t, binding.Rules, 1)
	other := newNativeBox(t, binding.Netns, 1)
	b.exec(0, other.execArgs("red", b.self, "fib-serve", "tcp4", ":80", "from blue to the other red")...).ExpectLine("listening")
	if got := strings.TrimSpace(other.clients[1].Run(b.self, "fib-get", "tcp", serverAddr+":80")); got != "from blue to the other red" {
		t.Errorf("got %q", got)
	}
}

// ProtectControlGroups= of systemd and most containers have cgroups mounted read-only: Exec brings its own mount.
func TestIntegrationExecWithCgroupsReadOnly(t *testing.T) {
	b := newNativeBox(t, binding.Rules, 1)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	at := findMount(string(mounts))
	if at == "" {
		t.Skip("no cgroup2 file system is mounted here; the guest of TestIntegrationExecVRF has none either")
	}
	script := fmt.Sprintf("mount -o remount,bind,ro %[1]s && ! mkdir %[1]s/x && exec %s", at, strings.Join(b.execArgs("blue", b.self, "fib-serve", "tcp4", ":80", "blue"), " "))
	b.start("unshare", "--mount", "sh", "-c", script).ExpectLine("listening")
	if got := strings.TrimSpace(b.clients[0].Run(b.self, "fib-get", "tcp", serverAddr+":80")); got != "blue" {
		t.Errorf("got %q", got)
	}
	if pids := b.pids(0); len(pids) != 1 {
		t.Errorf("processes %v", pids)
	}
}

// The kernel opens further subflows of Multipath TCP by itself, so the program refuses its sockets. Go's listeners, which
// want it, do without then: fib-serve is one.
func TestIntegrationExecWithoutMultipathTCP(t *testing.T) {
	b := newNativeBox(t, binding.Rules, 1)
	code, _, errs := finish(t, b.exec(0, "/usr/bin/python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)"))
	if code == 0 || !strings.Contains(errs, "Operation not permitted") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// Programs start in a FIB, many at once and in two FIBs, while those of others end and cgroups without processes are removed.
func TestIntegrationExecManyAtOnce(t *testing.T) {
	b := newNativeBox(t, binding.Rules, 1)
	stop := make(chan struct{})
	swept := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				swept <- nil
				return
			default:
			}
			if err := b.do(func() error { _, err := Refresh(b.dir); return err }); err != nil {
				swept <- err
				return
			}
		}
	}()
	for range 5 {
		var procs []*lab.Proc
		for i := range 10 {
			procs = append(procs, b.exec(i%2, "sh", "-c", "grep -o 'midplane-fib/.*' /proc/self/cgroup"))
		}
		for i, p := range procs {
			code, out, errs := finish(t, p)
			want := group{uint32(fibID(i % 2)), b.netns, ""}.String()
			if code != 0 || strings.TrimSpace(out) != "midplane-fib/"+want {
				t.Errorf("program in %s: exit %d, %s%s", want, code, out, errs)
			}
		}
	}
	close(stop)
	if err := <-swept; err != nil {
		t.Errorf("refresh beside it: %v", err)
	}
}

// pktinfo sends a datagram from each socket that it can think of out of a device that it names, whatever it is bound to.
const pktinfo = `
import socket, struct, sys
index = socket.if_nametoindex(sys.argv[1])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.sendmsg([b"astray"], [(socket.IPPROTO_IP, 8, struct.pack("I4s4s", index, b"", b""))], 0, ("198.51.100.2", 9))
    print("sent")
except OSError as e:
    print("refused", e)
`

// astray checks that a program in FIB 0 cannot send by naming the device of another, but by naming its own.
func (b *box) astray() {
	b.t.Helper()
	c := b.clients[1].CaptureDevice("eth0")
	if code, out, errs := finish(b.t, b.exec(0, "/usr/bin/python3", "-c", pktinfo, b.bindings[1].Ports[0])); !strings.HasPrefix(out, "refused") {
		b.t.Errorf("a datagram by the port of another FIB: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := finish(b.t, b.exec(0, "/usr/bin/python3", "-c", pktinfo, b.bindings[0].Ports[0])); out != "sent\n" {
		b.t.Errorf("a datagram by the FIB's own port: exit %d, %s%s", code, out, errs)
	}
	for _, f := range frames(b.t, c.Stop()) {
		if bytes.Contains(f, []byte("astray")) {
			b.t.Errorf("the client of another FIB got %q", f)
		}
	}
}

func TestIntegrationExecNamedDevices(t *testing.T) { newNativeBox(t, binding.Rules, 1).astray() }
