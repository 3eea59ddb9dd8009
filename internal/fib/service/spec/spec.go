// Package spec is what users say about FIBs, in their words: devices and FIBs by name, next hops by the numbers that
// users gave them. The control interface carries it, the state on disk keeps it, the command line writes it. It is plain
// data and its checks; [fib.FieldError] is how a check fails.
package spec

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"midplane/fib"
)

// Bounds of what one daemon keeps of each kind.
const (
	MaxFIBs     = 10_000    // FIBs of a daemon
	MaxPorts    = 16_384    // ports of all FIBs
	MaxStatic   = 1_000_000 // static routes of all FIBs; more than that is loaded, not added
	MaxNextHops = 65_535    // next hops and groups with a number given by a user
	MaxNeighs   = 65_536    // permanent neighbours
	MaxFeeds    = 256       // feeds
	MaxDNS      = 3         // name servers of a FIB (resolv.conf(5) MAXNS)
	MaxBatch    = 65_536    // operations of one batch
)

// Backends are the ways that the kernel side keeps a FIB apart; None is a table alone.
const (
	None  = "none"
	VRF   = "vrf"
	Rules = "rules"
	Netns = "netns"
)

// FIB is one FIB as it is wanted.
type FIB struct {
	ID      fib.ID       `json:"id,omitempty"` // 0: the daemon chooses
	Name    string       `json:"name,omitempty"`
	Backend string       `json:"backend,omitempty"` // "": the daemon's default
	DNS     []netip.Addr `json:"dns,omitempty"`
	Forward bool         `json:"forward,omitempty"` // the kernel forwards between its ports
	Kernel  string       `json:"kernel,omitempty"`  // which routes the kernel's table of it gets; "": static
}

// Which routes of a FIB are put into the kernel's routing table of it, for its processes and for what the forwarder
// leaves to the kernel. A full table costs the kernel 100 octets a route.
const (
	KernelNone   = "none"
	KernelStatic = "static"
	KernelAll    = "all"
)

// Check returns a *fib.FieldError when a field is wrong.
func (f FIB) Check() error {
	if f.ID == 0 && f.Name == "" {
		return &fib.FieldError{Field: "fib", Value: "", Want: "a name or an id"}
	}
	if err := CheckName("fib", f.Name); f.Name != "" && err != nil {
		return err
	}
	if _, err := strconv.ParseUint(f.Name, 10, 64); err == nil {
		return &fib.FieldError{Field: "fib", Value: f.Name, Want: "a name that is not a number"}
	}
	if b := f.Backend; b != "" && b != None && b != VRF && b != Rules && b != Netns {
		return &fib.FieldError{Field: "backend", Value: b, Want: "vrf, rules, netns or none"}
	}
	if k := f.Kernel; k != "" && k != KernelNone && k != KernelStatic && k != KernelAll {
		return &fib.FieldError{Field: "kernel", Value: k, Want: "static, all or none"}
	}
	if len(f.DNS) > MaxDNS {
		return &fib.FieldError{Field: "dns", Value: fmt.Sprint(len(f.DNS), " of them"), Want: fmt.Sprint("at most ", MaxDNS)}
	}
	for _, a := range f.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return &fib.FieldError{Field: "dns", Value: a.String(), Want: "the address of a name server"}
		}
	}
	return nil
}

// CheckName checks the name of a device or FIB (net/core/dev.c dev_valid_name: 15 octets, no slash, colon or space).
func CheckName(field, name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == '/' || r == ':' || r == 0x7f
	}) {
		return &fib.FieldError{Field: field, Value: name, Want: "1 to 15 octets without space, slash or colon"}
	}
	return nil
}

// Hop is one way out.
type Hop struct {
	Gateway netip.Addr `json:"gateway,omitzero"` // none: destinations are on the link
	Dev     string     `json:"dev,omitempty"`
	Weight  int        `json:"weight,omitempty"` // 1 to 256; 0 is 1
}

// Route is one route as it is wanted.
type Route struct {
	Dst   netip.Prefix `json:"dst"`
	Type  string       `json:"type,omitempty"`  // of ip-route(8), "" is unicast; or lookup
	Proto string       `json:"proto,omitempty"` // who made it, "" is static
	NHID  uint32       `json:"nhid,omitempty"`  // a next hop or group by its number, in place of Hops
	Table string       `json:"table,omitempty"` // with lookup: the other FIB
	Hops  []Hop        `json:"hops,omitempty"`  // one or, for multipath, several
}

// Types of routes.
const (
	Unicast     = "unicast"
	Local       = "local"
	Blackhole   = "blackhole"
	Unreachable = "unreachable"
	Prohibit    = "prohibit"
	Lookup      = "lookup"
)

// types maps the words to those of package fib.
var types = map[string]fib.Type{
	"": fib.Unicast, Unicast: fib.Unicast, Local: fib.Local, Blackhole: fib.Blackhole,
	Unreachable: fib.Unreachable, Prohibit: fib.Prohibit, Lookup: fib.Lookup,
}

// TypeOf returns what a route's type is in package fib.
func TypeOf(word string) (fib.Type, bool) {
	t, ok := types[word]
	return t, ok
}

// Check returns a *fib.FieldError when fields are wrong or do not go together, and masks nothing: host bits are an error,
// as the kernel has it (net/ipv4/fib_frontend.c "Invalid prefix for given prefix length").
func (r Route) Check() error {
	if err := CheckPrefix("dst", r.Dst); err != nil {
		return err
	}
	t, ok := types[r.Type]
	if !ok {
		return &fib.FieldError{Field: "type", Value: r.Type, Want: "unicast, local, blackhole, unreachable, prohibit or lookup"}
	}
	if err := CheckProto(r.Proto); err != nil {
		return err
	}
	switch {
	case t == fib.Lookup && r.Table == "":
		return &fib.FieldError{Field: "lookup", Value: "", Want: "the FIB to look up in"}
	case t != fib.Lookup && r.Table != "":
		return &fib.FieldError{Field: "lookup", Value: r.Table, Want: "no FIB with type " + t.String()}
	case r.NHID != 0 && (t != fib.Unicast || len(r.Hops) > 0):
		return &fib.FieldError{Field: "nhid", Value: fmt.Sprint(r.NHID), Want: "no gateway, device or type beside it"}
	case t == fib.Unicast && r.NHID == 0 && len(r.Hops) == 0:
		return &fib.FieldError{Field: "dev", Value: "", Want: "a device, a next hop, or a type that needs none"}
	case t != fib.Unicast && t != fib.Local && len(r.Hops) > 0, t == fib.Local && len(r.Hops) > 1:
		return &fib.FieldError{Field: "nexthop", Value: fmt.Sprint(len(r.Hops), " of them"), Want: "none with type " + t.String()}
	}
	if t == fib.Local && len(r.Hops) == 1 && (r.Hops[0].Gateway.IsValid() || r.Hops[0].Weight != 0) {
		return &fib.FieldError{Field: "via", Value: r.Hops[0].Gateway.String(), Want: "no gateway with type local"}
	}
	return checkHops(r.Hops)
}

func checkHops(hops []Hop) error {
	if len(hops) > fib.MaxMembers {
		return &fib.FieldError{Field: "nexthop", Value: fmt.Sprint(len(hops), " of them"), Want: fmt.Sprint("at most ", fib.MaxMembers)}
	}
	for _, h := range hops {
		if err := h.check(); err != nil {
			return err
		}
	}
	return nil
}

func (h Hop) check() error {
	if err := CheckName("dev", h.Dev); err != nil {
		return err
	}
	if h.Weight < 0 || h.Weight > fib.MaxWeight {
		return &fib.FieldError{Field: "weight", Value: fmt.Sprint(h.Weight), Want: fmt.Sprint("1 to ", fib.MaxWeight)}
	}
	if g := h.Gateway; g.IsValid() && (g.IsUnspecified() || g.IsMulticast() || g.Zone() != "" || g.Is4In6()) {
		return &fib.FieldError{Field: "via", Value: g.String(), Want: "a unicast address without a zone"}
	}
	return nil
}

// CheckPrefix checks a destination.
func CheckPrefix(field string, p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Zone() != "" || p.Addr().Is4In6() {
		return &fib.FieldError{Field: field, Value: p.String(), Want: "an IPv4 or IPv6 prefix, such as 192.0.2.0/24"}
	}
	if p != p.Masked() {
		return &fib.FieldError{Field: field, Value: p.String(), Want: "no bits behind the prefix length, such as " + p.Masked().String()}
	}
	return nil
}

// CheckProto checks the name of who made a route: a word or a number of rtnetlink(7).
func CheckProto(s string) error {
	if len(s) > 16 || strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) {
		return &fib.FieldError{Field: "proto", Value: s, Want: "up to 16 letters, digits, - and _"}
	}
	return nil
}

// NextHop is a next hop or group with a number of the user's.
type NextHop struct {
	ID    uint32        `json:"id"`
	Type  string        `json:"type,omitempty"` // "" is unicast; blackhole
	Proto string        `json:"proto,omitempty"`
	Hop   *Hop          `json:"hop,omitempty"`
	Group []GroupMember `json:"group,omitempty"`
	Down  bool          `json:"down,omitempty"`
}

// GroupMember is one next hop of a group.
type GroupMember struct {
	ID     uint32 `json:"id"`
	Weight int    `json:"weight,omitempty"` // 1 to 256; 0 is 1
}

// Check returns a *fib.FieldError when a field is wrong.
func (n NextHop) Check() error {
	t, ok := types[n.Type]
	if !ok || t == fib.Local || t == fib.Lookup {
		return &fib.FieldError{Field: "type", Value: n.Type, Want: "unicast, blackhole, unreachable or prohibit"}
	}
	if n.ID == 0 {
		return &fib.FieldError{Field: "id", Value: "0", Want: "1 to 4294967295"}
	}
	if err := CheckProto(n.Proto); err != nil {
		return err
	}
	if len(n.Group) > 0 {
		if n.Hop != nil || n.Type != "" {
			return &fib.FieldError{Field: "group", Value: fmt.Sprint(n.ID), Want: "no gateway, device or type beside it"}
		}
		if len(n.Group) > fib.MaxMembers {
			return &fib.FieldError{Field: "group", Value: fmt.Sprint(len(n.Group), " members"), Want: fmt.Sprint("at most ", fib.MaxMembers)}
		}
		for i, m := range n.Group {
			if m.ID == 0 || m.Weight < 0 || m.Weight > fib.MaxWeight {
				return &fib.FieldError{Field: "group", Value: fmt.Sprintf("%d,%d", m.ID, m.Weight), Want: "ID or ID,WEIGHT with a weight of 1 to 256"}
			}
			if slices.ContainsFunc(n.Group[:i], func(o GroupMember) bool { return o.ID == m.ID }) {
				return &fib.FieldError{Field: "group", Value: fmt.Sprint(m.ID), Want: "each next hop only once"}
			}
		}
		return nil
	}
	if (t == fib.Unicast) != (n.Hop != nil) {
		return &fib.FieldError{Field: "dev", Value: "", Want: "a device with a unicast next hop, and only there"}
	}
	if n.Hop != nil {
		if n.Hop.Weight != 0 {
			return &fib.FieldError{Field: "weight", Value: fmt.Sprint(n.Hop.Weight), Want: "none: weights are of groups and routes"}
		}
		return n.Hop.check()
	}
	return nil
}

// Neigh is a neighbour that was entered by hand; it stays until it is removed.
type Neigh struct {
	Dst    netip.Addr `json:"dst"`
	Dev    string     `json:"dev"`
	LLAddr string     `json:"lladdr,omitempty"`
}

// Check returns a *fib.FieldError when a field is wrong.
func (n Neigh) Check() error {
	if !n.Dst.IsValid() || n.Dst.Zone() != "" || n.Dst.Is4In6() || n.Dst.IsMulticast() || n.Dst.IsUnspecified() {
		return &fib.FieldError{Field: "address", Value: n.Dst.String(), Want: "the neighbour's unicast address"}
	}
	return CheckName("dev", n.Dev)
}

// Port is a network device that belongs to a FIB, or a VLAN subinterface that is made for it.
type Port struct {
	Dev    string         `json:"dev,omitempty"`    // its name; with VLAN, "" is Parent.VLAN
	Parent string         `json:"parent,omitempty"` // with VLAN: the device that carries it
	VLAN   uint16         `json:"vlan,omitempty"`   // 1 to 4094; 0: the device is there already
	Addrs  []netip.Prefix `json:"addrs,omitempty"`  // its addresses; none: it keeps those that it has
	NoDAD  bool           `json:"nodad,omitempty"`  // IPv6 addresses are used without detection of duplicates (RFC 4862, 5.4)
}

// Key is the name of the port's device.
func (p Port) Key() string {
	if p.Dev == "" && p.VLAN != 0 {
		return p.Parent + "." + strconv.Itoa(int(p.VLAN))
	}
	return p.Dev
}

// MaxAddrs bounds the addresses of a port.
const MaxAddrs = 64

// Check returns a *fib.FieldError when a field is wrong.
func (p Port) Check() error {
	if err := CheckName("dev", p.Key()); err != nil {
		return err
	}
	if p.VLAN > 4094 {
		return &fib.FieldError{Field: "vlan", Value: fmt.Sprint(p.VLAN), Want: "1 to 4094"}
	}
	if (p.VLAN != 0) != (p.Parent != "") {
		return &fib.FieldError{Field: "vlan", Value: fmt.Sprint(p.VLAN), Want: "a VLAN and the device that carries it, or neither"}
	}
	if p.Parent != "" {
		if err := CheckName("link", p.Parent); err != nil {
			return err
		}
	}
	if len(p.Addrs) > MaxAddrs {
		return &fib.FieldError{Field: "addr", Value: fmt.Sprint(len(p.Addrs), " of them"), Want: fmt.Sprint("at most ", MaxAddrs)}
	}
	for _, a := range p.Addrs {
		if !a.IsValid() || a.Addr().Zone() != "" || a.Addr().Is4In6() || a.Addr().IsMulticast() || a.Addr().IsUnspecified() {
			return &fib.FieldError{Field: "addr", Value: a.String(), Want: "an address with its prefix length, such as 192.0.2.1/24"}
		}
	}
	return nil
}

// Feed is a source of routes.
type Feed struct {
	Name   string            `json:"name"`
	Kind   string            `json:"kind"`
	FIB    string            `json:"fib,omitempty"` // "": every FIB, by the number of the table that the feed says
	Params map[string]string `json:"params,omitempty"`
}

// Check returns a *fib.FieldError when a field is wrong; parameters are the kind's own business.
func (f Feed) Check() error {
	if err := CheckName("feed", f.Name); err != nil {
		return err
	}
	if len(f.Params) > 16 {
		return &fib.FieldError{Field: "feed", Value: fmt.Sprint(len(f.Params), " parameters"), Want: "at most 16"}
	}
	return nil
}

// Load is a table that was loaded from a file, as it is kept on disk.
type Load struct {
	File   string `json:"file"`   // in the state directory
	Origin string `json:"origin"` // what the user called it
	Routes int    `json:"routes"`
}
