package mrt

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	const file = `# what ip route show and ip -6 route show write
192.0.2.0/24
2001:db8::1
10.1.2.3/8 via 192.0.2.1
0.0.0.0/0 via inet6 fe80::1 dev eth1 proto bgp metric 20 onlink
default via 192.0.2.1 dev eth0 proto dhcp src 192.0.2.9 metric 100
default via fe80::1 dev eth0 proto ra metric 1024 expires 1799sec mtu 1400 hoplimit 64 pref medium
default via inet6 fe80::2 dev eth0
198.51.100.0/24 proto static metric 20 
	nexthop via 192.0.2.1 dev eth0 weight 1 
	nexthop via 192.0.2.2 dev eth1 weight 3 linkdown 

203.0.113.0/24 nhid 7 proto bgp \	nexthop via 192.0.2.1 dev eth0 weight 1 \	nexthop dev tun0 weight 256
blackhole 10.0.0.0/8 metric 5
unreachable 2001:db8:1::/48 dev lo table 10 error -113 pref medium
prohibit 2001:db8:2::/48 table main
throw 10.9.0.0/16
local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
10.7.0.0/16 lookup 20
10.8.0.0/16 dev eth0 scope link mtu lock 1400`
	hop := func(gateway, dev string, weight uint16) Hop {
		h := Hop{Device: dev, Weight: weight}
		if gateway != "" {
			h.Gateway = addr(gateway)
		}
		return h
	}
	want := []Entry{
		{Prefix: pfx("192.0.2.0/24")},
		{Prefix: pfx("2001:db8::1/128")},
		{Prefix: pfx("10.0.0.0/8"), Hops: hops("192.0.2.1")},
		{Prefix: pfx("0.0.0.0/0"), Hops: []Hop{hop("fe80::1", "eth1", 0)}, Metric: 20},
		{Prefix: pfx("0.0.0.0/0"), Hops: []Hop{hop("192.0.2.1", "eth0", 0)}, Metric: 100},
		{Prefix: pfx("::/0"), Hops: []Hop{hop("fe80::1", "eth0", 0)}, Metric: 1024},
		{Prefix: pfx("0.0.0.0/0"), Hops: []Hop{hop("fe80::2", "eth0", 0)}},
		{Prefix: pfx("198.51.100.0/24"), Hops: []Hop{hop("192.0.2.1", "eth0", 1), hop("192.0.2.2", "eth1", 3)}, Metric: 20},
		{Prefix: pfx("203.0.113.0/24"), Hops: []Hop{hop("192.0.2.1", "eth0", 1), hop("", "tun0", 256)}},
		{Prefix: pfx("10.0.0.0/8"), Type: "blackhole", Metric: 5},
		{Prefix: pfx("2001:db8:1::/48"), Type: "unreachable", Table: 10},
		{Prefix: pfx("2001:db8:2::/48"), Type: "prohibit", Table: 254},
		{Prefix: pfx("10.9.0.0/16"), Type: "throw"},
		{Prefix: pfx("127.0.0.1/32"), Type: "local", Hops: []Hop{hop("", "lo", 0)}, Table: 255},
		{Prefix: pfx("10.7.0.0/16"), Type: "lookup", Table: 20},
		{Prefix: pfx("10.8.0.0/16"), Hops: []Hop{hop("", "eth0", 0)}},
	}
	for _, end := range []string{"\n", "\r\n"} {
		r := open(t, []byte(strings.ReplaceAll(file, "\n", end)), Options{})
		got, err := all(t, r)
		if d := diff(want, got); err != nil || d != "" {
			t.Fatal(err, d)
		}
		if s := r.Stats(); s.Skipped != 2 {
			t.Errorf("%+v", s)
		}
	}
	for v6, want := range map[bool]string{true: "::/0", false: "0.0.0.0/0"} {
		got, err := all(t, open(t, []byte("default dev tun0"), Options{IPv6: v6, IPv4: !v6}))
		if err != nil || got[0].Prefix != pfx(want) {
			t.Error(got, err)
		}
	}
}

func TestBgpdumpText(t *testing.T) {
	const file = `TABLE_DUMP2|1700000000|B|192.0.2.1|64500|198.51.100.0/24|64500 64501|IGP|192.0.2.7|0|0|64500:1|NAG||
TABLE_DUMP2|1700000000|B|192.0.2.3|64503|198.51.100.0/24|64503 64501|IGP|192.0.2.3|0|0||NAG||
TABLE_DUMP2|1700000000|B|192.0.2.3|64503|10.0.0.0/8|64503|IGP|0.0.0.0|0|0||NAG||
TABLE_DUMP2|1700000000|B|2001:db8::2|64501|2001:db8::/32|64501|IGP|2001:db8::7|0|0||NAG||
BGP4MP|1700000001|A|192.0.2.1|64500|10.0.0.0/8|64500|IGP|192.0.2.8|0|0||NAG||
BGP4MP|11/25/26 21:00:00|W|192.0.2.1|64500|10.0.0.0/8
BGP4MP|1700000003|STATE|192.0.2.1|64500|5|6
BGP4MP|1700000004|STATE|192.0.2.1|64500|6|1
`
	one, three, two := addr("192.0.2.1"), addr("192.0.2.3"), addr("2001:db8::2")
	want := []Entry{
		{Prefix: pfx("198.51.100.0/24"), Hops: hops("192.0.2.7"), Peer: one, PeerAS: 64500, Time: 1700000000},
		{Prefix: pfx("198.51.100.0/24"), Hops: hops("192.0.2.3"), Peer: three, PeerAS: 64503, Time: 1700000000},
		{Prefix: pfx("2001:db8::/32"), Hops: hops("2001:db8::7"), Peer: two, PeerAS: 64501, Time: 1700000000},
		{Prefix: pfx("10.0.0.0/8"), Hops: hops("192.0.2.8"), Peer: one, PeerAS: 64500, Time: 1700000001},
		{Kind: Withdraw, Prefix: pfx("10.0.0.0/8"), Peer: one, PeerAS: 64500},
		{Kind: PeerDown, Peer: one, PeerAS: 64500, Time: 1700000004},
	}
	r := open(t, []byte(file), Options{Paths: All})
	got, err := all(t, r)
	if d := diff(want, got); err != nil || d != "" {
		t.Fatal(err, d)
	}
	if s := r.Stats(); s.NoHop != 1 {
		t.Errorf("%+v", s)
	}
	got, err = all(t, open(t, []byte(file), Options{}))
	if d := diff(append(want[:1:1], want[2:]...), got); err != nil || d != "" {
		t.Error("first path:", err, d)
	}
	got, err = all(t, open(t, []byte(file), Options{Peer: three}))
	if d := diff(want[1:2], got); err != nil || d != "" {
		t.Error("one peer:", err, d)
	}
}

func TestTextErrors(t *testing.T) {
	for line, want := range map[string]string{
		"rubbish":                                            `prefix "rubbish"`,
		"10.0.0.0/33":                                        `prefix "10.0.0.0/33"`,
		"fe80::1%eth0":                                       `prefix "fe80::1%eth0"`,
		"::ffff:10.0.0.0/104":                                "want no IPv4 in IPv6",
		"10.0.0.0/8 via":                                     `"via": want a value after it`,
		"10.0.0.0/8 via eth0":                                `via "eth0": want a unicast address`,
		"10.0.0.0/8 via 0.0.0.0":                             `via "0.0.0.0": want a unicast address`,
		"10.0.0.0/8 via 224.0.0.1":                           "want a unicast address",
		"10.0.0.0/8 dev 0123456789abcdef":                    "up to 15 octets",
		"10.0.0.0/8 weight 0 dev a":                          `weight "0": want 1 to 256`,
		"10.0.0.0/8 weight 7":                                "weight: want via or dev",
		"10.0.0.0/8 metric -1":                               `metric "-1"`,
		"10.0.0.0/8 encap mpls 100":                          `"encap": want a word of a route`,
		"10.0.0.0/8 lookup 0":                                `lookup "0"`,
		"10.0.0.0/8 nexthop":                                 "nexthop: want via or dev",
		"10.0.0.0/8 metric 2\n dev eth0":                     `line goes on with "dev": want nexthop`,
		"broadcast 10.0.0.255":                               "type broadcast",
		"blackhole":                                          "no prefix",
		"blackhole 10.0.0.0/8 via 192.0.2.1":                 "want none with type blackhole",
		"default":                                            "default: want 0.0.0.0/0 or ::/0",
		"a|b":                                                `"a": want a line of bgpdump -m`,
		"BGP4MP|1|A":                                         "3 fields: want at least 6",
		"BGP4MP|1|A|x|1|10.0.0.0/8":                          `peer "x"`,
		"BGP4MP|1|A|192.0.2.1|-|10.0.0.0/8":                  `AS "-"`,
		"BGP4MP|1|A|192.0.2.1|1|10.0.0.0/8":                  "6 fields: want at least 9",
		"BGP4MP|1|Z|192.0.2.1|1|10.0.0.0/8":                  `"Z": want A, B, W or STATE`,
		"BGP4MP|1|STATE|192.0.2.1|1|6":                       "6 fields: want 7",
		"BGP4MP|1|A|192.0.2.1|1|10.0.0.0/8|1|IGP|x|0":        `next hop "x"`,
		"BGP4MP|1|A|192.0.2.1|1|y|1|IGP|x|0":                 `prefix "y"`,
		"10.0.0.0/8" + strings.Repeat(" nexthop dev a", 257): "more than 256 next hops",
		"10.0.0.0/8\n" + strings.Repeat(" nexthop dev a\n", 257): "more than 256 next hops",
	} {
		r := open(t, []byte("192.0.2.0/24\n"+line+"\n192.0.2.0/24\n"), Options{})
		_, err := all(t, r)
		var re *RecordError
		if !errors.As(err, &re) || re.Fatal || re.Offset != 13 || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", line, err, want)
		}
		if e, err := r.Next(); err != nil || e.Prefix != pfx("192.0.2.0/24") {
			t.Errorf("%.60q: the line after it: %v, %v", line, e, err)
		}
	}
	r := open(t, []byte("10.0.0.0/8"+strings.Repeat(" ", MaxLine)), Options{})
	if _, err := all(t, r); err == nil || !strings.Contains(err.Error(), "a line of more than 65536 octets") {
		t.Error(err)
	}
	if _, err := r.Next(); err == nil || err == io.EOF {
		t.Error(err)
	}
	if got, err := all(t, open(t, nil, Options{})); got != nil || err != nil {
		t.Error("empty file:", got, err)
	}
}
