package plan

import (
	"cmp"
	"net/netip"
	"slices"
)

// Tables of the kernel's own (include/uapi/linux/rtnetlink.h).
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

// TableMain is the table of mirrored routes in a namespace of back end netns.
const TableMain = tableMain

// Family is an address family that has rules of its own.
type Family uint8

// Families (AF_INET, AF_INET6, RTNL_FAMILY_IPMR, RTNL_FAMILY_IP6MR).
const (
	IPv4 Family = 2
	IPv6 Family = 10
	MR4  Family = 128 // multicast routing; a VRF device brings a rule for it along
	MR6  Family = 129
)

// Kernel is what is there, as far as it matters: it is observed, never written.
type Kernel struct {
	Links    map[string]Link            // of the namespace that is worked on ("home"), by name
	Spaces   map[string]map[string]Link // of the namespaces of back end netns that exist, by their names
	Rules    map[Family][]Rule          // families that the kernel does not have are not in it
	Routes   map[Route]bool             // of ProtocolSetup
	Settings map[Path]string            // those of Needs; those that do not exist are not in it
	Through  map[string][][]byte        // routes that other programs have set through the devices of Needs, see Parked
}

// Path is a setting: a file below /proc/sys, seen from a namespace of back end netns or, with "", from home.
type Path struct{ Space, Name string }

// Link is a device.
type Link struct {
	Kind      string // "vrf", "vlan", "veth", …; "" for hardware
	Up        bool
	Loopback  bool
	Master    string // name of the device that it is part of
	Alias     string
	Table     uint32 // of a VRF device
	Parent    string // of a VLAN subinterface
	VLAN      int
	Addresses []Address
	Mark      uint32 // what our classifier on it marks packets with that come in, 0: there is none
	Clsact    bool   // it has a clsact qdisc
	Group     uint32 // device group (IFLA_GROUP)
}

// Address is an address of a device.
type Address struct {
	Prefix        netip.Prefix `json:"prefix"`
	NoPrefixRoute bool         `json:"noprefixroute,omitempty"`
	NoDAD         bool         `json:"nodad,omitempty"`     // asked for; not seen after
	Broadcast     netip.Addr   `json:"broadcast,omitzero"`  // IPv4
	Peer          netip.Prefix `json:"peer,omitzero"`       // of a point-to-point link
	Label         string       `json:"label,omitempty"`     // IPv4, if not the device's name
	Scope         uint8        `json:"scope,omitempty"`     // rt_scope
	Dynamic       bool         `json:"-"`                   // it has a lifetime: it is another program's, or the network's
	Metric        uint32       `json:"metric,omitempty"`    // IFA_RT_PRIORITY
	Flags         uint32       `json:"moreflags,omitempty"` // of IFA_F_HOMEADDRESS, IFA_F_MCAUTOJOIN, IFA_F_MANAGETEMPADDR
}

// ours says whether an address is one that is set, rather than made by the kernel or the network.
func (a Address) ours() bool {
	return !a.Dynamic && !(a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast())
}

// same says whether the kernel would see no difference. DAD is over when an address is seen.
func (a Address) same(b Address) bool {
	a.NoDAD, b.NoDAD = false, false
	return a == b
}

// does says whether a is as good as b, which was asked for: what was not asked for may be otherwise.
func (a Address) does(b Address) bool {
	return a.Prefix == b.Prefix && a.NoPrefixRoute == b.NoPrefixRoute && a.Peer == b.Peer
}

// Rule is a policy rule. It is comparable; the fields are those of ip-rule(8).
type Rule struct {
	Priority uint32
	Table    uint32
	Iif, Oif string
	Mark     uint32
	Mask     uint32
	L3mdev   bool
	Suppress uint32 // what leads to a device of this group is not found (suppress_ifgroup); 0: it is
	Protocol uint8
	Other    bool // it has more to it than these fields can say, so it is not ours
}

// Priorities of rules. Those of one number are for different devices or marks, so their order does not matter. A device
// says more than a mark, so it comes first.
const (
	prefL3mdev     = 1000  // as drivers/net/vrf.c
	prefIif        = 1100  // packets that come in by a port
	prefOif        = 1101  // packets of sockets that are bound to a port
	prefMark       = 1102  // packets of sockets with a FIB's mark
	prefLocal      = 0     // where the kernel has the rule for table local
	prefLocalLate  = 32765 // where it has to be to come after ours (docs.kernel.org/networking/vrf.html)
	prefLocalApart = 32764 // the same, without what leads to PortGroup

	protocolKernel = 2 // RTPROT_KERNEL
)

// Types of routes (RTN_…).
const (
	typeUnicast     = 1
	typeLocal       = 2
	typeBroadcast   = 3
	typeMulticast   = 5
	typeUnreachable = 7
)

// Scopes of routes (RT_SCOPE_…).
const (
	scopeUniverse = 0
	scopeLink     = 253
	scopeHost     = 254
)

// MetricUnreachable is that of the default route that ends the search in a FIB's table: the largest that routing daemons
// leave to others, as docs.kernel.org/networking/vrf.html has it.
const MetricUnreachable = 4278198272

// metricIPv6 is that of IPv6 routes of addresses, as the kernel's own (IP6_RT_PRIO_ADDRCONF). IPv4 has 0.
const metricIPv6 = 256

// Route is a route that comes with a FIB or with an address: of ProtocolSetup. It is comparable.
type Route struct {
	Table  uint32
	Prefix netip.Prefix
	Type   uint8
	Device string // "": none
	Scope  uint8
	Source netip.Addr // preferred, IPv4
	Metric uint32
}

func compareRoutes(a, b Route) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(b.Metric, a.Metric), a.Prefix.Addr().Compare(b.Prefix.Addr()),
		cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Device, b.Device), a.Source.Compare(b.Source))
}

func compareRules(a, b Rule) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Iif, b.Iif), cmp.Compare(a.Oif, b.Oif), cmp.Compare(a.Mark, b.Mark))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
