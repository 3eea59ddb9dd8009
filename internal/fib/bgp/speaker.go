package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"midplane/fib"
)

// Speaker speaks BGP while Run runs. Its other methods are safe for concurrent use.
type Speaker struct {
	conf  Config
	table *fib.Table
	wake  chan struct{} // of 1: dirty has something

	mu       sync.Mutex
	core     *core                     // guarded by mu
	dirty    map[netip.Prefix]struct{} // guarded by mu: prefixes that BGP changed; one entry a prefix of the RIB
	busy     bool                      // guarded by mu: the dirty ones are being looked at
	peers    map[netip.Addr]PeerStatus // guarded by mu
	awaited  map[endOfRIB]bool         // guarded by mu: with Adopt, what peers have yet to tell
	adopting bool                      // guarded by mu
}

type endOfRIB struct {
	peer   netip.Addr
	family bgp.Family
}

// starting guards GoBGP's choice of paths, which is one for all servers of a process: all are started alike.
var starting sync.Mutex

// New checks the configuration. Errors: *fib.FieldError, and those of feed for what is to be adopted.
func New(c Config) (*Speaker, error) {
	c.Peers, c.Listen = slices.Clone(c.Peers), slices.Clone(c.Listen)
	if err := c.validate(); err != nil {
		return nil, err
	}
	t, _ := c.Set.Table(c.FIB)
	s := &Speaker{
		conf: c, table: t, wake: make(chan struct{}, 1), core: newCore(c.Set, t, c.Open, c.ViaDefault),
		dirty: map[netip.Prefix]struct{}{}, peers: map[netip.Addr]PeerStatus{}, awaited: map[endOfRIB]bool{},
	}
	for _, p := range c.Peers {
		s.peers[p.Address] = PeerStatus{Address: p.Address, ASN: p.ASN, State: stateName(bgp.BGP_FSM_IDLE), Since: time.Now()}
	}
	if c.Adopt {
		s.core.sink.Mark()
		if err := s.core.sink.Adopt(uint32(c.FIB)); err != nil {
			return nil, err
		}
		s.adopting = true
		for _, p := range c.Peers {
			for _, f := range p.families() {
				s.awaited[endOfRIB{p.Address, f}] = true
			}
		}
	}
	return s, nil
}

func (p *Peer) families() (l []bgp.Family) {
	if p.IPv4 {
		l = append(l, bgp.RF_IPv4_UC)
	}
	if p.IPv6 {
		l = append(l, bgp.RF_IPv6_UC)
	}
	return l
}

// Status returns what was done so far.
func (s *Speaker) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Counters: s.core.counters(), Feed: s.core.sink.Counters(), Idle: !s.busy && len(s.dirty) == 0}
	for _, p := range s.conf.Peers {
		st.Peers = append(st.Peers, s.peers[p.Address])
	}
	return st
}

// Run speaks BGP until ctx ends, and returns its cause then; other errors are those of starting, such as a port that is
// taken. It is to be called once.
func (s *Speaker) Run(ctx context.Context) error {
	log := s.conf.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	level := &slog.LevelVar{}
	srv := server.NewBgpServer(server.LoggerOption(log, level))
	go srv.Serve()
	// The watch ends before the server does, and the routes go after both.
	if !s.conf.Keep {
		defer s.Flush()
	}
	starting.Lock()
	err := srv.StartBgp(ctx, &api.StartBgpRequest{Global: s.global()})
	starting.Unlock()
	defer func() {
		_ = srv.StopBgp(context.WithoutCancel(ctx), &api.StopBgpRequest{AllowGracefulRestart: s.conf.Keep && s.conf.Restart > 0})
	}()
	if err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	if err := s.begin(ctx, srv); err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	return s.loop(ctx, srv)
}

// Flush removes all that the peers told from the FIB. Run must not run.
func (s *Speaker) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.sink.Flush()
}

func (s *Speaker) global() *api.Global {
	g := &api.Global{Asn: s.conf.ASN, RouterId: s.conf.RouterID.String(), ListenPort: int32(s.conf.Port), BindToDevice: s.conf.Device, UseMultiplePaths: true}
	for _, a := range s.conf.Listen {
		g.ListenAddresses = append(g.ListenAddresses, a.String())
	}
	return g
}

// begin says what is not to be advertised, watches, and adds the peers.
func (s *Speaker) begin(ctx context.Context, srv *server.BgpServer) error {
	if !s.conf.Advertise {
		if err := srv.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
			Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		}}); err != nil {
			return err
		}
	}
	if err := srv.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnBestPath:   func(l []*apiutil.Path, _ time.Time) { s.changed(l) },
		OnPeerUpdate: s.peerChanged,
		OnPathEor:    func(p *apiutil.Path, _ time.Time) { s.told(endOfRIB{p.PeerAddress, p.Family}) },
	}, server.WatchBestPath(true), server.WatchPeer(), server.WatchEor(true)); err != nil {
		return err
	}
	for i := range s.conf.Peers {
		if err := srv.AddPeer(ctx, &api.AddPeerRequest{Peer: s.peer(&s.conf.Peers[i])}); err != nil {
			return fmt.Errorf("peer %v: %w", s.conf.Peers[i].Address, err)
		}
	}
	return nil
}

func (s *Speaker) peer(p *Peer) *api.Peer {
	seconds := func(d time.Duration) uint64 { return uint64(d / time.Second) }
	n := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: p.Address.String(), PeerAsn: p.ASN, AuthPassword: p.Password},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: seconds(p.Hold), KeepaliveInterval: max(1, seconds(p.Hold)/3), ConnectRetry: seconds(p.Retry), IdleHoldTimeAfterReset: 1,
		}},
		Transport:       &api.Transport{PassiveMode: p.Passive, RemotePort: uint32(p.Port), BindInterface: p.Device},
		GracefulRestart: &api.GracefulRestart{Enabled: s.conf.Restart > 0, RestartTime: uint32(s.conf.Restart / time.Second)},
	}
	if p.Local.IsValid() {
		n.Transport.LocalAddress = p.Local.String()
	}
	if p.TTL > 0 {
		n.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.TTL)}
	}
	for _, f := range p.families() {
		af := &api.Family{Afi: api.Family_Afi(f.Afi()), Safi: api.Family_Safi(f.Safi())}
		n.AfiSafis = append(n.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: af, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: s.conf.Restart > 0}},
			AddPaths:          &api.AddPaths{Config: &api.AddPathsConfig{Receive: p.AddPath}},
		})
	}
	return n
}

// changed notes which prefixes have changed. What became of them is asked later, so that many changes of one prefix
// are one, and what waits is bounded by the RIB.
func (s *Speaker) changed(l []*apiutil.Path) {
	s.mu.Lock()
	for _, p := range l {
		if prefix, ok := prefixOf(p.Nlri); ok {
			s.dirty[prefix] = struct{}{}
		} else {
			s.core.n.Invalid++
		}
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Speaker) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func prefixOf(n bgp.NLRI) (netip.Prefix, bool) {
	p, ok := n.(*bgp.IPAddrPrefix)
	if !ok || !p.Prefix.IsValid() || p.Prefix.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Prefix.Masked(), true
}

func (s *Speaker) peerChanged(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
	if e.Type == apiutil.PEER_EVENT_END_OF_INIT {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[e.Peer.State.NeighborAddress]
	if !ok {
		return
	}
	state := stateName(e.Peer.State.SessionState)
	if p.State == stateName(bgp.BGP_FSM_ESTABLISHED) && state != p.State {
		p.Reason = e.Peer.State.DisconnectMessage
	}
	p.State, p.Since = state, at
	s.peers[p.Address] = p
}

func stateName(f bgp.FSMState) string { return strings.TrimPrefix(f.String(), "BGP_FSM_") }

// told notes that a peer has told all it has of a family.
func (s *Speaker) told(e endOfRIB) {
	s.mu.Lock()
	delete(s.awaited, e)
	s.mu.Unlock()
	s.signal()
}

// loop brings what changed into the FIB.
func (s *Speaker) loop(ctx context.Context, srv *server.BgpServer) error {
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	deferral := time.NewTimer(s.conf.Deferral)
	defer deferral.Stop()
	limits := time.NewTimer(limitsEvery)
	defer limits.Stop()
	gather := time.NewTimer(0)
	defer gather.Stop()
	late := false
	generation := s.table.Generation()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
			// What changes meanwhile is asked for with it: asking for one prefix costs nearly as much as for many.
			gather.Reset(gatherFor)
		case <-gather.C:
			if err := s.drain(srv); err != nil {
				return fmt.Errorf("bgp: %w", err)
			}
		case <-deferral.C:
			late = true
		case <-limits.C:
			start := time.Now()
			if err := s.enforce(ctx, srv); err != nil {
				return fmt.Errorf("bgp: %w", err)
			}
			limits.Reset(max(limitsEvery, limitsShare*time.Since(start)))
		case <-tick.C:
			// Somebody changed the FIB, perhaps we. Next hops that are where they were change nothing.
			if g := s.table.Generation(); g != generation {
				generation = g
				s.mu.Lock()
				s.core.recheck()
				s.mu.Unlock()
			}
		}
		s.mu.Lock()
		if s.adopting && (late || (len(s.awaited) == 0 && len(s.dirty) == 0)) {
			s.adopting = false
			s.core.sink.Sweep()
		}
		s.mu.Unlock()
	}
}

// enforce ends the sessions of peers that have told more prefixes than they may. GoBGP would do so itself, but counts
// all with each message, which takes it minutes for a full table.
func (s *Speaker) enforce(ctx context.Context, srv *server.BgpServer) error {
	over := map[netip.Addr]string{}
	if err := srv.ListPeer(ctx, &api.ListPeerRequest{}, func(n *api.Peer) {
		a, err := netip.ParseAddr(n.GetState().GetNeighborAddress())
		i := slices.IndexFunc(s.conf.Peers, func(p Peer) bool { return p.Address == a })
		if err != nil || i < 0 || n.GetState().GetSessionState() != api.PeerState_SESSION_STATE_ESTABLISHED {
			return
		}
		for _, f := range n.AfiSafis {
			if got := f.GetState().GetReceived(); got > uint64(s.conf.Peers[i].MaxPrefix) {
				over[a] = fmt.Sprintf("%d prefixes of one family: want at most %d", got, s.conf.Peers[i].MaxPrefix)
			}
		}
	}); err != nil {
		return err
	}
	for a, why := range over {
		if err := srv.DisablePeer(ctx, &api.DisablePeerRequest{Address: a.String(), Communication: "prefix limit"}); err != nil {
			return err
		}
		s.mu.Lock()
		p := s.peers[a]
		p.Over = why
		s.peers[a] = p
		s.core.n.Over++
		s.mu.Unlock()
	}
	return nil
}

// drain asks for the paths of the prefixes that changed, and applies them.
func (s *Speaker) drain(srv *server.BgpServer) error {
	for {
		s.mu.Lock()
		batch := make(map[bgp.Family][]netip.Prefix, 2)
		n := 0
		for p := range s.dirty {
			if n++; n > prefixesAtOnce {
				break
			}
			delete(s.dirty, p)
			f := bgp.RF_IPv4_UC
			if p.Addr().Is6() {
				f = bgp.RF_IPv6_UC
			}
			batch[f] = append(batch[f], p)
		}
		s.busy = n > 0
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		for f, l := range batch {
			if err := s.ask(srv, f, l); err != nil {
				return err
			}
		}
	}
}

// ask takes over the best paths of some prefixes.
func (s *Speaker) ask(srv *server.BgpServer, f bgp.Family, l []netip.Prefix) error {
	r := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f}
	best := make(map[netip.Prefix][]netip.Addr, len(l))
	for _, p := range l {
		best[p] = nil
		r.Prefixes = append(r.Prefixes, &apiutil.LookupPrefix{Prefix: p.String(), LookupOption: apiutil.LOOKUP_EXACT})
	}
	invalid := 0
	if err := srv.ListPath(r, func(n bgp.NLRI, paths []*apiutil.Path) {
		p, ok := prefixOf(n)
		if !ok {
			return
		}
		for _, path := range paths {
			if !path.Best || path.Withdrawal || path.IsNexthopInvalid || len(best[p]) == s.conf.MaxPaths {
				continue
			}
			h := hopOf(path)
			if !h.IsValid() {
				invalid++
				continue
			}
			best[p] = append(best[p], h)
		}
	}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.n.Invalid += uint64(invalid)
	for p, hops := range best {
		slices.SortFunc(hops, netip.Addr.Compare)
		s.core.update(p, hops)
	}
	s.core.sink.Commit()
	return nil
}

// hopOf returns a path's next hop, the zero Addr when packets cannot be sent there.
func hopOf(p *apiutil.Path) (h netip.Addr) {
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			h = a.Value
		case *bgp.PathAttributeMpReachNLRI:
			h = a.Nexthop
			if h.IsUnspecified() {
				h = a.LinkLocalNexthop
			}
		}
	}
	h = h.Unmap().WithZone("")
	if !h.IsValid() || h.IsUnspecified() || h.IsMulticast() {
		return netip.Addr{}
	}
	return h
}
