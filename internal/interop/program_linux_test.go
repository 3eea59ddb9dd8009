//go:build linux

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/tipc"
)

var kinds = []string{"stream", "seqpacket", "rdm", "dgram"}

// pipe starts `midplane tipc pipe`.
func (p *toolPair) pipe(args ...string) *lab.Proc {
	p.t.Helper()
	return p.host.Start(append([]string{p.binary, "tipc", "pipe", "--control", p.control}, args...)...)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// lines is count lines of size octets each, with their ends, and no two the same.
func lines(count, size int) []byte {
	var b strings.Builder
	for i := range count {
		line := fmt.Sprintf("%08d ", i)
		b.WriteString(line + strings.Repeat("x", size-len(line)-1) + "\n")
	}
	return []byte(b.String())
}

// TestIntegrationPipe copies between `midplane tipc pipe` and programs on Linux's TIPC, each socket type both ways.
func TestIntegrationPipe(t *testing.T) {
	p := newToolPair(t, "udp")
	g := p.guest
	for i, kind := range kinds {
		inst := uint32(10 * (i + 1))
		connected := kind == "stream" || kind == "seqpacket"
		count, size := 20, 60000
		if !connected {
			size = 3000 // nothing limits what a datagram's sender may have under way
		}
		input := lines(count, size)

		t.Run(kind+"/to Linux", func(t *testing.T) {
			args := []string{"--type", kind, "--service", text(inst), "--quiet"}
			if connected {
				args = append(args, "--exit-after", "1")
			} else {
				args = append(args, "--exit-after", fmt.Sprint(count))
			}
			server := g.Program("serve.py", args...)
			server.Expect("ready")
			p.waitService(inst, 1)
			pipe := p.pipe("--type", kind, "--wait", "200ms", text(inst))
			if _, err := pipe.Stdin.Write(input); err != nil {
				t.Fatal(err)
			}
			_ = pipe.Stdin.Close()
			e := server.Expect("received")
			if e.Text("sha256") != sum(input) || e.Int("bytes") != len(input) || kind != "stream" && e.Int("messages") != count {
				t.Errorf("Linux received %v, want %d octets in %d messages", e, len(input), count)
			}
			if got := pipe.Finish(); got != "" {
				t.Errorf("the pipe wrote %q", got)
			}
			server.Finish()
			p.waitService(inst, 0)
		})

		t.Run(kind+"/from Linux", func(t *testing.T) {
			args := []string{"--listen", "--type", kind}
			if !connected {
				args = append(args, "--count", fmt.Sprint(count))
			}
			pipe := p.pipe(append(args, text(inst+1))...)
			awaitGuest(t, g, service(inst+1))
			client := g.Program("client.py", "--type", kind, "--to", text(inst+1), "--count", fmt.Sprint(count), "--size", fmt.Sprint(size))
			sent := client.Expect("sent")
			client.Finish()
			if got := pipe.Finish(); sum([]byte(got)) != sent.Text("sha256") || len(got) != count*size {
				t.Errorf("the pipe wrote %d octets, want %v", len(got), sent)
			}
		})

		t.Run(kind+"/echo", func(t *testing.T) {
			server := g.Program("serve.py", "--type", kind, "--service", text(inst+2), "--mode", "echo", "--quiet")
			server.Expect("ready")
			p.waitService(inst+2, 1)
			pipe := p.pipe("--type", kind, "--block", "2000", text(inst+2))
			if _, err := pipe.Stdin.Write(input[:50000]); err != nil {
				t.Fatal(err)
			}
			_ = pipe.Stdin.Close()
			if got := pipe.Finish(); got != string(input[:50000]) {
				t.Errorf("%d octets came back, want 50000", len(got))
			}
			server.Kill()
		})
	}

	t.Run("nobody", func(t *testing.T) {
		pipe := p.pipe("--type", "rdm", "--wait", "500ms", "4999:1")
		_, _ = pipe.Stdin.Write([]byte("nobody\n"))
		_ = pipe.Stdin.Close()
		if code, err := pipe.Wait(within(t, 20*time.Second)); code != 1 || err != nil || !strings.Contains(pipe.Stderr.String(), "write 4999:1: nobody is bound there") {
			t.Errorf("exit %d, %v, %s", code, err, pipe.Stderr)
		}
	})
}

// waitService waits until our node knows count bindings of an instance.
func (p *toolPair) waitService(inst uint32, count int) {
	p.t.Helper()
	row := fmt.Sprintf("%-10d %-10d %-10d", serviceType, inst, inst)
	if _, ok := lab.Until(20*time.Second, func() bool {
		return strings.Count(p.run(p.tool, "--control", p.control, "nametable", "show").Stdout, row) == count
	}); !ok {
		p.t.Fatalf("our node does not know %d bindings of instance %d", count, inst)
	}
}

// TestIntegrationSubscribe watches a Linux program's service come and go, and the guest itself, as text and as JSON.
func TestIntegrationSubscribe(t *testing.T) {
	p := newToolPair(t, "udp")
	subscribe := func(args ...string) *lab.Proc {
		return p.host.Start(append([]string{p.binary, "tipc", "subscribe", "--control", p.control}, args...)...)
	}
	plain, structured, nodes := subscribe("4711"), subscribe("-j", "4711:0:99"), subscribe("0")
	hash := strings.TrimSpace(p.guest.TIPC("node get address"))
	peer := tipc.NodeAddr(p.guest.NodeAddress())
	nodes.ExpectLine(fmt.Sprintf("published 0:%d:%d 0@%s", uint32(peer), uint32(peer), hash))
	for range 2 {
		server := p.guest.Program("serve.py", "--service", "4711:5:9")
		var node, port uint32
		if _, err := fmt.Sscanf(server.Expect("ready").Text("socket"), "@%d:%d", &node, &port); err != nil {
			t.Fatal(err)
		}
		for _, event := range []string{"published", "withdrawn"} {
			if got, want := plain.ExpectLine(""), fmt.Sprintf("%s 4711:5:9 %d@%s", event, port, hash); got != want {
				t.Errorf("line %q, want %q", got, want)
			}
			line := structured.ExpectLine("")
			want := fmt.Sprintf(`{"event":%q,"type":4711,"lower":5,"upper":9,"port":%d,"node":%q}`, event, port, hash)
			if line != want || !json.Valid([]byte(line)) {
				t.Errorf("line %q, want %q", line, want)
			}
			if event == "published" {
				server.Kill()
			}
		}
	}
	p.guest.Kill()
	nodes.ExpectLine(fmt.Sprintf("withdrawn 0:%d:%d 0@%s", uint32(peer), uint32(peer), hash))
	for _, s := range []*lab.Proc{plain, structured, nodes} {
		if err := s.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		s.Finish()
	}
}

// TestIntegrationDaemonEnds stops our daemon by SIGTERM: Linux sees it go at once, far below the tolerance, and nothing
// is left. SIGKILL leaves a control socket, which the next daemon takes over; a living one is respected.
func TestIntegrationDaemonEnds(t *testing.T) {
	p := newToolPair(t, "udp")
	ourHash := strings.TrimSpace(p.run(p.tool, "--control", p.control, "node", "get", "address").Stdout)

	second := p.run(p.binary, "node", "--control", p.control)
	if second.Code != 1 || !strings.Contains(second.Stderr, "a node answers there already") || !strings.Contains(second.Stderr, p.control) {
		t.Errorf("a second daemon: %+v", second)
	}
	taken := p.run(p.binary, "node", "--control", filepath.Join(p.dir, "c2"), "--bearer", p.spec())
	if taken.Code != 1 || !strings.Contains(taken.Stderr, "udp:u0") || !strings.Contains(taken.Stderr, p.host.Addr(0).String()+":6118") || !strings.Contains(taken.Stderr, "address already in use") {
		t.Errorf("an address in use: %+v", taken)
	}
	for _, spec := range []string{"eth,device=nosuch0", "udp,name=x,device=nosuch0"} {
		if r := p.run(p.binary, "node", "--control", filepath.Join(p.dir, "c2"), "--bearer", spec); r.Code != 1 || !strings.Contains(r.Stderr, "device nosuch0: no such network interface") {
			t.Errorf("%s: %+v", spec, r)
		}
	}
	if _, err := os.Stat(filepath.Join(p.dir, "c2")); !os.IsNotExist(err) {
		t.Errorf("a daemon that could not start left its control socket: %v", err)
	}

	server := p.pipe("--listen", "--keep", text(1))
	events := p.guest.Program("topology.py", "--subscribe", "0", "--subscribe", text(1)+":1")
	events.ExpectFunc("our service", func(e lab.Event) bool { return e.Text("event") == "published" && e.Int("type") == serviceType })
	client := p.guest.Program("client.py", "--to", text(1), "--hold")
	client.Expect("sent")

	start := time.Now()
	if err := p.node.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	isOurs := func(e lab.Event) bool { return fmt.Sprintf("%08x", e.Int("node")) == ourHash }
	events.ExpectFunc("the loss of our node", func(e lab.Event) bool {
		return e.Text("event") == "withdrawn" && e.Int("type") == 0 && isOurs(e)
	})
	took := time.Since(start)
	client.Expect("broken")
	if took > tolerance/2 {
		t.Errorf("Linux saw our node go after %v, want at once", took)
	}
	t.Logf("Linux saw our node go after %v", took)
	if code, err := p.node.Wait(within(t, 20*time.Second)); code != 0 || err != nil {
		t.Errorf("the daemon ended with %d, %v: %s", code, err, p.node.Stderr)
	}
	if _, err := os.Stat(p.control); !os.IsNotExist(err) {
		t.Errorf("the control socket: %v", err)
	}
	if code, _ := server.Wait(within(t, 20*time.Second)); code == 0 {
		t.Errorf("a listening pipe ended without an error when its node went")
	}
	p.guest.WaitPeers(0)

	p.node = p.start(p.control, p.spec())
	p.guest.WaitPeers(1)
	p.node.Kill()
	if _, err := os.Stat(p.control); err != nil {
		t.Errorf("SIGKILL leaves the socket: %v", err)
	}
	p.node = p.start(p.control, p.spec())
	p.guest.WaitPeers(1)

	// The same from a file.
	file := filepath.Join(p.dir, "node.toml")
	config := fmt.Sprintf("identity = %q\ncontrol = %q\n[[bearer]]\nmedia = \"udp\"\nname = \"u0\"\nlocalip = %q\ntolerance = 800\n", oursName, p.control, p.host.Addr(0))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = p.node.Signal(syscall.SIGINT)
	p.node.Finish()
	p.guest.WaitPeers(0)
	if r := p.run(p.binary, "node", "--config", file, "--check"); r.Code != 0 || !strings.Contains(r.Stdout, "right") {
		t.Errorf("--check: %+v", r)
	}
	p.node = p.host.Start(p.binary, "node", "--config", file)
	p.guest.WaitPeers(1)
	if got := strings.TrimSpace(p.guest.TIPC("link get tolerance link %s:u0-%s:u0", guestName, oursName)); got != "1500" {
		t.Errorf("Linux's end of the link has a tolerance of %s, both ends use the larger", got)
	}
}
