// Package api is the control interface of a node: [Control] says what can be asked and changed, [Handler] serves it as
// HTTP and JSON (over a Unix socket, in the daemon), [Client] is the other end. The tipc verbs of the command line
// know only Control.
//
// The values mirror what the kernel tells over netlink, so that the commands print the same. Numbers have the units of
// the tipc tool: tolerances are milliseconds, windows packets, MTUs octets.
package api

import (
	"context"

	"midplane/tipc"
)

// Control reads and changes one node. All methods are safe for concurrent use. What a node lacks is answered with an
// *Error of code Unsupported.
type Control interface {
	Node(context.Context) (Node, error)
	SetNode(context.Context, NodeSet) error
	SetKey(context.Context, KeySet) error
	FlushKeys(context.Context) error
	Peers(context.Context) ([]Peer, error)
	RemovePeer(context.Context, PeerRemove) error

	Bearers(context.Context) ([]Bearer, error)
	EnableBearer(context.Context, BearerEnable) error
	DisableBearer(ctx context.Context, name string) error
	AddRemote(context.Context, BearerRemote) error
	SetBearer(context.Context, PropertySet) error

	Media(context.Context) ([]Medium, error)
	SetMedium(context.Context, PropertySet) error

	Links(ctx context.Context, withBroadcastPeers bool) ([]Link, error)
	SetLink(context.Context, PropertySet) error
	ResetLink(ctx context.Context, name string) error
	Broadcast(context.Context) (Broadcast, error)
	SetBroadcast(context.Context, Broadcast) error
	Monitors(context.Context) (Monitors, error)
	SetMonitor(ctx context.Context, threshold uint32) error

	Names(context.Context) ([]Name, error)
	Sockets(context.Context) ([]Socket, error)
}

// Node is the local node.
type Node struct {
	Identity tipc.NodeID   `json:"identity"`
	Address  tipc.NodeAddr `json:"address"` // zero until the address trial is over
	NetID    uint32        `json:"netid"`

	// Duplicates counts discovery messages of nodes that use this node's or a known peer's address.
	Duplicates uint64 `json:"duplicates"`
}

// NodeSet changes what is not nil.
type NodeSet struct {
	Identity *tipc.NodeID   `json:"identity,omitempty"`
	Address  *tipc.NodeAddr `json:"address,omitempty"`
	NetID    *uint32        `json:"netid,omitempty"`
}

// KeySet sets an encryption key, or the interval of rekeying, or both.
type KeySet struct {
	Key      []byte       `json:"key,omitempty"` // 16, 24 or 32 octets of key and 4 of salt
	Algname  string       `json:"algname,omitempty"`
	Master   bool         `json:"master,omitempty"`
	Node     *tipc.NodeID `json:"node,omitempty"`     // per-node key
	Rekeying *uint32      `json:"rekeying,omitempty"` // minutes; 0 stops it
	RekeyNow bool         `json:"rekey_now,omitempty"`
}

// Peer is another node, up or remembered.
type Peer struct {
	Identity tipc.NodeID   `json:"identity"`
	Address  tipc.NodeAddr `json:"address"`
	Up       bool          `json:"up"`
}

// PeerRemove names a peer by one of its two names.
type PeerRemove struct {
	Identity *tipc.NodeID   `json:"identity,omitempty"`
	Address  *tipc.NodeAddr `json:"address,omitempty"`
}

// Property is a setting of links, bearers and media.
type Property string

// Properties.
const (
	Priority  Property = "priority"
	Tolerance Property = "tolerance"
	Window    Property = "window"
	MTU       Property = "mtu"
)

// PropertySet changes one property of the named link, bearer or medium.
type PropertySet struct {
	Name     string   `json:"name"`
	Property Property `json:"property"`
	Value    uint32   `json:"value"`
}

// Properties are the settings that links, bearers and media have in common.
type Properties struct {
	Priority  uint32 `json:"priority"`
	Tolerance uint32 `json:"tolerance"`
	Window    uint32 `json:"window"`
	MTU       uint32 `json:"mtu"`
}

// Get returns one of them.
func (p Properties) Get(name Property) uint32 {
	switch name {
	case Priority:
		return p.Priority
	case Tolerance:
		return p.Tolerance
	case Window:
		return p.Window
	}
	return p.MTU
}

// Medium is a kind of carrier: the defaults that its bearers inherit.
type Medium struct {
	Name string `json:"name"`
	Properties
}

// Bearer is an enabled bearer.
type Bearer struct {
	Name   string        `json:"name"` // "udp:NAME" or "eth:DEVICE"
	Domain tipc.NodeAddr `json:"domain"`
	Properties
	UDP *UDP `json:"udp,omitempty"`
}

// UDP is what only UDP bearers have.
type UDP struct {
	LocalIP    string   `json:"localip"`
	LocalPort  uint16   `json:"localport"`
	RemoteIP   string   `json:"remoteip"` // the multicast group, or the first remote
	RemotePort uint16   `json:"remoteport"`
	Remotes    []string `json:"remotes,omitempty"` // all unicast remotes, when there is no multicast
}

// BearerEnable describes a bearer to enable. Numbers that are 0 mean the default, except Priority, for which it is nil.
type BearerEnable struct {
	Media      string        `json:"media"`            // "udp" or "eth"
	Name       string        `json:"name,omitempty"`   // of a UDP bearer
	Device     string        `json:"device,omitempty"` // of an Ethernet bearer; for UDP: take its address as LocalIP
	LocalIP    string        `json:"localip,omitempty"`
	LocalPort  uint16        `json:"localport,omitempty"`
	RemoteIP   string        `json:"remoteip,omitempty"`
	RemotePort uint16        `json:"remoteport,omitempty"`
	Domain     tipc.NodeAddr `json:"domain,omitempty"`
	Priority   *uint32       `json:"priority,omitempty"`
}

// BearerRemote adds a unicast remote to a UDP bearer.
type BearerRemote struct {
	Name       string `json:"name"` // "udp:NAME"
	RemoteIP   string `json:"remoteip"`
	RemotePort uint16 `json:"remoteport,omitempty"`
}

// Link is a link endpoint, or the broadcast link.
type Link struct {
	Name      string `json:"name"`
	Up        bool   `json:"up"`
	Active    bool   `json:"active"` // carries traffic; else standby
	Broadcast bool   `json:"broadcast"`
	Properties
	Stats LinkStats `json:"stats"`
}

// LinkStats are a link's counters since it came up or they were reset.
type LinkStats struct {
	RxPackets, RxFragments, RxFragmented, RxBundles, RxBundled uint32
	TxPackets, TxFragments, TxFragmented, TxBundles, TxBundled uint32
	Profile                                                    Profile
	RxStates, RxProbes, RxNaks, RxDeferred, Duplicates         uint32
	TxStates, TxProbes, TxNaks, TxAcks, Retransmitted          uint32
	Congestions, MaxQueue, AvgQueue                            uint32
}

// Profile says how long the sent messages were.
type Profile struct {
	Messages uint32    // sampled
	Octets   uint32    // in all of them
	Packets  uint32    // that the lengths below sum up to
	Lengths  [7]uint32 // up to 64, 256, 1024, 4096, 16384, 32768, 66000 octets
}

// Broadcast is how multicast messages travel.
type Broadcast struct {
	Method string  `json:"method"`          // "BROADCAST", "REPLICAST" or "AUTOSELECT"; empty: unchanged
	Ratio  *uint32 `json:"ratio,omitempty"` // per cent of the cluster up to which AUTOSELECT replicates
}

// Monitors is the state of neighbour monitoring, one entry a bearer.
type Monitors struct {
	Threshold uint32    `json:"threshold"`
	Bearers   []Monitor `json:"bearers"`
}

// Monitor is one bearer's.
type Monitor struct {
	Bearer      string        `json:"bearer"`
	Generation  uint32        `json:"generation"`
	ClusterSize uint32        `json:"cluster_size"`
	Ring        bool          `json:"ring"` // overlapping ring; else full mesh
	Peers       []MonitorPeer `json:"peers"`
}

// MonitorPeer is one monitored node, the local node first.
type MonitorPeer struct {
	Address    tipc.NodeAddr   `json:"address"`
	Up         bool            `json:"up"`
	Direct     bool            `json:"direct"`
	Generation uint32          `json:"generation"`
	Applied    int             `json:"applied"` // that many Members are in the local list
	Members    []tipc.NodeAddr `json:"members,omitempty"`
	UpMap      uint64          `json:"up_map"`
}

// Name is one binding in the name table.
type Name struct {
	Range    tipc.ServiceRange `json:"range"`
	Scope    tipc.Scope        `json:"scope"`
	Socket   tipc.SocketAddr   `json:"socket"`
	Identity *tipc.NodeID      `json:"identity,omitempty"` // of the node; nil if unknown
	Key      uint32            `json:"key"`
}

// Socket is a socket of the local node.
type Socket struct {
	Port  uint32              `json:"port"`
	Type  tipc.SocketType     `json:"type"`
	Bound []tipc.ServiceRange `json:"bound,omitempty"`
	Peer  *tipc.SocketAddr    `json:"peer,omitempty"`
	Via   *tipc.ServiceAddr   `json:"via,omitempty"` // the service it dialed
}
