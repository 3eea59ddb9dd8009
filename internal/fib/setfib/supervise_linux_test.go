package setfib

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
	"midplane/internal/lab"
)

// asNobody is a command as user nobody, without a capability.
func (b *box) asNobody(argv ...string) []string {
	return append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"}, argv...)
}

// openSelf copies the test binary to where everybody may execute it.
func (b *box) openSelf() {
	b.t.Helper()
	text, err := os.ReadFile(b.self)
	if err != nil {
		b.t.Fatal(err)
	}
	for dir := b.shared; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(b.shared, "self"), text, 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.self = filepath.Join(b.sharedAs, "self")
}

func TestIntegrationExecWithoutPrivileges(t *testing.T) {
	lab.RequireTool(t, "setpriv", "util-linux")
	b := newNativeBox(t, binding.Rules, 1)
	b.openSelf()
	b.run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=80")
	nobodyIn(t, b)
}

// nobodyIn runs programs in the FIBs of a box as nobody.
func nobodyIn(t *testing.T, b *box) {
	if b.do != nil {
		nobodyWithNameServers(t, b)
	} else { // the guest's root is that of a chroot, in which there are no new user namespaces (kernel/user_namespace.c, create_user_ns)
		code, _, errs := finish(t, b.start(b.asNobody(b.execArgs("blue", "true")...)...))
		for _, want := range []string{"fib blue: cannot run a program in it", "CAP_BPF", "CAP_NET_ADMIN", "write access to the cgroup", "make a user and mount namespace"} {
			if code == 0 || !strings.Contains(errs, want) {
				t.Errorf("with name servers: exit %d, %s, want %q", code, errs, want)
			}
		}
	}
	hostDNS := func(i int, argv ...string) []string {
		return b.asNobody(append([]string{b.self, "fib-exec", b.dir, fibNames[i], "host-dns", "--"}, argv...)...)
	}
	var servers []*lab.Proc
	for i, name := range fibNames {
		p := b.start(hostDNS(i, "/usr/bin/python3", "-uc", uidServer, name)...)
		p.ExpectLine("listening")
		servers = append(servers, p)
		b.start(hostDNS(i, b.self, "fib-child", b.self, "fib-serve", "tcp4", ":81", name+" child")...).ExpectLine("listening")
	}
	for i, name := range fibNames {
		if got, want := strings.TrimSpace(b.clients[i].Run(b.self2(), "fib-get", "tcp", serverAddr+":80")), name+" 65534"; got != want {
			t.Errorf("client %d got %q, want %q", i, got, want)
		}
		if got, want := strings.TrimSpace(b.clients[i].Run(b.self2(), "fib-get", "tcp", serverAddr+":81")), name+" child"; got != want {
			t.Errorf("client %d got %q, want %q", i, got, want)
		}
		if code, out, errs := finish(t, b.start(hostDNS(i, b.self, "fib-get", "tcp", serverAddr+":80")...)); code != 0 || !strings.Contains(out, name) {
			t.Errorf("a process in %s got %q from its own address, exit %d, %s", name, out, code, errs)
		}
	}
	// What would lead around the supervisor is refused.
	if code, out, errs := finish(t, b.start(hostDNS(0, "/usr/bin/python3", "-uc", around)...)); code != 0 || strings.TrimSpace(out) != "all refused" {
		t.Errorf("ways around: exit %d, %s%s", code, out, errs)
	}
	// The exit code and the number of the process are the program's.
	if code, _, _ := finish(t, b.start(hostDNS(0, "sh", "-c", "exit 42")...)); code != 42 {
		t.Errorf("exit code %d, want 42", code)
	}
	if b.do == nil {
		return // the rest looks at this machine's processes
	}
	for i := range fibNames {
		if pids := b.pids(i); len(pids) != 3 { // the first server, fib-child, fib-serve
			t.Errorf("processes of %s: %v", fibNames[i], pids)
		}
	}
	supervisors := func() (l []string) {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if cmd, _ := os.ReadFile(f); strings.HasPrefix(string(cmd), b.self+"\x00fib-supervise\x00") {
				l = append(l, filepath.Base(filepath.Dir(f)))
			}
		}
		return l
	}
	if _, ok := lab.Until(lab.Patience, func() bool { return len(supervisors()) == 4 }); !ok { // those of programs that have ended go
		t.Errorf("supervisors %v, want one for each of four programs", supervisors())
	}
	// They end with the last of their processes.
	servers[0].Kill()
	if _, ok := lab.Until(lab.Patience, func() bool { return len(supervisors()) == 3 }); !ok {
		t.Errorf("supervisors %v after one of four programs was killed", supervisors())
	}
	// Without its supervisor a program opens no sockets any more.
	others := supervisors()
	p := b.start(hostDNS(1, "/usr/bin/python3", "-uc", orphan)...)
	p.ExpectLine("ready")
	own := slices.DeleteFunc(supervisors(), func(pid string) bool { return slices.Contains(others, pid) })
	if len(own) != 1 {
		t.Fatalf("new supervisors %v", own)
	}
	b.run("kill", "-KILL", own[0])
	_, _ = p.Stdin.Write([]byte("\n"))
	if code, out, errs := finish(t, p); code != 0 || !strings.Contains(out, "ENOSYS") {
		t.Errorf("after the supervisor was killed: exit %d, %s%s", code, out, errs)
	}
}

// nobodyWithNameServers runs programs as nobody in FIBs with name servers: in user namespaces.
func nobodyWithNameServers(t *testing.T, b *box) {
	for i := range fibNames {
		b.clients[i].Start(b.self2(), "fib-dns", clientAddr+":53", peerAddr(i)).ExpectLine("listening")
	}
	for i, name := range fibNames {
		const program = "import os, socket; print(os.getuid(), socket.gethostbyname('peer.example.com'))"
		code, got, errs := finish(t, b.start(b.asNobody(b.execArgs(name, "/usr/bin/python3", "-c", program)...)...))
		if want := "65534 " + peerAddr(i); code != 0 || strings.TrimSpace(got) != want {
			t.Errorf("a name in %s: %q, want %q; exit %d, %s", name, got, want, code, errs)
		}
	}
	// The same by the program that users have.
	text, err := os.ReadFile(lab.Binary(t))
	if err == nil {
		err = os.WriteFile(filepath.Join(b.shared, "midplane"), text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{"": peerAddr(0), "hostdns": "no address"} {
		const program = "import socket\ntry: print(socket.gethostbyname('peer.example.com'))\nexcept OSError: print('no address')"
		argv := []string{"env", "MIDPLANE_FIB_DIR=" + b.dir, "RES_OPTIONS=timeout:1 attempts:1", b.sharedAs + "/midplane", "fib", "exec", "blue"}
		argv = append(append(argv, strings.Fields(words)...), "--", "/usr/bin/python3", "-c", program)
		if code, got, errs := finish(t, b.start(b.asNobody(argv...)...)); code != 0 || strings.TrimSpace(got) != want {
			t.Errorf("midplane fib exec blue %s: %q, want %q; exit %d, %s", words, got, want, code, errs)
		}
	}
	if code, _, _ := finish(t, b.start(b.asNobody(b.execArgs("blue", "sh", "-c", "exit 42")...)...)); code != 42 {
		t.Errorf("exit code %d in a user namespace, want 42", code)
	}
	trap := b.start(b.asNobody(b.execArgs("blue", "sh", "-c", "trap 'echo caught; exit 43' TERM; echo ready; while :; do sleep 0.1; done")...)...)
	trap.ExpectLine("ready")
	b.run("pkill", "-TERM", "-f", "^"+b.self+" fib-exec") // the process that waits, and nothing else
	if code, out, _ := finish(t, trap); code != 43 || !strings.Contains(out, "caught") {
		t.Errorf("after SIGTERM: exit %d, %q, want 43", code, out)
	}
}

// Signals that meet a supervisor or a program in the middle of a socket(2) must not change what it returns, nor leave
// sockets behind. Go's runtime sends itself such signals (SIGURG) on a busy machine.
func TestIntegrationExecSupervisedUnderSignals(t *testing.T) {
	lab.RequireTool(t, "setpriv", "util-linux")
	b := newNativeBox(t, binding.Rules, 1)
	b.openSelf()
	p := b.start(b.asNobody(b.self, "fib-exec", b.dir, "blue", "host-dns", "--", b.self, "fib-sockets")...)
	p.ExpectLine("ready")
	var targets []int
	for _, prefix := range []string{"\x00fib-supervise\x00", "\x00fib-sockets\x00"} {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if cmd, _ := os.ReadFile(f); strings.HasPrefix(string(cmd), b.self+prefix) {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
				targets = append(targets, pid)
			}
		}
	}
	if len(targets) != 2 {
		t.Fatalf("processes %v, want the supervisor and the program", targets)
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for _, pid := range targets {
			// To each thread: a signal to the process goes to any that does not block it.
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
			for _, task := range tasks {
				tid, _ := strconv.Atoi(filepath.Base(task))
				_ = unix.Tgkill(pid, tid, unix.SIGURG)
			}
		}
	}
	_ = p.Stdin.Close()
	code, out, errs := finish(t, p)
	if code != 0 || !strings.Contains(out, "opened ") || strings.Contains(out, "opened 0") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	t.Log(strings.TrimSpace(out))
}

// self2 is the test binary as this machine sees it.
func (b *box) self2() string { return strings.Replace(b.self, b.sharedAs, b.shared, 1) }

const uidServer = `
import os, socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", 80))
s.listen()
print("listening", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(("%s %d" % (sys.argv[1], os.getuid())).encode())
    c.close()
`

// around tries what the filter has to refuse: raw sockets, Multipath TCP, SMC, io_uring, and leaving the device.
const around = `
import ctypes, errno, socket
def refused(what, f, *errnos):
    try:
        f()
    except OSError as e:
        if e.errno not in errnos:
            raise SystemExit("%s: %s" % (what, e))
        return
    raise SystemExit(what + " was allowed")
refused("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), errno.EPERM)
refused("mptcp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262), errno.EPROTONOSUPPORT)
refused("smc", lambda: socket.socket(43, socket.SOCK_STREAM, 0), errno.EAFNOSUPPORT)
libc = ctypes.CDLL(None, use_errno=True)
def uring():
    if libc.syscall(425, 8, ctypes.create_string_buffer(256)) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
refused("io_uring", uring, errno.ENOSYS)
s = socket.socket()
refused("unbind", lambda: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"\0"), errno.EPERM)
refused("mark", lambda: s.setsockopt(socket.SOL_SOCKET, 36, 0), errno.EPERM)
print("all refused")
`

const orphan = `
import errno, socket, sys
socket.socket().close()
print("ready", flush=True)
sys.stdin.readline()
try:
    socket.socket()
    print("a socket")
except OSError as e:
    print(errno.errorcode[e.errno])
`

func TestIntegrationExecSaysWhatIsMissing(t *testing.T) {
	lab.RequireTool(t, "setpriv", "util-linux")
	b := newNativeBox(t, binding.Netns, 1)
	b.openSelf()
	code, _, errs := finish(t, b.start(b.asNobody(b.execArgs("blue", "true")...)...))
	want := fmt.Sprintf("fib blue: enter network namespace %s: operation not permitted; this needs CAP_SYS_ADMIN", b.bindings[0].Netns)
	if code != 70 || !strings.Contains(errs, want) {
		t.Errorf("netns: exit %d, %s, want %q", code, errs, want)
	}
	for _, c := range []struct{ which, want string }{
		{"green", `fib "green": none of that name or number is set up here`},
		{"blue:p0", `fib blue: port "p0": want none`},
		{"blue", ""},
	} {
		code, _, errs := finish(t, b.start(b.execArgs(c.which, "true")...))
		if (code == 0) != (c.want == "") || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", c.which, code, errs)
		}
	}
	if code, _, errs := finish(t, b.start(b.execArgs("blue", "/no/such/program")...)); code == 0 || !strings.Contains(errs, "/no/such/program") {
		t.Errorf("no program: exit %d, %s", code, errs)
	}

	// Where user namespaces are not allowed, name servers are in the way.
	one := newNativeBox(t, binding.Rules, 1)
	one.openSelf()
	limited := []string{"unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces && exec " + strings.Join(one.execArgs("blue", "true"), " ")}
	code, _, errs = finish(t, one.start(one.asNobody(limited...)...))
	for _, want := range []string{"fib blue: cannot run a program in it", "write access to the cgroup", "make a user and mount namespace", "the FIB has name servers of its own"} {
		if code != 70 || !strings.Contains(errs, want) {
			t.Errorf("without user namespaces: exit %d, %s, want %q", code, errs, want)
		}
	}

	several := newNativeBox(t, binding.Rules, 2)
	several.openSelf()
	code, _, errs = finish(t, several.start(several.asNobody(several.execArgs("blue", "true")...)...))
	if want := "one port to run at"; code != 70 || !strings.Contains(errs, want) {
		t.Errorf("several ports: exit %d, %s, want %q", code, errs, want)
	}
	at := append([]string{several.self, "fib-exec", several.dir, "blue:p1", "host-dns", "--"}, several.self, "fib-serve", "tcp4", ":8080", "at p1")
	several.start(several.asNobody(at...)...).ExpectLine("listening")
	if got := strings.TrimSpace(several.clients[1].Run(several.self, "fib-get", "tcp", "198.51.101.1:8080")); got != "at p1" {
		t.Errorf("the client at p1 got %q", got)
	}
}
