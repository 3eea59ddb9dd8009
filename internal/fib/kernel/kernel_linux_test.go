package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"midplane/internal/fib/binding"
	"midplane/internal/lab"
)

func prefixes(l ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range l {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// site is a box with ports p0 to p3, each with a customer's host at its other end.
type site struct {
	box   *lab.Namespace
	hosts []*lab.Namespace
	dir   string
	k     *Kernel
}

func newSite(t *testing.T, ports int) *site {
	t.Helper()
	lab.RequireNamespaces(t)
	s := &site{box: lab.NewNamespace(t), dir: t.TempDir()}
	for i := range ports {
		h := lab.NewNamespace(t)
		s.box.IP("link", "add", port(i), "address", fmt.Sprintf("02:00:00:00:aa:%02x", i), "type", "veth", "peer", "name", "eth0", "address", fmt.Sprintf("02:00:00:00:bb:%02x", i), "netns", h.Name())
		h.IP("link", "set", "eth0", "up")
		h.IP("addr", "add", "198.51.100.2/24", "dev", "eth0")
		h.IP("addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
		h.IP("route", "add", "default", "via", "198.51.100.1")
		s.hosts = append(s.hosts, h)
	}
	s.open(t)
	t.Cleanup(func() {
		if s.k != nil {
			if _, err := s.k.Remove(context.Background()); err != nil {
				t.Error(err)
			}
			_ = s.k.Close()
		}
	})
	return s
}

func port(i int) string { return fmt.Sprintf("p%d", i) }

func (s *site) open(t *testing.T) {
	t.Helper()
	k, err := Open(s.config())
	if err != nil {
		t.Fatal(err)
	}
	s.k = k
}

func (s *site) config() Config {
	return Config{Dir: s.dir, NetnsDir: filepath.Join(s.dir, "netns"), Netns: "/run/netns/" + s.box.Name()}
}

func (s *site) apply(t *testing.T, fibs ...FIB) Report {
	t.Helper()
	r, err := s.k.Apply(t.Context(), fibs)
	if err != nil {
		t.Fatalf("%v\nafter %s", err, strings.Join(r.Operations, "\n"))
	}
	again, err := s.k.Apply(t.Context(), fibs)
	if err != nil || len(undone(again)) > 0 {
		t.Fatalf("the second time: %v\n%s", err, strings.Join(again.Operations, "\n"))
	}
	return r
}

// undone is what a Report says that was done, without the routes of addresses that the kernel made for the IPv6 link
// meanwhile: those come when the carrier does, and TestIntegrationDrift is about them.
func undone(r Report) []string {
	return slices.DeleteFunc(slices.Clone(r.Operations), func(o string) bool { return strings.HasPrefix(o, "route add local fe80:") })
}

// dump is everything that a namespace has, as ip(8) shows it, without what counts or ages.
func dump(t *testing.T, ns string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, family := range []string{"-4", "-6"} {
		cmd := exec.Command("ip", "-n", ns, "-d", "-j", family, "-force", "-batch", "-")
		cmd.Stdin = strings.NewReader("link\naddr\nrule\nroute show table all\nmrule\n") // not every kernel has the last
		out, _ := cmd.Output()
		d := json.NewDecoder(bytes.NewReader(out))
		for _, name := range []string{"link", "addr", "rule", "route", "mrule"} {
			var v any
			if err := d.Decode(&v); err != nil {
				if name != "mrule" {
					t.Fatalf("ip %s %s: %v\n%s", family, name, err, out)
				}
				continue
			}
			all[name+family] = plain(v)
		}
	}
	out, err := exec.Command("tc", "-n", ns, "qdisc").Output()
	if err != nil {
		t.Fatal(err)
	}
	all["qdisc"] = slices.DeleteFunc(strings.Split(string(out), "\n"), func(l string) bool { return strings.Contains(l, "noqueue") })
	files := "/proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/tcp_*accept /proc/sys/net/ipv4/udp_*accept /proc/sys/net/*/fwmark_reflect"
	out, err = exec.Command("nsenter", "--net=/run/netns/"+ns, "sh", "-c", "grep -rs . "+files).Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	settings := slices.DeleteFunc(strings.Split(string(out), "\n"), func(l string) bool { return strings.Contains(l, "stable_secret") })
	slices.Sort(settings)
	all["sysctl"] = settings
	return all
}

// plain leaves out what is not state: lifetimes of what is still being made, order of routes.
func plain(v any) any {
	l, ok := v.([]any)
	if !ok {
		return v
	}
	var lines []string
	for _, e := range l {
		if m, ok := e.(map[string]any); ok {
			for _, k := range []string{"operstate", "stats", "stats64", "link_index", "link_netnsid"} {
				delete(m, k)
			}
			if m["qdisc"] == "noop" { // no queue either; a device has it until it is up for the first time
				m["qdisc"] = "noqueue"
			}
			if flags, ok := m["flags"].([]any); ok {
				m["flags"] = slices.DeleteFunc(flags, func(f any) bool { return f == "LOWER_UP" || f == "NO-CARRIER" || f == "linkdown" || f == "M-DOWN" })
			}
			// Addresses of the IPv6 link and the route for multicast come when the carrier does and duplicate address
			// detection is over.
			if dst, _ := m["dst"].(string); strings.HasPrefix(dst, "fe80:") || dst == "ff00::/8" && m["protocol"] == "kernel" {
				continue
			}
			infos := slices.DeleteFunc(list(m["addr_info"]), func(a any) bool {
				local, _ := a.(map[string]any)["local"].(string)
				return strings.HasPrefix(local, "fe80:")
			})
			for _, a := range infos {
				delete(a.(map[string]any), "tentative")
			}
			if m["addr_info"] != nil {
				m["addr_info"] = infos
			}
			slices.SortFunc(infos, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			if info, ok := m["linkinfo"].(map[string]any); ok && info["info_kind"] == "vrf" {
				for _, k := range []string{"address", "ifindex"} { // new ones each time
					delete(m, k)
				}
			}
		}
		b, _ := json.Marshal(e)
		lines = append(lines, string(b))
	}
	slices.Sort(lines)
	return lines
}

func list(v any) []any { l, _ := v.([]any); return l }

// two are two customers with the same addresses.
func two(b Backend) []FIB {
	return []FIB{
		{ID: 10, Name: "red", Backend: b, Ports: []Port{{Device: "p0", Addresses: prefixes("198.51.100.1/24", "2001:db8::1/64"), NoDAD: true}}},
		{ID: 20, Name: "blue", Backend: b, Ports: []Port{{Device: "p1", Addresses: prefixes("198.51.100.1/24", "2001:db8::1/64"), NoDAD: true}}},
	}
}

func testPingAndRemove(t *testing.T, b Backend) {
	s := newSite(t, 3)
	s.box.IP("link", "set", "p0", "group", "5", "up")
	s.box.IP("addr", "add", "203.0.113.9/24", "dev", "p0")
	s.box.IP("addr", "add", "2001:db8:9::9/64", "dev", "p0", "nodad")
	s.box.IP("route", "add", "192.0.2.0/24", "via", "203.0.113.1", "dev", "p0")
	s.box.IP("route", "add", "2001:db8:a::/48", "via", "2001:db8:9::1", "dev", "p0", "metric", "77")
	before := settled(t, s.box.Name())

	r := s.apply(t, two(b)...)
	t.Log(strings.Join(r.Operations, "\n"))
	l, err := binding.Load(s.dir)
	if err != nil || len(l) != 2 || l[0].Backend != binding.Backend(b) {
		t.Errorf("bindings: %v, %v", l, err)
	}
	for i := range s.hosts[:2] {
		for _, to := range []string{"198.51.100.1", "2001:db8::1"} {
			if err := s.ping(i, to); err != nil {
				t.Errorf("host %d: ping %s: %v", i, to, err)
			}
		}
		if out := s.hosts[i].IP("neigh"); strings.Count(out, fmt.Sprintf("aa:%02x", i)) < 2 {
			t.Errorf("host %d: neighbours %s", i, out)
		}
	}
	r, err = s.k.Remove(t.Context())
	if err != nil {
		t.Fatalf("%v\nafter %s", err, strings.Join(r.Operations, "\n"))
	}
	t.Log(strings.Join(r.Operations, "\n"))
	asBefore(t, before, settled(t, s.box.Name()))
	left, _ := filepath.Glob(filepath.Join(s.dir, "*"))
	left = slices.DeleteFunc(left, func(f string) bool { return filepath.Base(f) == "kernel.lock" || filepath.Base(f) == "netns" })
	if names, _ := os.ReadDir(filepath.Join(s.dir, "netns")); len(left)+len(names) > 0 {
		t.Errorf("left behind: %v %v", left, names)
	}
}

// ping sends echo requests from a host until one is answered, which proves the way there and back.
func (s *site) ping(host int, to string) error {
	return s.hosts[host].Do(func() error { return ping(netip.MustParseAddr(to), 60, time.Second) })
}

// silent asks once, and does not wait for long: nothing is to come.
func (s *site) silent(host int, to string) error {
	return s.hosts[host].Do(func() error { return ping(netip.MustParseAddr(to), 1, 300*time.Millisecond) })
}

func ping(to netip.Addr, tries int, patience time.Duration) error {
	network, request, reply := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	c, err := icmp.ListenPacket(network, "")
	if err != nil {
		return err
	}
	defer c.Close()
	for seq := range tries {
		m := icmp.Message{Type: request, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq, Data: []byte("midplane")}}
		b, err := m.Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(b, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		for {
			in := make([]byte, 1500)
			n, from, err := c.ReadFrom(in)
			if err != nil {
				break
			}
			m, err := icmp.ParseMessage(reply.(interface{ Protocol() int }).Protocol(), in[:n])
			if err == nil && m.Type == reply && from.String() == to.String() {
				return nil
			}
		}
	}
	return fmt.Errorf("no answer of %v", to)
}

func asBefore(t *testing.T, before, now map[string]any) {
	t.Helper()
	if d := cmp.Diff(before, now); d != "" {
		t.Errorf("not as before: %s", d)
	}
}

// settled is a dump that does not change any more.
func settled(t *testing.T, ns string) map[string]any {
	t.Helper()
	var last map[string]any
	_, ok := lab.Until(lab.Patience, func() bool {
		now := dump(t, ns)
		same := cmp.Equal(last, now)
		last = now
		return same
	})
	if !ok {
		t.Fatal("the namespace does not settle")
	}
	return last
}

func TestIntegrationRules(t *testing.T) { testPingAndRemove(t, Rules) }

func TestIntegrationNetns(t *testing.T) { testPingAndRemove(t, Netns) }

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}
