package plan

import (
	"fmt"
	"net/netip"
	"slices"
)

// target is how a device shall be.
type target struct {
	fib       *FIB
	port      Port
	space     string // where it shall be
	master    string
	addresses []Address
	extra     bool // other addresses may stay
	mark      uint32
	settings  map[string]string // of the device, at home
}

// wanted is everything that FIBs ask for.
type wanted struct {
	targets  map[string]target // ports, by device
	order    []string          // of the targets: as the FIBs have them
	vrfs     map[string]FIB    // VRF devices, by name
	vlans    map[string]target // VLAN subinterfaces, by name: a part of targets
	parents  map[string]bool   // devices that must be up because VLANs are on them, and are no ports
	spaces   map[string]FIB
	rules    map[Family]map[Rule]bool
	routes   map[Route]bool // those of addresses are added when the addresses are known: see addressRoutes
	settings map[Path]string
	// ofDevices are the names of all settings of targets.
	ofDevices map[string]bool
	tables    bool // the rule for table local has to come after ours
	apart     bool // and must not show addresses of ports
}

// Alias is what devices that were made are called besides (IFLA_IFALIAS): it says whose they are.
func Alias(id uint32) string { return fmt.Sprintf("%s%d", AliasPrefix, id) }

// AliasPrefix begins each Alias.
const AliasPrefix = "midplane fib "

func want(fibs []FIB) *wanted {
	w := &wanted{
		targets: map[string]target{}, vrfs: map[string]FIB{}, vlans: map[string]target{}, parents: map[string]bool{}, spaces: map[string]FIB{},
		rules: map[Family]map[Rule]bool{IPv4: {}, IPv6: {}, MR4: {}, MR6: {}}, routes: map[Route]bool{}, settings: map[Path]string{}, ofDevices: map[string]bool{},
	}
	for i := range fibs {
		w.fib(&fibs[i])
	}
	late := Rule{Priority: prefLocalLate, Table: tableLocal, Protocol: ProtocolSetup}
	if w.apart { // of its own priority: RTM_DELRULE does not tell rules apart by what they suppress
		late.Priority, late.Suppress = prefLocalApart, PortGroup
	}
	if w.tables {
		w.rules[IPv4][late], w.rules[IPv6][late] = true, true
	}
	for _, t := range w.vlans {
		if _, port := w.targets[t.port.Parent]; !port {
			w.parents[t.port.Parent] = true
		}
	}
	return w
}

func digit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func (w *wanted) fib(f *FIB) {
	switch f.Backend {
	case VRF:
		w.vrfs[f.Title()] = *f
		w.isolate(f.ID)
		for family := range w.rules {
			w.rules[family][Rule{Priority: prefL3mdev, L3mdev: true, Protocol: ProtocolSetup}] = true
		}
		// Packets of a VRF come in by its device, for the route lookup (l3mdev_ip_rcv). Without this it would have what
		// the default for new devices was when it was made.
		for _, v := range []string{"ipv4", "ipv6"} {
			w.settings[Path{"", "net/" + v + "/conf/" + f.Title() + "/forwarding"}] = digit(f.Forward)
		}
		// A socket of no VRF must not get what comes in by one.
		w.settings[Path{"", "net/ipv4/tcp_l3mdev_accept"}] = "0"
		w.settings[Path{"", "net/ipv4/udp_l3mdev_accept"}] = "0"
	case Rules:
		w.isolate(f.ID)
		w.apart = true
		w.rule(Rule{Priority: prefMark, Table: f.ID, Mark: f.ID, Mask: 0xffffffff})
		// What answers a marked packet has the mark too: SYN-ACKs and sockets of accept, RSTs, ICMP.
		w.settings[Path{"", "net/ipv4/tcp_fwmark_accept"}] = "1"
		w.settings[Path{"", "net/ipv4/fwmark_reflect"}] = "1"
		w.settings[Path{"", "net/ipv6/fwmark_reflect"}] = "1"
	case Netns:
		w.spaces[f.Title()] = *f
	}
	switch {
	case f.Backend == Netns: // it is all ours, and no setting of home shall show in it
		w.settings[Path{f.Title(), "net/ipv4/conf/all/forwarding"}] = digit(f.Forward)
		w.settings[Path{f.Title(), forwardAll}] = digit(f.Forward)
	case f.Forward:
		w.settings[Path{"", forwardAll}] = "1" // net/ipv6/ip6_output.c, ip6_forward looks at no other
	}
	for _, p := range f.Ports {
		w.port(f, p)
	}
}

// isolate ends the search in a FIB's table, and lets the search begin there.
func (w *wanted) isolate(table uint32) {
	w.tables = true
	for _, p := range []string{"0.0.0.0/0", "::/0"} {
		w.routes[Route{Table: table, Prefix: netip.MustParsePrefix(p), Type: typeUnreachable, Metric: MetricUnreachable}] = true
	}
}

func (w *wanted) rule(r Rule) {
	r.Protocol = ProtocolSetup
	w.rules[IPv4][r], w.rules[IPv6][r] = true, true
}

func (w *wanted) port(f *FIB, p Port) {
	d := p.Title()
	t := target{fib: f, port: p, extra: p.Addresses == nil, settings: map[string]string{}}
	for _, a := range p.Addresses {
		t.addresses = append(t.addresses, Address{Prefix: a, NoDAD: p.NoDAD && a.Addr().Is6()})
	}
	switch f.Backend {
	case VRF:
		t.master = f.Title()
	case Rules:
		t.mark = f.ID
		w.rule(Rule{Priority: prefIif, Table: f.ID, Iif: d})
		w.rule(Rule{Priority: prefOif, Table: f.ID, Oif: d})
		for i := range t.addresses {
			t.addresses[i].NoPrefixRoute = true // or the network would be in table main too
		}
		for name, v := range map[string]string{
			"ipv4/conf/%s/src_valid_mark":     "1", // sources are looked up in the FIB, by the mark (fib_validate_source)
			"ipv4/conf/%s/arp_ignore":         "1", // a probe for duplicates (RFC 5227) is not answered for another FIB (arp_process)
			"ipv4/conf/%s/arp_announce":       "2", // the sender of ARP requests is the port's own address
			"ipv6/conf/%s/accept_ra":          "0", // the kernel would put its routes into table main
			"ipv6/conf/%s/use_oif_addrs_only": "1", // no source address of another FIB (ipv6_dev_get_saddr)
		} {
			t.settings[fmt.Sprintf("net/"+name, d)] = v
		}
	case Netns:
		t.space = f.Title()
	}
	if f.Forward && f.Backend != Netns {
		for _, v := range []string{"ipv4", "ipv6"} {
			t.settings[fmt.Sprintf("net/%s/conf/%s/forwarding", v, d)] = "1"
		}
	}
	for s := range t.settings {
		w.ofDevices[s] = true
	}
	w.targets[d] = t
	w.order = append(w.order, d)
	if p.VLAN != 0 {
		w.vlans[d] = t
	}
}

// passing are settings of a device that it would lose when it goes into a namespace.
func passing(device string) []string {
	var l []string
	for _, n := range []string{"accept_local", "arp_announce", "arp_filter", "arp_ignore", "forwarding", "proxy_arp", "rp_filter", "src_valid_mark"} {
		l = append(l, fmt.Sprintf("net/ipv4/conf/%s/%s", device, n))
	}
	for _, n := range []string{"accept_dad", "accept_ra", "addr_gen_mode", "autoconf", "dad_transmits", "disable_ipv6", "forwarding", "proxy_ndp", "use_tempaddr"} {
		l = append(l, fmt.Sprintf("net/ipv6/conf/%s/%s", device, n))
	}
	return l
}

// addressRoutes are the routes that the kernel makes for addresses of a device, for the FIB's table of back end rules: the
// kernel itself makes them for the tables of VRF devices (net/ipv4/fib_frontend.c, fib_add_ifaddr; net/ipv6/addrconf.c,
// __ipv6_ifa_notify and addrconf_add_mroute).
func addressRoutes(table uint32, device string, addresses []Address, ipv6 bool) []Route {
	var l []Route
	if ipv6 {
		l = append(l, Route{Table: table, Prefix: netip.MustParsePrefix("ff00::/8"), Type: typeMulticast, Device: device, Metric: metricIPv6},
			Route{Table: table, Prefix: netip.MustParsePrefix("fe80::/64"), Type: typeUnicast, Device: device, Metric: metricIPv6})
	}
	for _, a := range addresses {
		p := a.Prefix
		ip, net := p.Addr(), p.Masked()
		host := netip.PrefixFrom(ip, ip.BitLen())
		if a.Peer.IsValid() {
			net = a.Peer.Masked()
		}
		if ip.Is6() {
			l = append(l, Route{Table: table, Prefix: host, Type: typeLocal, Device: device, Metric: metricIPv6})
			if net.Bits() < 128 || net != host {
				l = append(l, Route{Table: table, Prefix: net, Type: typeUnicast, Device: device, Metric: metricIPv6})
			}
			continue
		}
		l = append(l, Route{Table: table, Prefix: host, Type: typeLocal, Device: device, Scope: scopeHost, Source: ip})
		if net != host {
			l = append(l, Route{Table: table, Prefix: net, Type: typeUnicast, Device: device, Scope: scopeLink, Source: ip})
		}
		if net.Bits() < 31 {
			l = append(l, Route{Table: table, Prefix: netip.PrefixFrom(last(net), 32), Type: typeBroadcast, Device: device, Scope: scopeLink, Source: ip})
		}
	}
	slices.SortFunc(l, compareRoutes)
	return slices.Compact(l)
}

// last is the last address of an IPv4 network.
func last(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

func noIPv6(device string) Path { return Path{"", "net/ipv6/conf/" + device + "/disable_ipv6"} }

// Writing forwardAll writes forwardEach too (net/ipv6/addrconf.c, addrconf_fixup_forwarding).
const (
	forwardAll  = "net/ipv6/conf/all/forwarding"
	forwardEach = "net/ipv6/conf/*/forwarding"
	// forceDefault is there if a device can forward without the others (Linux 6.17).
	forceDefault = "net/ipv6/conf/default/force_forwarding"
)

// forceForwarding lets only the ports of FIBs that forward do so for IPv6, where the kernel can.
func (w *wanted) forceForwarding() {
	delete(w.settings, Path{"", forwardAll})
	for d, t := range w.targets {
		if !t.fib.Forward || t.space != "" {
			continue
		}
		force := fmt.Sprintf("net/ipv6/conf/%s/force_forwarding", d)
		t.settings[force] = "1"
		w.ofDevices[force] = true
	}
}

// Needs is what has to be observed for a Plan.
type Needs struct {
	Settings []Path
	Patterns []string // of settings of home, with * for one name
	Devices  []string // whose routes go into Kernel.Through
	Spaces   []string
}

// Need says what has to be observed to plan the way from a record to FIBs.
func Need(fibs []FIB, r Record) Needs {
	w := want(fibs)
	paths, devices, spaces := map[Path]bool{}, map[string]bool{}, map[string]bool{}
	for p := range w.settings {
		paths[p] = true
	}
	for p := range r.Settings {
		paths[Path{"", p}] = true
	}
	for d, t := range w.targets {
		for s := range t.settings {
			paths[Path{"", s}] = true
		}
		paths[noIPv6(d)] = true
		if old, is := r.Parked[d]; (!is || old.Parent) && t.port.VLAN == 0 {
			devices[d] = true
		}
		if t.space != "" && t.port.VLAN == 0 {
			for _, s := range passing(d) {
				paths[Path{"", s}] = true
			}
		}
	}
	for d := range r.Parked {
		if _, stays := w.targets[d]; !stays {
			devices[d] = true
		}
	}
	for s := range w.spaces {
		spaces[s] = true
	}
	for _, s := range r.Spaces {
		spaces[s] = true
	}
	n := Needs{Devices: sortedKeys(devices), Spaces: sortedKeys(spaces)}
	if paths[Path{"", forwardAll}] {
		paths[Path{"", forceDefault}] = true
		for d, t := range w.targets {
			if t.fib.Forward && t.space == "" {
				paths[Path{"", fmt.Sprintf("net/ipv6/conf/%s/force_forwarding", d)}] = true
			}
		}
		n.Patterns = []string{forwardEach}
	}
	for p := range paths {
		n.Settings = append(n.Settings, p)
	}
	return n
}
