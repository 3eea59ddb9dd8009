package fpm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/rtnl"
	"midplane/internal/lab"
)

// leads waits until a prefix leads to some gateways, with their weights, in the FIB of the main table.
func (b *box) leads(set *fib.Set, prefix string, want ...string) {
	b.t.Helper()
	var got []string
	if _, ok := lab.Until(lab.Patience, func() bool {
		got = got[:0]
		tab, ok := set.Table(fib.ID(rtnl.TableMain))
		if !ok {
			return false
		}
		id, ok := tab.Get(netip.MustParsePrefix(prefix))
		if !ok {
			return len(want) == 0
		}
		i, _ := set.NextHop(id)
		for _, m := range i.Members {
			h, _ := set.NextHop(m.NextHop)
			got = append(got, fmt.Sprint(h.NextHop.Gateway, " ", m.Weight))
		}
		if i.Members == nil {
			got = append(got, hopText(i.NextHop))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	}); !ok {
		b.t.Fatalf("%s leads to %q, want %q", prefix, got, want)
	}
}

func hopText(h fib.NextHop) string {
	if h.Gateway.IsValid() {
		return h.Gateway.String()
	}
	return h.Type.String()
}

// Routes of a real staticd come over FPM as next-hop groups; a change of the ways is one of the group.
func TestIntegrationNextHopGroups(t *testing.T) {
	b := newBox(t)
	set, err := fib.New(&fib.Config{Size: 16 << 20, MaxFIBs: 64, MaxNextHops: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	var conf Config
	conf.Feed.Create = true
	s := b.serve(set, conf)
	b.zebra()
	b.FRR.Start("staticd", `ip route 10.1.0.0/16 10.255.0.2
ip route 10.2.0.0/16 10.255.0.2
ip route 10.2.0.0/16 10.255.0.3
ip route 10.3.0.0/16 blackhole
ip route 10.4.0.0/16 reject
ipv6 route 2001:db8::/32 fd00:ffff::2
ipv6 route 2001:db8::/32 fd00:ffff::3
ipv6 route 2001:db8::/32 fd00:ffff::4
`)
	b.leads(set, "10.1.0.0/16", "10.255.0.2")
	b.leads(set, "10.2.0.0/16", "10.255.0.2 1", "10.255.0.3 1")
	b.leads(set, "10.3.0.0/16", "blackhole")
	b.leads(set, "10.4.0.0/16", "unreachable")
	b.leads(set, "2001:db8::/32", "fd00:ffff::2 1", "fd00:ffff::3 1", "fd00:ffff::4 1")
	if c, _ := s.Counters(); c.Feed.Objects < 3 || c.Feed.Refused != 0 || c.Failed != 0 {
		t.Errorf("%+v", c)
	}

	b.Vty("staticd", "configure terminal", "ip route 10.2.0.0/16 10.255.0.4", "no ip route 10.2.0.0/16 10.255.0.2", "no ip route 10.1.0.0/16 10.255.0.2")
	b.leads(set, "10.2.0.0/16", "10.255.0.3 1", "10.255.0.4 1")
	b.leads(set, "10.1.0.0/16")

	// zebra reads all that it is answered: the connection stands, and its counter is what was sent.
	if _, ok := lab.Until(lab.Patience, func() bool {
		c, _ := s.Counters()
		return c.Offloaded > 0 && c.Connects == 1 && strings.Contains(b.vty("show fpm counters"), fmt.Sprintf("Input bytes: %d\n", c.Answered))
	}); !ok {
		c, _ := s.Counters()
		t.Errorf("%+v\n%s", c, b.vty("show fpm counters"))
	}
}
