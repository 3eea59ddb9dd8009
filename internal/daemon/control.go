package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"midplane/internal/api"
	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/engine"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
	"midplane/tipc"
)

// control is the api.Control of a node in this process.
type control struct {
	node *tipc.Node
	e    *engine.Engine

	mu    sync.Mutex
	media map[string]api.Properties // defaults of bearers enabled from now on
}

var _ api.Control = (*control)(nil)

// Ranges of settings (include/uapi/linux/tipc_config.h, net/tipc/netlink.c tipc_nl_parse_link_prop).
const (
	maxPriority  = 31
	minTolerance = 50
	maxTolerance = 30000
	minWindow    = 50
	maxWindow    = 8191
	minUDPMTU    = 128
	maxUDPMTU    = 65000
)

func newControl(n *tipc.Node) *control {
	return &control{node: n, e: n.Internals(), media: map[string]api.Properties{
		"eth": {Priority: 10, Tolerance: 1500, Window: maxWindow},
		"udp": {Priority: 10, Tolerance: 1500, Window: minWindow, MTU: bearer.DefaultUDPMTU4},
	}}
}

func failf(code api.Code, format string, args ...any) error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// refused says what kind of refusal an error of the core is.
func refused(what string, err error) error {
	if err == nil {
		return nil
	}
	code := api.Internal
	var field *tipc.FieldError
	switch {
	case errors.As(err, &field), errors.Is(err, node.ErrRange), errors.Is(err, bearer.ErrConfig):
		code = api.Invalid
	case errors.Is(err, node.ErrNoLink), errors.Is(err, node.ErrNoNode), errors.Is(err, node.ErrBearer), errors.Is(err, stack.ErrNoBearer):
		code = api.NotFound
	case errors.Is(err, stack.ErrBearerExists), errors.Is(err, node.ErrInUse):
		code = api.Exists
	case errors.Is(err, node.ErrBusy):
		code = api.Busy
	case errors.Is(err, stack.ErrTooMany), errors.Is(err, node.ErrOwnNode), errors.Is(err, bearer.ErrMulticastBearer):
		code = api.NotAllowed
	case errors.Is(err, node.ErrNoProto), errors.Is(err, errors.ErrUnsupported):
		code = api.Unsupported
	}
	// The prefixes of the cores are no news to a user, and drivers name the bearer themselves.
	text := strings.NewReplacer("tipc/node: ", "", "tipc/stack: ", "").Replace(err.Error())
	return failf(code, "%s: %s", what, strings.TrimPrefix(text, what+": "))
}

// do runs f in the core.
func (c *control) do(f func(now mono.Time, s *stack.Stack) error) (err error) {
	c.e.Do(func(now mono.Time, s *stack.Stack) { err = f(now, s) })
	return err
}

// read runs f in the core, for what it collects.
func (c *control) read(f func(s *stack.Stack)) {
	c.e.Do(func(_ mono.Time, s *stack.Stack) { f(s) })
}

func (c *control) Node(context.Context) (n api.Node, err error) {
	c.read(func(s *stack.Stack) {
		n = api.Node{Identity: tipc.NodeID(s.ID()), Address: tipc.NodeAddr(s.Addr()), NetID: s.NetID(), Duplicates: s.Discovery().Stats().Duplicates}
	})
	return n, nil
}

// SetNode works, as in Linux, until the first bearer is enabled.
func (c *control) SetNode(_ context.Context, set api.NodeSet) error {
	var what string
	switch {
	case set.Identity != nil:
		what = "identity"
	case set.Address != nil:
		what = "address"
	case set.NetID != nil:
		what = "netid"
	default:
		return failf(api.Invalid, "want an identity, an address or a network id")
	}
	err := c.e.Reconfigure(func(cfg *engine.Config) {
		if set.Address != nil { // the identity follows from it
			cfg.Addr, cfg.ID = uint32(*set.Address), wire.NodeID{}
		}
		if set.Identity != nil {
			cfg.ID = wire.NodeID(*set.Identity)
		}
		if set.NetID != nil {
			cfg.NetID = *set.NetID
		}
	})
	if errors.Is(err, engine.ErrInUse) {
		return failf(api.NotAllowed, "%s: %v: set it before that, or with midplane node --%s", what, err, what)
	}
	return refused(what, err)
}

func (c *control) SetKey(context.Context, api.KeySet) error {
	return failf(api.Unsupported, "encryption: this node has none yet")
}

func (c *control) FlushKeys(context.Context) error {
	return failf(api.Unsupported, "encryption: this node has none yet")
}

func (c *control) Peers(context.Context) (list []api.Peer, err error) {
	c.read(func(s *stack.Stack) {
		for p := range s.Nodes().Nodes() {
			list = append(list, api.Peer{Identity: tipc.NodeID(p.ID), Address: tipc.NodeAddr(p.Addr), Up: p.Up})
		}
	})
	return list, nil
}

func (c *control) RemovePeer(_ context.Context, r api.PeerRemove) error {
	return c.do(func(_ mono.Time, s *stack.Stack) error {
		switch {
		case r.Address != nil:
			return refused("peer "+r.Address.String(), s.Nodes().PeerRemove(uint32(*r.Address)))
		case r.Identity != nil:
			for p := range s.Nodes().Nodes() {
				if tipc.NodeID(p.ID) == *r.Identity {
					return refused("peer "+r.Identity.String(), s.Nodes().PeerRemove(p.Addr))
				}
			}
			return failf(api.NotFound, "peer %v: no such node is known", r.Identity)
		}
		return failf(api.Invalid, "peer: want its address or identity")
	})
}

func (c *control) Bearers(context.Context) (list []api.Bearer, err error) {
	c.read(func(s *stack.Stack) {
		for id := range node.MaxBearers {
			b, _, ok := s.Bearer(id)
			if !ok {
				continue
			}
			list = append(list, api.Bearer{Name: b.Name, Domain: tipc.NodeAddr(b.Domain), Properties: api.Properties{
				Priority: uint32(b.Priority), Tolerance: uint32(b.Tolerance), Window: uint32(b.MaxWin), MTU: uint32(b.MTU)}})
		}
	})
	for i := range list {
		d, ok := c.e.Bearer(list[i].Name)
		u, isUDP := d.(*bearer.UDP)
		if !ok || !isUDP {
			continue
		}
		local, group := u.Addr().IP, u.BroadcastAddr().IP
		info := &api.UDP{LocalIP: local.Addr().String(), LocalPort: local.Port()}
		if group.IsValid() {
			info.RemoteIP, info.RemotePort = group.Addr().String(), group.Port()
		}
		for i, r := range u.Peers() {
			if i == 0 && !group.IsValid() {
				info.RemoteIP, info.RemotePort = r.Addr().String(), r.Port()
			}
			info.Remotes = append(info.Remotes, r.Addr().String())
		}
		slices.Reverse(info.Remotes) // Linux has the last first
		list[i].UDP = info
	}
	return list, nil
}

func (c *control) EnableBearer(_ context.Context, b api.BearerEnable) error {
	c.mu.Lock()
	def, ok := c.media[b.Media]
	c.mu.Unlock()
	if !ok {
		return failf(api.Unsupported, "media %q: this node has udp and eth", b.Media)
	}
	f := tipc.BearerFields{Media: b.Media, Name: b.Name, Device: b.Device, LocalIP: b.LocalIP, LocalPort: int(b.LocalPort),
		Tolerance: int(def.Tolerance), Window: int(def.Window)}
	if b.RemoteIP != "" {
		f.RemoteIP = []string{b.RemoteIP}
	}
	f.RemotePort = int(b.RemotePort)
	if b.Media == "udp" && b.LocalIP != "" {
		// A medium's MTU is that of IPv4; as in Linux, IPv6 has the least that it guarantees.
		if ip, err := netip.ParseAddr(b.LocalIP); err == nil && ip.Unmap().Is4() {
			f.MTU = int(def.MTU)
		}
	}
	prio := int(def.Priority)
	if b.Priority != nil {
		prio = int(*b.Priority)
	}
	f.Priority = &prio
	if b.Domain != 0 {
		f.Domain = b.Domain.String()
	}
	spec, err := f.Bearer()
	if err != nil {
		return refused("bearer", err)
	}
	if _, ok := c.e.Bearer(spec.BearerName()); ok {
		return failf(api.Exists, "bearer %s: it is enabled already", spec.BearerName())
	}
	return refused("bearer "+spec.BearerName(), unwrapOp(c.node.EnableBearer(spec)))
}

// unwrapOp drops what an OpError says besides its cause.
func unwrapOp(err error) error {
	var op *tipc.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (c *control) DisableBearer(_ context.Context, name string) error {
	err := c.e.DisableBearer(name)
	if errors.Is(err, stack.ErrNoBearer) {
		return failf(api.NotFound, "no bearer %s", name)
	}
	return refused("bearer "+name, err)
}

func (c *control) AddRemote(_ context.Context, r api.BearerRemote) error {
	ip, err := netip.ParseAddr(r.RemoteIP)
	if err != nil {
		return failf(api.Invalid, "remoteip %q: want an IPv4 or IPv6 address", r.RemoteIP)
	}
	port := r.RemotePort
	if port == 0 {
		port = tipc.DefaultUDPPort
	}
	d, ok := c.e.Bearer(r.Name)
	if !ok {
		return failf(api.NotFound, "no bearer %s", r.Name)
	}
	u, ok := d.(*bearer.UDP)
	if !ok {
		return failf(api.Invalid, "bearer %s: only UDP bearers have remotes", r.Name)
	}
	return refused("bearer "+r.Name, u.AddPeer(netip.AddrPortFrom(ip, port)))
}

func (c *control) SetBearer(_ context.Context, set api.PropertySet) error {
	return c.do(func(now mono.Time, s *stack.Stack) error {
		id, ok := s.BearerByName(set.Name)
		if !ok {
			return failf(api.NotFound, "no bearer %s", set.Name)
		}
		if set.Property == api.MTU && !strings.HasPrefix(set.Name, "udp:") {
			return failf(api.Invalid, "bearer %s: mtu is a setting of udp bearers only", set.Name)
		}
		if err := checkProperty(set); err != nil {
			return err
		}
		n, v := s.Nodes(), int(set.Value)
		var err error
		switch set.Property {
		case api.Priority:
			err = n.BearerSetPriority(id, v)
		case api.Tolerance:
			err = n.BearerSetTolerance(now, id, v)
		case api.Window:
			err = n.BearerSetWindow(id, v)
		case api.MTU:
			err = n.BearerSetMTU(id, v)
		}
		return refused("bearer "+set.Name, err)
	})
}

// checkProperty says what range a value is out of.
func checkProperty(set api.PropertySet) error {
	type bounds struct{ low, high uint32 }
	b, ok := map[api.Property]bounds{
		api.Priority: {0, maxPriority}, api.Tolerance: {minTolerance, maxTolerance},
		api.Window: {minWindow, maxWindow}, api.MTU: {minUDPMTU, maxUDPMTU},
	}[set.Property]
	if !ok {
		return failf(api.Invalid, "property %q: want priority, tolerance, window or mtu", set.Property)
	}
	if set.Value < b.low || set.Value > b.high {
		return failf(api.Invalid, "%s %d: want %d to %d", set.Property, set.Value, b.low, b.high)
	}
	return nil
}

func (c *control) Media(context.Context) ([]api.Medium, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return []api.Medium{{Name: "eth", Properties: c.media["eth"]}, {Name: "udp", Properties: c.media["udp"]}}, nil
}

func (c *control) SetMedium(_ context.Context, set api.PropertySet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.media[set.Name]
	if !ok {
		return failf(api.NotFound, "no medium %q: this node has udp and eth", set.Name)
	}
	if err := checkProperty(set); err != nil {
		return err
	}
	switch set.Property {
	case api.Priority:
		p.Priority = set.Value
	case api.Tolerance:
		p.Tolerance = set.Value
	case api.Window:
		p.Window = set.Value
	case api.MTU:
		if set.Name != "udp" {
			return failf(api.Invalid, "medium %s: mtu is a setting of udp only", set.Name)
		}
		p.MTU = set.Value
	}
	c.media[set.Name] = p
	return nil
}

func (c *control) Links(_ context.Context, withBroadcastPeers bool) (list []api.Link, err error) {
	c.read(func(s *stack.Stack) {
		for l := range s.Nodes().Links(withBroadcastPeers) {
			list = append(list, api.Link{Name: l.Name, Up: l.Up, Active: l.Active, Broadcast: l.Broadcast,
				Properties: api.Properties{Priority: uint32(l.Priority), Tolerance: uint32(l.Tolerance), Window: uint32(l.Window), MTU: uint32(l.MTU)},
				Stats:      linkStats(&l)})
		}
	})
	return list, nil
}

// linkStats translates a link's counters to those of the tipc tool, which are 32 bits wide.
func linkStats(l *node.LinkInfo) api.LinkStats {
	s := &l.Stats
	p := api.Profile{Messages: uint32(s.MsgLengthCounts), Octets: uint32(s.MsgLengthsTotal), Packets: uint32(s.MsgLengthCounts)}
	for i, n := range s.MsgLengthProfile {
		p.Lengths[i] = uint32(n)
	}
	return api.LinkStats{
		RxPackets: uint32(s.RecvPkts), RxFragments: uint32(s.RecvFragments), RxFragmented: uint32(s.RecvFragmented),
		RxBundles: uint32(s.RecvBundles), RxBundled: uint32(s.RecvBundled),
		TxPackets: uint32(s.SentPkts), TxFragments: uint32(s.SentFragments), TxFragmented: uint32(s.SentFragmented),
		TxBundles: uint32(s.SentBundles), TxBundled: uint32(s.SentBundled), Profile: p,
		RxStates: uint32(s.RecvStates), RxProbes: uint32(s.RecvProbes), RxNaks: uint32(s.RecvNacks),
		RxDeferred: uint32(s.DeferredRecv), Duplicates: uint32(s.Duplicates),
		TxStates: uint32(s.SentStates), TxProbes: uint32(s.SentProbes), TxNaks: uint32(s.SentNacks), TxAcks: uint32(s.SentAcks),
		Retransmitted: uint32(s.Retransmitted), Congestions: uint32(s.LinkCongs), MaxQueue: uint32(s.MaxQueueSz), AvgQueue: uint32(s.AvgQueueSz()),
	}
}

func (c *control) SetLink(_ context.Context, set api.PropertySet) error {
	return c.do(func(now mono.Time, s *stack.Stack) error {
		n, v := s.Nodes(), int(set.Value)
		if set.Name == node.BcastLinkName {
			if set.Property != api.Window {
				return failf(api.Invalid, "%s has no %s", set.Name, set.Property)
			}
			return refused(set.Name, n.SetBcastWindow(v))
		}
		if _, err := n.Link(set.Name); err != nil {
			return failf(api.NotFound, "no link %s", set.Name)
		}
		if err := checkProperty(set); err != nil {
			return err
		}
		var err error
		switch set.Property {
		case api.Priority:
			err = n.SetLinkPriority(now, set.Name, v)
		case api.Tolerance:
			err = n.SetLinkTolerance(now, set.Name, v)
		case api.Window:
			err = n.SetLinkWindow(set.Name, v)
		default:
			return failf(api.Invalid, "a link's mtu is its bearer's")
		}
		return refused("link "+set.Name, err)
	})
}

func (c *control) ResetLink(_ context.Context, name string) error {
	return c.do(func(_ mono.Time, s *stack.Stack) error {
		err := s.Nodes().ResetLinkStats(name)
		if errors.Is(err, node.ErrNoLink) {
			return failf(api.NotFound, "no link %s", name)
		}
		return refused("link "+name, err)
	})
}

var modes = map[string]node.Mode{"BROADCAST": node.ModeBroadcast, "REPLICAST": node.ModeReplicast, "AUTOSELECT": node.ModeSelect}

func (c *control) Broadcast(context.Context) (b api.Broadcast, err error) {
	c.read(func(s *stack.Stack) {
		ratio := uint32(s.Nodes().BcastRatio())
		b.Ratio = &ratio
		for name, m := range modes {
			if m == s.Nodes().BcastMode() {
				b.Method = name
			}
		}
	})
	return b, nil
}

func (c *control) SetBroadcast(_ context.Context, b api.Broadcast) error {
	return c.do(func(_ mono.Time, s *stack.Stack) error {
		if b.Method != "" {
			m, ok := modes[b.Method]
			if !ok {
				return failf(api.Invalid, "method %q: want BROADCAST, REPLICAST or AUTOSELECT", b.Method)
			}
			if err := s.Nodes().SetBcastMode(m); err != nil {
				return refused("broadcast", err)
			}
		}
		if b.Ratio != nil {
			if *b.Ratio > 100 {
				return failf(api.Invalid, "ratio %d: want 0 to 100 per cent", *b.Ratio)
			}
			return refused("broadcast", s.Nodes().SetBcastRatio(int(*b.Ratio)))
		}
		return nil
	})
}

func (c *control) Monitors(context.Context) (m api.Monitors, err error) {
	c.read(func(s *stack.Stack) {
		m.Threshold = uint32(s.Nodes().MonitorThreshold())
		for id := range node.MaxBearers {
			b, _, ok := s.Bearer(id)
			mon := s.Nodes().Monitor(id)
			if !ok || mon == nil {
				continue
			}
			size, gen, ring := mon.Info()
			one := api.Monitor{Bearer: b.Name, Generation: uint32(gen), ClusterSize: uint32(size), Ring: ring}
			for p := range mon.Peers() {
				peer := api.MonitorPeer{Address: tipc.NodeAddr(p.Addr), Up: p.Up, Direct: p.Local || p.Head, Generation: uint32(p.Gen), Applied: p.Applied, UpMap: p.UpMap}
				for _, a := range p.Members {
					peer.Members = append(peer.Members, tipc.NodeAddr(a))
				}
				one.Peers = append(one.Peers, peer)
			}
			m.Bearers = append(m.Bearers, one)
		}
	})
	return m, nil
}

func (c *control) SetMonitor(_ context.Context, threshold uint32) error {
	return c.do(func(_ mono.Time, s *stack.Stack) error {
		if threshold > 1<<20 {
			return failf(api.Invalid, "threshold %d: want up to %d nodes", threshold, 1<<20)
		}
		return refused("threshold", s.Nodes().SetMonitorThreshold(int(threshold)))
	})
}

func (c *control) Names(context.Context) (list []api.Name, err error) {
	c.read(func(s *stack.Stack) {
		ids := map[uint32]*tipc.NodeID{}
		own := tipc.NodeID(s.ID())
		ids[0], ids[s.Addr()] = &own, &own
		for p := range s.Nodes().Nodes() {
			id := tipc.NodeID(p.ID)
			ids[p.Addr] = &id
		}
		for p := range s.Names().Publications() {
			name := api.Name{Range: tipc.ServiceRange(p.Range), Scope: tipc.Scope(p.Scope),
				Socket: tipc.SocketAddr{Port: p.Addr.Port, Node: tipc.NodeAddr(p.Addr.Node)}, Identity: ids[p.Addr.Node], Key: p.Key}
			// The tool shows node and link states without a port.
			list = append(list, name)
		}
	})
	return list, nil
}

func (c *control) Sockets(context.Context) (list []api.Socket, err error) {
	c.read(func(s *stack.Stack) {
		for k := range s.Sockets().Sockets() {
			i := k.Info()
			one := api.Socket{Port: i.Port, Type: tipc.SocketType(i.Type)}
			for _, p := range k.Publications() {
				one.Bound = append(one.Bound, tipc.ServiceRange(p.Range))
			}
			if i.Connected {
				one.Peer = &tipc.SocketAddr{Port: i.Peer.Port, Node: tipc.NodeAddr(i.Peer.Node)}
				if i.ConnNamed {
					one.Via = &tipc.ServiceAddr{Type: i.ConnType, Instance: i.ConnInst}
				}
			}
			list = append(list, one)
		}
	})
	return list, nil
}
