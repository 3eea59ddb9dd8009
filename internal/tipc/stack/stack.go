package stack

import (
	"errors"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/topsrv"
	"midplane/internal/tipc/wire"
)

// Config describes a node. Rand is mandatory; zero values elsewhere mean the defaults.
type Config struct {
	// ID is the 128-bit identity. Zero: it is taken from the address of the first bearer, as Linux does.
	ID wire.NodeID
	// Addr is the fixed address of a node in a legacy <Z.C.N> cluster. Zero: found by address trial, or, for a node
	// that never enables a bearer, none.
	Addr uint32
	// NetID is the cluster; 0: 4711.
	NetID uint32
	// Rand gives 32 random bits for signature, sessions, ports and round robin. Only here enters randomness.
	Rand func() uint32

	MaxNodes   int          // peers remembered, see node.Config
	MaxSockets int          // see socket.Config
	Names      names.Config // bounds of the name table; its Own and LegacyAddr are set here
	Distr      names.DistConfig
	Topsrv     topsrv.Config // bounds of the topology server
}

// ErrRand is returned by [New] when Config.Rand is missing.
var ErrRand = errors.New("tipc/stack: Config.Rand is mandatory")

// Stack is one TIPC node. See the package comment; use [New].
type Stack struct {
	out     *buf.Batch
	disc    *discover.Discovery
	nodes   *node.Table
	names   *names.Table
	distr   *names.Distributor
	sockets *socket.Table
	top     *topsrv.Server

	bearers  [node.MaxBearers]*bearerState
	linkPubs map[linkKey]*names.Publication // own {2, peer, peer} publications
	ownPub   *names.Publication             // own {0, own, own}

	duplicates []Duplicate
	learn      []Learned
	ready      []*socket.Sock // waiting for PopReady since Settle
	stopped    bool
}

type linkKey struct {
	peer   uint32
	bearer int
}

// Learned is a peer address that a bearer with a peer list should add to it.
type Learned struct {
	Bearer int
	Addr   wire.MediaAddr
}

// Duplicate tells that somebody at Media uses Addr, which is this node's or a known peer's.
type Duplicate struct {
	Bearer int
	Addr   uint32
	Media  wire.MediaAddr
}

// New makes a node without bearers. Its sockets reach each other at once; other nodes need BearerEnable.
func New(now mono.Time, cfg Config) (*Stack, error) {
	if cfg.Rand == nil {
		return nil, ErrRand
	}
	if cfg.NetID == 0 {
		cfg.NetID = wire.DefaultNetID
	}
	s := &Stack{out: &buf.Batch{}, linkPubs: map[linkKey]*names.Publication{}}
	random := cfg.Rand()
	out := output{s}

	cfg.Names.LegacyAddr = cfg.Addr != 0
	s.names = names.NewTable(cfg.Names)
	var err error
	s.nodes, err = node.New(node.Config{
		ID: cfg.ID, NetID: cfg.NetID, Random: random, MaxNodes: cfg.MaxNodes, Rand: cfg.Rand, Out: out, Up: upcalls{s},
	})
	if err != nil {
		return nil, err
	}
	s.distr = names.NewDistributor(s.names, s.nodes, cfg.Distr)
	s.sockets = socket.NewTable(sockNet{s}, socket.Config{Rand: cfg.Rand, MaxSockets: cfg.MaxSockets})
	s.disc = discover.New(discover.Config{
		ID: cfg.ID, Addr: cfg.Addr, Legacy: cfg.Addr != 0, NetID: cfg.NetID, Random: random, NetHash: cfg.Rand(), Out: out, Up: discUpcalls{s},
	})
	s.top = topsrv.New(s.names, s.sockets, cfg.Topsrv)
	if err := s.top.Start(now); err != nil {
		return nil, err
	}
	if cfg.Addr != 0 {
		s.finalize(now, cfg.Addr)
	}
	s.Settle(now)
	return s, nil
}

// output is the one place where datagrams leave the cores. It is not the Batch itself because TakeOutput swaps that.
type output struct{ s *Stack }

func (o output) Send(bearer int, dst wire.MediaAddr, pkt []byte, own *buf.Buf) {
	o.s.out.SendFrom(bearer, dst, pkt, own)
}

// finalize gives the node its address (net/tipc/net.c tipc_net_finalize).
func (s *Stack) finalize(now mono.Time, addr uint32) {
	if s.nodes.SetOwn(addr, s.disc.ID()) != nil {
		return
	}
	s.names.SetOwn(addr)
	s.sockets.SetOwn(addr)
	r := wire.ServiceRange{Type: wire.NodeStateType, Lower: addr, Upper: addr}
	s.ownPub, _ = s.names.Publish(now, r, wire.ScopeCluster, wire.SocketAddr{Node: addr}, addr)
}

// HandlePacket takes one received datagram. bearer is the number that BearerEnable gave. pkt is not kept.
func (s *Stack) HandlePacket(now mono.Time, bearer int, src wire.MediaAddr, pkt []byte) {
	s.nodes.Receive(now, bearer, src, pkt)
}

// HandleBuf is HandlePacket of the datagram in b, which it takes over: what is to be kept is not copied.
func (s *Stack) HandleBuf(now mono.Time, bearer int, src wire.MediaAddr, b *buf.Buf) {
	s.nodes.ReceiveBuf(now, bearer, src, b)
}

// Tick runs what is due at now.
func (s *Stack) Tick(now mono.Time) {
	s.disc.Tick(now)
	s.nodes.Tick(now)
	s.sockets.Tick(now)
	s.names.Tick(now)
}

// Deadline is when Tick is wanted next, or mono.Never.
func (s *Stack) Deadline() mono.Time {
	return s.disc.Deadline().Min(s.nodes.Deadline()).Min(s.sockets.Deadline()).Min(s.names.Deadline())
}

// TakeOutput returns the datagrams collected so far and goes on with empty, which the driver must have Reset. It returns
// nil, and leaves empty alone, when there are none.
func (s *Stack) TakeOutput(empty *buf.Batch) *buf.Batch {
	if s.out.Len() == 0 {
		return nil
	}
	full := s.out
	s.out = empty
	return full
}

// HasOutput tells whether TakeOutput would return datagrams.
func (s *Stack) HasOutput() bool { return s.out.Len() > 0 }

// OutputSize is how many octets TakeOutput would return.
func (s *Stack) OutputSize() int { return s.out.Size() }

// PopReady lets the node's own services act on what happened, and returns a socket of the driver whose readiness may
// have changed, nil when there is none left. The driver calls it until then after each batch of packets or socket
// calls, before TakeOutput.
func (s *Stack) PopReady(now mono.Time) *socket.Sock {
	if len(s.ready) == 0 {
		return s.nextReady(now)
	}
	k := s.ready[0]
	s.ready = s.ready[1:]
	return k
}

// Settle is the part of PopReady that concerns the node's own services; what is ready stays for PopReady.
func (s *Stack) Settle(now mono.Time) {
	for k := s.nextReady(now); k != nil; k = s.nextReady(now) {
		s.ready = append(s.ready, k)
	}
}

func (s *Stack) nextReady(now mono.Time) *socket.Sock {
	for {
		k := s.sockets.PopReady()
		switch {
		case k == nil && !s.top.Poll(now):
			return nil
		case k != nil && !s.top.Wake(k):
			return k
		}
	}
}

// The cores, for the driver's and the administrator's calls.

// Sockets are the node's sockets.
func (s *Stack) Sockets() *socket.Table { return s.sockets }

// Nodes are the peers and links. Bearers are to be changed by the Stack's methods only.
func (s *Stack) Nodes() *node.Table { return s.nodes }

// Names is the name table.
func (s *Stack) Names() *names.Table { return s.names }

// Distributor is what exchanges names with the peers.
func (s *Stack) Distributor() *names.Distributor { return s.distr }

// Discovery is what finds the peers.
func (s *Stack) Discovery() *discover.Discovery { return s.disc }

// Topsrv is the topology server.
func (s *Stack) Topsrv() *topsrv.Server { return s.top }

// Addr is the node's address, 0 while it has none; ID its identity.
func (s *Stack) Addr() uint32    { return s.nodes.Own() }
func (s *Stack) ID() wire.NodeID { return s.disc.ID() }

// NetID is the cluster's number.
func (s *Stack) NetID() uint32 { return s.nodes.NetID() }
