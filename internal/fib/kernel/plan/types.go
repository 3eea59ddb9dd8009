// Package plan is the core of the kernel side of FIBs: what shall be (FIB), what was recorded (Record), what is there
// (Kernel), and the operations that lead from one to the other (Op). It decides and does nothing; package kernel,
// above it, observes and acts. No type in it is safe for concurrent use.
package plan

import (
	"fmt"
	"net/netip"
)

// Backend is a way of keeping FIBs apart in the kernel. The values are those of package binding.
type Backend string

// Back ends.
const (
	Auto  Backend = ""      // the first of those below that works here
	VRF   Backend = "vrf"   // a VRF device a FIB; Linux 4.8
	Rules Backend = "rules" // ip rules by device and mark, and sockets bound to ports
	Netns Backend = "netns" // a network namespace a FIB
)

// FIB is one FIB as it shall be in the kernel.
type FIB struct {
	ID      uint32       `json:"id"`             // number of its routing table; not 0 and not 253 to 255, which are the kernel's
	Name    string       `json:"name,omitempty"` // up to 15 octets, unique; "" is fib and the number. It names the VRF device or namespace
	Backend Backend      `json:"backend,omitempty"`
	Ports   []Port       `json:"ports,omitempty"`
	DNS     []netip.Addr `json:"dns,omitempty"`     // name servers for its processes; at most MaxDNS
	Forward bool         `json:"forward,omitempty"` // the kernel forwards between its ports (net.ipv4 and net.ipv6 forwarding)
}

// Port is a device of a FIB. A device is in one FIB at most.
type Port struct {
	Device string `json:"device,omitempty"` // its name; with VLAN, "" is Parent.VLAN
	Parent string `json:"parent,omitempty"` // with VLAN: the device that it is a subinterface of, which need not be in a FIB
	VLAN   int    `json:"vlan,omitempty"`   // 1 to 4094: Device is made, and removed with the FIB; 0: Device exists
	// Addresses are those of the device, with the lengths of their networks. Nil: those that it had before it became a
	// port, and what others add. Not nil: others are removed, except those that the kernel made for the link or that
	// have a lifetime. When it leaves, the device gets back what it had before.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	NoDAD     bool           `json:"nodad,omitempty"` // IPv6 addresses are in use at once, without detection of duplicates (RFC 4862, 5.4)
}

// Bounds of what is asked for.
const (
	MaxFIBs      = 65536 // of a host
	MaxPorts     = 65536 // of all FIBs
	MaxAddresses = 4096  // of a port
	MaxDNS       = 3     // MAXNS of resolv.conf(5)
	MaxName      = 15    // IFNAMSIZ-1
)

// FieldError says which field of a request is wrong, and what would be right.
type FieldError struct {
	Field string
	Value string
	Want  string
}

// Error implements error.
func (e *FieldError) Error() string { return fmt.Sprintf("%s %q: want %s", e.Field, e.Value, e.Want) }

// Title is the name of the FIB in the kernel: its own or, without one, fib and its number.
func (f FIB) Title() string {
	if f.Name != "" {
		return f.Name
	}
	return fmt.Sprintf("fib%d", f.ID)
}

// Title is the name of the port's device.
func (p Port) Title() string {
	if p.Device == "" && p.VLAN != 0 {
		return fmt.Sprintf("%s.%d", p.Parent, p.VLAN)
	}
	return p.Device
}

// PortGroup is the device group of ports of back end rules. Table local has their addresses, like all that are the host's,
// and who is in no FIB must not find them there (net/ipv4/fib_rules.c, fib4_rule_suppress).
const PortGroup = 73073

// What this package's rules and routes are marked with; see package kernel.
const (
	ProtocolSetup = 73 // rtm_protocol and FRA_PROTOCOL of what comes with a FIB
	ProtocolRoute = 74 // rtm_protocol of mirrored routes
)
