package daemon_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"midplane/internal/fib/service/spec"
	"midplane/internal/fib/xdp"
	"midplane/internal/lab"
)

// The commands of the documentation, as they stand there, on a box with a neighbour that serves HTTP.
func TestIntegrationDocumentedFIB(t *testing.T) {
	lab.RequireTool(t, "curl", "curl")
	b := newBox(t, "--fib-backend", "rules")
	outside := lab.NewNamespace(t)
	b.ns.IP("link", "add", "eth1", "type", "veth", "peer", "name", "e0", "netns", outside.Name())
	b.ns.IP("link", "set", "eth1", "up")
	outside.IP("link", "set", "e0", "up")
	outside.IP("addr", "add", "192.0.2.254/24", "dev", "e0")
	outside.IP("addr", "add", "198.51.100.7/32", "dev", "lo")
	web := filepath.Join(b.dir, "web")
	if err := os.Mkdir(web, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{filepath.Join(web, "index.html"): "you reached 198.51.100.7\n", filepath.Join(b.dir, "rib.20261125.bz2"): "203.0.113.0/24\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	outside.Start("python3", "-m", "http.server", "--bind", "198.51.100.7", "--directory", web, "80")
	if err := os.Symlink(b.binary, filepath.Join(b.dir, "midplane")); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.ready()
	defer b.kill()
	sh := func(line string) (string, error) {
		cmd := exec.Command("ip", "netns", "exec", b.ns.Name(), "sh", "-c", line)
		cmd.Dir = b.dir
		cmd.Env = append(os.Environ(), "PATH="+b.dir+":"+os.Getenv("PATH"), "MIDPLANE_CONTROL="+filepath.Join(b.dir, "ctl"), "MIDPLANE_FIB_DIR="+filepath.Join(b.dir, "run"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		line, out string
		fails     bool
	}{
		{line: "midplane fib add blue id 10"},
		{line: "midplane fib port add eth1 fib blue addr 192.0.2.1/24"},
		{line: "midplane fib route add default via 192.0.2.254 dev eth1 fib blue"},
		{line: "midplane fib route show fib blue", out: "default via 192.0.2.254 dev eth1 proto static \n192.0.2.0/24 dev eth1 proto kernel scope link \nlocal 192.0.2.1 dev eth1 proto kernel \n"},
		{line: "midplane fib route get 198.51.100.7 fib blue", out: "198.51.100.7 via 192.0.2.254 dev eth1 table blue \n"},
		{line: "midplane fib exec blue -- curl http://198.51.100.7/", out: "you reached 198.51.100.7\n"},
		{line: "midplane fib load rib.20261125.bz2 fib blue dev eth1 replace", out: "1 routes read, 1 in the FIB\n"},
		{line: "midplane fib feed add frr kind fpm"},
		{line: "midplane fib feed", out: "frr kind fpm state waiting\n"},
		{line: "midplane fib diff fib blue table 10", out: "- 203.0.113.0/24 dev eth1\n", fails: true},
		{line: "midplane fib stats", out: "fibs 1\n"},
		{line: "midplane fib neigh show fib blue", out: "192.0.2.254 dev eth1 lladdr "},
		{line: "midplane fib port del eth1"},
		{line: "midplane fib feed del frr"},
		{line: "midplane fib del blue"},
	} {
		out, err := sh(c.line)
		if strings.Contains(c.line, "curl") { // the server may still be starting
			lab.Until(lab.Patience, func() bool {
				if err != nil {
					out, err = sh(c.line)
				}
				return err == nil
			})
		}
		if (err != nil) != c.fails || !strings.Contains(out, c.out) {
			t.Fatalf("%s: %v\n%s\nwant %q; log:\n%s", c.line, err, out, c.out, b.proc.Stderr.String())
		}
	}
}

func first[T any](v T, _ error) T { return v }

// A forwarder goes on while the daemon is killed and started again: no packet is lost, though the table is filled by a feed.
// What changed meanwhile is in the FIB afterwards.
func TestIntegrationForwardingSurvivesDaemon(t *testing.T) {
	lab.RequireNamespaces(t)
	if err := xdp.Probe(); err != nil {
		t.Skip(err)
	}
	b := newBox(t)
	client, server := lab.NewNamespace(t), lab.NewNamespace(t)
	b.ns.IP("link", "add", "v0", "type", "veth", "peer", "name", "e0", "netns", client.Name())
	b.ns.IP("link", "add", "v2", "type", "veth", "peer", "name", "e0", "netns", server.Name())
	for _, dev := range []string{"v0", "v2"} {
		b.ns.IP("link", "set", dev, "up")
	}
	client.IP("link", "set", "e0", "up")
	client.IP("addr", "add", "192.0.2.2/24", "dev", "e0")
	client.IP("route", "add", "default", "via", "192.0.2.1")
	server.IP("link", "set", "e0", "up")
	server.IP("addr", "add", "198.51.100.2/24", "dev", "e0")
	server.IP("addr", "add", "203.0.113.7/32", "dev", "lo")
	server.IP("route", "add", "default", "via", "198.51.100.1")
	bpf := filepath.Join(b.dir, "bpf")
	config := filepath.Join(b.dir, "node.toml")
	text := fmt.Sprintf(`
[fib]
backend = "rules"
forward = "xdp"
mode = "generic"
bpf = %q
[[fib.table]]
id = 10
name = "blue"
[[fib.port]]
dev = "v0"
fib = "blue"
addr = ["192.0.2.1/24"]
[[fib.port]]
dev = "v2"
fib = "blue"
addr = ["198.51.100.1/24"]
[[fib.feed]]
name = "k"
kind = "kernel"
fib = "blue"
params = { table = "77" }
`, bpf)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.args = []string{"--config", config}
	t.Cleanup(func() {
		if err := xdp.Remove(bpf); err != nil {
			t.Error(err)
		}
	})
	b.start()
	b.ready()
	// Routes of others go when a device becomes a port; these come after.
	for i := range 50 {
		b.ns.IP("route", "add", fmt.Sprintf("10.%d.0.0/16", i), "via", "198.51.100.2", "dev", "v2", "onlink", "table", "77")
	}
	b.ns.IP("route", "add", "203.0.113.0/24", "via", "198.51.100.2", "dev", "v2", "onlink", "table", "77")

	var echo net.PacketConn
	var conn net.Conn
	if err := server.Do(func() (err error) {
		echo, err = net.ListenPacket("udp4", "203.0.113.7:7")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := echo.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buf[:n], from) // one that is lost is counted by the other side
		}
	}()
	if err := client.Do(func() (err error) {
		conn, err = net.Dial("udp4", "203.0.113.7:7")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ping := func(i int, patience time.Duration) bool {
		if _, err := conn.Write([]byte(strconv.Itoa(i))); err != nil {
			return false
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 100)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return false
			}
			if string(buf[:n]) == strconv.Itoa(i) {
				return true
			}
		}
	}
	// The kernel does not forward in this box, so each answer shows that XDP did, both ways.
	if _, ok := lab.Until(lab.Patience, func() bool { return ping(-1, time.Second) }); !ok {
		st, _ := b.client.Stats(t.Context())
		t.Fatalf("nothing comes through: %v, feed %v; log:\n%s", st.PerFIB, first(b.client.Feeds(t.Context())), b.proc.Stderr.String())
	}
	var sent, lost atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			sent.Add(1)
			if !ping(i, lab.Patience) {
				lost.Add(1)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	more := func() { // traffic goes on for a while
		n := sent.Load() + 50
		lab.Until(lab.Patience, func() bool { return sent.Load() > n })
	}
	feed := func() map[netip.Prefix]string {
		m := map[netip.Prefix]string{}
		_ = b.client.Routes(t.Context(), spec.RouteQuery{FIB: "blue", Dev: "v2"}, func(r spec.RouteInfo) bool {
			if r.Hops[0].Gateway.IsValid() {
				m[r.Dst] = r.Proto
			}
			return true
		})
		return m
	}
	for round := range 3 {
		if _, ok := lab.Until(lab.Patience, func() bool { return len(feed()) == 51 }); !ok {
			t.Fatalf("round %d: %d routes of the feed, want 51; log:\n%s", round, len(feed()), b.proc.Stderr.String())
		}
		more()
		b.kill()
		more() // nobody is there but the forwarder
		b.ns.IP("route", "del", fmt.Sprintf("10.%d.0.0/16", round), "table", "77")
		b.ns.IP("route", "add", fmt.Sprintf("11.%d.0.0/16", round), "via", "198.51.100.2", "dev", "v2", "onlink", "table", "77")
		b.start()
		b.ready()
		gone, come := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", round)), netip.MustParsePrefix(fmt.Sprintf("11.%d.0.0/16", round))
		if _, ok := lab.Until(lab.Patience, func() bool { f := feed(); return f[gone] == "" && f[come] == "kernel" && len(f) == 51 }); !ok {
			t.Fatalf("round %d: after the start: %v; log:\n%s", round, feed(), b.proc.Stderr.String())
		}
		more()
	}
	close(stop)
	<-stopped
	st, err := b.client.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forwarded := st.PerFIB[0].Packets["forwarded"]
	t.Logf("%d packets there and back, %d lost; %v", sent.Load(), lost.Load(), st.PerFIB[0].Packets)
	if lost.Load() > 0 || forwarded < 2*uint64(sent.Load()) {
		t.Errorf("%d of %d lost, %d forwarded by XDP", lost.Load(), sent.Load(), forwarded)
	}
	_ = b.proc.Signal(syscall.SIGINT)
	<-b.proc.Done()
}
