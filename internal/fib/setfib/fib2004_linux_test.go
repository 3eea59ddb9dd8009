package setfib

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"midplane/internal/fib/binding"
	"midplane/internal/lab"
)

// The test of "Multiple Forwarding Information Bases" (2004): two customers on one box with the same interface address,
// two servers on the same address and port, two clients with the same address and the same source port at once.
//
//	client c0  198.51.100.2:5555 ── p0 198.51.100.1 ── python3 -m http.server, in FIB blue (10)
//	client c1  198.51.100.2:5555 ── p1 198.51.100.1 ── nginx,                  in FIB red (20)

func TestIntegrationTwoCustomersRules(t *testing.T) {
	twoCustomers(t, newNativeBox(t, binding.Rules, 1))
}

func TestIntegrationTwoCustomersNetns(t *testing.T) {
	twoCustomers(t, newNativeBox(t, binding.Netns, 1))
}

func TestIntegrationTwoCustomersVRF(t *testing.T) { twoCustomers(t, newGuestBox(t)) }

func twoCustomers(t *testing.T, b *box) {
	lab.RequireTool(t, "nginx", "nginx-light")
	record := make([]map[string]*lab.Capture, len(fibNames))
	for i, client := range b.clients { // both ends of each cable, where the box's end is in a namespace of this machine
		record[i] = map[string]*lab.Capture{"client": client.CaptureDevice("eth0")}
		if b.capture != nil {
			record[i]["port"] = b.capture[i].ns.CaptureDevice(b.capture[i].device)
		}
	}
	midplane := lab.Binary(t)
	for i, server := range [][]string{pythonServer(b, "page of blue"), nginx(b, "page of red")} {
		b.start(append([]string{"env", "MIDPLANE_FIB_DIR=" + b.dir, midplane, "fib", "exec", fibNames[i], "--"}, server...)...)
	}

	// Both connections are there before either is used.
	var conns []net.Conn
	for _, client := range b.clients {
		conns = append(conns, dialFrom(t, client))
	}
	if a, b := conns[0], conns[1]; a.LocalAddr().String() != b.LocalAddr().String() || a.RemoteAddr().String() != b.RemoteAddr().String() {
		t.Fatalf("%v to %v and %v to %v are not the same", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
	}
	for i := range conns { // the later one first
		i = len(conns) - 1 - i
		server, body := request(t, conns[i])
		wantServer := []string{"SimpleHTTP/", "nginx/"}[i]
		if want := "page of " + fibNames[i]; !strings.Contains(server, wantServer) || !strings.Contains(body, want) {
			t.Errorf("client %d got %q from %q, want %q from %q", i, body, server, want, wantServer)
		}
	}
	for i := range conns {
		_ = conns[i].Close()
		// Each FIB knows another neighbour by the same address.
		if got := b.inFIB(i, "ip", "neigh", "show", clientAddr, "dev", b.bindings[i].Ports[0]); !strings.Contains(got, clientMAC(i)) || strings.Contains(got, clientMAC(1-i)) {
			t.Errorf("neighbour of %s: %q, want %s", fibNames[i], got, clientMAC(i))
		}
	}
	for i := range record {
		for what, c := range record[i] {
			all := frames(t, c.Stop())
			if bad := foreign(all, b.portMACs(i), "page of "+fibNames[1-i]); len(bad) > 0 {
				t.Errorf("%s of %s: %d of %d frames are of the other FIB, such as %q", what, fibNames[i], len(bad), len(all), bad[0])
			}
			// The capture sees something: all of the exchange.
			if own := foreign(all, b.portMACs(i), "page of "+fibNames[i]); len(own) == 0 || len(all) < 8 {
				t.Errorf("%s of %s: %d frames, %d with the page", what, fibNames[i], len(all), len(own))
			}
		}
	}
}

// pythonServer is Debian's python3, unmodified, with one page.
func pythonServer(b *box, page string) []string {
	dir := b.share("www-python", map[string]string{"index.html": page})
	return []string{"/usr/bin/python3", "-m", "http.server", "--bind", serverAddr, "--directory", dir, "80"}
}

// nginx is Debian's nginx, unmodified, with one page and a worker process: a child, which serves.
func nginx(b *box, page string) []string {
	dir := b.share("www-nginx", map[string]string{"index.html": page, "nginx.conf": ""})
	conf := fmt.Sprintf(`
daemon off; user root; worker_processes 1; pid %[1]s/nginx.pid; error_log stderr;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { listen %[2]s:80; location / { root %[1]s; } }
}
`, dir, serverAddr)
	b.share("www-nginx", map[string]string{"nginx.conf": conf})
	return []string{"/usr/sbin/nginx", "-p", dir, "-c", dir + "/nginx.conf", "-e", "stderr"}
}

// share writes files that the box finds in the directory that is returned.
func (b *box) share(name string, files map[string]string) string {
	b.t.Helper()
	host := filepath.Join(b.shared, name)
	if err := os.MkdirAll(host, 0o755); err != nil {
		b.t.Fatal(err)
	}
	for f, text := range files {
		if err := os.WriteFile(filepath.Join(host, f), []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	return filepath.Join(b.sharedAs, name)
}

// dialFrom connects from a client to the server as soon as there is one, from the same source port in each.
func dialFrom(t *testing.T, client *lab.Namespace) (c net.Conn) {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(clientAddr + ":5555")), Timeout: lab.Patience}
	var err error
	if _, ok := lab.Until(lab.Patience, func() bool {
		err = client.Do(func() (err error) { c, err = d.Dial("tcp", serverAddr+":80"); return err })
		return err == nil
	}); !ok {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// request asks for the page and returns the Server field and the body.
func request(t *testing.T, c net.Conn) (server, body string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(lab.Patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\nHost: customer\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, line)
		}
		if v, ok := strings.CutPrefix(line, "Server: "); ok {
			server = strings.TrimSpace(v)
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return server, string(rest)
}

// newGuestBox makes a box of back end vrf: Linux 6.1 as a guest, whose two devices are the ports.
func newGuestBox(t *testing.T) *box {
	lab.Require(t)
	n := lab.NewNetwork(t)
	g := n.Guest(lab.GuestConfig{NICs: len(fibNames)})
	b := &box{t: t, dir: "/run/lab/fib", self: self(t), start: g.Start, shared: g.SharePath("."), sharedAs: "/run/lab"}
	b.run = func(argv ...string) string {
		t.Helper()
		p := g.Start(argv...)
		_ = p.Stdin.Close()
		return p.Finish()
	}
	b.clients = newClients(t, len(fibNames))
	device := func(n int) string { return fmt.Sprintf("eth%d", n) }
	for i, client := range b.clients {
		n.IP("link", "add", fmt.Sprintf("c%d", i), "type", "veth", "peer", "name", "eth0", "address", clientMAC(i), "netns", client.Name())
		n.IP("link", "set", fmt.Sprintf("c%d", i), "addrgenmode", "none", "master", fmt.Sprintf("br%d", i), "up")
		configureClient(client, 0)
		b.capture = append(b.capture, captured{n.Namespace, g.Ports[i].Name()})
		b.macs = append(b.macs, g.MAC(i))
	}
	want, err := json.Marshal(fibs(binding.VRF, 1, device))
	if err != nil {
		t.Fatal(err)
	}
	b.run(b.self, "fib-apply", b.dir, string(want))
	if b.bindings, err = binding.Load(g.SharePath("fib")); err != nil || len(b.bindings) != len(fibNames) {
		t.Fatalf("bindings %v, %v", b.bindings, err)
	}
	return b
}

// portMACs are the Ethernet addresses at the cable of FIB i.
func (b *box) portMACs(i int) []string { return []string{b.macs[i], clientMAC(i)} }
