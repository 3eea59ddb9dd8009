package tipc

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"midplane/internal/api/attach"
	"midplane/internal/ctlpath"
	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/engine"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// Config describes a node inside the program. The zero value is a node on its own, whose sockets reach each other.
type Config struct {
	// Identity of the node, unique in the cluster; zero means one made at random.
	Identity NodeID

	// Address is a fixed legacy address <Z.C.N>. 0, the usual, has the node derive its address from the identity and
	// ask its neighbours whether it is free, which takes about a second after the first bearer is enabled.
	Address NodeAddr

	// NetID tells clusters on the same network apart; 0 means 4711.
	NetID uint32

	// Bearers to enable, at most three. More can be enabled, and these disabled, later.
	Bearers []Bearer

	// Logger takes notes of changes in the cluster; nil means none.
	Logger *slog.Logger
}

// Node is a member of a cluster: one inside the program (NewNode), or a daemon's (Open). It is safe for concurrent use.
type Node struct {
	opener sockif.Opener
	engine *engine.Engine // nil: the node is a daemon's
}

// NewNode starts a node inside the program. It returns at once; the first contact with other nodes follows within about
// a second. Close it to leave the cluster in order.
func NewNode(cfg Config) (*Node, error) {
	if cfg.NetID == 0 {
		cfg.NetID = DefaultNetID
	}
	e, err := engine.New(engine.Config{ID: wire.NodeID(cfg.Identity), Addr: uint32(cfg.Address), NetID: cfg.NetID, Logger: cfg.Logger})
	if err != nil {
		return nil, opError("new node", nil, err)
	}
	n := &Node{opener: e, engine: e}
	for _, b := range cfg.Bearers {
		if err := n.EnableBearer(b); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// OpenConfig says which node Open uses. A nil *OpenConfig and the zero value mean the host's daemon and nothing else.
type OpenConfig struct {
	// Control is the path of the daemon's control socket; empty means DefaultControl.
	Control string

	// Embed is the node to start inside the program if no daemon answers; nil means that this is an error.
	Embed *Config
}

// Open uses the node of the daemon on this host, or starts one inside the program if there is none and cfg says how.
// With a daemon's node, each socket is a connection to the daemon; closing the Node closes these and leaves the daemon
// alone.
func Open(cfg *OpenConfig) (*Node, error) {
	if cfg == nil {
		cfg = &OpenConfig{}
	}
	path := cfg.Control
	if path == "" {
		path = DefaultControl()
	}
	c, err := attach.NewClient(path)
	if err == nil {
		return &Node{opener: c}, nil
	}
	if cfg.Embed != nil {
		return NewNode(*cfg.Embed)
	}
	return nil, opError("open", nil, err)
}

// DefaultControl is where a daemon has its control socket unless it was told otherwise: the environment variable
// MIDPLANE_CONTROL if set, /run/midplane/control for root, and a path below $XDG_RUNTIME_DIR or the directory of
// temporary files for other users. Open refuses the last of these if the user's directory there is not his alone.
func DefaultControl() string { return ctlpath.Default() }

// Close leaves the cluster: the node's bindings are withdrawn, its peers are told, and all its sockets fail with
// net.ErrClosed.
func (n *Node) Close() error { return opError("close", nil, n.opener.Close()) }

var errAttached = &OpError{Op: "manage", Err: errors.New("the node is a daemon's: use its control interface")}

// Internals is for the commands of this module. It returns nil for a daemon's node.
func (n *Node) Internals() *engine.Engine { return n.engine }

// Addr returns the node's address; 0 until it is known, see Config.Address.
func (n *Node) Addr() (a NodeAddr) {
	if n.engine != nil {
		n.engine.Do(func(_ mono.Time, s *stack.Stack) { a = NodeAddr(s.Addr()) })
		return a
	}
	// A socket knows its node.
	s, err := n.opener.Socket(sockif.RDM, sockif.Options{})
	if err != nil {
		return 0
	}
	defer s.Close()
	return NodeAddr(s.LocalAddr().Node)
}

// Identity returns the node's identity; zero if the node is a daemon's.
func (n *Node) Identity() (id NodeID) {
	if n.engine != nil {
		n.engine.Do(func(_ mono.Time, s *stack.Stack) { id = NodeID(s.ID()) })
	}
	return id
}

// Ready waits until the node has its address and with it is a member of the cluster. A node without bearers has none.
func (n *Node) Ready(ctx context.Context) error {
	if n.Addr() != 0 {
		return nil
	}
	// The node's own state is published when the address is known.
	sub, err := n.Subscribe(ServiceRange{Type: NodeStateType, Lower: 0, Upper: 1<<32 - 1}, nil)
	if err != nil {
		return err
	}
	defer sub.Close()
	for n.Addr() == 0 {
		if _, err := sub.NextContext(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Peer is another node of the cluster.
type Peer struct {
	Addr     NodeAddr
	Identity NodeID
	Up       bool
}

// Peers lists the other nodes: those that are up, and those that were not long ago. It returns nil for a daemon's node;
// subscribe to NodeStateType to know them there.
func (n *Node) Peers() (list []Peer) {
	if n.engine == nil {
		return nil
	}
	n.engine.Do(func(_ mono.Time, s *stack.Stack) {
		for p := range s.Nodes().Nodes() {
			list = append(list, Peer{NodeAddr(p.Addr), NodeID(p.ID), p.Up})
		}
	})
	return list
}

// Link is one end of a link to another node.
type Link struct {
	Name      string // "node1:u1-node2:u1"
	Bearer    string // "udp:u1"
	Peer      NodeAddr
	Up        bool
	Active    bool // carries messages; an up link that is not active stands by
	MTU       int
	Priority  int
	Tolerance time.Duration
	Window    int // packets
}

// Links lists the node's links. It returns nil for a daemon's node.
func (n *Node) Links() (list []Link) {
	if n.engine == nil {
		return nil
	}
	n.engine.Do(func(_ mono.Time, s *stack.Stack) {
		for l := range s.Nodes().Links(false) {
			if l.Broadcast {
				continue
			}
			b, _, _ := s.Bearer(l.Bearer)
			list = append(list, Link{Name: l.Name, Bearer: b.Name, Peer: NodeAddr(l.Peer), Up: l.Up, Active: l.Active, MTU: l.MTU,
				Priority: l.Priority, Tolerance: time.Duration(l.Tolerance) * time.Millisecond, Window: l.Window})
		}
	})
	return list
}

// EnableBearer adds a bearer: neighbours are looked for on it from now on.
func (n *Node) EnableBearer(b Bearer) error {
	if n.engine == nil {
		return errAttached
	}
	if err := b.Validate(); err != nil {
		return opError("enable bearer "+b.BearerName(), nil, err)
	}
	d, cfg, err := n.openBearer(b)
	if err == nil {
		err = n.engine.EnableBearer(d, cfg)
	}
	return opError("enable bearer "+b.BearerName(), nil, err)
}

// DisableBearer removes a bearer by its full name, such as "udp:u1"; its links go down.
func (n *Node) DisableBearer(name string) error {
	if n.engine == nil {
		return errAttached
	}
	return opError("disable bearer "+name, nil, n.engine.DisableBearer(name))
}

// Network is a network in memory, for tests and demonstrations: each node with a Memory bearer on it is a neighbour of
// the others. The zero value is ready.
type Network struct{ hub bearer.Hub }

// Memory is a bearer on a Network.
type Memory struct {
	Name    string // instance name, up to 15 characters without ':'
	Network *Network
	BearerSettings
}

// BearerName returns "eth:" and the name: for peers a Network is an Ethernet.
func (b Memory) BearerName() string { return "eth:" + b.Name }

// Validate implements Bearer.
func (b Memory) Validate() error {
	if err := checkInstance("name", b.Name); err != nil {
		return err
	}
	if b.Network == nil {
		return fieldError("network", "nil", "a Network")
	}
	return b.BearerSettings.Validate()
}

// Defaults of links (include/uapi/linux/tipc_config.h, net/tipc/udp_media.c, eth_media.c).
const (
	defaultPriority  = 10
	defaultTolerance = 1500 * time.Millisecond
	defaultWindow    = 50
	maxWindow        = 8191
)

// openBearer opens the driver, and says how the core sees it.
func (n *Node) openBearer(b Bearer) (bearer.Bearer, stack.Bearer, error) {
	var d bearer.Bearer
	var err error
	window := maxWindow
	switch b := b.(type) {
	case UDP:
		var netID uint32
		n.engine.Do(func(_ mono.Time, s *stack.Stack) { netID = s.NetID() })
		c := bearer.UDPConfig{Name: b.Name, LocalIP: b.LocalIP, LocalPort: b.LocalPort, RemotePort: b.RemotePort,
			Remote: b.Remotes, PeerList: b.PeerList, Device: b.Device, MTU: b.MTU, NetID: netID}
		if b.Group.IsValid() {
			c.Remote = append(c.Remote, netip.AddrPortFrom(b.Group, uint16(b.RemotePort)))
		}
		window = defaultWindow
		d, err = opened(bearer.OpenUDP(c))
	case Ethernet:
		d, err = opened(bearer.OpenEth(bearer.EthConfig{Device: b.Device}))
	case Memory:
		d = b.Network.hub.Open(b.BearerName())
	default:
		err = ErrUnsupported
	}
	if err != nil {
		return nil, stack.Bearer{}, err
	}
	set := b.settings()
	cfg := stack.Bearer{
		Domain: uint32(set.Domain), Priority: defaultPriority, Tolerance: int(defaultTolerance / time.Millisecond),
		MinWin: defaultWindow, MaxWin: window,
	}
	switch {
	case set.Priority == LowestPriority:
		cfg.Priority = 0
	case set.Priority != 0:
		cfg.Priority = set.Priority
	}
	if set.Tolerance != 0 {
		cfg.Tolerance = int(set.Tolerance / time.Millisecond)
	}
	if set.Window != 0 {
		cfg.MaxWin = set.Window
		cfg.MinWin = min(cfg.MinWin, set.Window)
	}
	if set.Capture != "" {
		c, err := capture(d, set.Capture)
		if err != nil {
			d.Close()
			return nil, stack.Bearer{}, err
		}
		d = c
	}
	return d, cfg, nil
}

// opened keeps a failed bearer from becoming an interface that is not nil.
func opened[T bearer.Bearer](b T, err error) (bearer.Bearer, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}
