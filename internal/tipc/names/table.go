package names

import (
	"errors"

	"midplane/internal/mono"
	"midplane/internal/timer"
	"midplane/internal/tipc/wire"
)

// Limits of the specification (net/tipc/subscr.h).
const (
	// MaxPublications is how many cluster-wide bindings one node may have; the last of them is kept for the node's own
	// name {0, node, node}, so sockets get one less (tipc_nametbl_publish).
	MaxPublications = 65535

	// MaxSubscriptions is how many subscriptions a node serves (topsrv.c tipc_conn_rcv_sub).
	MaxSubscriptions = 65535
)

// Service types that the protocol uses itself (include/uapi/linux/tipc.h).
const (
	NodeState = 0 // {0, node, node}: the node takes part in the cluster
	TopSrv    = 1 // {1, 1, 1}: topology server of each node
	LinkState = 2 // {2, peer, peer}: a link to that peer is up; the port is the link's identity
)

// ScopeAny matches both scopes in multicast lookups (net/tipc/name_table.h TIPC_ANY_SCOPE).
const ScopeAny wire.Scope = 10

// hashSize is the number of chains of the kernel's table (TIPC_NAMETBL_SIZE). It only matters for the order in which
// services are listed.
const hashSize = 1024

// Config has the limits of a [Table]. Zero values mean the defaults.
type Config struct {
	// Own is this node's address, 0 while it has none.
	Own uint32

	// LegacyAddr says that the node was given a <Zone.Cluster.Node> address: lookups then prefer this node's own
	// bindings, and lookup domains like <Z.C.0> are taken as in TIPC 1 (tipc_nametbl_lookup_anycast).
	LegacyAddr bool

	// MaxRemote bounds the publications of all other nodes together, MaxRemotePerNode those of one. The kernel has no
	// such limits, but a node never has more than MaxPublications. A publication takes about 330 octets. Defaults:
	// 262,144 and 65,535.
	MaxRemote, MaxRemotePerNode int

	// MaxSubscriptions defaults to the constant of that name, which is the kernel's limit.
	MaxSubscriptions int

	// MaxQueuedEvents bounds the events that all subscribers together have not read. An event takes 32 octets. When it
	// would be exceeded, the subscriber with most unread events overflows. Default: 2,097,152. The kernel has no limit.
	MaxQueuedEvents int
}

// Errors of a [Table].
var (
	ErrRange         = errors.New("names: lower bound above upper bound")
	ErrDuplicate     = errors.New("names: the socket has this binding already")
	ErrTooMany       = errors.New("names: too many publications")
	ErrFilter        = errors.New("names: a subscription is for ports or for services, not both")
	ErrTooManySubscr = errors.New("names: too many subscriptions")
	ErrClosed        = errors.New("names: subscriber is closed")
)

// Stats counts what a [Table] holds and what it refused.
type Stats struct {
	Services, Ranges     int
	Publications         int // all, this node's own included
	Local                int // made on this node
	Subscriptions        int
	QueuedEvents         int    // events not yet read
	RefusedLocal         uint64 // bindings over the limit of 65,534
	RefusedRemote        uint64 // publications of other nodes over a limit
	RefusedSubscriptions uint64
	Overflows            uint64 // subscribers that did not read in time
}

// Table is a name table. Create it with [NewTable]. It is not safe for concurrent use.
type Table struct {
	cfg Config

	services map[uint32]*service
	buckets  [hashSize]*service // the same services, in listing order
	ranges   map[wire.ServiceRange]*bounds
	index    map[pubID]*Publication

	nodeScope    pubList // this node's publications by scope, in the order they were made
	clusterScope pubList
	localUser    int // those that count against the limit
	local        int
	remote       map[uint32]*remoteNode
	remoteLen    int
	sndNxt       uint16 // named_seqno of the next update (struct name_table snd_nxt)
	dist         *Distributor

	subSeq      uint64
	subs        int
	queued      int
	subscribers *Subscriber
	timers      timer.Heap[Subscription]
	matched     []*Subscription // scratch of notify
	initial     []*Publication  // scratch of the report to a new subscription
	seen        map[uint32]struct{}

	refusedLocal, refusedRemote, refusedSubs, overflows uint64
}

// service is one service type (struct tipc_service).
type service struct {
	typ        uint32
	nextID     uint32 // id of the next publication
	ranges     tree[bounds]
	subs       tree[Subscription]
	prev, next *service // in its bucket
}

// bounds is one range of a service and all publications of just this range (struct service_range).
type bounds struct {
	node  interval[bounds]
	svc   *service
	all   pubList
	local pubList
	age   pubList
}

// pubID identifies a publication in the whole cluster.
type pubID struct {
	r               wire.ServiceRange
	port, key, node uint32
}

func (p *Publication) pubID() pubID { return pubID{p.Range, p.Addr.Port, p.Key, p.Addr.Node} }

// remoteNode has the publications of one other node.
type remoteNode struct {
	list pubList
	n    int
}

// NewTable returns an empty table.
func NewTable(cfg Config) *Table {
	setDefault(&cfg.MaxRemote, 1<<18)
	setDefault(&cfg.MaxRemotePerNode, MaxPublications)
	setDefault(&cfg.MaxSubscriptions, MaxSubscriptions)
	setDefault(&cfg.MaxQueuedEvents, 1<<21)
	return &Table{
		cfg:          cfg,
		services:     map[uint32]*service{},
		ranges:       map[wire.ServiceRange]*bounds{},
		index:        map[pubID]*Publication{},
		remote:       map[uint32]*remoteNode{},
		seen:         map[uint32]struct{}{},
		nodeScope:    pubList{kind: listNode},
		clusterScope: pubList{kind: listNode},
	}
}

func setDefault(v *int, d int) {
	if *v == 0 {
		*v = d
	}
}

// Own is this node's address.
func (t *Table) Own() uint32 { return t.cfg.Own }

// SetOwn gives the node its address and moves its own publications to it (name_distr.c tipc_named_reinit). It is meant
// for the time before there are peers; it reports no events. Publications that another node had under this address
// are dropped.
func (t *Table) SetOwn(addr uint32) {
	if addr == t.cfg.Own {
		return
	}
	t.purge(addr)
	t.cfg.Own = addr
	for _, l := range []*pubList{&t.nodeScope, &t.clusterScope} {
		for p := l.head; p != nil; p = l.next(p) {
			delete(t.index, p.pubID())
			p.Addr.Node = addr
		}
	}
	for _, l := range []*pubList{&t.nodeScope, &t.clusterScope} {
		for p := l.head; p != nil; p = l.next(p) {
			t.index[p.pubID()] = p
		}
	}
}

// SetLegacyAddr changes [Config].LegacyAddr.
func (t *Table) SetLegacyAddr(v bool) { t.cfg.LegacyAddr = v }

// isProtocol tells the types that do not count against the limit of bindings.
func isProtocol(typ uint32) bool { return typ == NodeState || typ == TopSrv || typ == LinkState }

// Publish binds the local socket addr to r, reports it to subscribers and, unless the scope is this node only, tells
// the other nodes. addr.Node is this node's address. The key must be new for this socket; the kernel's sockets take
// port + number of bindings so far + 1.
//
// Errors: [ErrRange], [ErrDuplicate], [ErrTooMany]. Rules: name_table.c tipc_nametbl_publish.
func (t *Table) Publish(now mono.Time, r wire.ServiceRange, scope wire.Scope, addr wire.SocketAddr, key uint32) (*Publication, error) {
	if r.Lower > r.Upper {
		return nil, ErrRange
	}
	user := !isProtocol(r.Type)
	if user && t.localUser >= MaxPublications-1 {
		t.refusedLocal++
		return nil, ErrTooMany
	}
	p, err := t.insert(r, scope, addr, key, true)
	if err != nil {
		return nil, err
	}
	t.local++
	if user {
		t.localUser++
	}
	if scope == wire.ScopeNode {
		t.nodeScope.pushBack(p)
		return p, nil
	}
	t.clusterScope.pushBack(p)
	t.update(now, wire.TypePublication, p)
	return p, nil
}

// Withdraw takes back a publication of this node (tipc_nametbl_withdraw). It does nothing when p is not in the table.
func (t *Table) Withdraw(now mono.Time, p *Publication) {
	if p == nil || !p.Bound() || t.index[p.pubID()] != p || !t.isLocal(p.Addr.Node) {
		return
	}
	t.remove(p)
	t.local--
	if !isProtocol(p.Range.Type) {
		t.localUser--
	}
	if p.Scope == wire.ScopeNode {
		t.nodeScope.remove(p)
		return
	}
	t.clusterScope.remove(p)
	t.update(now, wire.TypeWithdrawal, p)
}

// update numbers a change and hands it to the distributor.
func (t *Table) update(now mono.Time, typ uint8, p *Publication) {
	seq := t.sndNxt
	t.sndNxt++
	if t.dist != nil {
		t.dist.update(now, typ, p, seq)
	}
}

// insertRemote adds a publication of another node.
func (t *Table) insertRemote(r wire.ServiceRange, addr wire.SocketAddr, key uint32) error {
	if r.Lower > r.Upper {
		return ErrRange
	}
	n := t.remote[addr.Node]
	if t.remoteLen >= t.cfg.MaxRemote || n != nil && n.n >= t.cfg.MaxRemotePerNode {
		t.refusedRemote++
		return ErrTooMany
	}
	p, err := t.insert(r, wire.ScopeCluster, addr, key, false)
	if err != nil {
		return err
	}
	if n == nil {
		n = &remoteNode{list: pubList{kind: listNode}}
		t.remote[addr.Node] = n
	}
	n.list.pushBack(p)
	n.n++
	t.remoteLen++
	return nil
}

// removeRemote takes a publication of another node out; it reports whether there was one.
func (t *Table) removeRemote(r wire.ServiceRange, addr wire.SocketAddr, key uint32) bool {
	n := t.remote[addr.Node]
	p := t.index[pubID{r, addr.Port, key, addr.Node}]
	if n == nil || p == nil {
		return false
	}
	t.dropRemote(n, p)
	return true
}

func (t *Table) dropRemote(n *remoteNode, p *Publication) {
	node := p.Addr.Node
	t.remove(p)
	n.list.remove(p)
	n.n--
	t.remoteLen--
	if n.n == 0 {
		delete(t.remote, node)
	}
}

// purge drops all publications of another node, oldest first (name_distr.c tipc_publ_notify).
func (t *Table) purge(node uint32) {
	n := t.remote[node]
	if n == nil {
		return
	}
	for p := n.list.head; p != nil; p = n.list.head {
		t.dropRemote(n, p)
	}
}

func (t *Table) isLocal(node uint32) bool { return node == t.cfg.Own || node == 0 }

// insert is tipc_nametbl_insert_publ. The kernel takes a socket with port and key as the same even if one of them was
// bound before the node had an address; SetOwn makes these equal here.
func (t *Table) insert(r wire.ServiceRange, scope wire.Scope, addr wire.SocketAddr, key uint32, local bool) (*Publication, error) {
	id := pubID{r, addr.Port, key, addr.Node}
	if t.index[id] != nil {
		return nil, ErrDuplicate
	}
	sc := t.service(r.Type)
	b := t.ranges[r]
	first := b == nil
	if first {
		b = &bounds{svc: sc, all: pubList{kind: listAll}, local: pubList{kind: listLocal}, age: pubList{kind: listAge}}
		b.node.lower, b.node.upper, b.node.item = r.Lower, r.Upper, b
		sc.ranges.insert(&b.node)
		t.ranges[r] = b
	}
	p := &Publication{Range: r, Addr: addr, Key: key, Scope: scope, id: sc.nextID, rng: b}
	sc.nextID++
	if local {
		b.local.pushFront(p)
	}
	b.all.pushFront(p)
	b.age.pushBack(p)
	t.index[id] = p
	t.notify(sc, p, wire.EventPublished, first)
	return p, nil
}

// remove is tipc_nametbl_remove_publ.
func (t *Table) remove(p *Publication) {
	b := p.rng
	sc := b.svc
	delete(t.index, p.pubID())
	b.all.remove(p)
	b.age.remove(p)
	if t.isLocal(p.Addr.Node) {
		b.local.remove(p)
	}
	p.rng = nil
	last := b.all.empty()
	t.notify(sc, p, wire.EventWithdrawn, last)
	if last {
		sc.ranges.remove(&b.node)
		delete(t.ranges, p.Range)
	}
	t.dropIfUnused(sc)
}

// service finds or makes the service of a type.
func (t *Table) service(typ uint32) *service {
	sc := t.services[typ]
	if sc != nil {
		return sc
	}
	head := &t.buckets[typ%hashSize]
	sc = &service{typ: typ, next: *head}
	if *head != nil {
		(*head).prev = sc
	}
	*head = sc
	t.services[typ] = sc
	return sc
}

// dropIfUnused forgets a service without publications and subscriptions.
func (t *Table) dropIfUnused(sc *service) {
	if !sc.ranges.empty() || !sc.subs.empty() || t.services[sc.typ] != sc {
		return
	}
	if sc.prev != nil {
		sc.prev.next = sc.next
	} else {
		t.buckets[sc.typ%hashSize] = sc.next
	}
	if sc.next != nil {
		sc.next.prev = sc.prev
	}
	delete(t.services, sc.typ)
}

// Len is the number of publications, LocalLen that of this node's own.
func (t *Table) Len() int      { return t.local + t.remoteLen }
func (t *Table) LocalLen() int { return t.local }

// RemoteLen is the number of publications of one other node.
func (t *Table) RemoteLen(node uint32) int {
	if n := t.remote[node]; n != nil {
		return n.n
	}
	return 0
}

// Stats returns the present figures.
func (t *Table) Stats() Stats {
	return Stats{
		Services: len(t.services), Ranges: len(t.ranges), Publications: t.Len(), Local: t.local,
		Subscriptions: t.subs, QueuedEvents: t.queued, RefusedLocal: t.refusedLocal, RefusedRemote: t.refusedRemote,
		RefusedSubscriptions: t.refusedSubs, Overflows: t.overflows,
	}
}
