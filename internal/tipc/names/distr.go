package names

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Network is what a [Distributor] needs of the nodes (package node's Table has it).
type Network interface {
	// Xmit sends the messages on q to a node and consumes them.
	Xmit(now mono.Time, q *buf.Queue, dnode, selector uint32) error

	// Broadcast sends b to all nodes that are up and consumes it: over the broadcast link if rcDests is 0, else as
	// single messages (node.c tipc_node_broadcast).
	Broadcast(now mono.Time, b *buf.Buf, rcDests int)

	// MTU is the largest message to a node, in octets.
	MTU(dnode, selector uint32) int
}

// DistConfig has the settings of a [Distributor]. Zero values mean the defaults.
type DistConfig struct {
	// UnicastPeers is up to how many peers changes are sent as single messages instead of over the broadcast link. They
	// then stay in order with the messages that this node's sockets send on the same link, so that a peer knows a
	// binding before it gets a message sent after bind. Default 0: broadcast if all peers can, as the kernel does.
	UnicastPeers int

	// MaxDeferred bounds the items of one peer, MaxDeferredTotal those of all peers, that came ahead of their turn. An
	// item takes about 100 octets. What exceeds it is dropped, and that peer's later changes cannot be applied before it
	// is lost and found again. The kernel has no limit. Defaults: 65,536 and 262,144.
	MaxDeferred, MaxDeferredTotal int
}

// DistStats counts what a [Distributor] sent and received; drops are counted by reason.
type DistStats struct {
	BulkSent, UpdatesSent         uint64 // messages
	Published, Withdrawn          uint64 // items applied
	UnknownPeer                   uint64 // messages of a node that is not up
	WrongOrigin                   uint64 // messages that name another node as origin, or are of another user
	Stale                         uint64 // messages numbered below what has been applied, or numbered twice
	DeferOverflow                 uint64 // messages over a limit of deferral
	BadType                       uint64 // messages neither publication nor withdrawal
	Tail                          uint64 // messages with 1 to 19 octets behind the last item
	BadRange, Duplicate, OverFull uint64 // publications refused
	UnknownWithdrawal             uint64
	DeferredNow                   int // items waiting
}

// Distributor exchanges publications with other nodes (net/tipc/name_distr.c).
//
// A node that comes up is sent all cluster-wide bindings, in messages that fill the MTU and are marked as bulk. Changes
// after that are numbered, and go to all nodes at once over the broadcast link. Because bulk and changes take
// different links, the last bulk message has the number of the first change that is not in it: the receiver puts
// changes off until it has that message, then applies them by number.
type Distributor struct {
	t       *Table
	net     Network
	cfg     DistConfig
	peers   map[uint32]*peer
	rcDests int // peers that cannot take changes over the broadcast link
	total   int // items deferred for all peers
	stats   DistStats
}

// peer is what is known about a node that is up. Unlike Linux 6.1, which keeps open and rcvNxt when it loses a node, a
// node that comes back starts anew: numbers from before say nothing about its changes, and it may have restarted.
type peer struct {
	addr     uint32
	legacy   bool   // lacks NAMED_BCAST
	open     bool   // all bulk has come
	rcvNxt   uint16 // number of the next change
	deferred map[uint16]deferred
	items    int // in deferred
}

// deferred is a message that waits for its turn. Linux puts one item into each.
type deferred struct {
	typ  uint8
	n    int // items
	one  wire.NameItem
	more []wire.NameItem // those behind the first
}

// weight is what the message counts against the limits; one without items counts too.
func (it *deferred) weight() int { return max(1, it.n) }

// NewDistributor makes t tell the nodes that NodeUp names about its publications. net must be complete before the first
// call that sends.
func NewDistributor(t *Table, net Network, cfg DistConfig) *Distributor {
	setDefault(&cfg.MaxDeferred, 1<<16)
	setDefault(&cfg.MaxDeferredTotal, 1<<18)
	d := &Distributor{t: t, net: net, cfg: cfg, peers: map[uint32]*peer{}}
	t.dist = d
	return d
}

// Stats returns the present figures.
func (d *Distributor) Stats() DistStats {
	s := d.stats
	s.DeferredNow = d.total
	return s
}

// NodeUp begins the exchange with a node: it is sent everything that is published here (tipc_named_node_up).
func (d *Distributor) NodeUp(now mono.Time, addr uint32, caps wire.Caps) {
	p := d.peers[addr]
	if p == nil {
		p = &peer{addr: addr}
		d.peers[addr] = p
	} else if p.legacy {
		d.rcDests--
	}
	if p.legacy = caps&wire.CapNamedBcast == 0; p.legacy {
		d.rcDests++
	}
	var q buf.Queue
	d.bulk(&q, addr)
	d.stats.BulkSent += uint64(q.Len())
	d.net.Xmit(now, &q, addr, 0) // as in the kernel an error is of no interest: the node is just going down again
}

// NodeDown ends the exchange with a node; its publications are gone (tipc_publ_notify).
func (d *Distributor) NodeDown(_ mono.Time, addr uint32) {
	if p := d.peers[addr]; p != nil {
		if p.legacy {
			d.rcDests--
		}
		d.total -= p.items
		delete(d.peers, addr)
	}
	if addr != d.t.cfg.Own {
		d.t.purge(addr)
	}
}

// update sends a change to all nodes (tipc_named_publish, tipc_named_withdraw).
func (d *Distributor) update(now mono.Time, typ uint8, p *Publication, seq uint16) {
	b := buf.Get(wire.IntHeaderSize + wire.NameItemSize)
	d.initMsg(b, typ, 0)
	b.Msg.SetNamedSeqNo(seq)
	b.Msg.SetNonLegacy()
	putItem(b.Msg[wire.IntHeaderSize:], p)
	rc := d.rcDests
	if rc == 0 && len(d.peers) <= d.cfg.UnicastPeers {
		rc = len(d.peers)
	}
	d.stats.UpdatesSent++
	d.net.Broadcast(now, b, rc)
}

// initMsg writes the header of a message of b's length.
func (d *Distributor) initMsg(b *buf.Buf, typ uint8, dest uint32) {
	wire.Init(b.Msg, d.t.cfg.Own, wire.UserNameDistr, typ, wire.IntHeaderSize, dest)
	b.Msg.SetSize(len(b.Msg))
}

func putItem(b []byte, p *Publication) {
	wire.PutNameItem(b, wire.NameItem{Range: p.Range, Port: p.Addr.Port, Key: p.Key})
}

// bulk fills q with all cluster-wide publications of this node, oldest first (named_distribute). Without any, there is
// one message without items: the peer needs it to know that the bulk is complete.
func (d *Distributor) bulk(q *buf.Queue, dnode uint32) {
	const hdr = wire.IntHeaderSize
	// Larger than any message must not be, whatever the MTU is when the link is already gone.
	mtu := min(d.net.MTU(dnode, 0), wire.MaxMsgSize)
	perMsg := max(1, (mtu-hdr)/wire.NameItemSize)
	p := d.t.clusterScope.head
	for {
		n := 0
		for x := p; x != nil && n < perMsg; x = d.t.clusterScope.next(x) {
			n++
		}
		b := buf.Get(hdr + n*wire.NameItemSize)
		d.initMsg(b, wire.TypePublication, dnode)
		b.Msg.SetBcAckInvalid(true)
		b.Msg.SetBulk()
		b.Msg.SetNonLegacy()
		for off := hdr; n > 0; n-- {
			putItem(b.Msg[off:], p)
			off += wire.NameItemSize
			p = d.t.clusterScope.next(p)
		}
		q.PushBack(b)
		if p == nil {
			b.Msg.SetLastBulk()
			b.Msg.SetNamedSeqNo(d.t.sndNxt)
			return
		}
	}
}
