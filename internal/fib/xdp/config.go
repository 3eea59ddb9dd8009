package xdp

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// FieldError says which field of a request is wrong, and what would be right.
type FieldError struct {
	Field string // by its documented name
	Value string // as given
	Want  string // what would be right
}

// Error implements error.
func (e *FieldError) Error() string { return fmt.Sprintf("%s %q: want %s", e.Field, e.Value, e.Want) }

// Mode says how programs are attached.
type Mode uint8

// Modes.
const (
	Native  Mode = iota // in the driver; an error where the driver cannot
	Generic             // behind the driver: works on every device, and is not faster than the kernel's forwarding
	Auto                // in the driver where it can, else behind it
)

var modeNames = []string{"native", "generic", "auto"}

// String returns the name that configuration files use.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "mode " + strconv.Itoa(int(m))
}

// Bounds of a Config. Offsets that the BPF verifier allows end at 512 MiB (BPF_MAX_VAR_OFF), which with
// what is behind the image leaves the power of two below.
const (
	MinImage = 256 << 10
	MaxImage = 256 << 20
)

// Config says how large a forwarder is. Sizes are fixed when it is made; one that is found pinned with others is an
// error until it is removed.
type Config struct {
	// Dir is where maps and links are pinned. It is made if it is not there, and a bpffs is mounted on it if it is not
	// in one; Remove undoes both. Empty: nothing is pinned, and all ends with Close.
	Dir string

	// Fresh: the image is a new one, also if one is pinned. What is pinned goes on forwarding by the old image until the
	// first SetPorts, which then switches each link to the new one in one step. Only Image may differ from before.
	Fresh bool

	Image      int // octets, a power of two from MinImage to MaxImage; 0: 64 MiB
	Ports      int // (link, VLAN) pairs and devices, 1 to 65,536; 0: 4,096
	Neighbours int // 1 to 1,048,576; 0: 65,536
	FIBs       int // that have ports, and so counters, 1 to 65,536; 0: 1,024

	Seed      uint64        // of the flow hash (package flowhash)
	Mode      Mode          // how it is attached
	AskAgain  time.Duration // the least time between two events of one missing neighbour, up to a minute; 0: 1 s
	MissDrops bool          // packets without a neighbour are dropped; else the kernel gets them, which needs the route for it
}

func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		name           string
		v              *int
		def, low, high int
	}{
		{"image", &c.Image, 64 << 20, MinImage, MaxImage},
		{"ports", &c.Ports, 4096, 1, 65536},
		{"neighbours", &c.Neighbours, 65536, 1, 1 << 20},
		{"fibs", &c.FIBs, 1024, 1, 65536},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < f.low || *f.v > f.high {
			return c, &FieldError{f.name, strconv.Itoa(*f.v), fmt.Sprintf("%d to %d", f.low, f.high)}
		}
	}
	if c.Image&(c.Image-1) != 0 {
		return c, &FieldError{"image", strconv.Itoa(c.Image), "a power of two"}
	}
	if c.Mode > Auto {
		return c, &FieldError{"mode", c.Mode.String(), "native, generic or auto"}
	}
	if c.AskAgain == 0 {
		c.AskAgain = time.Second
	}
	if c.AskAgain < 0 || c.AskAgain > time.Minute {
		return c, &FieldError{"ask-again", c.AskAgain.String(), "up to 1m"}
	}
	return c, nil
}

// Tag is a VLAN tag: the VLAN's id, 1 to 4094, with TagAD for one of 802.1ad (0x88a8) instead of 802.1Q (0x8100).
// Zero is none.
type Tag uint16

// TagAD marks tags of 802.1ad.
const TagAD Tag = 0x8000

// String returns the tag as ip-link(8) has it.
func (t Tag) String() string {
	if t&TagAD != 0 {
		return fmt.Sprintf("%d proto 802.1ad", t&^TagAD)
	}
	return strconv.Itoa(int(t))
}

func (t Tag) valid() bool { return t == 0 || (t&0xfff != 0 && t&0xfff != 0xfff && t&0x7000 == 0) }

// Port is an interface that belongs to a FIB: packets that come in by it are looked up there, and next hops of that FIB
// may lead out by it.
type Port struct {
	Device       uint32 // index of the interface, as next hops have it: a link, or a VLAN subinterface of one
	Link         uint32 // index of the link that its frames are on; 0: Device itself
	Outer, Inner Tag    // its VLAN tags; Inner only with Outer
	FIB          uint32
}

func (p Port) validate() error {
	name := fmt.Sprintf("port %d ", p.Device)
	switch {
	case p.Device == 0:
		return &FieldError{"port device", "0", "an interface index"}
	case p.FIB == 0:
		return &FieldError{name + "fib", "0", "1 to 4294967295"}
	case !p.Outer.valid():
		return &FieldError{name + "outer tag", p.Outer.String(), "a VLAN from 1 to 4094"}
	case !p.Inner.valid():
		return &FieldError{name + "inner tag", p.Inner.String(), "a VLAN from 1 to 4094"}
	case p.Inner != 0 && p.Outer == 0:
		return &FieldError{name + "inner tag", p.Inner.String(), "none without an outer tag"}
	case p.Link == p.Device && p.Outer != 0:
		return &FieldError{name + "link", strconv.Itoa(int(p.Link)), "another interface than the VLAN's own"}
	}
	return nil
}

// checkPorts returns the ports with Link filled in.
func checkPorts(ports []Port, room int) ([]Port, error) {
	if len(ports) > room {
		return nil, &FieldError{"ports", strconv.Itoa(len(ports)), fmt.Sprintf("up to %d", room)}
	}
	l := make([]Port, len(ports))
	devices := map[uint32]bool{}
	type where struct {
		link         uint32
		outer, inner Tag
	}
	places := map[where]uint32{}
	for i, p := range ports {
		if p.Link == 0 {
			p.Link = p.Device
		}
		if err := p.validate(); err != nil {
			return nil, err
		}
		if devices[p.Device] {
			return nil, &FieldError{"port device", strconv.Itoa(int(p.Device)), "each interface once"}
		}
		at := where{p.Link, p.Outer, p.Inner}
		if other, ok := places[at]; ok {
			return nil, &FieldError{"port device", strconv.Itoa(int(p.Device)), fmt.Sprintf("other tags or another link than port %d", other)}
		}
		devices[p.Device], places[at] = true, p.Device
		l[i] = p
	}
	return l, nil
}

// Device is the state of a port's interface.
type Device struct {
	Index uint32
	MTU   uint32  // of IP packets, octets
	MAC   [6]byte // its own address
	Up    bool    // up, with a carrier
}

// NeighbourKey names a neighbour.
type NeighbourKey struct {
	FIB    uint32
	Device uint32
	Addr   netip.Addr // without zone; IPv4 in IPv6 is taken for IPv4
}

func (k NeighbourKey) validate() error {
	switch {
	case k.FIB == 0:
		return &FieldError{"neighbour fib", "0", "1 to 4294967295"}
	case k.Device == 0:
		return &FieldError{"neighbour device", "0", "an interface index"}
	case !k.Addr.IsValid() || k.Addr.IsUnspecified() || k.Addr.Zone() != "":
		return &FieldError{"neighbour address", k.Addr.String(), "an address without a zone"}
	}
	return nil
}

// Neighbour is a neighbour whose MAC address is known.
type Neighbour struct {
	NeighbourKey
	MAC [6]byte
}
