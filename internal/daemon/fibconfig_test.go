package daemon

import (
	"strings"
	"testing"
)

// What is wrong in the table [fib] is said with its place, the value, and what would be right.
func TestFIBConfig(t *testing.T) {
	c, err := ParseConfig([]byte(`
[fib]
state = "/x"
sync = false
backend = "vrf"
forward = "xdp"
seed = 7
[[fib.table]]
id = 10
name = "blue"
dns = ["192.0.2.53"]
[[fib.port]]
link = "eth0"
vlan = 100
fib = "blue"
[[fib.nexthop]]
id = 5
via = "192.0.2.1"
dev = "eth0.100"
[[fib.nexthop]]
id = 6
group = [{ id = 5, weight = 3 }]
[[fib.neigh]]
fib = "blue"
address = "192.0.2.1"
lladdr = "02:00:00:00:00:01"
dev = "eth0.100"
[[fib.route]]
fib = "blue"
prefix = "default"
nhid = 6
[[fib.route]]
fib = "blue"
prefix = "10.0.0.0/8"
nexthop = [{ via = "192.0.2.1", dev = "eth0.100", weight = 2 }, { dev = "eth0.100" }]
[[fib.route]]
fib = "blue"
prefix = "10.1.0.0/16"
lookup = "10"
[[fib.feed]]
name = "f"
kind = "kernel"
fib = "blue"
params = { table = "77" }
`))
	if err != nil {
		t.Fatal(err)
	}
	if f := c.FIB; !f.Enabled || f.State != "/x" || !f.NoSync || f.Backend != "vrf" || f.Forward != "xdp" || f.Seed != 7 || len(f.Ops) != 9 {
		t.Errorf("%+v", f)
	}
	for text, want := range map[string]string{
		"state = 5":                             "fib.state: 5 is not right: want text in quotes",
		"nosuch = 5":                            "unknown key",
		`seed = -1`:                             `fib.seed "-1": want a number from 0`,
		`backend = "x"`:                         `fib.backend "x": want auto, vrf, rules, netns or none`,
		`forward = "x"`:                         `fib.forward "x": want xdp or none`,
		"forward = \"xdp\"\nbackend = \"none\"": "a back end other than none",
		"[[fib.table]]\nname = \"blue\"":        `fib.table 1: id "": want a number`,
		"[[fib.table]]\nid = -1":                `fib.table 1: id "-1": want 0 to 4294967295`,
		"[[fib.table]]\nid = 1\nname = \"a b\"": `fib.table 1: fib "a b": want 1 to 15 octets`,
		"[[fib.table]]\nid = 1\ndns = [\"x\"]":  `fib.table 1: dns "x": want an IPv4 or IPv6 address`,
		"[[fib.port]]\ndev = \"eth0\"":          `fib.port 1: fib "": want the name or number of a FIB`,
		"[[fib.port]]\ndev = \"eth0\"\nfib = \"1\"\nvlan = 5000":                           `fib.port 1: vlan "5000": want 0 to 4094`,
		"[[fib.route]]\nfib = \"1\"\nprefix = \"10.0.0.1/8\"\ndev = \"eth0\"":              `fib.route 1: dst "10.0.0.1/8": want no bits behind the prefix length`,
		"[[fib.route]]\nfib = \"1\"\nprefix = \"x\"":                                       `fib.route 1: prefix "x": want a prefix`,
		"[[fib.route]]\nfib = \"1\"\nprefix = \"10.0.0.0/8\"":                              `fib.route 1: dev "": want a device`,
		"[[fib.neigh]]\nfib = \"1\"\naddress = \"192.0.2.1\"\ndev = \"e\"\nlladdr = \"x\"": `fib.neigh 1: lladdr "x": want the address of a device`,
		"[[fib.nexthop]]\nid = 1":                                                          `fib.nexthop 1: dev "": want a device`,
		"[[fib.feed]]\nkind = \"fpm\"":                                                     `fib.feed 1: feed "": want 1 to 15 octets`,
	} {
		_, err := ParseConfig([]byte("[fib]\n" + text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}
