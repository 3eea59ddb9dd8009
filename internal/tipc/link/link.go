package link

import (
	"errors"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/monitor"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// Specification constants (include/uapi/linux/tipc_config.h, net/tipc/link.c, msg.h).
const (
	MinTolerance = 50    // ms
	MaxTolerance = 30000 // ms
	MaxPriority  = 31
	MaxWindow    = 8191 // packets
	ackInterval  = 16   // packets received per acknowledgement (TIPC_MIN_LINK_WIN)
	nackStart    = 3    // packets out of order that cause the first NACK, one more every nackInterval
	nackInterval = 16
	minSSThresh  = 300
	retrFactor   = 10    // tolerances after which retransmission is given up
	maxPubl      = 65535 // TIPC_MAX_PUBL

	ucRetrTime = mono.Time(time.Millisecond)      // least time between transmissions of a packet (TIPC_UC_RETR_TIME)
	bcRetrTime = mono.Time(10 * time.Millisecond) // the same on the broadcast link (TIPC_BC_RETR_LIM)

	bcBearer = 3   // bearer id of broadcast links (MAX_BEARERS)
	bcPlane  = 'Z' // network plane of broadcast links

	mssOverhead = wire.IntHeaderSize + 32 // tunnel header, and room for encryption (EMSG_OVERHEAD)
	levels      = wire.SystemImportance + 1
)

// Implementation constants.
const (
	// maxDeferred bounds the memory for packets out of order, in octets. It is a full window of Ethernet packets.
	maxDeferred = 16 << 20
)

// Errors of [Link.Xmit].
var (
	// ErrLinkCong [ELINKCONG]: the message was taken, but its sender must wait for its SOCK_WAKEUP message.
	ErrLinkCong = errors.New("tipc/link: congested")
	// ErrMsgSize [EMSGSIZE]: the message was dropped, it is larger than the MTU.
	ErrMsgSize = errors.New("tipc/link: message larger than MTU")
	// ErrNoBufs [ENOBUFS]: the message was dropped, too many internal messages wait already. The link should be reset.
	ErrNoBufs = errors.New("tipc/link: overflow")
)

// Output takes a link's outgoing packets, see [buf.Output]. Wherever a method has a parameter of this type, nil means to
// discard.
type Output interface {
	Send(pkt []byte, own *buf.Buf)
}

// Config describes a unicast link.
type Config struct {
	Own, Peer uint32 // node addresses
	SelfName  string // readable identity of the own node, at most 16 octets
	PeerName  string // that of the peer
	IfName    string // own interface name, at most 15 octets
	Bearer    int    // 0 to 2
	Plane     byte   // network plane, 'A' to 'H'
	Session   uint16 // random

	MTU       int // advertised, octets
	MinMTU    int // smallest that the peer may ask for; 0: 100
	Priority  int // 0 to 31
	Tolerance int // ms, 50 to 30000
	MinWin    int // packets
	MaxWin    int // packets, at most 8191

	PeerCaps wire.Caps
	BcSnd    *Link // the node's broadcast link
	BcRcv    *Link // the peer's broadcast receive link

	Inputq *buf.Queue       // receives messages for sockets, and SOCK_WAKEUP messages
	Namedq *buf.Queue       // receives NAME_DISTRIBUTOR messages
	Mon    *monitor.Monitor // of the bearer; nil: the peer is always supervised
}

// BcastConfig describes a broadcast send or receive link.
type BcastConfig struct {
	Own    uint32
	NetID  uint32
	Name   string
	MTU    int
	MinWin int
	MaxWin int

	// Of receive links only.
	Peer     uint32
	PeerCaps wire.Caps
	BcSnd    *Link

	Inputq *buf.Queue // send link: SOCK_WAKEUP messages; receive link: multicast and group messages
	Namedq *buf.Queue // receive link: NAME_DISTRIBUTOR messages
}

type role uint8

const (
	unicast role = iota
	bcSender
	bcReceiver
)

// level is the part of the backlog that has one importance.
type level struct {
	len    int // packets
	limit  int
	target *buf.Buf // the last one, if more may be bundled with it
}

// Link is one endpoint. Make it with [New], [NewBcastSender] or [NewBcastReceiver].
type Link struct {
	role  role
	own   uint32
	peer  uint32
	netID uint32
	name  string
	base  string // name up to the peer's interface

	// Supervision.
	state         State
	session       uint16
	peerSession   uint16
	sndNxtState   uint16
	rcvNxtState   uint16
	inSession     bool
	active        bool
	bearer        int
	peerBearer    uint32
	ifName        string
	plane         byte
	priority      int
	tolerance     int
	abortLimit    int
	silent        int // timer intervals in which nothing came
	rstCnt        int
	peerCaps      wire.Caps
	mon           *monitor.Monitor
	monState      monitor.State
	illegalEvents uint64

	mtu           int
	advertisedMTU int
	minMTU        int

	// Sending.
	transmq    buf.Queue // sent, not acknowledged
	backlogq   buf.Queue // to be sent
	backlog    [levels]level
	wakeupq    buf.Queue
	sndNxt     uint16
	window     int
	minWin     int
	maxWin     int
	ssthresh   int
	congAcks   int
	checkpoint uint16
	eager      bool
	pending    *buf.Buf // last of transmq, if not sent yet (eager bundling)

	// Receiving.
	rcvNxt     uint16
	announced  uint16 // the peer's next packet, as it said last
	rcvUnacked int
	deferq     deferQueue
	reasm      msg.Reassembler
	inputq     *buf.Queue
	namedq     *buf.Queue
	holding    bool
	held       buf.Queue // see SetHold

	// Failover of another link that this one is the tunnel for.
	dropPoint     uint16
	failoverDefq  deferQueue
	tunnelled     int       // packets of a lost link that were sent through this one: internal messages may wait behind them
	failoverHeld  buf.Queue // what the lost link held back: delivered before what the tunnel brings
	failoverReasm msg.Reassembler
	reasmTnl      msg.Reassembler

	// Broadcast.
	bcSnd      *Link
	bcRcv      *Link
	ackers     int    // send link: peers; unicast: 1
	acked      uint16 // receive link: all up to here of our broadcasts is acknowledged
	gapAcked   *seqSet
	nackState  nackState
	bcPeerIsUp bool

	stats Stats
	pmsg  [wire.IntHeaderSize + wire.GapAckHeaderSize + wire.GapAckBlockSize*wire.MaxGapAckBlocks + monitor.MaxRecord]byte
}

// New makes a unicast link in state RESETTING (net/tipc/link.c tipc_link_create). The caller resets it with [Link.Reset]
// and [ResetEvt] before use.
func New(c Config) *Link {
	if c.MinMTU == 0 {
		c.MinMTU = wire.MaxHeaderSize + wire.IntHeaderSize
	}
	l := &Link{
		role: unicast, own: c.Own, peer: c.Peer, session: c.Session, state: Resetting,
		bearer: c.Bearer, ifName: c.IfName, plane: c.Plane, priority: c.Priority, tolerance: c.Tolerance,
		peerCaps: c.PeerCaps, mon: c.Mon, mtu: c.MTU, advertisedMTU: c.MTU, minMTU: c.MinMTU, ackers: 1,
		bcSnd: c.BcSnd, bcRcv: c.BcRcv, inputq: c.Inputq, namedq: c.Namedq,
		sndNxt: 1, rcvNxt: 1, sndNxtState: 1, rcvNxtState: 1,
	}
	l.base = c.SelfName + ":" + c.IfName + "-" + c.PeerName + ":"
	l.name = l.base + "unknown"
	l.bcRcv.tolerance = c.Tolerance
	l.SetQueueLimits(c.MinWin, c.MaxWin)
	return l
}

func newBcast(c BcastConfig, r role) *Link {
	l := &Link{
		role: r, own: c.Own, peer: c.Peer, netID: c.NetID, name: c.Name, state: Reset,
		bearer: bcBearer, plane: bcPlane, peerCaps: c.PeerCaps, mtu: c.MTU, advertisedMTU: c.MTU,
		inputq: c.Inputq, namedq: c.Namedq, bcSnd: c.BcSnd,
	}
	l.bcRcv = l
	l.SetQueueLimits(c.MinWin, c.MaxWin)
	l.Reset(0)
	return l
}

// NewBcastSender makes the node's broadcast link (net/tipc/link.c tipc_link_bc_create). It has no peers, see
// [AddBcPeer].
func NewBcastSender(c BcastConfig) *Link {
	l := newBcast(c, bcSender)
	l.state = Established
	return l
}

// NewBcastReceiver makes the receiving end of a peer's broadcast link (net/tipc/link.c tipc_link_bc_create). It opens
// when the peer has said where its sequence numbers start.
func NewBcastReceiver(c BcastConfig) *Link { return newBcast(c, bcReceiver) }

// Reset forgets all traffic and the peer's session (net/tipc/link.c tipc_link_reset). Senders that wait for a wakeup get
// it. The state is changed by [Link.Event], not here.
func (l *Link) Reset(mono.Time) {
	l.inSession = false
	l.peerSession--
	l.session++
	l.mtu = l.advertisedMTU
	if l.inputq != nil {
		l.inputq.Splice(&l.wakeupq)
	}
	l.wakeupq.Purge()
	l.pending = nil
	l.transmq.Purge()
	l.backlogq.Purge()
	for i := range l.backlog {
		l.backlog[i].len, l.backlog[i].target = 0, nil
	}
	l.deferq.purge()
	l.failoverDefq.purge()
	l.failoverHeld.Purge()
	l.tunnelled = 0
	l.holding = false
	l.held.Purge()
	l.reasm.Reset()
	l.reasmTnl.Reset()
	l.failoverReasm.Reset()
	l.rcvUnacked = 0
	l.sndNxt, l.rcvNxt, l.announced = 1, 1, 1
	l.sndNxtState, l.rcvNxtState = 1, 1
	l.acked = 0
	l.gapAcked = nil
	l.silent = 0
	l.rstCnt = 0
	l.bcPeerIsUp = false
	l.monState = monitor.State{}
	l.ResetStats()
}

// State is the state of the state machine.
func (l *Link) State() State { return l.state }

// IsUp reports whether the link carries traffic: ESTABLISHED or SYNCHING.
func (l *Link) IsUp() bool { return l.state.up() }

// IsReset reports whether the link is down and its node knows: RESET, FAILINGOVER or ESTABLISHING.
func (l *Link) IsReset() bool {
	return l.state == Reset || l.state == FailingOver || l.state == Establishing
}

// IsEstablishing, IsSynching and IsFailingOver test for one state, PeerIsDown for PEER_RESET.
func (l *Link) IsEstablishing() bool { return l.state == Establishing }
func (l *Link) IsSynching() bool     { return l.state == Synching }
func (l *Link) IsFailingOver() bool  { return l.state == FailingOver }
func (l *Link) PeerIsDown() bool     { return l.state == PeerReset }

// IsBlocked reports whether link protocol messages are neither sent nor taken.
func (l *Link) IsBlocked() bool {
	return l.state == Resetting || l.state == PeerReset || l.state == FailingOver
}

// Active says whether the node lets messages travel on the link; an up link that is not active is standby.
func (l *Link) Active() bool     { return l.active }
func (l *Link) SetActive(v bool) { l.active = v }

// Name is own identity, own interface, peer's identity, and the peer's interface once that is known:
// "node1:eth0-node2:eth0".
func (l *Link) Name() string { return l.name }

// ID is the peer's and the own bearer id, by which link state publications tell links apart.
func (l *Link) ID() uint32 { return l.peerBearer<<16 | uint32(l.bearer) }

// Plane is the network plane, 'A' to 'H'; the one of the node with the lower address counts.
func (l *Link) Plane() byte { return l.plane }

// Priority is the priority, Tolerance the time in ms after which silence means loss.
func (l *Link) Priority() int  { return l.priority }
func (l *Link) Tolerance() int { return l.tolerance }

// RcvNxt is the sequence number that is expected next.
func (l *Link) RcvNxt() uint16 { return l.rcvNxt }

// SndNxt is the sequence number of the next packet sent.
func (l *Link) SndNxt() uint16 { return l.sndNxt }

// Behind reports whether the peer is known to have sent what has not arrived, or has been silent for a timer interval, so
// that it is not known whether it has.
func (l *Link) Behind() bool {
	return l.silent > 1 || !l.deferq.q.Empty() || wire.SeqMore(l.announced, l.rcvNxt)
}

// Acked is, for a broadcast receive link, the last of our broadcasts that the peer acknowledged with all before it.
func (l *Link) Acked() uint16 { return l.acked }

// MTU is the largest packet, MSS the largest message that goes out as one packet and still fits a tunnel packet.
func (l *Link) MTU() int { return l.mtu }
func (l *Link) MSS() int { return l.mtu - mssOverhead }

// SetMTU changes the MTU until the next reset.
func (l *Link) SetMTU(n int) { l.mtu = n }

// MinWin and MaxWin are the limits of the send window in packets, Window its present size.
func (l *Link) MinWin() int { return l.minWin }
func (l *Link) MaxWin() int { return l.maxWin }
func (l *Link) Window() int { return l.window }

// QueueLens are the numbers of packets sent and not acknowledged, and waiting to be sent.
func (l *Link) QueueLens() (transmq, backlog int) { return l.transmq.Len(), l.backlogq.Len() }

// Oldest is the number of the oldest packet that is not acknowledged (by all peers); ok is false when there is none.
func (l *Link) Oldest() (seqno uint16, ok bool) {
	b := l.transmq.Front()
	if b == nil {
		return 0, false
	}
	return b.Msg.SeqNo(), true
}

// BcPeers is the number of peers of the broadcast send link.
func (l *Link) BcPeers() int { return l.ackers }

// UpdateCaps follows a peer that announces other capabilities.
func (l *Link) UpdateCaps(c wire.Caps) { l.peerCaps = c }

// SetAbortLimit sets the number of timer intervals of silence after which the link fails.
func (l *Link) SetAbortLimit(n int) { l.abortLimit = n }

// SetQueueLimits sets the limits of the send window, and from them the lengths of the backlog at which senders have to
// wait; the window starts again at its minimum (net/tipc/link.c tipc_link_set_queue_limits).
func (l *Link) SetQueueLimits(minWin, maxWin int) {
	l.minWin, l.maxWin, l.window, l.ssthresh = minWin, maxWin, minWin, maxWin
	for i := range wire.SystemImportance {
		l.backlog[i].limit = 2 * (i + 1) * minWin
	}
	l.backlog[wire.SystemImportance].limit = maxPubl / max(1, l.mtu/wire.NameItemSize)
}

// SetTolerance sets the tolerance in ms and tells the peer (net/tipc/link.c tipc_link_set_tolerance).
func (l *Link) SetTolerance(now mono.Time, ms int, out Output) {
	l.tolerance = ms
	l.bcRcv.tolerance = ms
	if l.IsUp() {
		l.buildProtoMsg(now, protoMsg{typ: wire.TypeState, tolerance: ms}, out)
	}
}

// SetPriority sets the priority and tells the peer, which resets the link (net/tipc/link.c tipc_link_set_prio).
func (l *Link) SetPriority(now mono.Time, prio int, out Output) {
	l.priority = prio
	l.buildProtoMsg(now, protoMsg{typ: wire.TypeState, priority: prio}, out)
}

// deferQueue holds packets out of order, sorted and bounded.
type deferQueue struct {
	q      buf.Queue
	octets int
}

type deferred uint8

const (
	deferOK deferred = iota
	deferDuplicate
	deferFull
)

// insert keeps a packet: b, or a copy of m when b is nil. What it does not keep it releases.
func (d *deferQueue) insert(now mono.Time, m wire.Msg, b *buf.Buf) deferred {
	if d.octets >= maxDeferred {
		if b != nil {
			b.Release()
		}
		return deferFull
	}
	if b == nil {
		b = buf.Copy(m)
	}
	n := b.Cap()
	b.RetrStamp = now
	if !msg.InsertSorted(&d.q, b) {
		b.Release()
		return deferDuplicate
	}
	d.octets += n
	return deferOK
}

// pop returns the packet with that number if it is the first, otherwise nil.
func (d *deferQueue) pop(seqno uint16) *buf.Buf {
	b := msg.PopSeq(&d.q, seqno)
	if b != nil {
		d.octets -= b.Cap()
	}
	return b
}

// dropFrom drops the packets from number seqno on that were kept before since.
func (d *deferQueue) dropFrom(seqno uint16, since mono.Time) (dropped int) {
	for b := d.q.Back(); b != nil && !wire.SeqLess(b.Msg.SeqNo(), seqno); {
		prev := b.Prev()
		if b.RetrStamp < since {
			d.q.Remove(b)
			d.octets -= b.Cap()
			b.Release()
			dropped++
		}
		b = prev
	}
	return dropped
}

func (d *deferQueue) purge() {
	d.q.Purge()
	d.octets = 0
}

// take moves all of from to d.
func (d *deferQueue) take(from *deferQueue) {
	d.purge()
	d.q.Splice(&from.q)
	d.octets, from.octets = from.octets, 0
}
