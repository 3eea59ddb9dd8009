//go:build linux

package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cluster boots two guests and enables a bearer on both.
func cluster(t *testing.T, enable func(*Guest)) (n *Network, a, b *Guest) {
	t.Helper()
	Require(t)
	n = NewNetwork(t)
	guests := n.Guests(2, GuestConfig{})
	a, b = guests[0], guests[1]
	enable(a)
	enable(b)
	return n, a, b
}

// TestIntegrationCluster is the lab's own proof on each bearer: two kernels find each other, streams between them
// arrive whole both ways, and tshark understands every frame.
func TestIntegrationCluster(t *testing.T) {
	bearers := map[string]func(*Guest){
		"udp":  func(g *Guest) { g.EnableUDP(0) },
		"udp6": func(g *Guest) { g.EnableUDP6(0) },
		"eth":  func(g *Guest) { g.EnableEth(0) },
	}
	for name, enable := range bearers {
		t.Run(name, func(t *testing.T) {
			Require(t)
			n := NewNetwork(t)
			capture := n.Capture(0)
			guests := n.Guests(2, GuestConfig{})
			a, b := guests[0], guests[1]
			enable(a)
			enable(b)
			a.WaitPeers(1)
			b.WaitPeers(1)
			if up := a.Nodes()[b.NodeAddress()]; !up {
				t.Errorf("%s does not know %s by its address: %v", a.Name, b.Name, a.Nodes())
			}
			streamBetween(t, a, b)
			streamBetween(t, b, a)
			d := Tshark(t, capture.Stop())
			if d.TIPC < 20 || len(d.Suspicious) > 0 {
				t.Errorf("tshark read %d frames as TIPC and complains: %q", d.TIPC, d.Suspicious)
			}
			if d.Trials == 0 {
				t.Error("tshark saw no address trial, so the capture began too late")
			}
		})
	}
}

// streamBetween sends a few megabytes from one guest to a server in the other and compares checksums.
func streamBetween(t *testing.T, from, to *Guest) {
	t.Helper()
	const count, size = 32, 65536
	server := to.Program("serve.py", "--service", "4711:1", "--exit-after", "1")
	server.Expect("ready")
	client := from.Program("client.py", "--to", "4711:1", "--size", "65536", "--count", "32", "--seed", from.Name)
	want := Digest(from.Name, count, size)
	if sent := client.Expect("sent"); sent.Text("sha256") != want {
		t.Errorf("the client sent %v, want the checksum %s: payloads differ between Go and python", sent, want)
	}
	got := server.Expect("received")
	if got.Text("sha256") != want || got.Int("bytes") != count*size || got.Text("end") != "eof" {
		t.Errorf("the server received %v, want %d octets with checksum %s", got, count*size, want)
	}
	client.Finish()
	server.Finish()
}

func TestIntegrationPortDownBreaksAndHealsTheLink(t *testing.T) {
	_, a, b := cluster(t, func(g *Guest) { g.EnableEth(0) })
	a.WaitPeers(1)
	b.WaitPeers(1)
	client := holdConnection(a, b)
	b.Ports[0].Down()
	took := a.WaitPeers(0)
	b.WaitPeers(0)
	if took > 5*time.Second {
		t.Errorf("loss seen after %v, tolerance is 1.5 s", took)
	}
	if broken := client.Expect("broken"); broken.Text("errno") == "eof" {
		t.Errorf("the connection ended as %v, want an error", broken)
	}
	b.Ports[0].Up()
	a.WaitPeers(1)
	b.WaitPeers(1)
}

// holdConnection connects from a to a server in b and leaves the connection idle.
func holdConnection(a, b *Guest) *Proc {
	server := b.Program("serve.py", "--service", "4711:2")
	server.Expect("ready")
	client := a.Program("client.py", "--to", "4711:2", "--hold")
	client.Expect("sent")
	server.Expect("accepted")
	return client
}

func TestIntegrationReboot(t *testing.T) {
	_, a, b := cluster(t, func(g *Guest) { g.EnableUDP(0) })
	a.WaitPeers(1)
	address := b.NodeAddress()
	b.Sh("touch /tmp/trace")
	b.Kill()
	a.WaitPeers(0)
	if _, err := b.Run(context.Background(), "true"); err == nil {
		t.Error("a killed guest ran a command")
	}
	b.Boot()
	b.EnableUDP(0)
	a.WaitPeers(1)
	if now := b.NodeAddress(); now != address {
		t.Errorf("address %x after the reboot, %x before", now, address)
	}
	b.Sh("! test -e /tmp/trace") // what a guest writes ends with it
	b.Shutdown()
	a.WaitPeers(0)
}

func TestIntegrationCommands(t *testing.T) {
	Require(t)
	n := NewNetwork(t)
	g := n.Guest(GuestConfig{NICs: 2})
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()

	t.Run("exit code and both outputs", func(t *testing.T) {
		r, err := g.Run(ctx, "echo out; echo err >&2; exit 3")
		if err != nil || r != (Result{"out\n", "err\n", 3}) {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("signal", func(t *testing.T) {
		r, err := g.Run(ctx, "kill -TERM $$")
		if err != nil || r.Code != 128+int(syscall.SIGTERM) {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("program that is not there", func(t *testing.T) {
		if code, err := g.Start("/no/such/program").Wait(ctx); err == nil || code != 127 {
			t.Errorf("exit %d, %v", code, err)
		}
	})
	t.Run("a command that outlasts its context is killed", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		if _, err := g.Run(short, "exec sleep 1234"); err == nil {
			t.Error("no error")
		}
		if _, ok := Until(Patience, func() bool { r, _ := g.Run(ctx, "pgrep -f 'sleep 123[4]'"); return r.Code == 1 }); !ok {
			t.Error("it runs on")
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				want := strings.Repeat(string(rune('a'+i)), 40_000)
				r, err := g.Run(ctx, "printf '"+want[:1]+"%.0s' $(seq 40000)")
				if err != nil || r.Stdout != want {
					t.Errorf("program %d: %d octets, %v", i, len(r.Stdout), err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("standard input comes through whole", func(t *testing.T) {
		p := g.Start("sha256sum")
		if _, err := p.Stdin.Write(Payload("stdin", 0, 300_000)); err != nil {
			t.Fatal(err)
		}
		_ = p.Stdin.Close()
		if sum := p.Finish(); !strings.HasPrefix(sum, Digest("stdin", 1, 300_000)) {
			t.Errorf("checksum %s", sum)
		}
	})
	t.Run("files both ways", func(t *testing.T) {
		path := g.Share("in", []byte("from the host"))
		g.Sh("tr a-z A-Z < %s > /run/lab/out", path)
		if b, err := os.ReadFile(g.SharePath("out")); err != nil || string(b) != "FROM THE HOST" {
			t.Errorf("%q, %v", b, err)
		}
		host := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(host, []byte("seen"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := g.Sh("cat %s", host); got != "seen" {
			t.Errorf("a host file reads %q in the guest", got)
		}
	})
	t.Run("addresses of both devices", func(t *testing.T) {
		h := n.Host(2)
		for nic := range 2 {
			server := h.Start("python3", "-c", `
import socket, sys
s = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6)
print("ready", flush=True)
s.accept()[0].sendall(b"hello")`, h.Addr6(nic).String())
			server.ExpectLine("ready")
			if got := g.Sh("cat </dev/tcp/%s/7", h.Addr6(nic)); got != "hello" {
				t.Errorf("device %d: %q", nic, got)
			}
		}
	})
}

func TestIntegrationNothingIsLeft(t *testing.T) {
	Require(t)
	var name string
	var pid int
	t.Run("use", func(t *testing.T) {
		n := NewNetwork(t)
		name = n.Name()
		g := n.Guest(GuestConfig{})
		pid = g.cmd.Process.Pid
		n.Host(1).Start("sleep", "1000")
	})
	if left, _ := filepath.Glob("/run/netns/" + name + "*"); len(left) > 0 {
		t.Errorf("namespaces left: %q", left)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the guest's process is still there: %v", err)
	}
}

// victimVariable makes the test binary play the part of one that is killed in the middle of a test.
const victimVariable = "MIDPLANE_LAB_VICTIM"

func TestIntegrationVictim(t *testing.T) {
	if os.Getenv(victimVariable) == "" {
		return // TestIntegrationKilledTestLeavesNothing starts it
	}
	n := NewNetwork(t)
	n.Guest(GuestConfig{})
	p := n.Host(1).Start("sleep", "1000")
	_, _ = os.Stdout.WriteString("\nvictim " + n.Name() + "\n")
	_, _ = p.Wait(context.Background())
}

func TestIntegrationKilledTestLeavesNothing(t *testing.T) {
	Require(t)
	victim := exec.Command(os.Args[0], "-test.run=^TestIntegrationVictim$", "-test.v")
	victim.Env = append(os.Environ(), victimVariable+"=1")
	out := newOutput()
	victim.Stdout, victim.Stderr = out, out
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	name := ""
	for name == "" {
		line, err := out.Line(ctx)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		name, _ = strings.CutPrefix(line, "victim ")
		if name == line {
			name = ""
		}
	}
	before, err := ip("netns", "pids", name)
	if err != nil || strings.TrimSpace(before) == "" {
		t.Fatalf("no process in the victim's namespace: %q, %v", before, err)
	}
	_ = victim.Process.Kill()
	_ = victim.Wait()
	if _, ok := Until(Patience, func() bool { pids, _ := ip("netns", "pids", name); return strings.TrimSpace(pids) == "" }); !ok {
		t.Error("the guest outlived the test binary")
	}
	sweepDead()
	if left, _ := filepath.Glob("/run/netns/" + name + "*"); len(left) > 0 {
		t.Errorf("namespaces left: %q", left)
	}
}

// TestIntegrationListingsWhileNamesChange: a table that changes while the tool reads it is read again.
func TestIntegrationListingsWhileNamesChange(t *testing.T) {
	Require(t)
	g := NewNetwork(t).Guest(GuestConfig{})
	storm := g.Start("python3", "-c", `
import socket, time
s = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
for i in range(300):
  s.bind((socket.TIPC_ADDR_NAMESEQ, 7000, 10 * i, 10 * i + 1, 1))
print("bound", flush=True)
while True:
  for i in range(300):
    a = (socket.TIPC_ADDR_NAMESEQ, 7000, 10 * i, 10 * i + 1, -1)
    s.bind(a); s.bind(a[:4] + (1,))
  time.sleep(0.2)
`)
	storm.ExpectLine("bound")
	for range 5 {
		if rows := g.NameTable(); len(rows) < 250 {
			t.Errorf("%d rows", len(rows))
		}
	}
	storm.Kill()
}
