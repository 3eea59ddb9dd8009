package xdp

import "strconv"

// Reason says what became of a packet. The order is that of enum reason in bpf/forward.h.
type Reason uint8

// Reasons. Unless said otherwise, the packet was given to the kernel unchanged.
const (
	Forwarded   Reason = iota // sent on
	NoPort                    // no FIB has the link and VLAN; counted for no FIB
	EtherType                 // neither IPv4 nor IPv6, such as ARP, or more than two VLAN tags
	OtherHost                 // another MAC address than the port's, broadcast and multicast among them
	Malformed                 // truncated, wrong version, length or checksum; the kernel drops and counts it
	Options                   // IPv4 options, IPv6 hop-by-hop options
	Address                   // source or destination that is not forwarded or not by us: multicast, loopback, IPv6 link-local, …
	TTL                       // TTL or hop limit used up; the kernel sends the ICMP error
	Local                     // for this host
	NoRoute                   // no route in the FIB, or the FIB is gone
	Blackhole                 // a blackhole route: dropped
	Unreachable               // an unreachable route; the kernel sends the ICMP error if its table agrees
	Prohibit                  // a prohibit route; likewise
	Down                      // the next hop, or eight members of the group in a row, are out of use
	TooBig                    // bigger than the MTU of the device; the kernel fragments, or sends the ICMP error
	NoNeighbour               // the neighbour's MAC address is not known yet; it is asked for
	NoDevice                  // the next hop's device is not one of ours, or down
	Depth                     // more than eight FIBs one after the other
	Changing                  // the image changed under each try
	Fault                     // no room for a VLAN tag
	MissLost                  // no packet: user space was not told of a missing neighbour, as the ring was full; counted for no FIB

	reasons // how many
)

var reasonNames = [reasons]string{
	"forwarded", "no-port", "ethertype", "other-host", "malformed", "options", "address", "ttl", "local", "no-route", "blackhole", "unreachable", "prohibit",
	"down", "too-big", "no-neighbour", "no-device", "depth", "changing", "fault", "miss-lost",
}

// String returns the name that the command line shows.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "reason " + strconv.Itoa(int(r))
}

// Reasons returns all of them in order.
func Reasons() []Reason {
	l := make([]Reason, reasons)
	for i := range l {
		l[i] = Reason(i)
	}
	return l
}

// Stats are the counters of one FIB. They count from when the FIB was first given a port; a packet that routes lead to
// another FIB counts for the FIB of the port that it came in by.
type Stats struct {
	Packets [reasons]uint64 // by Reason
	Octets  uint64          // of frames forwarded, as they came in
}
