package setfib

import (
	"fmt"
	"strings"
	"testing"

	"midplane/internal/lab"
)

// TestIntegrationExecVRF is what exec_linux_test.go and supervise_linux_test.go show of the other back ends, in one guest. The
// guest has no cgroup file system mounted, so Exec brings its own.
func TestIntegrationExecVRF(t *testing.T) {
	b := newGuestBox(t)
	b.openSelf()
	if got := b.run("cat", "/proc/mounts"); strings.Contains(got, "cgroup") {
		t.Errorf("cgroups are mounted in the guest: %s", got)
	}
	for i, name := range fibNames {
		b.clients[i].IP("addr", "add", peerAddr(i)+"/32", "dev", "eth0")
		b.clients[i].Start(b.self2(), "fib-serve", "tcp4", ":80", "client of "+name).ExpectLine("listening")
		b.route(i, peerAddr(i))
	}
	var servers []*lab.Proc
	for i, name := range fibNames {
		p := b.exec(i, "sh", "-c", b.self+" fib-child "+b.self+" fib-serve tcp :80 "+name+"; true")
		p.ExpectLine("listening")
		servers = append(servers, p)
		pid := strings.TrimSpace(b.run("pgrep", "-nf", "^"+b.self+" fib-serve"))
		if got, want := strings.TrimSpace(b.run(b.self, "fib-identify", b.dir, pid)), fmt.Sprintf("%d %s cgroup", fibID(i), name); got != want {
			t.Errorf("identify %s: %q, want %q", pid, got, want)
		}
		if got := strings.TrimSpace(b.run(b.self, "fib-pids", b.dir, name)); got != "3" {
			t.Errorf("%s processes in %s, want sh, fib-child and fib-serve", got, name)
		}
		if code, _, errs := finish(t, b.start(b.self, "fib-identify", b.dir, "1")); code == 0 || !strings.Contains(errs, ErrNone.Error()) {
			t.Errorf("process 1: exit %d, %s", code, errs)
		}
	}
	for i, name := range fibNames {
		if got := strings.TrimSpace(b.clients[i].Run(b.self2(), "fib-get", "tcp", serverAddr+":80")); got != name {
			t.Errorf("client %d got %q, want %q", i, got, name)
		}
		if got := b.fetch(i, serverAddr+":80"); got != name {
			t.Errorf("a process in %s got %q from its own address", name, got)
		}
		if got := b.fetch(i, peerAddr(i)+":80"); got != "client of "+name {
			t.Errorf("a process in %s got %q from its client", name, got)
		}
		if got := b.miss(i, peerAddr(1-i)+":80"); !strings.HasPrefix(got, "error: ") {
			t.Errorf("a process in %s got %q from the client of the other", name, got)
		}
		for _, a := range []string{serverAddr + ":80", ownAddr(i) + ":80", peerAddr(i) + ":80"} {
			if code, out, _ := finish(t, b.start(b.self, "fib-miss", "tcp", a)); code == 0 {
				t.Errorf("a process in no FIB got %q from %s", out, a)
			}
		}
	}
	b.astray()
	// ip-vrf(8) knows our processes' FIB by their sockets only; we know those that it started. It needs a mounted tree.
	b.run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
	p := b.start("ip", "vrf", "exec", "red", b.self, "fib-serve", "tcp4", ":82", "of ip")
	p.ExpectLine("listening")
	pid := strings.TrimSpace(b.run("pgrep", "-nf", "^"+b.self+" fib-serve tcp4 :82"))
	if got := strings.TrimSpace(b.run(b.self, "fib-identify", b.dir, pid)); got != "20 red ip-vrf" {
		t.Errorf("identify what ip vrf exec started: %q", got)
	}
	for _, s := range append(servers, p) {
		s.Kill()
	}
	if got := strings.TrimSpace(b.run(b.self, "fib-refresh", b.dir)); got != "2" {
		t.Errorf("refresh removed %s cgroups, want 2", got)
	}
	if got := b.run("find", "/sys/fs/cgroup", "-name", groupDir); got != "" {
		t.Errorf("left: %s", got)
	}
	b.run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=80")
	nobodyIn(t, b)
}
