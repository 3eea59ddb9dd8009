package bgp

import (
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"midplane/fib"
	"midplane/internal/fib/feed"
)

// Bounds and defaults.
const (
	MaxPeers         = 1000
	DefaultMaxPrefix = 2_000_000         // of one family of one peer
	DefaultHold      = 90 * time.Second  // RFC 4271 section 10 suggests it
	DefaultDeferral  = 120 * time.Second // RFC 4724's Selection_Deferral_Timer
	DefaultPort      = 179
	maxHold          = 65535 * time.Second
	maxRestart       = 4095 * time.Second // 12 bits (RFC 4724 section 3)
	recheckEvery     = 100 * time.Millisecond
	prefixesAtOnce   = 1024
	gatherFor        = 2 * time.Millisecond // from a change until it is in the FIB, and those that follow it
	limitsEvery      = time.Second          // how often prefixes are counted, which takes at most one part of limitsShare of the time
	limitsShare      = 50
)

// Config is one BGP speaker, which writes to one FIB.
type Config struct {
	Set *fib.Set
	FIB fib.ID // exists

	// Open returns what writes to the FIB when others write there too, see feed.Config; nil: the FIB itself. Next hops are
	// resolved through the FIB itself in any case.
	Open func(table uint32) (feed.Table, fib.ID, error)

	ASN      uint32     // 1 to 4294967295
	RouterID netip.Addr // IPv4

	Listen []netip.Addr // addresses to listen on; none: all
	Port   int          // to listen on; 0: DefaultPort, -1: do not listen
	Device string       // to bind the listener to, as that of a VRF; "" none

	Peers []Peer // 1 to MaxPeers

	MaxPaths   int           // equally good paths that share the flows, 1 to 256; 0: 1
	ViaDefault bool          // next hops may be resolved by a default route
	Advertise  bool          // pass best paths on to peers, as BGP does; otherwise nothing is said to them
	Restart    time.Duration // graceful restart (RFC 4724): how long peers keep what they know, up to 4,095 s; 0: none
	Adopt      bool          // the FIB holds routes of a Speaker before: they go when all peers have told all they have
	Deferral   time.Duration // with Adopt: or after this; 0: DefaultDeferral
	Keep       bool          // leave the routes in the FIB at the end

	Log *slog.Logger // of GoBGP; nil: none
}

// Peer is one neighbour.
type Peer struct {
	Address   netip.Addr
	ASN       uint32
	Passive   bool // wait for it to connect
	Port      int  // to connect to; 0: DefaultPort
	Local     netip.Addr
	Device    string // to bind the connection to; "" none
	Password  string // TCP MD5 signature (RFC 2385); "" none
	TTL       uint8  // of external peers that are not neighbours on a link (multihop); 0: neighbours
	IPv4      bool   // families; neither: both
	IPv6      bool
	AddPath   bool          // take several paths of a prefix from it (RFC 7911)
	Hold      time.Duration // 3 s to 65,535 s; 0: DefaultHold
	Retry     time.Duration // between attempts to connect, from 1 s; 0: 10 s
	MaxPrefix uint32        // of each family, beyond which the session ends for good, within some seconds; 0: DefaultMaxPrefix
}

func refuse(field, value, want string) error {
	return &fib.FieldError{Field: field, Value: value, Want: want}
}

// validate fills in defaults, and returns a *fib.FieldError for what cannot be.
func (c *Config) validate() error {
	if c.Set == nil {
		return refuse("set", "nil", "the Set of the FIB")
	}
	if _, ok := c.Set.Table(c.FIB); !ok {
		return refuse("fib", c.FIB.String(), "one that exists")
	}
	if c.ASN == 0 {
		return refuse("asn", "0", "1 to 4294967295")
	}
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		return refuse("routerid", c.RouterID.String(), "an IPv4 address that no other speaker has")
	}
	if c.Port < -1 || c.Port > 65535 {
		return refuse("port", strconv.Itoa(c.Port), "-1 to 65535")
	}
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if len(c.Device) > 15 {
		return refuse("device", c.Device, "up to 15 octets")
	}
	for _, a := range c.Listen {
		if !a.IsValid() || a.Zone() != "" {
			return refuse("listen", a.String(), "an address without a zone")
		}
	}
	if c.MaxPaths < 0 || c.MaxPaths > fib.MaxMembers {
		return refuse("maxpaths", strconv.Itoa(c.MaxPaths), "1 to 256, or 0 for 1")
	}
	c.MaxPaths = max(c.MaxPaths, 1)
	if c.Restart < 0 || c.Restart > maxRestart {
		return refuse("restart", c.Restart.String(), "0 to 4095 s")
	}
	if c.Deferral < 0 {
		return refuse("deferral", c.Deferral.String(), "a time, or 0 for 120 s")
	}
	if c.Deferral == 0 {
		c.Deferral = DefaultDeferral
	}
	if n := len(c.Peers); n == 0 || n > MaxPeers {
		return refuse("peers", strconv.Itoa(n), "1 to 1000 of them")
	}
	seen := map[netip.Addr]bool{}
	for i := range c.Peers {
		p := &c.Peers[i]
		if err := p.validate(); err != nil {
			return err
		}
		if seen[p.Address] {
			return refuse("peer", p.Address.String(), "each address once")
		}
		seen[p.Address] = true
		if p.Passive && c.Port == -1 {
			return refuse("passive", p.Address.String(), "a port to listen on when a peer is to connect")
		}
	}
	return nil
}

func (p *Peer) validate() error {
	if !p.Address.IsValid() || p.Address.IsUnspecified() || p.Address.IsMulticast() || p.Address.Is4In6() || p.Address.Zone() != "" {
		return refuse("peer", p.Address.String(), "a unicast address without a zone")
	}
	if p.ASN == 0 {
		return refuse("peer asn", "0", "1 to 4294967295")
	}
	if p.Port < 0 || p.Port > 65535 {
		return refuse("peer port", strconv.Itoa(p.Port), "1 to 65535, or 0 for 179")
	}
	if p.Port == 0 {
		p.Port = DefaultPort
	}
	if p.Hold != 0 && (p.Hold < 3*time.Second || p.Hold > maxHold) {
		return refuse("hold", p.Hold.String(), "3 s to 65535 s, or 0 for 90 s")
	}
	if p.Hold == 0 {
		p.Hold = DefaultHold
	}
	if p.Retry != 0 && (p.Retry < time.Second || p.Retry > maxHold) {
		return refuse("retry", p.Retry.String(), "1 s to 65535 s, or 0 for 10 s")
	}
	if p.Retry == 0 {
		p.Retry = 10 * time.Second
	}
	if len(p.Device) > 15 {
		return refuse("peer device", p.Device, "up to 15 octets")
	}
	if len(p.Password) > 80 {
		return refuse("password", "(not shown)", "up to 80 octets")
	}
	if !p.IPv4 && !p.IPv6 {
		p.IPv4, p.IPv6 = true, true
	}
	if p.MaxPrefix == 0 {
		p.MaxPrefix = DefaultMaxPrefix
	}
	return nil
}

// PeerStatus is how a session is.
type PeerStatus struct {
	Address netip.Addr
	ASN     uint32
	State   string // of RFC 4271's state machine: "IDLE", "CONNECT", "ACTIVE", "OPENSENT", "OPENCONFIRM", "ESTABLISHED"
	Since   time.Time
	Reason  string // why the last session ended, "" unknown
	Over    string // what was too much, when the session was ended for that
}

// Status is what a Speaker is doing.
type Status struct {
	Counters
	Feed  feed.Counters
	Peers []PeerStatus // in the order of Config
	Idle  bool         // all that BGP said is in the FIB
}
