package fibtool

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"midplane/fib"
	"midplane/internal/api/fibapi"
	"midplane/internal/fib/service"
	"midplane/internal/fib/service/spec"
	"midplane/internal/lab"
)

// local is the fibapi.Control of a service in this process, as far as routes and next hops go.
type local struct {
	fibapi.Control
	s *service.Service
}

func (l local) Apply(ctx context.Context, ops ...spec.Op) error { return l.s.Apply(ctx, ops...) }
func (l local) FIBs(context.Context) ([]spec.FIBInfo, error)    { return l.s.FIBs(), nil }
func (l local) Routes(ctx context.Context, q spec.RouteQuery, yield func(spec.RouteInfo) bool) error {
	return l.s.Routes(ctx, q, yield)
}
func (l local) NextHops(context.Context) ([]spec.NextHopInfo, error) { return l.s.NextHops(), nil }
func (l local) Neighs(_ context.Context, f, dev string) ([]spec.NeighInfo, error) {
	return l.s.Neighs(f, dev)
}

// nsLinks are the devices of a namespace.
type nsLinks map[string]uint32

func (l nsLinks) Index(_ fib.ID, dev string) (uint32, bool) { i, ok := l[dev]; return i, ok }
func (l nsLinks) Name(_ fib.ID, index uint32) string {
	for n, i := range l {
		if i == index {
			return n
		}
	}
	return ""
}
func (nsLinks) Addrs(fib.ID, string) []netip.Prefix          { return nil }
func (nsLinks) Tags(fib.ID, string) (uint32, uint16, uint16) { return 0, 0, 0 }

// Routes, next hops and neighbours look as ip shows those of the same commands, in text and in JSON, compact and pretty.
func TestIntegrationLooksLikeIP(t *testing.T) {
	lab.RequireNamespaces(t)
	ns := lab.NewNamespace(t)
	ns.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	ns.IP("link", "set", "v0", "up")
	ns.IP("link", "set", "v1", "up")
	ns.IP("addr", "add", "192.0.2.2/24", "dev", "v0")
	ns.IP("-6", "addr", "add", "2001:db8::2/64", "dev", "v0", "nodad")
	links := nsLinks{}
	if err := ns.Do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			links[i.Name] = uint32(i.Index)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s, err := service.Open(t.Context(), service.Options{Links: links})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ours := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		tool := &Tool{Name: "midplane fib", Connect: func(string) fibapi.Control { return local{s: s} }, Stdout: &out, Stderr: &errs}
		if code := tool.Run(t.Context(), args); code != 0 {
			t.Fatalf("%v: code %d: %s", args, code, errs.String())
		}
		return out.String()
	}
	ours("add", "blue", "id", "10")
	for _, line := range []string{
		"nexthop add id 5 via 192.0.2.1 dev v0",
		"nexthop add id 6 via 192.0.2.4 dev v0 proto static",
		"nexthop add id 7 group 5,3/6",
		"nexthop add id 8 blackhole",
		"nexthop add id 9 via 2001:db8::9 dev v0",
		"route add 10.0.0.0/8 via 192.0.2.1 dev v0",
		"route add 10.1.0.0/16 nexthop via 192.0.2.1 dev v0 weight 3 nexthop via 192.0.2.3 dev v0",
		"route add blackhole 10.2.0.0/16 proto bgp",
		"route add unreachable 10.3/16",
		"route add prohibit 10.4.0.0/16",
		"route add 10.5.0.1 dev v0",
		"route add 10.6.0.0/16 dev v0",
		"route add 10.7.0.0/16 nhid 5",
		"route add 10.8.0.0/16 nhid 7",
		"route add 10.9.0.0/16 via inet6 2001:db8::1 dev v0",
		"route add default via 192.0.2.1 dev v0",
		"-6 route add 2001:db8:1::/48 via 2001:db8::1 dev v0",
		"-6 route add 2001:db8:2::/48 nexthop via 2001:db8::1 dev v0 nexthop via 2001:db8::3 dev v0 weight 2",
		"-6 route add 2001:db8:3::1 dev v0",
		"-6 route add 2001:db8:4::/48 nhid 9",
		"-6 route add default via 2001:db8::1 dev v0",
	} {
		if _, _, found := strings.Cut(line, "route add "); found {
			more := "table 10 "
			if !strings.Contains(line, "proto") {
				more += "proto static "
			}
			line = regexp.MustCompile(`route add ((?:blackhole|unreachable|prohibit)? ?\S+)`).ReplaceAllString(line, "route add $1 "+more)
		}
		words := strings.Fields(line)
		ours(words...)
		ns.IP(words...)
	}
	// IPv6 has a metric and a preference in the kernel and not here; so has what follows them in text.
	kernels := func(text string) string {
		return regexp.MustCompile(`\s*"(metric|pref)": ?("medium"|1024),?|metric 1024 |pref medium`).ReplaceAllString(text, "")
	}
	tidy := func(text string) string { // commas that the member before leaves
		return regexp.MustCompile(`,(\s*[}\]])`).ReplaceAllString(text, "$1")
	}
	for _, args := range [][]string{
		{"route", "show", "table", "10"}, {"-j", "route", "show", "table", "10"}, {"-j", "-p", "route", "show", "table", "10"}, {"-o", "route", "show", "table", "10"},
		{"-6", "route", "show", "table", "10"}, {"-6", "-j", "route", "show", "table", "10"},
		{"route", "show", "table", "10", "10.1.0.0/16"}, {"route", "show", "table", "10", "root", "10.4.0.0/14"}, {"route", "show", "table", "10", "match", "10.1.0.0/16"},
		{"route", "show", "table", "10", "proto", "bgp"}, {"-j", "route", "show", "table", "10", "proto", "bgp"}, {"-j", "route", "show", "table", "10", "root", "10.5.0.0/16", "dev", "v0", "proto", "static"},
		{"route", "show", "table", "10", "root", "10.6.0.0/15", "dev", "v0"}, {"-j", "route", "show", "table", "10", "type", "blackhole"},
		{"nexthop"}, {"-j", "nexthop"}, {"-j", "-p", "nexthop"}, {"nexthop", "show", "id", "7"},
	} {
		want := tidy(kernels(ns.IP(args...)))
		words := args
		if args[0] != "-6" && strings.Contains(strings.Join(args, " "), "route") {
			words = append([]string{"-4"}, args...)
		}
		got := ours(words...)
		if d := cmp.Diff(sorted(want), sorted(got)); d != "" {
			t.Errorf("%v (-ip +midplane fib):\n%s", args, d)
		}
	}
}

// sorted puts the routes of one order, as the kernel lists those of IPv6 in another.
func sorted(text string) any {
	if strings.HasPrefix(text, "[") && !strings.Contains(strings.TrimSpace(text), "\n") {
		var l []json.RawMessage
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return fmt.Sprint(err, text)
		}
		m := map[string]bool{}
		for _, r := range l {
			m[string(r)] = true
		}
		return m
	}
	if strings.HasPrefix(text, "[") {
		return text
	}
	m := map[string]bool{}
	text = strings.ReplaceAll(text, "\n\t", "\\\t")
	for line := range strings.Lines(text) {
		m[strings.TrimRight(line, " \n")] = true
	}
	return m
}
