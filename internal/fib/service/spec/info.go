package spec

import (
	"net/netip"
	"strings"

	"midplane/fib"
)

// What is told about FIBs.

// FIBInfo is the state of a FIB.
type FIBInfo struct {
	FIB
	Config bool     `json:"config,omitempty"` // it is in the configuration file
	Ports  []string `json:"ports,omitempty"`
	Device string   `json:"device,omitempty"` // of back end vrf
	Source string   `json:"source,omitempty"` // the feed, or file, that its other routes are from
	FIBStats
	Packets map[string]uint64 `json:"packets,omitempty"` // of the forwarder, by what became of them; only in Stats
}

// FIBStats are the counts of a FIB.
type FIBStats struct {
	IPv4       int    `json:"ipv4"` // routes
	IPv6       int    `json:"ipv6"`
	Static     int    `json:"static"`   // of them, static
	Pending    int    `json:"pending"`  // static routes that are not in the table: their device is missing
	Shadowed   int    `json:"shadowed"` // routes of the source that a static one hides
	Generation uint64 `json:"generation"`
}

// RouteInfo is a route as it is in a table.
type RouteInfo struct {
	FIB   fib.ID       `json:"fib"`
	Name  string       `json:"name,omitempty"` // of the FIB
	Dst   netip.Prefix `json:"dst"`
	Type  string       `json:"type"`
	Proto string       `json:"proto"`
	NHID  uint32       `json:"nhid,omitempty"`
	Table string       `json:"table,omitempty"` // of type lookup
	Hops  []HopInfo    `json:"hops,omitempty"`
	Multi bool         `json:"multi,omitempty"` // multipath, also with one hop
	// State is "pending" for a static route that is not in the table because its device is missing, "shadowed" for one of
	// the source that a static one hides, else "".
	State string `json:"state,omitempty"`
}

// HopInfo is one way out.
type HopInfo struct {
	Gateway netip.Addr `json:"gateway,omitzero"`
	Dev     string     `json:"dev,omitempty"`
	Weight  int        `json:"weight,omitempty"`
	Down    bool       `json:"down,omitempty"`
}

// RouteQuery chooses routes. Empty fields choose all.
type RouteQuery struct {
	FIB    string       `json:"fib,omitempty"`
	Family int          `json:"family,omitempty"` // 4, 6
	Exact  netip.Prefix `json:"exact,omitzero"`
	Root   netip.Prefix `json:"root,omitzero"`  // routes within it
	Match  netip.Prefix `json:"match,omitzero"` // routes that contain it
	Proto  string       `json:"proto,omitempty"`
	Type   string       `json:"type,omitempty"`
	Dev    string       `json:"dev,omitempty"`
	Via    netip.Addr   `json:"via,omitzero"`
	NHID   uint32       `json:"nhid,omitempty"`
	Hidden bool         `json:"hidden,omitempty"` // also those pending and shadowed
}

// Fits says whether a route is one of those that are asked for, apart from FIB and prefixes.
func (q RouteQuery) Fits(r RouteInfo) bool {
	if q.Family != 0 && (q.Family == 4) != r.Dst.Addr().Is4() || q.Proto != "" && q.Proto != r.Proto || q.Type != "" && q.Type != r.Type || q.NHID != 0 && q.NHID != r.NHID {
		return false
	}
	if q.Dev == "" && !q.Via.IsValid() {
		return true
	}
	for _, h := range r.Hops {
		if (q.Dev == "" || q.Dev == h.Dev) && (!q.Via.IsValid() || q.Via == h.Gateway) {
			return true
		}
	}
	return false
}

// FitsPrefix says whether a route's prefix is one of those that are asked for.
func (q RouteQuery) FitsPrefix(p netip.Prefix) bool {
	within := func(outer, inner netip.Prefix) bool {
		return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
	}
	return (!q.Exact.IsValid() || p == q.Exact) && (!q.Root.IsValid() || within(q.Root, p)) && (!q.Match.IsValid() || within(p, q.Match))
}

// LookupQuery asks where packets go.
type LookupQuery struct {
	FIB  string     `json:"fib,omitempty"` // with Iif it may be left out
	Addr netip.Addr `json:"addr"`
	Hash uint32     `json:"hash,omitempty"` // of the flow
	Flow *Flow      `json:"flow,omitempty"` // not nil: the hash is that of the forwarder for it, and Hash must be 0
	Iif  string     `json:"iif,omitempty"`  // the port that they come in by
}

// Flow is what the packets of a flow have besides where they go.
type Flow struct {
	From     netip.Addr `json:"from"`
	Protocol uint8      `json:"protocol"`
	SPort    uint16     `json:"sport,omitempty"`
	DPort    uint16     `json:"dport,omitempty"`
}

// LookupInfo is the answer: the route that was found first, and the hop at the end of all lookups.
type LookupInfo struct {
	Found bool       `json:"found"`
	Route RouteInfo  `json:"route"`
	Addr  netip.Addr `json:"addr"`
	Type  string     `json:"type"`
	Hop   HopInfo    `json:"hop"`
	Hash  uint32     `json:"hash,omitempty"` // that was taken
	FIB   fib.ID     `json:"fib,omitempty"`  // whose route it was in the end
	Name  string     `json:"name,omitempty"` // of it
}

// NextHopInfo is the state of a next hop with a number of the user's.
type NextHopInfo struct {
	NextHop
	Config  bool `json:"config,omitempty"`
	Routes  int  `json:"routes"`
	Groups  int  `json:"groups"`
	Pending bool `json:"pending,omitempty"` // its device is missing
}

// NeighInfo is a neighbour.
type NeighInfo struct {
	FIB    fib.ID     `json:"fib"`
	Name   string     `json:"name,omitempty"`
	Dst    netip.Addr `json:"dst"`
	Dev    string     `json:"dev"`
	LLAddr string     `json:"lladdr,omitempty"`
	State  []string   `json:"state"`
	Router bool       `json:"router,omitempty"`
}

// PortInfo is a port.
type PortInfo struct {
	Port
	FIB     fib.ID `json:"fib"`
	Name    string `json:"name,omitempty"` // of the FIB
	Config  bool   `json:"config,omitempty"`
	Index   uint32 `json:"ifindex,omitempty"` // 0: the device is not there
	Forward string `json:"forward,omitempty"` // how packets that come in are forwarded: "xdp", "kernel" or ""
}

// FeedInfo is the state of a feed.
type FeedInfo struct {
	Feed
	Config bool              `json:"config,omitempty"`
	State  string            `json:"state"` // in words: "waiting", "synced", …
	Err    string            `json:"error,omitempty"`
	FIBs   []string          `json:"fibs,omitempty"` // that it feeds
	Counts map[string]uint64 `json:"counts,omitempty"`
}

// LoadInfo says what a load did.
type LoadInfo struct {
	Routes  int `json:"routes"`  // of the FIB's file now
	Read    int `json:"read"`    // of the input
	Skipped int `json:"skipped"` // of the input: their device is missing
}

// DiffLine is one difference between two sides.
type DiffLine struct {
	Dst   netip.Prefix `json:"dst"`
	Left  string       `json:"left,omitempty"`  // "": only on the right
	Right string       `json:"right,omitempty"` // "": only on the left
}

// Stats are the counts of the daemon.
type Stats struct {
	FIBs     int               `json:"fibs"`
	Routes   int               `json:"routes"`
	NextHops int               `json:"nexthops"`
	Counts   map[string]uint64 `json:"counts"`
	PerFIB   []FIBInfo         `json:"tables,omitempty"`
}

// StateNames splits the name of a neighbour's state as ip-neighbour(8) lists it in JSON.
func StateNames(s string) []string { return strings.Split(s, "|") }
