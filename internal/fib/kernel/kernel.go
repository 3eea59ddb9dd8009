// Package kernel sets FIBs up in the Linux kernel, so that sockets, processes and the kernel's own forwarding keep them
// apart: devices, addresses, rules, routes, namespaces and settings. It is told what shall be (Apply), finds the
// difference, and makes it so; told twice it changes nothing; told nothing (Remove) it leaves everything as it found it.
// What it is going to make is on record before it is made, so that after a crash Recover puts it in order.
//
// There are three back ends. vrf gives each FIB a VRF device (https://docs.kernel.org/networking/vrf.html); rules gives it
// ip rules by device and mark and needs nothing but policy routing and BPF; netns gives it a network namespace.
package kernel

import (
	"context"
	"iter"
	"net/netip"

	"midplane/fib"
	"midplane/internal/fib/kernel/neigh"
	"midplane/internal/fib/kernel/plan"
)

// What shall be; see package plan.
type (
	FIB     = plan.FIB
	Port    = plan.Port
	Backend = plan.Backend
)

// Back ends.
const (
	Auto  = plan.Auto
	VRF   = plan.VRF
	Rules = plan.Rules
	Netns = plan.Netns
)

// Protocols (rtm_protocol, FRA_PROTOCOL) of what this package puts into routing tables and rules, and the metric of
// mirrored routes. Nothing of other protocols in a FIB's table is touched.
const (
	ProtocolSetup = plan.ProtocolSetup // rules; the routes that come with a FIB and its addresses
	ProtocolRoute = plan.ProtocolRoute // routes of SyncRoutes
)

// Config says where a Kernel works. The zero value is this process's network namespace and the default directories.
type Config struct {
	Dir      string // for the record and the bindings; default binding.DefaultDir()
	NetnsDir string // for the files of FIBs' namespaces; default /run/netns, where ip-netns(8) looks
	Netns    string // file of the network namespace to work on, such as /run/netns/x; default the process's own
}

// Report says what Apply, Remove or Recover did.
type Report struct {
	Operations []string // what was changed, in order, in words; empty when all was as it should be
	Adopted    []uint32 // Recover: the FIBs that were on record
	Orphans    []string // what was found of this package's making without being on record, and removed
	Missing    []string // Recover: devices of ports that are not there now; an Apply brings them into their FIBs when they are
}

// Probed says whether a back end works here.
type Probed struct {
	Backend Backend
	Err     error // nil: it works; else *sys.UnsupportedError that says why not, or what went wrong when it was tried
}

// Route is a route as the kernel has it.
type Route struct {
	Prefix netip.Prefix // masked
	Type   fib.Type     // Lookup needs back end vrf at both ends, and Table
	Table  fib.ID       // with type Lookup
	Hops   []RouteHop   // with type Unicast, at least one
}

// RouteHop is one next hop of a route.
type RouteHop struct {
	Gateway netip.Addr // zero: the destination is on the link. IPv6 with an IPv4 route is allowed (RFC 8950; Linux 5.2)
	Device  uint32     // interface index
	Weight  int        // 1 to 256; 0 is 1
}

// SyncReport says what SyncRoutes did.
type SyncReport struct {
	Added, Replaced, Deleted, Kept int
	Skipped                        int   // routes that the kernel cannot have
	SkippedErr                     error // why the first of them
}

// The neighbours; see package neigh.
type (
	NeighKey   = neigh.Key
	Neighbour  = neigh.Entry
	NeighState = neigh.State
	NeighEvent = neigh.Event
	MAC        = neigh.MAC
)

// API is what a Kernel does. All methods are safe for concurrent use; those that change something take turns. They
// block while the kernel works, which is milliseconds for a FIB, and end early with ctx's error between operations.
type API interface {
	// Probe tries each back end, in the order of preference, on a namespace that it makes for it and removes again.
	Probe() []Probed
	// Apply makes fibs all FIBs that there are. A FIB of back end Auto keeps the back end that it has, or gets the first
	// that works. Errors: *fib.FieldError; *sys.UnsupportedError for a back end that does not work here; those of the
	// kernel, with the operation that failed: then the rest is not done, what is done is on record, and Apply may be
	// called again, with the same or with other FIBs.
	Apply(ctx context.Context, fibs []FIB) (Report, error)
	// Remove is Apply of no FIB; then it removes the record too.
	Remove(ctx context.Context) (Report, error)
	// Recover finishes what was interrupted: it applies the FIBs of the record, and removes what is of this package's
	// making but not on record. It is the first call after Open.
	Recover(ctx context.Context) (Report, error)
	// FIBs returns what was applied last, with back ends and names of devices filled in.
	FIBs() []FIB
	// Close ends the use of the record, which another process may then use. FIBs stay.
	Close() error

	// SyncRoutes makes routes all routes of ProtocolRoute in a FIB's table of the kernel, by the difference to a dump of
	// it. Of several routes of one prefix the last counts.
	SyncRoutes(ctx context.Context, id fib.ID, routes iter.Seq[Route]) (SyncReport, error)
	// UpdateRoutes replaces and deletes single routes of ProtocolRoute, without a dump.
	UpdateRoutes(ctx context.Context, id fib.ID, replace []Route, del []netip.Prefix) error

	// Neighbours lists the neighbours of a FIB, those of one device or, with device "", of all its ports.
	Neighbours(id fib.ID, device string) ([]Neighbour, error)
	// SetNeighbour adds or replaces one; a permanent one stays until it is deleted or flushed, others age as learned ones do.
	SetNeighbour(id fib.ID, device string, ip netip.Addr, mac MAC, permanent bool) error
	// AddNeighbour is SetNeighbour that fails with an error that is fib.ErrExists when there is one that is valid.
	AddNeighbour(id fib.ID, device string, ip netip.Addr, mac MAC, permanent bool) error
	// DeleteNeighbour removes one; the error is fib.ErrNotFound when there is none.
	DeleteNeighbour(id fib.ID, device string, ip netip.Addr) error
	// FlushNeighbours removes those of a FIB or of one of its devices, except permanent ones unless all is set, and
	// returns how many.
	FlushNeighbours(id fib.ID, device string, all bool) (int, error)
	// Resolve lets the kernel find out a neighbour's MAC, by ARP or neighbour discovery. It does not wait; the answer is
	// an event of WatchNeighbours. Asking again while the kernel is at it costs two system calls and does no harm; permanent
	// neighbours stay as they are.
	Resolve(key NeighKey) error
	// WatchNeighbours calls f for all neighbours that there are (Set), then once with Synced, then for each change,
	// until ctx ends. It follows Apply: neighbours of a port that leaves its FIB are Gone. When the kernel reports faster
	// than f returns, states in between are left out; the last state of each neighbour is always told. f is called by
	// one goroutine at a time and must not call Apply, Remove or Recover, nor keep the events waiting for long.
	WatchNeighbours(ctx context.Context, f func(NeighEvent)) error
	// WatchDevices calls f when devices, addresses or rules have changed in the namespace that is worked on, by anybody,
	// until ctx ends: then another Apply brings devices that came into their FIBs, and gives the tables of back end rules
	// the addresses that came. Changes while f works are one more call. An Apply that had nothing to do is no change.
	WatchDevices(ctx context.Context, f func()) error
}

var _ API = (*Kernel)(nil)

// Routes are the routes of a FIB as the kernel can have them, for SyncRoutes. Next hops that are down, and members of
// groups that are, are left out; a route without any is unreachable.
func Routes(set *fib.Set, t *fib.Table) iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for r := range t.All() {
			if !yield(RouteOf(set, r)) {
				return
			}
		}
	}
}

// RouteOf is a route as the kernel can have it, for UpdateRoutes. See Routes.
func RouteOf(set *fib.Set, r fib.Route) Route {
	k := Route{Prefix: r.Prefix, Type: fib.Unreachable}
	i, ok := set.NextHop(r.NextHop)
	switch {
	case !ok || i.Down:
	case i.Members != nil:
		for _, m := range i.Members {
			if n, ok := set.NextHop(m.NextHop); ok && !n.Down && n.NextHop.Type == fib.Unicast {
				k.Type = fib.Unicast
				k.Hops = append(k.Hops, RouteHop{n.NextHop.Gateway, n.NextHop.Device, int(max(m.Weight, 1))})
			}
		}
	case i.NextHop.Type == fib.Unicast:
		k.Type, k.Hops = fib.Unicast, []RouteHop{{i.NextHop.Gateway, i.NextHop.Device, 1}}
	default:
		k.Type, k.Table = i.NextHop.Type, i.NextHop.Table
		if i.NextHop.Device != 0 {
			k.Hops = []RouteHop{{Device: i.NextHop.Device}}
		}
	}
	return k
}
