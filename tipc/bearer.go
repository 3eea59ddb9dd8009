package tipc

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Bearer is a carrier of the node's links: a UDP socket, an Ethernet device, or a Network in memory. Each of UDP,
// Ethernet and Memory is one.
type Bearer interface {
	// BearerName is the full name, "media:instance", by which the node knows it.
	BearerName() string

	// Validate returns a *FieldError when a field has a value that cannot be right.
	Validate() error

	settings() BearerSettings
}

// BearerSettings are what all media have in common. The zero value means the defaults.
type BearerSettings struct {
	// Domain confines discovery to a part of the cluster, <Z.C.0> or <Z.0.0>; 0 is the whole.
	Domain NodeAddr

	// Priority of the links, 1 to 31; 0 means 10. Of two links to a peer the one of higher priority carries all
	// traffic, links of equal priority share it. LowestPriority stands for the kernel's priority 0.
	Priority int

	// Tolerance is how long a link may be silent before it is down, 50 ms to 30 s in whole milliseconds; 0 means
	// 1.5 s. Both ends of a link use the larger of their values.
	Tolerance time.Duration

	// Window is how many packets a link may have unacknowledged at most, 50 to 8191; 0 means 50 for UDP, 8191 for
	// the other media.
	Window int

	// Capture is a file that gets a copy of every packet sent and received, in pcap format; what it had is lost. It is
	// for finding errors: each packet costs several times as much. Empty means none.
	Capture string
}

// LowestPriority as a Priority means the kernel's 0.
const LowestPriority = -1

// Ports and sizes of UDP bearers.
const (
	DefaultUDPPort = 6118
	DefaultNetID   = 4711
	AnyPort        = -1 // as a LocalPort: one that is free
)

// UDP is a bearer over UDP. With Remotes it sends a copy to each of them in place of multicast; otherwise peers find
// each other by multicast to 228.0.x.y, made from the network id, or ff02::n. Peers with unicast need each other's
// address: configure both ends.
type UDP struct {
	Name       string           // instance name, up to 15 characters without ':'
	LocalIP    netip.Addr       // address of this host to send from and to listen on
	LocalPort  int              // 0 means 6118, AnyPort leaves the choice to the system
	RemotePort int              // port of the multicast group; 0 means 6118
	Group      netip.Addr       // multicast group; invalid means the one made from the network id
	Remotes    []netip.AddrPort // unicast peers instead of multicast
	PeerList   bool             // unicast peers even though Remotes is empty: they are added later
	Device     string           // interface; empty: the one that has LocalIP. Alone it also gives LocalIP
	MTU        int              // largest packet, octets; 0 means 14000 for IPv4, 1280 for IPv6
	BearerSettings
}

// Ethernet is a bearer on a network device, with Ethernet type 0x88CA. It is for Linux and needs CAP_NET_RAW.
type Ethernet struct {
	Device string
	BearerSettings
}

// maxInstance is the kernel's TIPC_MAX_IF_NAME without the octet for its end: what fits in link names.
const maxInstance = 15

// FieldError says which field of a configuration is wrong, and what would be right.
type FieldError struct {
	Field string
	Value string
	Want  string
}

// Error implements error.
func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: want %s", e.Field, e.Want)
	}
	return fmt.Sprintf("%s: %q is not right: want %s", e.Field, e.Value, e.Want)
}

func fieldError(field string, value any, want string) error {
	return &FieldError{field, fmt.Sprint(value), want}
}

// Validate returns a *FieldError when a value is out of its range.
func (s BearerSettings) Validate() error {
	switch {
	case s.Priority < LowestPriority || s.Priority > 31:
		return fieldError("priority", s.Priority, "0 to 31")
	case s.Tolerance != 0 && (s.Tolerance < 50*time.Millisecond || s.Tolerance > 30*time.Second || s.Tolerance%time.Millisecond != 0):
		return fieldError("tolerance", s.Tolerance, "50 ms to 30 s, in whole milliseconds")
	case s.Window != 0 && (s.Window < 50 || s.Window > 8191):
		return fieldError("window", s.Window, "50 to 8191 packets")
	}
	return nil
}

func (s BearerSettings) settings() BearerSettings { return s }

func checkInstance(field, s string) error {
	if s == "" || len(s) > maxInstance || strings.ContainsAny(s, ":\x00") {
		return fieldError(field, s, fmt.Sprintf("1 to %d characters, none of them ':'", maxInstance))
	}
	return nil
}

// BearerName returns "udp:" and the name.
func (b UDP) BearerName() string { return "udp:" + b.Name }

// Validate implements Bearer.
func (b UDP) Validate() error {
	if err := checkInstance("name", b.Name); err != nil {
		return err
	}
	ip := b.LocalIP.Unmap()
	if b.LocalIP.IsValid() && (ip.IsUnspecified() || ip.IsMulticast()) || !b.LocalIP.IsValid() && b.Device == "" {
		return fieldError("localip", b.LocalIP, "an address of this host, or a device instead")
	}
	is4 := func(a netip.Addr) bool { return a.Unmap().Is4() == ip.Is4() || !ip.IsValid() }
	for _, p := range []struct {
		name string
		n    int
		low  int
	}{{"localport", b.LocalPort, AnyPort}, {"remoteport", b.RemotePort, 0}} {
		if p.n < p.low || p.n > 65535 {
			return fieldError(p.name, p.n, "a UDP port, 1 to 65535")
		}
	}
	if b.Group.IsValid() && (b.PeerList || len(b.Remotes) > 0) {
		return fieldError("group", b.Group, "either a group or unicast remotes")
	}
	if b.Group.IsValid() && (!b.Group.IsMulticast() || !is4(b.Group)) {
		return fieldError("group", b.Group, "a multicast address of the same IP version as localip")
	}
	for _, r := range b.Remotes {
		if !r.IsValid() || r.Port() == 0 || r.Addr().IsMulticast() || r.Addr().IsUnspecified() || !is4(r.Addr()) {
			return fieldError("remoteip", r, "a unicast address of the same IP version as localip, and a port")
		}
	}
	if b.MTU != 0 && (b.MTU < 128 || b.MTU > 65000) {
		return fieldError("mtu", b.MTU, "128 to 65000 octets")
	}
	return b.BearerSettings.Validate()
}

// BearerName returns "eth:" and the device.
func (b Ethernet) BearerName() string { return "eth:" + b.Device }

// Validate implements Bearer.
func (b Ethernet) Validate() error {
	if b.Device == "" || len(b.Device) > 15 || strings.ContainsAny(b.Device, ":/ \t\n\x00") {
		return fieldError("device", b.Device, "the name of a network device")
	}
	return b.BearerSettings.Validate()
}
