package bearer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// UDP bearer: specification constants (net/tipc/udp_media.c, iproute2's
// tipc/bearer.c).
const (
	DefaultUDPPort = 6118  // IANA
	DefaultUDPMTU4 = 14000 // IP fragments it
	DefaultUDPMTU6 = 1280
	DefaultNetID   = 4711
)

// UDP bearer: implementation constants.
const (
	MinUDPMTU      = 128   // room for the longest header and a tunnelled one
	MaxUDPMTU      = 65000 // fits an IPv4 packet with its headers
	MaxPeers       = 4096  // of a peer list
	DefaultSockBuf = 4 << 20
	DefaultTTL     = 64
	EphemeralPort  = -1
)

// UDPConfig configures a UDP bearer. Either LocalIP or Device must be set;
// everything else has a default.
type UDPConfig struct {
	// Name is the instance: the bearer is called "udp:" and this.
	Name string

	// LocalIP is an address of this host. Unset, it is the first address of
	// Device. Peers learn it in discovery messages. For a link-local IPv6
	// address give the zone, or Device.
	LocalIP netip.Addr

	// LocalPort is the port to receive on: 0 means 6118, EphemeralPort
	// leaves the choice to the system; multicast is then received on
	// RemotePort, so that several nodes can share one address.
	LocalPort int

	// Device is the network interface for multicast. Unset, it is the one
	// that has LocalIP.
	Device string

	// Remote is where broadcasts go. Unset, it is NetID's multicast group;
	// an own group can be given. Unicast addresses are a list of peers
	// instead: broadcasts are copied to each, and peers can be added and
	// removed later. A zero port means RemotePort. All are of the family
	// of LocalIP. With a list, peers have to list each other; Linux nodes
	// learn nobody on their own.
	Remote []netip.AddrPort

	// RemotePort is the port of the multicast group and of entries in
	// Remote without one: 0 means 6118.
	RemotePort int

	// PeerList makes a bearer with a list of peers even if Remote is empty.
	PeerList bool

	// NetID is the cluster's network id, for the default group: 0 means 4711.
	NetID uint32

	// TTL is the hop limit of unicast and multicast, 1 to 255: 0 means 64,
	// as Linux sends.
	TTL int

	// MTU is the largest TIPC message in octets, 128 to 65000: 0 means
	// 14000 for IPv4 and 1280 for IPv6, as in Linux.
	MTU int

	// RecvBuf and SendBuf are the sizes of socket buffers asked for, in
	// octets: 0 means 4 MiB. Without CAP_NET_ADMIN the system caps them
	// (net.core.rmem_max); Stats tells what was granted.
	RecvBuf, SendBuf int

	// NoOffload does without segmentation offload (UDP_SEGMENT, UDP_GRO).
	NoOffload bool

	// Plain uses one portable system call a datagram. It is what other
	// systems than Linux always do.
	Plain bool
}

// ErrConfig is what errors about a configuration wrap.
var ErrConfig = errors.New("invalid bearer configuration")

func badConfig(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
}

// udpPlan is a configuration with all defaults filled in.
type udpPlan struct {
	UDPConfig
	local netip.AddrPort // port 0: ephemeral
	ifi   *net.Interface
	group netip.AddrPort // valid: multicast
	peers []netip.AddrPort
}

// UDPGroup returns the multicast group that iproute2's tipc tool chooses for a
// network id: 228.0.x.y with the lower 16 bits, or for IPv6 ff02:: followed by
// the decimal digits of netid read as hexadecimal. That tool refuses ids above
// 9999 for IPv6; here they are written in hexadecimal in the last four octets.
func UDPGroup(netid uint32, v6 bool) netip.Addr {
	if !v6 {
		return netip.AddrFrom4([4]byte{228, 0, byte(netid >> 8), byte(netid)})
	}
	a := [16]byte{0: 0xff, 1: 0x02}
	low := netid
	if netid <= 9999 {
		x, _ := strconv.ParseUint(strconv.Itoa(int(netid)), 16, 32)
		low = uint32(x)
	}
	a[12], a[13], a[14], a[15] = byte(low>>24), byte(low>>16), byte(low>>8), byte(low)
	return netip.AddrFrom16(a)
}

// plan checks the configuration against itself and this host.
func (c UDPConfig) plan() (*udpPlan, error) {
	p := &udpPlan{UDPConfig: c}
	if c.Name == "" {
		return nil, badConfig("a UDP bearer needs a name")
	}
	port := func(what string, n, low int) (uint16, error) {
		if n == 0 {
			return DefaultUDPPort, nil
		}
		if n < low || n > 65535 {
			return 0, badConfig("%s %d", what, n)
		}
		return uint16(max(n, 0)), nil
	}
	lport, err := port("localport", c.LocalPort, EphemeralPort)
	if err != nil {
		return nil, err
	}
	rport, err := port("remoteport", c.RemotePort, 1)
	if err != nil {
		return nil, err
	}
	ip, err := p.findInterface()
	if err != nil {
		return nil, err
	}
	p.local = netip.AddrPortFrom(ip, lport)
	v6 := ip.Is6()

	switch {
	case c.MTU == 0 && v6:
		p.MTU = DefaultUDPMTU6
	case c.MTU == 0:
		p.MTU = DefaultUDPMTU4
	case c.MTU < MinUDPMTU || c.MTU > MaxUDPMTU:
		return nil, badConfig("mtu %d is not within %d and %d", c.MTU, MinUDPMTU, MaxUDPMTU)
	}
	if c.TTL == 0 {
		p.TTL = DefaultTTL
	} else if c.TTL < 1 || c.TTL > 255 {
		return nil, badConfig("ttl %d", c.TTL)
	}
	if c.NetID == 0 {
		p.NetID = DefaultNetID
	}
	if c.RecvBuf < 0 || c.SendBuf < 0 {
		return nil, badConfig("negative socket buffer")
	}
	if c.RecvBuf == 0 {
		p.RecvBuf = DefaultSockBuf
	}
	if c.SendBuf == 0 {
		p.SendBuf = DefaultSockBuf
	}

	for _, r := range c.Remote {
		a := r.Addr().Unmap().WithZone("")
		if !a.IsValid() || a.Is6() != v6 {
			return nil, badConfig("remoteip %v is not of the family of %v", r.Addr(), ip)
		}
		if a.IsUnspecified() {
			return nil, badConfig("remoteip %v", a)
		}
		if r.Port() == 0 {
			r = netip.AddrPortFrom(a, rport)
		} else {
			r = netip.AddrPortFrom(a, r.Port())
		}
		if !a.IsMulticast() {
			if !slices.Contains(p.peers, r) {
				p.peers = append(p.peers, r)
			}
			continue
		}
		if len(c.Remote) > 1 || c.PeerList {
			return nil, badConfig("the multicast address %v cannot be one of several", a)
		}
		p.group = r
	}
	if len(p.peers) > MaxPeers {
		return nil, badConfig("%d peers, at most %d are possible", len(p.peers), MaxPeers)
	}
	if len(c.Remote) == 0 && !c.PeerList {
		p.group = netip.AddrPortFrom(UDPGroup(p.NetID, v6), rport)
	}
	if v6 && p.group.IsValid() && p.ifi.Flags&net.FlagMulticast == 0 {
		// IPv4 multicast works there nevertheless, IPv6 has no route for it.
		return nil, badConfig("device %s carries no IPv6 multicast: give remoteip, or ip link set %s multicast on", p.ifi.Name, p.ifi.Name)
	}
	return p, nil
}

// groupPort is the port that multicast is received on.
func (p *udpPlan) groupPort() uint16 {
	if p.LocalPort == EphemeralPort {
		return p.group.Port()
	}
	return p.local.Port()
}

// findInterface settles p.ifi and the local address: without a zone, IPv4 in
// four octets.
func (p *udpPlan) findInterface() (netip.Addr, error) {
	dev, ip := p.Device, p.LocalIP.Unmap()
	if dev == "" {
		dev = ip.Zone()
	}
	ip = ip.WithZone("")
	if ip.IsValid() && (ip.IsUnspecified() || ip.IsMulticast()) {
		return ip, badConfig("localip %v", ip)
	}
	if dev != "" {
		ifi, err := device(dev)
		if err != nil {
			return ip, err
		}
		p.ifi = ifi
		if !ip.IsValid() {
			return firstAddr(ifi)
		}
		return ip, nil
	}
	if !ip.IsValid() {
		return ip, badConfig("a UDP bearer needs localip or device")
	}
	ifis, err := net.Interfaces()
	if err != nil {
		return ip, err
	}
	for _, ifi := range ifis {
		// All of 127.0.0.0/8 is local although one address of it is listed.
		match := ip.Is4() && ip.IsLoopback() && ifi.Flags&net.FlagLoopback != 0
		for _, a := range interfaceAddrs(&ifi) {
			match = match || a == ip
		}
		if match {
			p.ifi = &ifi
			return ip, nil
		}
	}
	return ip, fmt.Errorf("localip %v is not an address of this host", ip)
}

func interfaceAddrs(ifi *net.Interface) (as []netip.Addr) {
	addrs, _ := ifi.Addrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				as = append(as, ip.Unmap())
			}
		}
	}
	return as
}

// firstAddr prefers IPv4, then IPv6 with global scope.
func firstAddr(ifi *net.Interface) (best netip.Addr, err error) {
	rank := func(a netip.Addr) int {
		switch {
		case !a.IsValid():
			return 0
		case a.IsLinkLocalUnicast() && a.Is6():
			return 1
		case a.Is6():
			return 2
		}
		return 3
	}
	for _, a := range interfaceAddrs(ifi) {
		if rank(a) > rank(best) {
			best = a
		}
	}
	if !best.IsValid() {
		return best, fmt.Errorf("device %s has no IP address", ifi.Name)
	}
	return best, nil
}

// UDP is a UDP bearer. With a multicast group it has two sockets: one bound to
// the local address, which sends everything and receives unicast, and one
// bound to the group. So several nodes can share a host, each with its own
// address and all with the same port; Linux binds one socket to all addresses
// instead, with the same effect on the wire.
type UDP struct {
	plan  *udpPlan
	name  string
	addr  wire.MediaAddr
	bcast wire.MediaAddr
	stats counters

	conn      udpConn // bound to the local address
	groupConn udpConn // bound to the group, nil with a list of peers
	readers   []Reader
	sndbuf    int
	rcvbuf    int

	peers   atomic.Pointer[[]netip.AddrPort] // never changed in place
	peersMu sync.Mutex                       // serialises changes of peers

	sendMu sync.Mutex // guards send
	send   func(b *buf.Batch, id int) error

	once sync.Once
}

// udpConn is a socket: *net.UDPConn or, on Linux, *waitSock.
type udpConn interface {
	LocalAddr() net.Addr
	Close() error
}

var _ Bearer = (*UDP)(nil)

// OpenUDP opens a UDP bearer.
func OpenUDP(c UDPConfig) (*UDP, error) {
	p, err := c.plan()
	if err != nil {
		return nil, fmt.Errorf("bearer udp:%s: %w", c.Name, err)
	}
	u := &UDP{plan: p, name: "udp:" + c.Name}
	peers := p.peers
	u.peers.Store(&peers)
	if err := u.open(); err != nil {
		u.Close()
		return nil, fmt.Errorf("bearer %s: %w", u.name, err)
	}
	// The port may have been the system's choice.
	ap := u.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	p.local = netip.AddrPortFrom(p.local.Addr(), ap.Port())
	u.addr = wire.MediaAddr{Media: wire.MediaUDP, IP: p.local}
	u.bcast = wire.MediaAddr{Media: wire.MediaUDP, Broadcast: true, IP: p.group}
	return u, nil
}

// Name implements Bearer.
func (u *UDP) Name() string { return u.name }

// Media implements Bearer.
func (u *UDP) Media() wire.MediaType { return wire.MediaUDP }

// Addr implements Bearer.
func (u *UDP) Addr() wire.MediaAddr { return u.addr }

// BroadcastAddr implements Bearer. With a list of peers it has no IP address.
func (u *UDP) BroadcastAddr() wire.MediaAddr { return u.bcast }

// BroadcastSupport implements Bearer.
func (u *UDP) BroadcastSupport() bool { return u.plan.group.IsValid() }

// MTU implements Bearer.
func (u *UDP) MTU() int { return u.plan.MTU }

// Readers implements Bearer.
func (u *UDP) Readers() []Reader { return u.readers }

// Events implements Bearer; a UDP bearer has none, as in Linux.
func (u *UDP) Events() <-chan Event { return nil }

// Device is the network interface that multicast uses.
func (u *UDP) Device() string { return u.plan.ifi.Name }

// Stats implements Bearer.
func (u *UDP) Stats() Stats {
	s := u.stats.snapshot()
	s.RecvBuf, s.SendBuf = u.rcvbuf, u.sndbuf
	return s
}

// Close implements Bearer.
func (u *UDP) Close() error {
	err := ErrClosed
	u.once.Do(func() {
		err = nil
		if u.conn != nil {
			err = u.conn.Close()
		}
		if u.groupConn != nil {
			err = errors.Join(err, u.groupConn.Close())
		}
	})
	return err
}

// WriteBatch implements Bearer.
func (u *UDP) WriteBatch(b *buf.Batch, id int) error {
	u.sendMu.Lock()
	defer u.sendMu.Unlock()
	return u.send(b, id)
}

// ErrMulticastBearer is returned when a peer is to be added to a bearer that
// has a multicast group (net/tipc/udp_media.c tipc_udp_nl_bearer_add).
var ErrMulticastBearer = errors.New("the bearer uses multicast and has no list of peers")

// AddPeer adds a peer to the list that broadcasts are copied to. A zero port
// means the configured RemotePort. A peer that is there already is not added
// again.
func (u *UDP) AddPeer(peer netip.AddrPort) error {
	return u.changePeers(peer, func(list []netip.AddrPort, p netip.AddrPort) ([]netip.AddrPort, error) {
		switch {
		case slices.Contains(list, p):
			return list, nil
		case len(list) >= MaxPeers:
			return nil, badConfig("the bearer has %d peers already", MaxPeers)
		}
		return append(slices.Clip(list), p), nil
	})
}

// RemovePeer removes a peer from the list. Links to it are not touched: they
// end when the peer, too, no longer sends.
func (u *UDP) RemovePeer(peer netip.AddrPort) error {
	return u.changePeers(peer, func(list []netip.AddrPort, p netip.AddrPort) ([]netip.AddrPort, error) {
		i := slices.Index(list, p)
		if i < 0 {
			return nil, badConfig("%v is not a peer", p)
		}
		return slices.Delete(slices.Clone(list), i, i+1), nil
	})
}

// Peers returns the list of peers, nil for a multicast bearer.
func (u *UDP) Peers() []netip.AddrPort { return slices.Clone(*u.peers.Load()) }

func (u *UDP) changePeers(peer netip.AddrPort, change func([]netip.AddrPort, netip.AddrPort) ([]netip.AddrPort, error)) error {
	if u.plan.group.IsValid() {
		return ErrMulticastBearer
	}
	ip := peer.Addr().Unmap().WithZone("")
	if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip.Is6() != u.plan.local.Addr().Is6() {
		return badConfig("remoteip %v", peer.Addr())
	}
	port := peer.Port()
	if port == 0 {
		port = DefaultUDPPort
		if u.plan.RemotePort > 0 {
			port = uint16(u.plan.RemotePort)
		}
	}
	u.peersMu.Lock()
	defer u.peersMu.Unlock()
	list, err := change(*u.peers.Load(), netip.AddrPortFrom(ip, port))
	if err == nil {
		u.peers.Store(&list)
	}
	return err
}

// maxUDPPayload is what one UDP datagram can carry.
func maxUDPPayload(v6 bool) int {
	if v6 {
		return 65535 - 8
	}
	return 65535 - 20 - 8
}
