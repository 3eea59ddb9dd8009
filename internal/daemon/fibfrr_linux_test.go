package daemon_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"midplane/internal/fib/service/spec"
	"midplane/internal/fib/xdp"
	"midplane/internal/lab"
)

// newKeepingBox is a box whose tables are in an image that a killed daemon leaves behind, with FIB blue and what else the
// configuration says, and a way to v0.
func newKeepingBox(t *testing.T, config string) *box {
	t.Helper()
	lab.RequireNamespaces(t)
	if err := xdp.Probe(); err != nil {
		t.Skip(err)
	}
	b := newBox(t)
	b.ns.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	b.ns.IP("link", "set", "v0", "up")
	b.ns.IP("link", "set", "v1", "up")
	b.ns.IP("addr", "add", "192.0.2.1/24", "dev", "v0")
	b.ns.IP("addr", "add", "2001:db8::1/64", "dev", "v0", "nodad")
	bpf, file := filepath.Join(b.dir, "bpf"), filepath.Join(b.dir, "node.toml")
	t.Cleanup(func() {
		if err := xdp.Remove(bpf); err != nil {
			t.Error(err)
		}
	})
	text := fmt.Sprintf("[fib]\nbackend = \"rules\"\nforward = \"xdp\"\nmode = \"generic\"\nbpf = %q\n[[fib.table]]\nid = 10\nname = \"blue\"\n%s", bpf, config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.args = []string{"--config", file}
	return b
}

// fed are the routes of FIB blue that a feed brought, and their gateways.
func (b *box) fed() map[string]string {
	m := map[string]string{}
	err := b.client.Routes(b.t.Context(), spec.RouteQuery{FIB: "blue", Dev: "v0"}, func(r spec.RouteInfo) bool {
		if len(r.Hops) == 1 && r.Hops[0].Gateway.IsValid() {
			m[r.Dst.String()] = r.Hops[0].Gateway.String()
		}
		return true
	})
	if err != nil {
		return nil // it is being killed, or is not up
	}
	return m
}

// becomes waits until the routes of the feed are those, and the feed knows it.
func (b *box) becomes(what string, want map[string]string) {
	b.t.Helper()
	var got map[string]string
	var feeds []spec.FeedInfo
	took, ok := lab.Until(4*lab.Patience, func() bool {
		feeds, _ = b.client.Feeds(b.t.Context())
		if len(feeds) != 1 || feeds[0].State != "synced" {
			return false
		}
		got = b.fed()
		return maps.Equal(got, want)
	})
	if !ok {
		d := gocmp.Diff(want, got)
		b.t.Fatalf("%s: the FIB has not what it should (-want +got):\n%.2000s\nfeed %+v; log:\n%s", what, d, feeds, b.proc.Stderr.String())
	}
	b.t.Logf("%s: %v", what, took)
}

// batch has ip(8) do many things at once in the box.
func (b *box) batch(commands string) {
	b.t.Helper()
	cmd := exec.Command("ip", "-n", b.ns.Name(), "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// The daemon is killed while a real zebra feeds it by FPM, before, in the middle and after, and so is zebra; meanwhile
// routes change. Each time the FIB has in the end what the kernel that zebra reads has, and nothing of before.
func TestIntegrationFRRSurvivesKills(t *testing.T) {
	b := newKeepingBox(t, "[[fib.feed]]\nname = \"frr\"\nkind = \"fpm\"\nfib = \"blue\"\nparams = { table = \"254\" }\n")
	frr := lab.NewFRR(t, b.ns)
	const n = 20_000
	want := map[string]string{}
	change := func(round int) { // routes that go, that lead elsewhere, and new ones
		var s strings.Builder
		gone, moved := 0, 0
		for p, gw := range want {
			if round == 0 {
				break
			}
			if gone < 500 {
				gone++
				fmt.Fprintf(&s, "route del %s\n", p)
				delete(want, p)
			} else if moved++; moved <= 500 {
				want[p] = fmt.Sprintf("192.0.2.%d", 100+round)
				fmt.Fprintf(&s, "route replace %s via %s dev v0 proto static\n", p, want[p])
			} else if gw == "" {
				t.Fatal("no gateway")
			}
		}
		more := n
		if round > 0 {
			more = 1000
		}
		for i := range more {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10 + byte(round), byte(i >> 8), byte(i), 0}), 24).String()
			want[p] = fmt.Sprintf("192.0.2.%d", 2+i%50)
			fmt.Fprintf(&s, "route add %s via %s dev v0 proto static\n", p, want[p])
		}
		b.batch(s.String())
	}
	change(0)
	zebra := func() *lab.Proc {
		return frr.Start("zebra", "fpm address 127.0.0.1 port 2620\n", "-M", "dplane_fpm_nl")
	}
	b.start()
	b.ready()
	z := zebra()
	// One that is killed in the middle of what zebra replays.
	killed := func(at uint64) {
		t.Helper()
		if _, ok := lab.Until(2*lab.Patience, func() bool {
			f, err := b.client.Feeds(t.Context())
			return err == nil && len(f) == 1 && f[0].Counts["offloaded"] >= at
		}); !ok {
			t.Fatalf("zebra does not replay; log:\n%s", b.proc.Stderr.String())
		}
		b.kill()
	}
	round := 0
	for _, at := range []uint64{1, n / 3, n - 1} {
		killed(at)
		if round++; round == 2 { // without a daemon
			change(round)
		}
		b.start()
		if round == 3 { // while it starts and reads what it had
			change(round)
		}
		b.ready()
	}
	b.becomes("after three kills of the daemon", want)
	b.kill()
	change(4)
	b.start()
	b.ready()
	b.becomes("after a kill at rest", want)
	z.Kill()
	change(5)
	zebra()
	b.becomes("after zebra was killed", want)
	_ = b.client.Apply(t.Context(), spec.Op{Do: spec.FeedDel, Feed: &spec.Feed{Name: "frr"}})
	b.kill()
}

// bgpConf is an FRR bgpd at 192.0.2.254 with prefixes to announce to the daemon.
func bgpConf(prefixes []string) string {
	var four, six strings.Builder
	for _, p := range prefixes {
		if strings.Contains(p, ":") {
			fmt.Fprintf(&six, "  network %s\n", p)
		} else {
			fmt.Fprintf(&four, "  network %s\n", p)
		}
	}
	return fmt.Sprintf(`router bgp 65001
 bgp router-id 192.0.2.9
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor 192.0.2.1 remote-as 65000
 neighbor 192.0.2.1 ebgp-multihop 2
 neighbor 192.0.2.1 timers connect 1
 address-family ipv4 unicast
%s  neighbor 192.0.2.1 activate
  neighbor 192.0.2.1 route-map out4 out
 exit-address-family
 address-family ipv6 unicast
%s  neighbor 192.0.2.1 activate
  neighbor 192.0.2.1 route-map out6 out
 exit-address-family
route-map out4 permit 10
 set ip next-hop 192.0.2.254
route-map out6 permit 10
 set ipv6 next-hop global 2001:db8::254
`, four.String(), six.String())
}

// FRR's bgpd announces 1,000 prefixes to a feed of kind bgp, which is GoBGP. bgpd is killed and comes back with others, and
// the daemon is killed and comes back after some have changed: each time the FIB has in the end what bgpd has.
func TestIntegrationBGPdSurvivesKills(t *testing.T) {
	b := newKeepingBox(t, `[[fib.port]]
dev = "v0"
fib = "blue"
addr = ["192.0.2.1/24", "2001:db8::1/64"]
[[fib.feed]]
name = "up"
kind = "bgp"
fib = "blue"
params = { asn = "65000", routerid = "192.0.2.1", neighbor = "192.0.2.254@65001", device = "v0", restart = "60" }
`)
	other := lab.NewNamespace(t)
	b.ns.IP("link", "set", "v1", "netns", other.Name())
	other.IP("addr", "add", "192.0.2.254/24", "dev", "v1")
	other.IP("link", "set", "v1", "up")
	frr := lab.NewFRR(t, other)
	prefixes := func(from, to int) (l []string) {
		for i := from; i < to; i++ {
			if i%5 == 0 {
				l = append(l, fmt.Sprintf("2001:db8:%x::/48", 0x100+i))
			} else {
				l = append(l, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
			}
		}
		return l
	}
	want := func(l []string) map[string]string {
		m := map[string]string{}
		for _, p := range l {
			m[p] = "192.0.2.254"
			if strings.Contains(p, ":") {
				m[p] = "2001:db8::254"
			}
		}
		return m
	}
	bgpd := func(l []string) *lab.Proc { return frr.StartAlone("bgp", "bgpd", bgpConf(l)) }
	b.start()
	b.ready()
	p := bgpd(prefixes(0, 1000))
	b.becomes("at first", want(prefixes(0, 1000)))
	p.Kill()
	p = bgpd(prefixes(100, 1100))
	b.becomes("after bgpd was killed", want(prefixes(100, 1100)))
	b.kill()
	commands := []string{"configure terminal", "router bgp 65001"}
	for _, l := range prefixes(100, 150) {
		commands = append(commands, "address-family "+family(l)+" unicast", "no network "+l, "exit-address-family")
	}
	for _, l := range prefixes(1100, 1150) {
		commands = append(commands, "address-family "+family(l)+" unicast", "network "+l, "exit-address-family")
	}
	frr.VtyAlone("bgp", "bgpd", commands...)
	b.start()
	b.ready()
	b.becomes("after the daemon was killed", want(prefixes(150, 1150)))
	b.kill()
	p.Kill()
	b.start()
	b.ready()
	bgpd(prefixes(0, 1000))
	b.becomes("after both were killed", want(prefixes(0, 1000)))
	b.kill()
}

func family(prefix string) string {
	if strings.Contains(prefix, ":") {
		return "ipv6"
	}
	return "ipv4"
}
