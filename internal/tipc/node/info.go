package node

import (
	"iter"
	"strings"

	"midplane/internal/mono"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// NodeInfo describes a peer node.
type NodeInfo struct {
	Addr      uint32
	ID        wire.NodeID
	Up        bool
	State     State
	Caps      wire.Caps
	Signature uint16 // of the instance that was heard last
	NetHash   uint32
	Links     int // links that exist, and of them those that work
	Working   int
}

// LinkInfo describes a link. Times are in ms, windows in packets, sizes in octets.
type LinkInfo struct {
	Name      string
	Peer      uint32 // 0: the broadcast send link
	Bearer    int    // -1: a broadcast link
	Broadcast bool
	Up        bool
	Active    bool // carries messages; an up link that is not active is standby
	State     string
	Plane     byte // 'A' to 'C'; 'Z': a broadcast link
	Addr      wire.MediaAddr
	MTU       int
	Priority  int
	Tolerance int
	Window    int // as the kernel reports it: of a broadcast link the largest, of the others the present one, which follows congestion
	MaxWindow int
	Stats     link.Stats
}

// BcastLinkName is the name of the broadcast send link. The receive link of a peer is called BcastLinkName, colon, node.
const BcastLinkName = "broadcast-link"

// IDString is the readable form of an identity: its text if it consists of letters, digits and .:_-@ with zero octets
// behind, or else hexadecimal without trailing zeros (net/tipc/addr.c tipc_nodeid2string).
func IDString(id wire.NodeID) string {
	text := true
	for _, c := range id {
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == 0 || strings.IndexByte(".:_-@", c) >= 0) {
			text = false
			break
		}
	}
	if text {
		s := string(id[:])
		if i := strings.IndexByte(s, 0); i >= 0 {
			s = s[:i]
		}
		return s
	}
	const hex = "0123456789abcdef"
	b := make([]byte, 0, 2*len(id))
	for _, c := range id {
		b = append(b, hex[c>>4], hex[c&15])
	}
	return strings.TrimRight(string(b), "0")
}

// Nodes lists the peers in the order of their addresses.
func (t *Table) Nodes() iter.Seq[NodeInfo] {
	return func(yield func(NodeInfo) bool) {
		for _, p := range t.sorted {
			if !yield(p.info()) {
				return
			}
		}
	}
}

// Node describes one peer.
func (t *Table) Node(addr uint32) (NodeInfo, bool) {
	if p := t.find(addr); p != nil {
		return p.info(), true
	}
	return NodeInfo{}, false
}

func (p *peer) info() NodeInfo {
	return NodeInfo{
		Addr: p.addr, ID: p.id, Up: p.up(), State: p.state, Caps: p.caps, Signature: uint16(p.signature), NetHash: p.netHash,
		Links: p.linkCnt, Working: p.working,
	}
}

// Links lists the links in the order of the tipc tool: the broadcast send link, then for each peer its links by bearer
// and, if bcast is set, its broadcast receive link.
func (t *Table) Links(bcast bool) iter.Seq[LinkInfo] {
	return func(yield func(LinkInfo) bool) {
		if !yield(bcastInfo(t.bcl, 0)) {
			return
		}
		for _, p := range t.sorted {
			for i := range p.links {
				if p.links[i].link != nil && !yield(p.linkInfo(i)) {
					return
				}
			}
			if bcast && !yield(bcastInfo(p.bcRcv, p.addr)) {
				return
			}
		}
	}
}

// Link describes the link with that name.
func (t *Table) Link(name string) (LinkInfo, error) {
	for li := range t.Links(true) {
		if li.Name == name {
			return li, nil
		}
	}
	return LinkInfo{}, ErrNoLink
}

// LinkName is the name of the link to a node over a bearer (tipc_node_get_linkname).
func (t *Table) LinkName(addr uint32, bearer int) (string, error) {
	p := t.find(addr)
	if p == nil || bearer < 0 || bearer >= MaxBearers || p.links[bearer].link == nil {
		return "", ErrNoLink
	}
	return p.links[bearer].link.Name(), nil
}

// ResetLinkStats clears the counters of the link with that name.
func (t *Table) ResetLinkStats(name string) error {
	l := t.bcl
	if l.Name() != name {
		l = nil
		for _, p := range t.sorted {
			for i := range p.links {
				if c := p.links[i].link; c != nil && c.Name() == name {
					l = c
				}
			}
			if p.bcRcv.Name() == name {
				l = p.bcRcv
			}
		}
	}
	if l == nil {
		return ErrNoLink
	}
	l.ResetStats()
	return nil
}

// findLink returns the unicast link with that name.
func (t *Table) findLink(name string) (*peer, int, error) {
	for _, p := range t.sorted {
		for i := range p.links {
			if l := p.links[i].link; l != nil && l.Name() == name {
				return p, i, nil
			}
		}
	}
	return nil, 0, ErrNoLink
}

// SetLinkTolerance sets a link's tolerance in ms, 50 to 30000, and tells the peer.
func (t *Table) SetLinkTolerance(now mono.Time, name string, v int) error {
	p, i, err := t.findLink(name)
	if err != nil {
		return err
	}
	if v < MinTolerance || v > MaxTolerance {
		return ErrRange
	}
	p.links[i].link.SetTolerance(now, v, &p.links[i])
	return nil
}

// SetLinkPriority sets a link's priority, 0 to 31, and tells the peer, which resets the link so that it comes up with it.
func (t *Table) SetLinkPriority(now mono.Time, name string, v int) error {
	p, i, err := t.findLink(name)
	if err != nil {
		return err
	}
	if v < 0 || v > MaxPriority {
		return ErrRange
	}
	p.links[i].link.SetPriority(now, v, &p.links[i])
	return nil
}

// SetLinkWindow sets a link's largest send window, 50 to 8191 packets.
func (t *Table) SetLinkWindow(name string, v int) error {
	p, i, err := t.findLink(name)
	if err != nil {
		return err
	}
	if v < DefWindow || v > MaxWindow {
		return ErrRange
	}
	l := p.links[i].link
	l.SetQueueLimits(l.MinWin(), v)
	return nil
}

// PeerRemove forgets a peer that is down (net/tipc/node.c tipc_nl_peer_rm). It fails with [ErrNoNode], [ErrBusy] when the
// peer is not down at both ends, and [ErrOwnNode].
func (t *Table) PeerRemove(addr uint32) error {
	if t.isOwn(addr) {
		return ErrOwnNode
	}
	p := t.find(addr)
	switch {
	case p == nil:
		return ErrNoNode
	case p.state != SelfDownPeerDown && p.state != SelfDownPeerLeaving:
		return ErrBusy
	}
	t.remove(p)
	return nil
}

func (p *peer) linkInfo(i int) LinkInfo {
	le := &p.links[i]
	li := describe(le.link)
	li.Peer, li.Bearer, li.Addr = p.addr, i, le.addr
	return li
}

func bcastInfo(l *link.Link, peer uint32) LinkInfo {
	li := describe(l)
	li.Peer, li.Bearer, li.Broadcast = peer, noBearer, true
	// The kernel reports so even without peers (net/tipc/link.c tipc_nl_add_bc_link).
	li.Up, li.Window = true, l.MaxWin()
	return li
}

func describe(l *link.Link) LinkInfo {
	return LinkInfo{
		Name: l.Name(), Up: l.IsUp(), Active: l.Active(), State: l.State().String(), Plane: l.Plane(), MTU: l.MTU(),
		Priority: l.Priority(), Tolerance: l.Tolerance(), Window: l.Window(), MaxWindow: l.MaxWin(), Stats: l.Stats(),
	}
}
