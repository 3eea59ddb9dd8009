package fib

import (
	"fmt"
	"net/netip"
	"strconv"
)

// ID identifies a FIB: 1 to 4,294,967,295. The kernel back ends use it as the number of the routing table
// (RTA_TABLE), for which 253 to 255 are the kernel's own and are refused there, not here.
type ID uint32

// String returns the number.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// NextHopID names a next hop or a group of a [Set]; routes hold it. Zero is none.
type NextHopID uint32

// String returns the number.
func (id NextHopID) String() string { return strconv.FormatUint(uint64(id), 10) }

// MaxNextHopID bounds ids: a slot of the image has 31 bits for them.
const MaxNextHopID NextHopID = 1<<31 - 1

// Type says what happens to a packet. Names are those of ip-route(8).
type Type uint8

// Types of next hops.
const (
	Unicast     Type = 1 + iota // to Gateway, or to the destination itself, out of Device
	Local                       // to this host
	Blackhole                   // dropped silently
	Unreachable                 // dropped, ICMP host unreachable
	Prohibit                    // dropped, ICMP administratively prohibited
	Lookup                      // looked up again in the FIB Table: a wanted leak
)

var typeNames = [...]string{Unicast: "unicast", Local: "local", Blackhole: "blackhole", Unreachable: "unreachable", Prohibit: "prohibit", Lookup: "lookup"}

// String returns the name, as ip-route(8) writes it.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return "type " + strconv.Itoa(int(t))
}

// NextHop says where packets go. It is comparable; the zero value is not valid.
type NextHop struct {
	Type    Type
	Gateway netip.Addr // with Unicast; the zero Addr: destinations are on the link. Its family need not be the route's (RFC 8950)
	Device  uint32     // interface index; required with Unicast, optional with Local
	Table   ID         // with Lookup
}

// String returns the next hop in the words of ip-route(8), with the device as its number.
func (h NextHop) String() string {
	switch h.Type {
	case Unicast:
		if h.Gateway.IsValid() {
			return fmt.Sprintf("via %s dev %d", h.Gateway, h.Device)
		}
		return fmt.Sprintf("dev %d", h.Device)
	case Local:
		if h.Device != 0 {
			return fmt.Sprintf("local dev %d", h.Device)
		}
	case Lookup:
		return fmt.Sprintf("lookup %d", h.Table)
	}
	return h.Type.String()
}

// Validate returns a *FieldError when the fields do not go together.
func (h NextHop) Validate() error {
	if h.Type < Unicast || h.Type > Lookup {
		return &FieldError{"type", h.Type.String(), "unicast, local, blackhole, unreachable, prohibit or lookup"}
	}
	if h.Gateway.IsValid() && (h.Type != Unicast || h.Gateway.IsUnspecified() || h.Gateway.IsMulticast() || h.Gateway.Zone() != "" || h.Gateway.Is4In6()) {
		return &FieldError{"gateway", h.Gateway.String(), "a unicast address without a zone, and only with type unicast"}
	}
	if h.Type == Unicast && h.Device == 0 {
		return &FieldError{"device", "0", "the interface that packets leave by"}
	}
	if h.Device != 0 && h.Type != Unicast && h.Type != Local {
		return &FieldError{"device", strconv.Itoa(int(h.Device)), "none with type " + h.Type.String()}
	}
	if (h.Type == Lookup) != (h.Table != 0) {
		return &FieldError{"table", h.Table.String(), "a FIB with type lookup, none with others"}
	}
	return nil
}

// Member is one next hop of a group.
type Member struct {
	NextHop NextHopID // not itself a group
	Weight  uint16    // share of the flows, 1 to 256; 0 is 1
}

// Bounds of groups: members, and the weight of one (include/uapi/linux/nexthop.h: weight is 8 bits, stored less one).
const (
	MaxMembers = 256
	MaxWeight  = 256
)

// NextHopInfo is the state of a next hop or, when Members is not nil, of a group.
type NextHopInfo struct {
	NextHop NextHop
	Members []Member // copied for the caller
	Down    bool     // taken out of use by SetDown
	Routes  int      // how many routes of all FIBs hold it
	Groups  int      // how many groups it is in
	Auto    bool     // made by Intern: it goes with its last use
}

// Route is one route of a FIB.
type Route struct {
	Prefix  netip.Prefix // masked
	NextHop NextHopID
}

// Hop is where one packet goes: the end of all lookups.
type Hop struct {
	NextHop           // never of type Lookup
	ID      NextHopID // of it; 0 when no route was found
	FIB     ID        // whose route it was: that of the lookup unless a route led elsewhere
}
