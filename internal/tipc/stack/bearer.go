package stack

import (
	"errors"
	"fmt"
	"slices"

	"midplane/internal/mono"
	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/wire"
)

// Errors of bearer management.
var (
	ErrNoBearer     = errors.New("tipc/stack: no such bearer")
	ErrBearerExists = errors.New("tipc/stack: a bearer of that name is enabled")
	ErrTooMany      = fmt.Errorf("tipc/stack: %d bearers are enabled, which is the limit", node.MaxBearers)
)

// Bearer describes a carrier of links. Ranges and meaning of the link properties are node.Bearer's.
type Bearer struct {
	Name      string         // "udp:u1", "eth:eth0"
	MTU       int            // largest message, octets
	MinMTU    int            // smallest MTU that a peer may ask for; 0: 100
	Priority  int            // of new links, 0 to 31
	Tolerance int            // of new links, ms
	MinWin    int            // of new links, packets
	MaxWin    int            // of new links, packets
	Addr      wire.MediaAddr // where peers reach this node
	Broadcast wire.MediaAddr // where all peers are reached at once
	Replicast bool           // the driver sends a broadcast to a list of peers, one by one
	Learn     bool           // report unknown senders through TakeLearned
	Domain    uint32         // discover peers of this domain only; 0: all
}

func (b Bearer) node() node.Bearer {
	return node.Bearer{Name: b.Name, MTU: b.MTU, MinMTU: b.MinMTU, Priority: b.Priority, Tolerance: b.Tolerance,
		MinWin: b.MinWin, MaxWin: b.MaxWin, Broadcast: b.Broadcast, Replicast: b.Replicast}
}

type bearerState struct {
	cfg Bearer
	up  bool
}

// BearerEnable starts discovery on a new bearer and returns its number, 0 to 2 (net/tipc/bearer.c tipc_enable_bearer).
// A node without identity takes it from the bearer's address.
func (s *Stack) BearerEnable(now mono.Time, c Bearer) (id int, err error) {
	id = -1
	for i, b := range s.bearers {
		switch {
		case b == nil && id < 0:
			id = i
		case b != nil && b.cfg.Name == c.Name:
			return -1, fmt.Errorf("%w: %s", ErrBearerExists, c.Name)
		}
	}
	if id < 0 {
		return -1, ErrTooMany
	}
	if s.disc.ID() == (wire.NodeID{}) {
		if err := s.disc.SetID(identityOf(c.Addr)); err != nil {
			return -1, err
		}
	}
	if err := s.nodes.BearerEnable(now, id, c.node()); err != nil {
		return -1, err
	}
	s.bearers[id] = &bearerState{c, true}
	err = s.disc.BearerEnable(now, id, discover.Bearer{Addr: c.Addr, Broadcast: c.Broadcast, Domain: c.Domain, Learn: c.Learn})
	if err != nil {
		s.bearers[id] = nil
		return -1, errors.Join(err, s.nodes.BearerDisable(now, id))
	}
	return id, nil
}

func identityOf(a wire.MediaAddr) wire.NodeID {
	if a.Media == wire.MediaUDP {
		return discover.IDOfIP(a.IP.Addr())
	}
	return discover.IDOfMAC(a.MAC)
}

// BearerDisable takes the bearer and all links over it away. Peers notice by themselves: their links get no answer, or
// the RESET that goes out here.
func (s *Stack) BearerDisable(now mono.Time, id int) error {
	if s.bearer(id) == nil {
		return ErrNoBearer
	}
	err := s.nodes.BearerDisable(now, id) // links go down while discovery still counts them
	s.disc.BearerDisable(id)
	s.bearers[id] = nil
	return err
}

// BearerSetUp tells of a carrier that came or went. Links over a bearer without carrier go down at once.
func (s *Stack) BearerSetUp(now mono.Time, id int, up bool) error {
	b := s.bearer(id)
	if b == nil {
		return ErrNoBearer
	}
	if b.up == up {
		return nil
	}
	b.up = up
	err := s.nodes.BearerSetUp(now, id, up)
	s.disc.BearerSetUp(now, id, up)
	return err
}

// BearerReset deletes the bearer's links and looks for peers anew, as after a change of MTU or address
// (net/tipc/bearer.c tipc_reset_bearer).
func (s *Stack) BearerReset(now mono.Time, id int) error {
	if s.bearer(id) == nil {
		return ErrNoBearer
	}
	err := s.nodes.BearerReset(now, id)
	s.disc.BearerReset(now, id)
	return err
}

// BearerSetAddr changes where peers reach this node and resets the bearer.
func (s *Stack) BearerSetAddr(now mono.Time, id int, a wire.MediaAddr) error {
	b := s.bearer(id)
	if b == nil {
		return ErrNoBearer
	}
	b.cfg.Addr = a
	s.disc.BearerSetAddr(id, a)
	return s.BearerReset(now, id)
}

// Bearer returns the configuration of bearer id and whether it has carrier; ok is false when it is not enabled.
func (s *Stack) Bearer(id int) (c Bearer, up, ok bool) {
	b := s.bearer(id)
	if b == nil {
		return c, false, false
	}
	c = b.cfg
	if n, ok := s.nodes.Bearer(id); ok { // with what was set since
		c.MTU, c.Priority, c.Tolerance, c.MinWin, c.MaxWin = n.MTU, n.Priority, n.Tolerance, n.MinWin, n.MaxWin
	}
	return c, b.up, true
}

// BearerByName returns the number of the bearer of that name.
func (s *Stack) BearerByName(name string) (id int, ok bool) {
	for i, b := range s.bearers {
		if b != nil && b.cfg.Name == name {
			return i, true
		}
	}
	return -1, false
}

func (s *Stack) bearer(id int) *bearerState {
	if id < 0 || id >= len(s.bearers) {
		return nil
	}
	return s.bearers[id]
}

// Shutdown takes the node out of the cluster: connections are shut down, bearers disabled, so that peers see it go at
// once instead of missing it after the tolerance (net/tipc/net.c tipc_net_stop). What must be sent for that is in one
// TakeOutput afterwards. The Stack is of no use then.
func (s *Stack) Shutdown(now mono.Time) {
	if s.stopped {
		return
	}
	s.stopped = true
	s.top.Close(now)
	for _, sk := range slices.Collect(s.sockets.Sockets()) {
		sk.Close(now)
	}
	for id := range s.bearers {
		if s.bearers[id] != nil {
			_ = s.BearerDisable(now, id)
		}
	}
}
