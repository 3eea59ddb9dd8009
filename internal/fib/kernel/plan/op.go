package plan

import (
	"fmt"
	"net/netip"
)

// Verb says what an Op does.
type Verb uint8

// Verbs.
const (
	AddSpace   Verb = 1 + iota // make namespace Space, with lo up
	DelSpace                   // remove the name of namespace Space
	AddVRF                     // make Device with table Table
	AddVLAN                    // make Device on To with VLAN
	DelLink                    // remove Device
	SetAlias                   // Value
	SetUp                      // Device
	SetDown                    // Device
	SetMaster                  // of Device: To, "" is none
	Move                       // Device from Space to To
	AddAddress                 // Address to Device
	DelAddress                 // Address from Device
	AddRule                    // Rule, Family
	DelRule                    // Rule, Family
	AddRoute                   // Route
	DelRoute                   // Route
	FlushTable                 // remove all routes of ProtocolSetup and ProtocolRoute from Table
	Setting                    // write Value to Path
	SetMark                    // mark what comes in by Device with Mark
	ClearMark                  // the reverse; remove clsact too if Clsact is set
	SetGroup                   // of Device: Group
	ParkRoutes                 // remove the routes of Routes, which lead through Device
	BackRoutes                 // bring the routes of Routes back, which lead through Device
)

// Op is one operation. The ones before it are done when it begins. Doing what is done already is no error.
type Op struct {
	Verb    Verb
	Space   string // namespace, "" is home
	Device  string
	To      string
	Table   uint32
	VLAN    int
	Mark    uint32
	Clsact  bool
	Group   uint32
	Path    string
	Value   string
	Family  Family
	Rule    Rule
	Route   Route
	Address Address
	Routes  [][]byte
}

// String says the operation in the words of ip(8) and sysctl(8), roughly.
func (o Op) String() string {
	s := o.words()
	if o.Space != "" && o.Verb != AddSpace && o.Verb != DelSpace {
		s = "netns " + o.Space + ": " + s
	}
	return s
}

func (o Op) words() string {
	switch o.Verb {
	case AddSpace:
		return "netns add " + o.Space
	case DelSpace:
		return "netns del " + o.Space
	case AddVRF:
		return fmt.Sprintf("link add %s type vrf table %d", o.Device, o.Table)
	case AddVLAN:
		return fmt.Sprintf("link add %s link %s type vlan id %d", o.Device, o.To, o.VLAN)
	case DelLink:
		return "link del " + o.Device
	case SetAlias:
		return fmt.Sprintf("link set %s alias %q", o.Device, o.Value)
	case SetUp:
		return fmt.Sprintf("link set %s up", o.Device)
	case SetDown:
		return fmt.Sprintf("link set %s down", o.Device)
	case SetMaster:
		if o.To == "" {
			return fmt.Sprintf("link set %s nomaster", o.Device)
		}
		return fmt.Sprintf("link set %s master %s", o.Device, o.To)
	case Move:
		to := o.To
		if to == "" {
			to = "home"
		}
		return fmt.Sprintf("link set %s netns %s", o.Device, to)
	case AddAddress:
		return fmt.Sprintf("addr add %s dev %s", o.Address.Prefix, o.Device)
	case DelAddress:
		return fmt.Sprintf("addr del %s dev %s", o.Address.Prefix, o.Device)
	case AddRule:
		return fmt.Sprintf("rule add %s", o.Rule.words(o.Family))
	case DelRule:
		return fmt.Sprintf("rule del %s", o.Rule.words(o.Family))
	case AddRoute:
		return "route add " + o.Route.String()
	case DelRoute:
		return "route del " + o.Route.String()
	case FlushTable:
		return fmt.Sprintf("route flush table %d proto %d and %d", o.Table, ProtocolSetup, ProtocolRoute)
	case Setting:
		return fmt.Sprintf("sysctl %s=%s", o.Path, o.Value)
	case SetMark:
		return fmt.Sprintf("classifier on %s: mark %d", o.Device, o.Mark)
	case ClearMark:
		return fmt.Sprintf("classifier off %s", o.Device)
	case SetGroup:
		return fmt.Sprintf("link set %s group %d", o.Device, o.Group)
	case ParkRoutes:
		return fmt.Sprintf("park the routes of %s", o.Device)
	case BackRoutes:
		return fmt.Sprintf("bring back the routes of %s", o.Device)
	}
	return fmt.Sprintf("operation %d", o.Verb)
}

func (r Rule) words(f Family) string {
	s := fmt.Sprintf("family %d pref %d", f, r.Priority)
	if r.Iif != "" {
		s += " iif " + r.Iif
	}
	if r.Oif != "" {
		s += " oif " + r.Oif
	}
	if r.Mark != 0 {
		s += fmt.Sprintf(" fwmark %#x", r.Mark)
	}
	if r.L3mdev {
		return s + " l3mdev"
	}
	s += fmt.Sprintf(" lookup %d", r.Table)
	if r.Suppress != 0 {
		s += fmt.Sprintf(" suppress_ifgroup %d", r.Suppress)
	}
	return s
}

// String is the route in the words of ip-route(8).
func (r Route) String() string {
	names := map[uint8]string{typeLocal: "local ", typeBroadcast: "broadcast ", typeMulticast: "multicast ", typeUnreachable: "unreachable "}
	s := names[r.Type] + r.Prefix.String()
	if r.Device != "" {
		s += " dev " + r.Device
	}
	return s + fmt.Sprintf(" table %d metric %d", r.Table, r.Metric)
}

func (r Route) family() Family { return familyOf(r.Prefix.Addr()) }

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}
