package socket

import (
	"iter"
	"maps"
	"slices"

	"midplane/internal/mono"
	"midplane/internal/timer"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

// Net is what sockets need from below: the nodes and the name table. It must not call back, except that Xmit and
// Multicast may call [Table.Receive] and [Table.ReceiveMulticast] for what is addressed to this node.
type Net interface {
	// Xmit sends one message, which q holds as one or more packets, to a node; 0 is this node. It consumes q. selector
	// chooses between parallel links. Errors: nil, ErrLinkCong, ErrHostUnreach, ErrMsgSize, ErrNoBufs.
	Xmit(now mono.Time, q *buf.Queue, dnode, selector uint32) error

	// Multicast sends one message, which q holds, to several nodes. It consumes q. congested is the number of
	// SOCK_WAKEUP messages to wait for before sending more.
	Multicast(now mono.Time, q *buf.Queue, m *Method, d *Dests) (congested int, err error)

	// FilterMcast keeps multicast messages in order (net/tipc/bcast.c tipc_mcast_filter_msg): the message at the front
	// of inputq may be held on defq, and messages held there may join inputq.
	FilterMcast(defq, inputq *buf.Queue)

	// MTU is the largest packet for a node and selector, BcastMTU that for multicast. This node: wire.MaxMsgSize.
	MTU(dnode, selector uint32) int
	BcastMTU() int

	// UnderWay reports whether what a node has sent before since, as a broadcast or not, may still be under way.
	UnderWay(now mono.Time, node uint32, since mono.Time, bcast bool) bool

	// Caps are the capabilities of a node, of an unknown one wire.CapsAll.
	Caps(dnode uint32) wire.Caps

	// Publish and Withdraw change the name table, the others search it; see names.Table.
	Publish(now mono.Time, r wire.ServiceRange, scope wire.Scope, addr wire.SocketAddr, key uint32) (*names.Publication, error)
	Withdraw(now mono.Time, p *names.Publication)
	Lookup(typ, inst, node uint32) (addr wire.SocketAddr, ok bool)
	AppendMulticastPorts(dst []uint32, r wire.ServiceRange, scope wire.Scope) []uint32
	AppendMulticastNodes(dst []uint32, r wire.ServiceRange) (remote []uint32, local bool)
}

// Config configures a [Table].
type Config struct {
	Own        uint32        // this node's address, 0 while it has none
	Rand       func() uint32 // port numbers and retry delays; mandatory
	MaxSockets int           // 0: 1,048,576
}

// TableStats counts what became of messages since the start.
type TableStats struct {
	Sockets   int                               // at present
	Received  uint64                            // messages given to Receive
	Delivered uint64                            // of these, put on a socket's receive queue
	Protocol  uint64                            // of these, connection management and wakeups
	Rerouted  uint64                            // of these, sent on after a second lookup
	Rejected  [wire.CodeConnShutdown + 1]uint64 // sent back, by code
	Dropped   uint64                            // neither; may not be sent back
	Deferred  uint64                            // multicast messages dropped because too many waited for order
}

// Table is the sockets of one node. Create it with [NewTable]; see the package comment for the rules of calling it.
type Table struct {
	net   Net
	rand  func() uint32
	own   uint32
	max   int
	socks map[uint32]*Sock
	peers map[uint32]*Sock // connections by peer node: heads of lists through Sock.peerNext
	stats TableStats

	timers timer.Heap[Sock]
	ready  ReadyList

	busy bool      // a call is in progress: received messages wait in inq
	inq  buf.Queue // received, not yet handled

	// Scratch, empty between uses.
	xmitq  buf.Queue
	mcastq buf.Queue
	dests  Dests
	ports  []uint32
}

// NewTable returns an empty table.
func NewTable(net Net, cfg Config) *Table {
	t := &Table{net: net, rand: cfg.Rand, own: cfg.Own, max: cfg.MaxSockets, socks: map[uint32]*Sock{}, peers: map[uint32]*Sock{}}
	if t.max == 0 {
		t.max = defaultMaxSockets
	}
	return t
}

// SetOwn gives the node its address, and with it all sockets (tipc_sk_reinit). Connections inside the node live on.
func (t *Table) SetOwn(addr uint32) {
	t.own = addr
	for _, s := range t.socks {
		h := s.phdr()
		h.SetPrevNode(addr)
		h.SetOrigNode(addr)
	}
}

// Own is the node's address.
func (t *Table) Own() uint32 { return t.own }

// Create makes a socket (tipc_sk_create). Errors: [ErrInvalid] for an unknown type, [ErrTooMany].
func (t *Table) Create(now mono.Time, typ Type) (*Sock, error) {
	if !typ.Valid() {
		return nil, ErrInvalid
	}
	if len(t.socks) >= t.max {
		return nil, ErrTooMany
	}
	s := &Sock{
		t: t, typ: typ, state: Open, port: t.newPort(),
		timer: mono.Never, connEnd: mono.Never, lingerEnd: mono.Never, heldEnd: mono.Never,
		nagleStart: nagleStartInit, connTimeout: connTimeoutDefault, rcvBuf: RcvBufDef,
		sndWin: advBlocks(RcvBufMin), rcvWin: advBlocks(RcvBufMin),
	}
	h := s.phdr()
	wire.Init(h, t.own, wire.UserLow, wire.TypeNamed, wire.NamedHeaderSize, 0)
	h.SetOrigPort(s.port)
	if !typ.Connected() {
		h.SetDestDroppable(true)
		h.SetSrcDroppable(typ == Dgram)
	}
	t.socks[s.port] = s
	t.stats.Sockets++
	return s, nil
}

// newPort draws a free port: a random start, then upwards (tipc_sk_insert).
func (t *Table) newPort() uint32 {
	for p := t.rand(); ; p++ {
		if p != 0 && t.socks[p] == nil {
			return p
		}
	}
}

// Pair makes two sockets that are connected to each other (socketpair(2), tipc_socketpair).
func (t *Table) Pair(now mono.Time, typ Type) (a, b *Sock, err error) {
	if a, err = t.Create(now, typ); err != nil {
		return nil, nil, err
	}
	if b, err = t.Create(now, typ); err != nil {
		a.Close(now)
		return nil, nil, err
	}
	a.peer = Dest{Kind: SocketDest, Addr: b.LocalAddr()}
	b.peer = Dest{Kind: SocketDest, Addr: a.LocalAddr()}
	a.finishConn(now, b.port, t.own)
	b.finishConn(now, a.port, t.own)
	return a, b, nil
}

// Lookup returns the socket with this port, or nil.
func (t *Table) Lookup(port uint32) *Sock { return t.socks[port] }

// Len is the number of sockets, closed ones that linger included.
func (t *Table) Len() int { return len(t.socks) }

// Stats returns the present figures.
func (t *Table) Stats() TableStats { return t.stats }

// Sockets iterates over all sockets by rising port. Sockets may be closed meanwhile.
func (t *Table) Sockets() iter.Seq[*Sock] {
	return func(yield func(*Sock) bool) {
		for _, port := range slices.Sorted(maps.Keys(t.socks)) {
			if s := t.socks[port]; s != nil && !yield(s) {
				return
			}
		}
	}
}

// enter begins a call that may send; leave ends it. In between, received messages only queue up. Calls do not nest:
// the Net calls nothing but Receive and ReceiveMulticast, which know.
func (t *Table) enter() { t.busy = true }

func (t *Table) leave(now mono.Time) {
	for b := t.inq.PopFront(); b != nil; b = t.inq.PopFront() {
		t.receive(now, b)
	}
	t.busy = false
}

// isOwn tells whether an address is this node's.
func (t *Table) isOwn(node uint32) bool { return node == 0 || node == t.own }

// xmitBuf sends one message.
func (t *Table) xmitBuf(now mono.Time, b *buf.Buf, dnode, selector uint32) error {
	t.xmitq.PushBack(b)
	err := t.net.Xmit(now, &t.xmitq, dnode, selector)
	t.xmitq.Purge()
	return err
}
