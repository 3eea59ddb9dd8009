package setfib

import (
	"fmt"
	"strings"
	"testing"

	"midplane/internal/fib/binding"
	"midplane/internal/lab"
)

// fib.Dialer, fib.ListenConfig and fib.Resolver, from Go programs in the box that are themselves in no FIB.

func TestIntegrationDialRules(t *testing.T) { goPrograms(t, newNativeBox(t, binding.Rules, 1), 1) }

func TestIntegrationDialNetns(t *testing.T) { goPrograms(t, newNativeBox(t, binding.Netns, 1), 1) }

func TestIntegrationDialSeveralPorts(t *testing.T) {
	goPrograms(t, newNativeBox(t, binding.Rules, 2), 2)
}

func TestIntegrationDialVRF(t *testing.T) {
	goProgramsAsNobody(t, newGuestBox(t), 1)
}

func TestIntegrationDialWithoutPrivileges(t *testing.T) {
	lab.RequireTool(t, "setpriv", "util-linux")
	for ports := 1; ports <= 2; ports++ {
		t.Run(fmt.Sprint(ports), func(t *testing.T) { goProgramsAsNobody(t, newNativeBox(t, binding.Rules, ports), ports) })
	}
	t.Run("netns", func(t *testing.T) {
		b := newNativeBox(t, binding.Netns, 1)
		b.openSelf()
		for _, verb := range []string{"fib-dial", "fib-listen", "fib-packet"} {
			network := map[string]string{"fib-packet": "udp4"}[verb]
			if network == "" {
				network = "tcp4"
			}
			code, _, errs := finish(t, b.start(b.asNobody(b.self, verb, b.dir, "blue", network, serverAddr+":8080", "127.0.0.1:0")...))
			if want := "enter network namespace " + b.bindings[0].Netns + ": operation not permitted; this needs CAP_SYS_ADMIN"; code == 0 || !strings.Contains(errs, want) {
				t.Errorf("%s: exit %d, %s", verb, code, errs)
			}
		}
	})
}

func goProgramsAsNobody(t *testing.T, b *box, ports int) {
	b.openSelf()
	b.run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=80")
	start := b.start
	b.start = func(argv ...string) *lab.Proc { return start(b.asNobody(argv...)...) }
	goPrograms(t, b, ports)
}

// clientOf is the client at a port of FIB i, and the address of the box there.
func (b *box) clientOf(i, port, ports int) (client *lab.Namespace, addr, own string) {
	return b.clients[i*ports+port], fmt.Sprintf("198.51.%d.1", 100+port), fmt.Sprintf("198.51.%d.2", 100+port)
}

func goPrograms(t *testing.T, b *box, ports int) {
	goTool := func(i int, verb string, args ...string) *lab.Proc {
		return b.start(append([]string{b.self, verb, b.dir, b.bindings[i].Name}, args...)...)
	}
	// Each FIB has a server on all addresses, IPv4 and IPv6, by TCP and by UDP.
	wantTCP, wantUDP := "*net.TCPListener", "*net.UDPConn"
	if ports > 1 {
		wantTCP, wantUDP = "*fib.PortListener", "*fib.PortPacketConn"
	}
	for i, name := range fibNames {
		if got := goTool(i, "fib-listen", "tcp", ":80", name).ExpectLine("listening"); got != "listening [::]:80 "+wantTCP {
			t.Errorf("%s: %s", name, got)
		}
		if got := goTool(i, "fib-packet", "udp", ":80", name).ExpectLine("listening"); got != "listening [::]:80 "+wantUDP {
			t.Errorf("%s: %s", name, got)
		}
		goTool(i, "fib-listen", "tcp4", serverAddr+":81", name+" by address").ExpectLine("listening 198.51.100.1:81")
	}
	for i, name := range fibNames {
		for port := range ports {
			client, addr, own := b.clientOf(i, port, ports)
			if got := strings.TrimSpace(client.Run(b.self2(), "fib-get", "tcp", addr+":80", own+":5555")); got != name {
				t.Errorf("client at port %d of %s got %q", port, name, got)
			}
			if got := strings.TrimSpace(client.Run(b.self2(), "fib-ask", addr+":80", own+":5555")); got != name {
				t.Errorf("client at port %d of %s got %q by UDP", port, name, got)
			}
			six := fmt.Sprintf("[2001:db8:%d::1]:80", port)
			if got := strings.TrimSpace(client.Run(b.self2(), "fib-get", "tcp", six, fmt.Sprintf("[2001:db8:%d::2]:5555", port))); got != name {
				t.Errorf("client at port %d of %s got %q by IPv6", port, name, got)
			}
			if got := strings.TrimSpace(client.Run(b.self2(), "fib-ask", six, fmt.Sprintf("[2001:db8:%d::2]:5555", port))); got != name {
				t.Errorf("client at port %d of %s got %q by UDP and IPv6", port, name, got)
			}
			if got := strings.TrimSpace(goTool(i, "fib-dial", "tcp", six).Finish()); got != name {
				t.Errorf("a program in %s got %q from its own IPv6 address", name, got)
			}
			// And the other way round.
			client.Start(b.self2(), "fib-serve", "tcp4", ":7", fmt.Sprint("client of ", name, port)).ExpectLine("listening")
			if got := strings.TrimSpace(goTool(i, "fib-dial", "tcp", own+":7").Finish()); got != fmt.Sprint("client of ", name, port) {
				t.Errorf("dialed from %s by port %d: %q", name, port, got)
			}
			// Names are those of the FIB's server.
			if port == 0 {
				client.Start(b.self2(), "fib-dns", clientAddr+":53", clientAddr).ExpectLine("listening")
			}
			if got := strings.TrimSpace(goTool(i, "fib-dial", "tcp", "peer.example.com:7").Finish()); got != fmt.Sprint("client of ", name, 0) {
				t.Errorf("dialed by name from %s: %q", name, got)
			}
		}
		client, _, _ := b.clientOf(i, 0, ports)
		if got := strings.TrimSpace(client.Run(b.self2(), "fib-get", "tcp", serverAddr+":81")); got != name+" by address" {
			t.Errorf("client of %s got %q from port 81", name, got)
		}
		if got := strings.TrimSpace(goTool(i, "fib-dial", "tcp", serverAddr+":80").Finish()); got != name {
			t.Errorf("a program in %s got %q from its own address", name, got)
		}
		// A server may have any free port; all of its sockets have the same.
		line := goTool(i, "fib-listen", "tcp4", ":0", name+" anywhere").ExpectLine("listening")
		number := strings.TrimPrefix(strings.Fields(line)[1], "0.0.0.0:")
		for port := range ports {
			client, addr, _ := b.clientOf(i, port, ports)
			if got := strings.TrimSpace(client.Run(b.self2(), "fib-get", "tcp", addr+":"+number)); got != name+" anywhere" {
				t.Errorf("client at port %d of %s got %q from port %s", port, name, got, number)
			}
		}
	}
	for _, a := range []string{serverAddr + ":80", "[2001:db8:0::1]:80", ownAddr(0) + ":80"} {
		if code, out, _ := finish(t, b.start(b.self, "fib-miss", "tcp", a)); code == 0 {
			t.Errorf("a program in no FIB got %q from %s", out, a)
		}
	}
	code, _, errs := finish(t, b.start(b.self, "fib-dial", b.dir, "green", "tcp", serverAddr+":80"))
	if code == 0 || !strings.Contains(errs, `fib "green": none of that name or number is set up here`) {
		t.Errorf("a FIB that is not there: exit %d, %s", code, errs)
	}
}
