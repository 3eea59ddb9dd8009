package plan

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func addrs(l ...string) []netip.Prefix {
	p := []netip.Prefix{}
	for _, s := range l {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestValidate(t *testing.T) {
	port := func(p Port) []FIB { return []FIB{{ID: 10, Ports: []Port{p}}} }
	many := make([]FIB, MaxFIBs+1)
	for i := range many {
		many[i].ID = uint32(i + 1000)
	}
	for name, c := range map[string]struct {
		fibs         []FIB
		field, value string
	}{
		"none":                {nil, "", ""},
		"good":                {[]FIB{{ID: 1, Name: "a", Ports: []Port{{Device: "eth0", Addresses: addrs("192.0.2.1/24")}, {Parent: "eth0", VLAN: 4094}}}, {ID: 4294967295, Backend: Netns}}, "", ""},
		"no id":               {[]FIB{{}}, "id", "0"},
		"default":             {[]FIB{{ID: 253}}, "id", "253"},
		"main":                {[]FIB{{ID: 254}}, "id", "254"},
		"local":               {[]FIB{{ID: 255}}, "id", "255"},
		"id twice":            {[]FIB{{ID: 10, Name: "a"}, {ID: 10, Name: "b"}}, "id", "10"},
		"name twice":          {[]FIB{{ID: 10, Name: "a"}, {ID: 11, Name: "a"}}, "name", "a"},
		"name by number":      {[]FIB{{ID: 10}, {ID: 11, Name: "fib10"}}, "name", "fib10"},
		"name too long":       {[]FIB{{ID: 10, Name: "sixteen-letters-"}}, "name", "sixteen-letters-"},
		"name with slash":     {[]FIB{{ID: 10, Name: "../x"}}, "name", "../x"},
		"name all":            {[]FIB{{ID: 10, Name: "all"}}, "name", "all"},
		"name with newline":   {[]FIB{{ID: 10, Name: "a\nb"}}, "name", "a\nb"},
		"back end":            {[]FIB{{ID: 10, Backend: "vlan"}}, "backend", "vlan"},
		"name of a port":      {[]FIB{{ID: 10, Name: "eth0", Backend: VRF, Ports: []Port{{Device: "eth0"}}}}, "name", "eth0"},
		"device twice":        {[]FIB{{ID: 10, Ports: []Port{{Device: "eth0"}}}, {ID: 11, Ports: []Port{{Device: "eth0"}}}}, "device", "eth0"},
		"VLAN device twice":   {[]FIB{{ID: 10, Ports: []Port{{Parent: "eth0", VLAN: 5}}}, {ID: 11, Ports: []Port{{Device: "eth0.5"}}}}, "device", "eth0.5"},
		"VLAN twice":          {[]FIB{{ID: 10, Ports: []Port{{Parent: "eth0", VLAN: 5}}}, {ID: 11, Ports: []Port{{Parent: "eth0", VLAN: 5, Device: "x"}}}}, "vlan", "5"},
		"VLAN of a namespace": {[]FIB{{ID: 10, Ports: []Port{{Parent: "eth0", VLAN: 5}}}, {ID: 11, Backend: Netns, Ports: []Port{{Device: "eth0"}}}}, "parent", "eth0"},
		"no device":           {port(Port{}), "device", ""},
		"loopback":            {port(Port{Device: "lo"}), "device", "lo"},
		"VLAN 4095":           {port(Port{Parent: "eth0", VLAN: 4095}), "vlan", "4095"},
		"VLAN -1":             {port(Port{Parent: "eth0", VLAN: -1}), "vlan", "-1"},
		"VLAN of nothing":     {port(Port{VLAN: 5}), "parent", ""},
		"parent of nothing":   {port(Port{Device: "eth0", Parent: "eth1"}), "parent", "eth1"},
		"its own parent":      {port(Port{Device: "eth0", Parent: "eth0", VLAN: 5}), "device", "eth0"},
		"VLAN name too long":  {port(Port{Parent: "enp129s0f0np0", VLAN: 4000}), "device", "enp129s0f0np0.4000"},
		"multicast":           {port(Port{Device: "eth0", Addresses: addrs("224.0.0.1/4")}), "address", "224.0.0.1/4"},
		"loopback address":    {port(Port{Device: "eth0", Addresses: addrs("127.0.0.1/8")}), "address", "127.0.0.1/8"},
		"unspecified":         {port(Port{Device: "eth0", Addresses: addrs("0.0.0.0/8")}), "address", "0.0.0.0/8"},
		"mapped":              {port(Port{Device: "eth0", Addresses: addrs("::ffff:192.0.2.1/120")}), "address", "::ffff:192.0.2.1/120"},
		"no length":           {port(Port{Device: "eth0", Addresses: addrs("192.0.2.1/0")}), "address", "192.0.2.1/0"},
		"zero address":        {port(Port{Device: "eth0", Addresses: make([]netip.Prefix, 1)}), "address", "invalid Prefix"},
		"address twice":       {port(Port{Device: "eth0", Addresses: addrs("192.0.2.1/24", "192.0.2.1/25")}), "address", "192.0.2.1/25"},
		"many addresses":      {port(Port{Device: "eth0", Addresses: make([]netip.Prefix, MaxAddresses+1)}), "addresses", "4097"},
		"many ports":          {[]FIB{{ID: 10, Ports: slicesOf(MaxPorts + 1)}}, "ports", "65537"},
		"many FIBs":           {many, "fibs", "65537"},
		"many name servers":   {[]FIB{{ID: 10, DNS: make([]netip.Addr, 4)}}, "dns", "4"},
		"name server":         {[]FIB{{ID: 10, DNS: []netip.Addr{netip.IPv4Unspecified()}}}, "dns", "0.0.0.0"},
	} {
		err := Validate(c.fibs)
		var f *FieldError
		switch {
		case c.field == "" && err == nil:
		case !errors.As(err, &f) || f.Field != c.field || f.Value != c.value || f.Want == "":
			t.Errorf("%s: %v", name, err)
		}
	}
}

func slicesOf(n int) []Port {
	l := make([]Port, n)
	for i := range l {
		l[i].Device = "d"
	}
	return l
}

func TestWhatIsThereDoesNotAllow(t *testing.T) {
	for name, c := range map[string]struct {
		fibs  []FIB
		field string
	}{
		"no device":                  {[]FIB{{ID: 10, Backend: Rules, Ports: []Port{{Device: "eth9"}}}}, "device"},
		"no parent":                  {[]FIB{{ID: 10, Backend: Rules, Ports: []Port{{Parent: "eth9", VLAN: 1}}}}, "parent"},
		"part of a bridge":           {[]FIB{{ID: 10, Backend: Rules, Ports: []Port{{Device: "member"}}}}, "device"},
		"a VRF device as port":       {[]FIB{{ID: 10, Backend: Rules, Ports: []Port{{Device: "other"}}}}, "device"},
		"a loopback device":          {[]FIB{{ID: 10, Backend: Rules, Ports: []Port{{Device: "dummyloop"}}}}, "device"},
		"the VRF's name is taken":    {[]FIB{{ID: 10, Name: "eth0", Backend: VRF}}, "name"},
		"the VRF's table is taken":   {[]FIB{{ID: 5, Backend: VRF}}, "id"},
		"the namespace is taken":     {[]FIB{{ID: 10, Name: "theirs", Backend: Netns}}, "name"},
		"the VLAN's device is taken": {[]FIB{{ID: 10, Backend: Rules, Ports: []Port{{Parent: "eth0", VLAN: 1, Device: "member"}}}}, "device"},
	} {
		h := &host{box: newBox()}
		h.Links["eth0"] = Link{Kind: "veth"}
		h.Links["member"] = Link{Kind: "veth", Master: "br0"}
		h.Links["other"] = Link{Kind: "vrf", Table: 5}
		h.Links["dummyloop"] = Link{Kind: "loopback", Loopback: true}
		h.Spaces["theirs"] = map[string]Link{}
		if err := Validate(c.fibs); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err := Make(c.fibs, Record{}, h.observe(Need(c.fibs, Record{})), false)
		var f *FieldError
		if !errors.As(err, &f) || f.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A port whose device is not there keeps its FIB and its record; when the device comes, it becomes the port.
func TestMissingDevice(t *testing.T) {
	h := &host{box: newBox()}
	h.Links["eth0"] = Link{Kind: "veth", Up: true}
	h.addSettings("", "eth0")
	fibs := []FIB{{ID: 10, Backend: Rules, Ports: []Port{{Device: "eth0", Addresses: addrs("192.0.2.1/24")}}}}
	h.converge(t, fibs, -1, false)
	h.delLink("", "eth0")
	p, err := Make(fibs, h.record(), h.observe(Need(fibs, h.record())), true)
	if err != nil || len(p.Missing) != 1 || len(p.After.Parked) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	h.converge(t, fibs, -1, true)
	h.Links["eth0"] = Link{Kind: "veth"}
	h.addSettings("", "eth0")
	h.converge(t, fibs, -1, false)
	h.check(t, fibs)
}

// What is of our making is found without a record, and goes.
func TestOrphans(t *testing.T) {
	h := &host{box: newBox()}
	h.Links["eth0"] = Link{Kind: "veth", Up: true}
	h.addSettings("", "eth0")
	fibs := []FIB{{ID: 10, Backend: Rules, Ports: []Port{{Device: "eth0"}}}, {ID: 20, Backend: VRF}, {ID: 30, Backend: Rules, Ports: []Port{{Parent: "eth0", VLAN: 7}}}}
	h.converge(t, fibs, -1, false)
	h.disk = nil
	p, err := Make(nil, Record{}, h.observe(Need(nil, Record{})), true)
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Join(p.Orphans, "\n")
	for _, want := range []string{"device fib20", "device eth0.7", "classifier on eth0", "iif eth0", "fwmark 0x1e", "table 10", "table 20"} {
		if !strings.Contains(found, want) {
			t.Errorf("not found: %s in\n%s", want, found)
		}
	}
	h.converge(t, nil, -1, true)
	h.check(t, nil)
	if h.Links["eth0"].Mark != 0 || len(h.Links) != 2 {
		t.Errorf("left: %v", h.Links)
	}
}

func TestOpsHaveWords(t *testing.T) {
	for v := AddSpace; v <= BackRoutes; v++ {
		if s := (Op{Verb: v, Space: "n", Device: "d", To: "t"}).String(); strings.Contains(s, "operation") {
			t.Errorf("verb %d: %s", v, s)
		}
	}
}

// A namespace whose making was cut short is finished, or removed if it is not wanted any more. Of the first moment there is
// its file only.
func TestHalfASpace(t *testing.T) {
	for _, half := range []map[string]Link{{}, {"lo": {Kind: "loopback", Loopback: true}}} {
		for _, wanted := range []bool{true, false} {
			b := newBox()
			b.Spaces["blue"] = half
			fibs := []FIB{{ID: 10, Name: "blue", Backend: Netns}}
			h := &host{box: b}
			h.save(Record{FIBs: fibs, Spaces: []string{"blue"}})
			if !wanted {
				fibs = nil
			}
			h.converge(t, fibs, -1, false)
			if links, there := b.Spaces["blue"]; there != wanted || links["lo"].Up != wanted {
				t.Errorf("wanted: %v, there: %v, %+v", wanted, there, links)
			}
		}
	}
}
