package socket

import (
	"time"

	"midplane/internal/mono"
	"midplane/internal/timer"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

// Sock is one socket (struct tipc_sock). It is made by [Table.Create], [Table.Pair] or [Sock.Accept] and belongs to its
// table until Close.
type Sock struct {
	// Owner is the user's own; this package does not look at it.
	Owner any

	t     *Table
	typ   Type
	state State
	port  uint32
	hdr   [wire.MaxHeaderSize]byte // template of what is sent (phdr); peer port and node are kept in it

	closed bool   // by its user: it only lingers
	dead   bool   // and is out of the table
	shut   bool   // Shutdown was called (sk_shutdown)
	soErr  *Error // to be told once (sk_err)
	endErr wire.ErrCode

	// Receiving.
	rxq     buf.Queue
	rxUsed  int // octets, as in SO_RCVBUF
	rcvBuf  int
	backlog int // waiting SYNs that a listener takes; 0: no limit of its own
	defq    buf.Queue
	drops   uint32

	// Sending.
	txq       buf.Queue // Nagle's, or the SYN for retries
	congLinks int       // SOCK_WAKEUP messages to wait for
	congNodes []uint32  // and from which nodes, unicast
	peer      Dest      // default destination of a connectionless socket
	method    Method

	// Connection.
	maxPkt        int
	connNamed     bool // set up with a service address, which hdr holds
	peerCaps      wire.Caps
	onPeerList    bool
	peerNode      uint32 // under which it is in Table.peers
	peerPrev      *Sock
	peerNext      *Sock
	probeUnacked  bool
	sndUnacked    uint32
	sndWin        uint32
	rcvUnacked    uint32
	rcvWin        uint32
	maxNagle      int
	nodelay       bool
	oneway        uint32
	nagleStart    uint32
	sndBacklog    uint32 // blocks in txq
	msgAcc        uint32
	pktCnt        uint32
	expectAck     bool
	connTimeout   time.Duration
	lingerPending bool
	lingerCode    wire.ErrCode

	// Bindings, newest first.
	pubs     []*names.Publication
	pubCount uint32

	// Timers.
	timer     mono.Time // sk_timer: probe or retry
	connEnd   mono.Time // connect timeout
	lingerEnd mono.Time
	heldEnd   mono.Time         // release of what waits on defq
	first     timer.Timer[Sock] // of them

	ready     *ReadyList // nil: the table's
	readyNext *Sock
	inReady   bool

	sent, received traffic
}

type traffic struct{ msgs, octets uint64 }

func (c *traffic) add(octets int) {
	c.msgs++
	c.octets += uint64(octets)
}

func (s *Sock) phdr() wire.Msg { return s.hdr[:] }

// Port is the socket's port number, unique in the node.
func (s *Sock) Port() uint32 { return s.port }

// Type is the socket's type.
func (s *Sock) Type() Type { return s.typ }

// State is the socket's state.
func (s *Sock) State() State { return s.state }

// LocalAddr is the socket's address.
func (s *Sock) LocalAddr() wire.SocketAddr { return wire.SocketAddr{Port: s.port, Node: s.t.own} }

// PeerAddr is the address of the other end of the connection, also after that has ended (getpeername(2)).
// [ErrNotConnected] if there was none.
func (s *Sock) PeerAddr() (wire.SocketAddr, error) {
	if s.state != Established && s.state != Disconnecting {
		return wire.SocketAddr{}, ErrNotConnected
	}
	return wire.SocketAddr{Port: s.peerPort(), Node: s.peerNodeAddr()}, nil
}

func (s *Sock) peerPort() uint32     { return s.phdr().DestPort() }
func (s *Sock) peerNodeAddr() uint32 { return s.phdr().DestNode() }

// isPeerMsg tells whether a message comes from the other end of the connection (tsk_peer_msg). One of the two
// addresses may be from before the node had one.
func (s *Sock) isPeerMsg(m wire.Msg) bool {
	if s.state != Established || m.OrigPort() != s.peerPort() {
		return false
	}
	from, peer := m.OrigNode(), s.peerNodeAddr()
	return from == peer || from == 0 && peer == s.t.own || peer == 0 && from == s.t.own
}

// finishConn completes a connection (tipc_sk_finish_conn).
func (s *Sock) finishConn(now mono.Time, port, node uint32) {
	h := s.phdr()
	h.SetSyn(false)
	h.SetDestNode(node)
	h.SetDestPort(port)
	h.SetType(wire.TypeConn)
	h.SetLookupScope(0)
	h.SetHdrsz(wire.ShortHeaderSize)
	s.state = Established
	s.connEnd = mono.Never
	s.timer = now.Add(probeInterval)
	s.arm()
	s.joinPeer(node)
	s.maxPkt = s.t.net.MTU(node, s.port)
	s.peerCaps = s.t.net.Caps(node)
	s.setNagle()
	s.txq.Purge()
	if s.peerCaps&wire.CapBlockFlowctl == 0 {
		s.rcvWin, s.sndWin = flowMsgs, flowMsgs
	}
}

// joinPeer puts the socket on the list of those that lose their peer with a node (tipc_node_add_conn).
func (s *Sock) joinPeer(node uint32) {
	s.leavePeer()
	if s.t.isOwn(node) {
		return
	}
	head := s.t.peers[node]
	s.onPeerList, s.peerNode, s.peerNext = true, node, head
	if head != nil {
		head.peerPrev = s
	}
	s.t.peers[node] = s
}

// leavePeer takes it off (tipc_node_remove_conn).
func (s *Sock) leavePeer() {
	if !s.onPeerList {
		return
	}
	switch {
	case s.peerPrev != nil:
		s.peerPrev.peerNext = s.peerNext
	case s.peerNext != nil:
		s.t.peers[s.peerNode] = s.peerNext
	default:
		delete(s.t.peers, s.peerNode)
	}
	if s.peerNext != nil {
		s.peerNext.peerPrev = s.peerPrev
	}
	s.onPeerList, s.peerPrev, s.peerNext = false, nil, nil
}

// disconnect notes that the connection, or the attempt at one, has ended with the given code.
func (s *Sock) disconnect(code wire.ErrCode) {
	s.state = Disconnecting
	s.endErr = code
	s.leavePeer()
	s.timer, s.connEnd = mono.Never, mono.Never
	s.arm()
	s.t.wake(s)
}

// NodeDown ends all connections with a node at once, as if each peer had sent a FIN with ERR_NO_NODE
// (net/tipc/node.c node_lost_contact). Pending connects fail with [ErrHostUnreach].
func (t *Table) NodeDown(now mono.Time, addr uint32) {
	t.enter()
	for s := t.peers[addr]; s != nil; s = t.peers[addr] {
		if s.state == Established {
			t.receive(now, msg.Create(wire.UserCritical, wire.TypeConn, wire.ShortHeaderSize, 0, t.own, addr, s.port, s.peerPort(), wire.CodeNoNode))
		}
		if s.state == Connecting {
			s.soErr = ErrHostUnreach
			s.disconnect(wire.CodeNoNode)
		}
		s.leavePeer()
	}
	t.dropHeld(addr)
	t.leave(now)
}
