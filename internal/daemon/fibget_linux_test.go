package daemon_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"midplane/internal/fib/flowhash"
	"midplane/internal/fib/service/spec"
	"midplane/internal/fib/xdp"
	"midplane/internal/lab"
)

// What the daemon says of a flow is the way that the forwarder takes for it: a packet of each flow is sent, and the one of
// two gateways that gets it is the one that was said.
func TestIntegrationGetIsWhatForwarderDoes(t *testing.T) {
	lab.RequireNamespaces(t)
	if err := xdp.Probe(); err != nil {
		t.Skip(err)
	}
	b := newBox(t)
	config := filepath.Join(b.dir, "node.toml")
	b.args = []string{"--config", config}
	bpf := filepath.Join(b.dir, "bpf")
	t.Cleanup(func() {
		if err := xdp.Remove(bpf); err != nil {
			t.Error(err)
		}
	})
	text := fmt.Sprintf("[fib]\nbackend = \"rules\"\nforward = \"xdp\"\nmode = \"generic\"\nseed = 7\nbpf = %q\n[[fib.table]]\nid = 10\nname = \"blue\"\n", bpf)
	var hosts []*lab.Namespace
	for i := range 3 { // a client, two gateways
		h := lab.NewNamespace(t)
		hosts = append(hosts, h)
		dev := fmt.Sprint("v", i)
		b.ns.IP("link", "add", dev, "type", "veth", "peer", "name", "e0", "netns", h.Name())
		b.ns.IP("link", "set", dev, "up")
		h.IP("link", "set", "e0", "up")
		h.IP("addr", "add", fmt.Sprintf("192.0.%d.2/24", i), "dev", "e0")
		h.IP("route", "add", "default", "via", fmt.Sprintf("192.0.%d.1", i))
		text += fmt.Sprintf("[[fib.port]]\ndev = %q\nfib = \"blue\"\naddr = [\"192.0.%d.1/24\"]\n", dev, i)
	}
	text += `[[fib.route]]
fib = "blue"
prefix = "203.0.113.0/24"
nexthop = [{ via = "192.0.1.2", dev = "v1", weight = 2 }, { via = "192.0.2.2", dev = "v2" }]
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.ready()
	defer b.kill()

	var mu sync.Mutex
	took := map[int]string{} // by source port
	for i := 1; i <= 2; i++ {
		hosts[i].IP("addr", "add", "203.0.113.7/32", "dev", "lo")
		var c *net.UDPConn
		if err := hosts[i].Do(func() (err error) {
			c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.7:7")))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			for {
				_, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
				if err != nil {
					return
				}
				mu.Lock()
				took[int(from.Port())] = fmt.Sprint("v", i)
				mu.Unlock()
			}
		}()
	}
	devices := map[string]int{}
	for port := 5000; port < 5040; port++ {
		var c net.Conn
		if err := hosts[0].Do(func() (err error) {
			d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("192.0.0.2"), uint16(port)))}
			c, err = d.Dial("udp4", "203.0.113.7:7")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		var by string
		if _, ok := lab.Until(lab.Patience, func() bool { // neighbours are being resolved
			_, _ = c.Write([]byte("x"))
			mu.Lock()
			defer mu.Unlock()
			by = took[port]
			return by != ""
		}); !ok {
			st, _ := b.client.Stats(t.Context())
			t.Fatalf("nothing of port %d comes through: %v; log:\n%s", port, st.PerFIB, b.proc.Stderr.String())
		}
		_ = c.Close()
		i, err := b.client.Lookup(t.Context(), spec.LookupQuery{Addr: netip.MustParseAddr("203.0.113.7"), Iif: "v0",
			Flow: &spec.Flow{From: netip.MustParseAddr("192.0.0.2"), Protocol: flowhash.UDP, SPort: uint16(port), DPort: 7}})
		if err != nil {
			t.Fatal(err)
		}
		if i.Hop.Dev != by {
			t.Errorf("port %d: forwarded by %s; said was %+v", port, by, i)
		}
		devices[by]++
	}
	if len(devices) != 2 {
		t.Errorf("all flows take one way, %v: this shows nothing", devices)
	}
}
