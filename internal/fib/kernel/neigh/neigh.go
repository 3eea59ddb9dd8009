// Package neigh is the table of neighbours of all FIBs: who is on the link, by FIB, device and address. It is a core: the
// kernel's entries come in as events, others age by the time that is passed in. It is not safe for concurrent use.
package neigh

import (
	"fmt"
	"net/netip"
	"strings"
)

// Key names a neighbour. Addresses of the link, such as fe80::1, are without zone: Device is it.
type Key struct {
	FIB    uint32
	Device uint32 // interface index, in the FIB's namespace
	IP     netip.Addr
}

// MAC is an Ethernet address. Neighbours on links of other kinds are not kept.
type MAC [6]byte

// String returns it in the usual form, such as 02:00:00:00:00:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// State is the state of a neighbour, as in include/uapi/linux/neighbour.h (NUD_…).
type State uint16

// States.
const (
	Incomplete State = 0x01
	Reachable  State = 0x02
	Stale      State = 0x04
	Delay      State = 0x08
	Probe      State = 0x10
	Failed     State = 0x20
	NoARP      State = 0x40
	Permanent  State = 0x80

	// Valid are the states in which the MAC may be used (NUD_VALID).
	Valid = Permanent | NoARP | Reachable | Probe | Stale | Delay
)

// Usable says whether packets may be sent to the MAC.
func (s State) Usable() bool { return s&Valid != 0 }

var stateNames = [...]string{"INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT"}

// String returns the names that ip-neighbour(8) prints.
func (s State) String() string {
	var l []string
	for i, n := range stateNames {
		if s&(1<<i) != 0 {
			l = append(l, n)
		}
	}
	if l == nil {
		return "NONE"
	}
	return strings.Join(l, "|")
}

// Entry is a neighbour.
type Entry struct {
	Key
	MAC    MAC // zero unless State is usable
	State  State
	Router bool // IPv6: it said that it is one (NTF_ROUTER)
}

// EventType says what an Event is.
type EventType uint8

// Types of events.
const (
	Set    EventType = 1 + iota // Entry is new or has changed
	Gone                        // Entry.Key is no neighbour any more
	Synced                      // all entries that there are were Set
)

// Event is a change of a neighbour.
type Event struct {
	Type  EventType
	Entry Entry
}
