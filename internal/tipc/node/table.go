package node

import (
	"fmt"
	"slices"
	"strings"

	"midplane/internal/mono"
	"midplane/internal/timer"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/monitor"
	"midplane/internal/tipc/wire"
)

// Table is one node's view of its cluster: its bearers, its peers, the links to them and the broadcast link. Use [New].
type Table struct {
	cfg     Config
	own     uint32
	id      wire.NodeID
	netID   uint32
	caps    wire.Caps // what all peers understand (tn->capabilities)
	bearers [MaxBearers]bearer

	byAddr map[uint32]*peer
	byID   map[wire.NodeID]*peer
	sorted []*peer // by address
	timers timer.Heap[peer]

	bc  bcBase
	bcl *link.Link // broadcast send link
	bcq buf.Queue  // SOCK_WAKEUP messages of the broadcast link

	// Scratch queues, empty between calls.
	oneq, copyq, syncq buf.Queue

	localq buf.Queue // messages to the own node's sockets
	localm buf.Queue // multicast messages to the own node's sockets

	monThreshold int

	eager     bool
	everybody Dests // see allPeers

	heldBack []*linkEntry // links that may hold a message back, see Flush

	depth int // calls into the Table that are on the stack
	acts  actions

	stats Stats
}

// Stats counts what the Table dropped, and why. All counters only grow.
type Stats struct {
	Invalid      uint64 // failed wire.Validate
	NoBearer     uint64 // arrived for a bearer that is not enabled and up
	UnknownPeer  uint64 // from a node that discovery has not found
	Stranger     uint64 // from another node with the address of a peer
	NotForUs     uint64 // for another node
	ForeignNet   uint64 // broadcast of another cluster
	BadState     uint64 // refused in the current node state
	BadGapAck    uint64 // malformed gap-ack record
	BcastNotUp   uint64 // broadcast before contact was made
	BcastStuck   uint64 // peers given up because they did not acknowledge broadcasts
	IllegalEvent uint64 // node FSM event that no correct peer causes
	TableFull    uint64 // discovery of a peer that found no room
	Evicted      uint64 // peers forgotten early to make room
}

type bearer struct {
	Bearer
	enabled bool
	up      bool
	plane   byte
	ifName  string
	mon     *monitor.Monitor
}

// peer is one node that discovery found (struct tipc_node).
type peer struct {
	t         *Table
	addr      uint32
	id        wire.NodeID
	caps      wire.Caps
	netHash   uint32
	signature uint32
	state     State

	active  [2]int // bearer of the link for selector&1, or noBearer (active_links)
	links   [MaxBearers]linkEntry
	linkCnt int
	working int
	synchAt uint16 // sequence number at which a synch or failover is complete (sync_point)

	bcRcv    *link.Link // broadcast receive link
	bcAcked  uint16     // its Acked at the last timer run, and for how many runs it has been
	bcWaits  int        // that while the oldest broadcast waited for it
	bcq      buf.Queue  // multicast messages in order (inputq1)
	bcNackAt mono.Time  // the broadcast NACK for bcNacked may not be repeated before
	bcNacked uint16     // first missing broadcast of the latest NACK
	namedq   buf.Queue

	// The peer was restarted, and the link that is up may be to its former life. No other link comes up then before that
	// one has been heard, or lost: two lives must not be taken for one node, as they are in the kernel. It takes two timer
	// intervals when the link turns out to be to the new life, and at most the tolerance when it does not.
	suspect   bool
	suspectAt mono.Time

	behindAt mono.Time // when something that the peer sent may last have been missing

	deleteAt mono.Time
	interval int // ms between timer runs (keepalive_intv)
	timer    timer.Timer[peer]
	gone     bool // removed from the table
}

// linkEntry is a peer's link over one bearer (struct tipc_link_entry).
type linkEntry struct {
	p      *peer
	bearer int
	link   *link.Link
	addr   wire.MediaAddr
	// Where another node with the peer's address was heard, while this link was up; zero: nowhere.
	stranger wire.MediaAddr
	mtu      int // for users: room for tunnelling is left
	inputq   buf.Queue
	id       uint32 // link_id while up: what was published
	queued   bool   // on Table.heldBack
}

// New makes the view of a node that has no bearer yet.
func New(cfg Config) (*Table, error) {
	if cfg.Rand == nil || cfg.Out == nil || cfg.Up == nil || cfg.MaxNodes < 0 {
		return nil, ErrConfig
	}
	if cfg.MaxNodes == 0 {
		cfg.MaxNodes = DefaultMaxNodes
	}
	if cfg.NetID == 0 {
		cfg.NetID = wire.DefaultNetID
	}
	t := &Table{
		cfg: cfg, own: cfg.Own, id: cfg.ID, netID: cfg.NetID, caps: wire.CapsAll,
		byAddr: map[uint32]*peer{}, byID: map[wire.NodeID]*peer{}, monThreshold: monitor.DefaultThreshold,
	}
	t.bc = bcBase{primary: noBearer, canRcast: true, ratio: defaultRatio}
	t.bc.calcThreshold(0)
	t.newSendLink()
	return t, nil
}

// Own is the own node's address, 0 while it is not known.
func (t *Table) Own() uint32 { return t.own }

// ID is the own node's identity.
func (t *Table) ID() wire.NodeID { return t.id }

// NetID is the cluster identity.
func (t *Table) NetID() uint32 { return t.netID }

// Stats returns a snapshot of the drop counters.
func (t *Table) Stats() Stats { return t.stats }

// SetOwn sets address and identity once the address trial has ended (net/tipc/net.c tipc_net_finalize). It fails with
// [ErrBusy] when peers are known already and with [ErrConfig] for address 0.
func (t *Table) SetOwn(addr uint32, id wire.NodeID) error {
	if addr == 0 {
		return ErrConfig
	}
	if len(t.sorted) > 0 {
		return ErrBusy
	}
	t.own, t.id = addr, id
	t.newSendLink()
	for i := range t.bearers {
		if m := t.bearers[i].mon; m != nil {
			m.SetOwn(addr)
		}
	}
	return nil
}

// SetNetID changes the cluster identity; it fails with [ErrBusy] when peers are known already.
func (t *Table) SetNetID(n uint32) error {
	if len(t.sorted) > 0 {
		return ErrBusy
	}
	t.netID = n
	t.newSendLink()
	return nil
}

func (t *Table) isOwn(addr uint32) bool { return addr == t.own || addr == 0 }

// find returns the peer with that address, or nil.
func (t *Table) find(addr uint32) *peer { return t.byAddr[addr] }

func (p *peer) up() bool { return p.active[0] != noBearer }

// event runs the node FSM.
func (p *peer) event(e Event) {
	next, ok := p.state.Next(e)
	if !ok {
		p.t.stats.IllegalEvent++
		return
	}
	p.state = next
}

// insert adds a peer. The caller made sure that neither address nor identity is present.
func (t *Table) insert(p *peer) {
	t.byAddr[p.addr] = p
	t.byID[p.id] = p
	i, _ := slices.BinarySearchFunc(t.sorted, p.addr, func(q *peer, a uint32) int {
		switch {
		case q.addr < a:
			return -1
		case q.addr > a:
			return 1
		}
		return 0
	})
	t.sorted = slices.Insert(t.sorted, i, p)
}

// remove forgets a peer that is down, with its links (net/tipc/node.c tipc_node_cleanup, tipc_node_delete).
func (t *Table) remove(p *peer) {
	for i := range p.links {
		p.dropLink(i)
	}
	p.namedq.Purge()
	p.bcq.Purge()
	delete(t.byAddr, p.addr)
	delete(t.byID, p.id)
	if i := slices.Index(t.sorted, p); i >= 0 {
		t.sorted = slices.Delete(t.sorted, i, i+1)
	}
	t.timers.Stop(&p.timer)
	p.gone = true
	t.updateCaps()
}

// dropLink deletes the link over bearer i, if any, which must be down.
func (p *peer) dropLink(i int) {
	if p.links[i].link == nil {
		return
	}
	p.links[i].link = nil
	p.linkCnt--
	p.t.bearers[i].mon.Remove(p.addr)
}

// updateCaps recomputes what all peers understand.
func (t *Table) updateCaps() {
	t.caps = wire.CapsAll
	for _, p := range t.sorted {
		t.caps &= p.caps
	}
	t.bc.canRcast = t.caps&wire.CapBcastRcast != 0
}

// makeRoom evicts the peer that has been down longest when the table is full. It reports whether there is room now.
func (t *Table) makeRoom() bool {
	if len(t.sorted) < t.cfg.MaxNodes {
		return true
	}
	var victim *peer
	for _, p := range t.sorted {
		if !p.up() && (victim == nil || p.deleteAt < victim.deleteAt) {
			victim = p
		}
	}
	if victim == nil {
		t.stats.TableFull++
		return false
	}
	t.stats.Evicted++
	t.remove(victim)
	return true
}

// Caps is what the peer understands; for the own node and unknown nodes it is everything that we do
// (tipc_node_get_capabilities).
func (t *Table) Caps(addr uint32) wire.Caps {
	if p := t.find(addr); p != nil {
		return p.caps
	}
	return wire.CapsAll
}

// ClusterCaps is what all known peers understand.
func (t *Table) ClusterCaps() wire.Caps { return t.caps }

// IsUp reports whether the node can be reached; the own node always can (tipc_node_is_up).
func (t *Table) IsUp(addr uint32) bool {
	if t.isOwn(addr) {
		return true
	}
	p := t.find(addr)
	return p != nil && p.up()
}

// NodeID returns a node's identity; ok is false when the node is unknown (tipc_node_get_id).
func (t *Table) NodeID(addr uint32) (id wire.NodeID, ok bool) {
	if addr == t.own {
		return t.id, true
	}
	if p := t.find(addr); p != nil {
		return p.id, true
	}
	return id, false
}

// MTU is the largest message in octets, header included, that goes to the node in one packet over the link that
// selector chooses. Without a link, and for the own node, it is the largest message there is (tipc_node_get_mtu).
func (t *Table) MTU(addr, selector uint32) int {
	p := t.find(addr)
	if p == nil {
		return wire.MaxMsgSize
	}
	b := p.active[selector&1]
	if b == noBearer {
		return wire.MaxMsgSize
	}
	return p.links[b].mtu
}

// ifName is the part of a bearer's name behind the colon.
func ifName(name string) (string, error) {
	media, dev, ok := strings.Cut(name, ":")
	if !ok || media == "" || dev == "" || len(dev) >= wire.IfNameSize {
		return "", fmt.Errorf("%w: bearer name %q", ErrConfig, name)
	}
	return dev, nil
}
