package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// Cluster is a World whose hosts run TIPC nodes with applications, and the oracle that watches them.
type Cluster struct {
	*World
	sc    Scenario
	load  *rand.Rand // of the applications
	sites []*site
	byNet map[uint32]*site // by node address

	flows  map[flowKey]*flow
	mflows map[flowKey]*mflow
	conns  map[uint64]*conn
	connID uint64
	cs     ClusterStats
	buf    []byte
	nodes  []uint32 // scratch

	extraLoss []float64 // by segment: of faults

	wrap func(*site, Node) Node // tests of the oracle: puts something wrong around a node
}

// ClusterStats counts what the applications and the oracle saw.
type ClusterStats struct {
	Messages   int // received on reliable-datagram sockets
	Multicasts int
	Returned   int // messages that came back
	Conns      int // connections that were established
	Octets     int // received on connections
	Broken     int // connections that were broken
	Congested  int // sends that had to wait
	LinksUp    int // transitions, both ends counted
	LinksDown  int
	Restarts   int
	Healed     time.Duration // how long convergence took after the last fault
}

// site is one host with its node and applications. Everything but the first group belongs to one life of the node.
type site struct {
	c    *Cluster
	h    *Host
	id   wire.NodeID
	addr uint32 // the address that follows from the identity

	life      uint32      // counts starts
	booted    mono.Time   // virtual time of the last start or stop
	stallEnd  mono.Time   // of the last stall
	carrier   []mono.Time // by segment: last change of the carrier
	carrierUp []bool      // by segment: whether it should be there

	st     *stack.Stack // nil: off
	rdm    *socket.Sock // direct and named messages
	mc     *socket.Sock // bound to the multicast service
	churn  *socket.Sock // binds and unbinds
	lst    *socket.Sock // accepts connections
	halves []*half      // ends of connections, oldest first
	ports  map[uint32]*half

	ready names.Ready
	sub   *names.Subscriber
	links [][]linkView // [segment][peer site]
	lost  []mono.Time  // by peer site: virtual time of the last loss of contact
	downs []linkID     // gone in this step
	bound []binding
}

// linkView is what a node told its applications about its link to a peer, and when (virtual time).
type linkView struct {
	up       bool
	changed  mono.Time
	lastDown mono.Time // 0: never
}

type linkID struct{ seg, peer int }

type binding struct {
	r     wire.ServiceRange
	scope wire.Scope
}

// Service types of the applications.
const (
	typeRDM   = 1000 // instance = site
	typeMcast = 1001 // instance = site
	typeConn  = 1002 // instance = site
	typeChurn = 1010 // and the following
)

func newCluster(sc Scenario) *Cluster {
	c := &Cluster{
		World: NewWorld(sc.Seed, sc.Nodes, sc.Segments), sc: sc, load: newRand(sc.Seed, 'l'),
		byNet: map[uint32]*site{}, flows: map[flowKey]*flow{}, mflows: map[flowKey]*mflow{}, conns: map[uint64]*conn{},
		buf: make([]byte, wire.MaxUserMsgSize), extraLoss: make([]float64, len(sc.Segments)),
	}
	c.MaxSteps = sc.MaxSteps
	skew := newRand(sc.Seed, 'c')
	for i := range sc.Nodes {
		s := &site{c: c, h: c.Host(i), carrier: make([]mono.Time, len(sc.Segments)), carrierUp: make([]bool, len(sc.Segments))}
		copy(s.id[:], fmt.Sprintf("sim%d", i))
		s.addr = addrOf(s.id)
		if sc.FixedAddr {
			s.addr = 0x01001000 + uint32(i) + 1
		}
		for k := range s.carrier {
			s.carrier[k] = -1 << 62
		}
		s.stallEnd = -1 << 62
		if sc.SkewPPM > 0 {
			s.h.SetClock(mono.Time(skew.Int64N(int64(1000*time.Hour))), skew.Int64N(2*sc.SkewPPM+1)-sc.SkewPPM)
		}
		c.sites = append(c.sites, s)
		if c.byNet[s.addr] != nil {
			panic("two identities with one address")
		}
		c.byNet[s.addr] = s
	}
	return c
}

// start boots the site's node with new random numbers.
func (s *site) start() {
	c := s.c
	s.life++
	s.booted = c.now
	s.links = make([][]linkView, len(c.segs))
	for k := range s.links {
		s.links[k] = make([]linkView, len(c.sites))
	}
	s.ports = map[uint32]*half{}
	s.lost = make([]mono.Time, len(c.sites))
	s.bound, s.downs, s.halves = nil, nil, nil
	r := newRand(c.sc.Seed, 's'<<48|uint64(s.h.Index)<<32|uint64(s.life))
	cfg := stack.Config{ID: s.id, Rand: r.Uint32}
	if c.sc.FixedAddr {
		cfg.Addr = s.addr
	}
	st, err := stack.New(s.h.Time(), cfg)
	if err != nil {
		c.Failf("site %d: %v", s.h.Index, err)
		return
	}
	s.st = st
	s.h.After = s.after
	var n Node = st
	if c.wrap != nil {
		n = c.wrap(s, n)
	}
	s.h.Start(n, func(now mono.Time) {
		if err := s.boot(now); err != nil {
			c.Failf("site %d: %v", s.h.Index, err)
		}
	})
}

func (s *site) boot(now mono.Time) (err error) {
	t := s.st.Sockets()
	s.ready = names.Ready{}
	s.sub = s.st.Names().NewSubscriber(&s.ready, 1<<16)
	err = s.sub.Subscribe(now, wire.Subscr{
		Range:   wire.ServiceRange{Type: wire.LinkStateType, Upper: 0xffffffff},
		Timeout: wire.WaitForever, Filter: wire.SubPorts,
	})
	if err != nil {
		return err
	}
	i := uint32(s.h.Index)
	for _, a := range []struct {
		sock **socket.Sock
		kind socket.Type
		typ  uint32
	}{
		{&s.rdm, socket.RDM, typeRDM},
		{&s.mc, socket.RDM, typeMcast},
		{&s.churn, socket.RDM, 0},
		{&s.lst, socket.Stream, typeConn},
	} {
		if *a.sock, err = t.Create(now, a.kind); err != nil {
			return err
		}
		if a.typ != 0 {
			if err = (*a.sock).Bind(now, wire.ServiceRange{Type: a.typ, Lower: i, Upper: i}, wire.ScopeCluster); err != nil {
				return err
			}
		}
	}
	if err = s.lst.Listen(0); err != nil {
		return err
	}
	for k, seg := range s.c.segs {
		kind := "udp"
		if seg.Media == wire.MediaEth {
			kind = "eth"
		}
		id, err := s.st.BearerEnable(now, stack.Bearer{
			Name: fmt.Sprintf("%s:s%d", kind, k), MTU: seg.MTU, Priority: s.c.sc.Priority[k], Tolerance: s.c.sc.Tolerance,
			MinWin: node.DefWindow, MaxWin: s.c.sc.Window, Addr: seg.addr(s.h.Index), Broadcast: seg.broadcastAddr(),
		})
		if err != nil {
			return err
		}
		if id != k {
			return fmt.Errorf("bearer of segment %d got number %d", k, id)
		}
	}
	return nil
}

// stop switches the site off, after a farewell to its peers if graceful.
func (s *site) stop(graceful bool) {
	if s.st == nil {
		return
	}
	if graceful {
		s.h.After = nil
		s.h.Do(func(now mono.Time) { s.st.Shutdown(now) })
	}
	s.h.Stop()
	s.h.After, s.st = nil, nil
	s.booted = s.c.now
	s.c.cs.Restarts++
	for _, p := range s.c.sites {
		if p != s {
			s.c.excuse(s, p)
		}
	}
	s.c.excuse(s, s)
}

// contact is whether the site's node has a link up to the peer.
func (s *site) contact(peer int) bool {
	for k := range s.links {
		if s.links[k][peer].up {
			return true
		}
	}
	return false
}

// after is what the applications do at the end of each step: see what happened to links, read all sockets.
func (s *site) after(now mono.Time) {
	for s.ready.Pop() != nil {
		for e, ok := s.sub.Next(); ok; e, ok = s.sub.Next() {
			s.linkEvent(now, e.Event)
		}
		if s.sub.Overflowed() {
			s.c.Failf("site %d: the subscription to links overflowed", s.h.Index)
		}
	}
	for sk := s.st.PopReady(now); sk != nil; sk = s.st.PopReady(now) {
		s.read(now, sk)
	}
	s.takeDowns(now)
}

// linkEvent notes a published or withdrawn {2, peer, peer}. Data of this step that was sent before a link went down is
// read before that is acted upon, because it was delivered before.
func (s *site) linkEvent(now mono.Time, e wire.Event) {
	p := s.c.byNet[e.Lower]
	seg := int(e.Port.Port & 0xffff)
	if p == nil || p == s || seg >= len(s.links) {
		s.c.Failf("site %d: event %+v of an unknown link", s.h.Index, e)
		return
	}
	peer := p.h.Index
	switch e.Kind {
	case wire.EventPublished:
		s.takeDowns(now)
		if s.links[seg][peer].up {
			s.c.Failf("site %d: link to %d on %c is up twice", s.h.Index, peer, 'A'+seg)
		}
		s.c.cs.LinksUp++
		v := &s.links[seg][peer]
		v.up, v.changed = true, s.c.now
		s.c.mark(s.h.Index, 1, uint64(seg)<<32|uint64(peer))
		s.c.Tracef("%2d == link %c to %d up", s.h.Index, 'A'+seg, peer)
	case wire.EventWithdrawn:
		if !s.links[seg][peer].up {
			s.c.Failf("site %d: link to %d on %c is down twice", s.h.Index, peer, 'A'+seg)
		}
		s.downs = append(s.downs, linkID{seg, peer})
	}
}

func (s *site) takeDowns(now mono.Time) {
	downs := s.downs
	s.downs = s.downs[:0]
	for _, d := range downs {
		v := &s.links[d.seg][d.peer]
		v.up = false
		s.c.cs.LinksDown++
		s.c.mark(s.h.Index, 2, uint64(d.seg)<<32|uint64(d.peer))
		s.c.Tracef("%2d == link %c to %d down", s.h.Index, 'A'+d.seg, d.peer)
		s.c.judgeDown(s, s.c.sites[d.peer], d.seg)
		v.changed, v.lastDown = s.c.now, s.c.now
		if !s.contact(d.peer) {
			s.lostContact(now, d.peer)
		}
	}
}

// lostContact: no link to the peer is left.
func (s *site) lostContact(now mono.Time, peer int) {
	p := s.c.sites[peer]
	s.c.Tracef("%2d == contact with %d lost", s.h.Index, peer)
	s.lost[peer] = s.c.now
	s.c.excuse(s, p)
	if n := s.st.Names().RemoteLen(p.addr); n != 0 {
		s.c.Failf("site %d keeps %d names of node %x, which is down", s.h.Index, n, p.addr)
	}
	s.expectBroken(now, peer)
}
