package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// box is a model of what a Linux does with operations, as slow and obvious as can be. It is not the planner's idea of the
// kernel: it does what the kernel's sources do, wanted or not.
type box struct {
	Kernel
	vrfEver bool            // the kernel makes its l3mdev rule once
	moved   map[string]bool // devices that were in other namespaces: their queues are gone
}

func newBox() *box {
	b := &box{moved: map[string]bool{}, Kernel: Kernel{
		Links: map[string]Link{"lo": {Kind: "loopback", Up: true, Loopback: true}}, Spaces: map[string]map[string]Link{}, Rules: map[Family][]Rule{},
		Routes: map[Route]bool{}, Settings: map[Path]string{}, Through: map[string][][]byte{},
	}}
	for _, f := range []Family{IPv4, IPv6} {
		b.Rules[f] = []Rule{{Priority: 0, Table: tableLocal, Protocol: protocolKernel}, {Priority: 32766, Table: tableMain, Protocol: protocolKernel}}
	}
	b.Rules[MR4] = []Rule{{Priority: 32767, Table: tableDefault, Protocol: protocolKernel}}
	for _, n := range []string{"ipv4/tcp_l3mdev_accept", "ipv4/udp_l3mdev_accept", "ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding", "ipv4/conf/all/forwarding"} {
		b.Settings[Path{"", "net/" + n}] = "0"
	}
	return b
}

// linkLocal is the address that the kernel gives a device when it is up.
func linkLocal(d string) Address {
	sum := 0
	for _, c := range []byte(d) {
		sum = sum*31 + int(c)
	}
	return Address{Prefix: netip.MustParsePrefix(fmt.Sprintf("fe80::%x/64", sum&0xffff)), Scope: scopeLink}
}

func (b *box) space(name string) map[string]Link {
	if name == "" {
		return b.Links
	}
	return b.Spaces[name]
}

// addSettings are the settings that come with a device.
func (b *box) addSettings(space, d string) {
	for _, p := range passing(d) {
		b.Settings[Path{space, p}] = "0"
	}
	b.Settings[Path{space, "net/ipv6/conf/" + d + "/use_oif_addrs_only"}] = "0"
	b.Settings[Path{space, "net/ipv6/conf/" + d + "/accept_ra"}] = "1"
	if _, can := b.Settings[Path{"", forceDefault}]; can {
		b.Settings[Path{space, "net/ipv6/conf/" + d + "/force_forwarding"}] = "0"
	}
}

func (b *box) delSettings(space, d string) {
	maps.DeleteFunc(b.Settings, func(p Path, _ string) bool { return p.Space == space && strings.Contains(p.Name, "/conf/"+d+"/") })
}

// flushDevice is what happens to routes when a device goes down.
func (b *box) flushDevice(d string) {
	maps.DeleteFunc(b.Routes, func(r Route, _ bool) bool { return r.Device == d })
	delete(b.Through, d)
}

func withoutIPv6(l []Address) []Address {
	return slices.DeleteFunc(slices.Clone(l), func(a Address) bool { return a.Prefix.Addr().Is6() })
}

func (b *box) up(space, d string) {
	l := b.space(space)[d]
	if !l.Up {
		l.Up = true
		l.Addresses = append(slices.Clone(l.Addresses), linkLocal(d))
		b.space(space)[d] = l
		b.vlans(space, d, b.up)
	}
}

// vlans does to the VLANs on a device what is done to it (net/8021q/vlan.c, vlan_device_event).
func (b *box) vlans(space, d string, f func(space, d string)) {
	if space != "" {
		return
	}
	for _, s := range append(sortedKeys(b.Spaces), "") {
		for _, name := range sortedKeys(b.space(s)) {
			if l := b.space(s)[name]; l.Parent == d || l.Kind == "vlan" && strings.HasSuffix(l.Alias, " on "+d) {
				f(s, name)
			}
		}
	}
}

func (b *box) down(space, d string) {
	l := b.space(space)[d]
	if l.Up {
		l.Up = false
		l.Addresses = withoutIPv6(l.Addresses)
		b.space(space)[d] = l
		b.vlans(space, d, b.down)
		if space == "" {
			b.flushDevice(d)
		}
	}
}

func (b *box) master(space, d, m string) {
	l := b.space(space)[d]
	l.Master = m
	b.space(space)[d] = l
	if l.Up { // vrf.c, cycle_netdev
		b.down(space, d)
		b.up(space, d)
	}
}

func (b *box) delLink(space, d string) {
	for name, l := range b.space(space) {
		if l.Master == d {
			b.master(space, name, "")
		}
	}
	delete(b.space(space), d)
	b.delSettings(space, d)
	if space == "" {
		b.flushDevice(d)
	}
	for _, s := range append(sortedKeys(b.Spaces), "") { // VLANs on it
		for name, l := range b.space(s) {
			if l.Parent == d && space == "" {
				b.delLink(s, name)
			}
		}
	}
}

// do does one operation, or says why Linux would not.
func (b *box) do(o Op) error {
	links := b.space(o.Space)
	if links == nil && o.Verb != AddSpace && o.Verb != DelSpace {
		return fmt.Errorf("%v: no such namespace", o)
	}
	if _, there := links[o.Device]; o.Device != "" && !there && !slices.Contains([]Verb{AddVRF, AddVLAN, DelLink, DelAddress}, o.Verb) {
		return fmt.Errorf("%v: no such device", o)
	}
	switch o.Verb {
	case AddSpace:
		if l, half := b.Spaces[o.Space]["lo"]; half {
			l.Up = true
			b.Spaces[o.Space]["lo"] = l
		}
		if len(b.Spaces[o.Space]) == 0 {
			b.Spaces[o.Space] = map[string]Link{"lo": {Kind: "loopback", Up: true, Loopback: true}}
			b.Settings[Path{o.Space, "net/ipv4/conf/all/forwarding"}], b.Settings[Path{o.Space, "net/ipv6/conf/all/forwarding"}] = "0", "0"
		}
	case DelSpace:
		if len(b.Spaces[o.Space]) > 1 {
			return fmt.Errorf("%v: devices would be lost", o)
		}
		delete(b.Spaces, o.Space)
		maps.DeleteFunc(b.Settings, func(p Path, _ string) bool { return p.Space == o.Space })
	case AddRule:
		if slices.Contains(b.Rules[o.Family], o.Rule) {
			return nil
		}
		b.Rules[o.Family] = append(b.Rules[o.Family], o.Rule)
	case DelRule:
		b.Rules[o.Family] = slices.DeleteFunc(b.Rules[o.Family], func(r Rule) bool { return r == o.Rule })
	case AddRoute:
		if l, ok := b.Links[o.Route.Device]; o.Route.Device != "" && (!ok || !l.Up) {
			return fmt.Errorf("%v: network is down", o)
		}
		b.Routes[o.Route] = true
	case DelRoute:
		delete(b.Routes, o.Route)
	case FlushTable:
		maps.DeleteFunc(b.Routes, func(r Route, _ bool) bool { return r.Table == o.Table })
	case Setting:
		p := Path{o.Space, o.Path}
		if _, ok := b.Settings[p]; !ok {
			return fmt.Errorf("%v: no such file", o)
		}
		if p.Name == forwardAll {
			for q := range b.Settings {
				if q.Space == p.Space && strings.HasPrefix(q.Name, "net/ipv6/conf/") && strings.HasSuffix(q.Name, "/forwarding") {
					b.Settings[q] = o.Value
				}
			}
		}
		b.Settings[p] = o.Value
	default:
		return b.link(o, links)
	}
	return nil
}

func (b *box) link(o Op, links map[string]Link) error {
	l, there := links[o.Device]
	switch o.Verb {
	case AddVRF:
		if there {
			return nil
		}
		links[o.Device] = Link{Kind: "vrf", Table: o.Table}
		b.addSettings(o.Space, o.Device)
		if !b.vrfEver {
			b.vrfEver = true
			for f := range b.Rules {
				b.Rules[f] = append(b.Rules[f], Rule{Priority: prefL3mdev, L3mdev: true, Protocol: protocolKernel})
			}
		}
		return nil
	case AddVLAN:
		if _, parent := links[o.To]; !parent {
			return fmt.Errorf("%v: no parent", o)
		}
		if there {
			return nil
		}
		for s := range b.Spaces {
			for _, other := range b.Spaces[s] {
				if other.VLAN == o.VLAN && other.Parent == "" && strings.HasSuffix(other.Alias, fmt.Sprintf("vlan %d on %s", o.VLAN, o.To)) {
					return fmt.Errorf("%v: the VLAN is in use", o)
				}
			}
		}
		for _, other := range links {
			if other.VLAN == o.VLAN && other.Parent == o.To {
				return fmt.Errorf("%v: the VLAN is in use", o)
			}
		}
		links[o.Device] = Link{Kind: "vlan", Parent: o.To, VLAN: o.VLAN}
		b.addSettings(o.Space, o.Device)
		return nil
	case DelLink:
		if there {
			b.delLink(o.Space, o.Device)
		}
		return nil
	case SetUp:
		if l.Kind == "vlan" && o.Space == "" && !b.Links[l.Parent].Up {
			return fmt.Errorf("%v: the parent is down", o)
		}
		b.up(o.Space, o.Device)
		return nil
	case SetDown:
		b.down(o.Space, o.Device)
		return nil
	case SetMaster:
		if o.To != "" {
			if m, ok := links[o.To]; !ok || m.Kind != "vrf" {
				return fmt.Errorf("%v: no such master", o)
			}
		}
		b.master(o.Space, o.Device, o.To)
		return nil
	case Move:
		return b.move(o, l)
	case SetAlias:
		l.Alias = o.Value
	case AddAddress:
		if slices.ContainsFunc(l.Addresses, func(a Address) bool { return a.Prefix.Addr() == o.Address.Prefix.Addr() }) {
			return nil
		}
		a := o.Address
		a.NoDAD = false
		l.Addresses = append(slices.Clone(l.Addresses), a)
	case DelAddress:
		l = delAddress(l, o.Address)
		if !there {
			return nil
		}
	case SetMark:
		l.Mark, l.Clsact = o.Mark, true
	case ClearMark:
		l.Mark, l.Clsact = 0, l.Clsact && !o.Clsact
	case SetGroup:
		l.Group = o.Group
	case ParkRoutes:
		delete(b.Through, o.Device)
		return nil
	case BackRoutes:
		for _, r := range o.Routes {
			if !slices.ContainsFunc(b.Through[o.Device], func(t []byte) bool { return string(t) == string(r) }) {
				b.Through[o.Device] = append(b.Through[o.Device], r)
			}
		}
		return nil
	}
	links[o.Device] = l
	return nil
}

// delAddress removes an address, and with a primary one of IPv4 its secondaries (devinet.c, __inet_del_ifa).
func delAddress(l Link, a Address) Link {
	primary := ""
	var kept []Address
	for _, h := range l.Addresses {
		first := !slices.ContainsFunc(kept, func(k Address) bool { return k.Prefix.Masked() == h.Prefix.Masked() })
		if h.Prefix == a.Prefix {
			if h.Prefix.Addr().Is4() && first {
				primary = h.Prefix.Masked().String()
			}
			continue
		}
		if h.Prefix.Addr().Is4() && h.Prefix.Masked().String() == primary {
			continue
		}
		kept = append(kept, h)
	}
	l.Addresses = kept
	return l
}

func (b *box) move(o Op, l Link) error {
	to := b.space(o.To)
	if to == nil {
		return fmt.Errorf("%v: no such namespace", o)
	}
	if _, taken := to[o.Device]; taken {
		return fmt.Errorf("%v: the name is taken", o)
	}
	b.moved[o.Device] = true
	b.down(o.Space, o.Device)
	delete(b.space(o.Space), o.Device)
	b.delSettings(o.Space, o.Device)
	n := Link{Kind: l.Kind, VLAN: l.VLAN, Alias: l.Alias, Group: l.Group} // the parent cannot be seen from there
	if o.To == "" && l.Kind == "vlan" {
		_, after, _ := strings.Cut(l.Alias, " on ")
		n.Parent = after
	}
	if o.To == "" {
		n.Table = l.Table
	}
	to[o.Device] = n
	b.addSettings(o.To, o.Device)
	return nil
}
