package link

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// protoMsg says what a LINK_PROTOCOL message shall contain besides the link's state. Zero values tell the peer nothing.
type protoMsg struct {
	typ       uint8
	probe     bool   // wants an answer
	reply     bool   // is one
	gap       uint16 // packets missing
	tolerance int
	priority  int
	stopping  bool // this end goes down for good
}

// Timeout is the periodic work (net/tipc/link.c tipc_link_timeout); the node calls it each quarter of the tolerance. It
// sends STATE messages while there is anything to say, probes a silent peer, repeats RESET and ACTIVATE, and gives the
// peer up after too much silence.
func (l *Link) Timeout(now mono.Time, out Output) Events {
	l.Flush(now, out)
	p := protoMsg{}
	state, setup := false, false
	switch l.state {
	case Established, Synching:
		p.typ = wire.TypeState
		l.profile()
		if l.mon != nil {
			l.mon.Update(l.peer, &l.monState)
		} else {
			l.monState.Monitoring = true
		}
		if l.monState.Reset || l.silent > l.abortLimit {
			return l.Event(FailureEvt)
		}
		state = l.bcRcv.acked != l.bcSnd.sndNxt-1 || l.bcRcv.rcvUnacked > 0 || l.rcvUnacked > 0 || !l.transmq.Empty()
		p.probe = l.monState.Probing || l.silent > 0
		if p.probe || l.monState.Monitoring {
			l.silent++
		}
		p.probe = p.probe || !l.deferq.q.Empty()
		if l.sndNxt == l.checkpoint {
			l.updateCwin(0, false)
			p.probe = true
		}
		l.checkpoint = l.sndNxt
	case Reset:
		p.typ = wire.TypeReset
		setup = l.rstCnt <= 4
		l.rstCnt++
		setup = setup || l.rstCnt%16 == 0
	case Establishing:
		p.typ = wire.TypeActivate
		setup = true
	}
	if state || p.probe || setup {
		l.buildProtoMsg(now, p, out)
	}
	return 0
}

// profile samples the send queue for the statistics (net/tipc/link.c link_profile_stats).
func (l *Link) profile() {
	n := l.transmq.Len()
	l.stats.AccuQueueSz += uint64(n)
	l.stats.QueueSzCounts++
	l.stats.MaxQueueSz = max(l.stats.MaxQueueSz, uint64(n+l.backlogq.Len()))
	b := l.transmq.Front()
	if b == nil {
		return
	}
	m := b.Msg
	if m.User() == wire.UserFragmenter {
		if m.Type() != wire.TypeFirstFragment {
			return
		}
		m = m.InnerHdr()
	}
	l.stats.profile(m.Size())
}

// BuildStateMsg sends an acknowledgement (net/tipc/link.c tipc_link_build_state_msg). A broadcast receive link cannot
// send; it returns [SendState] when it is this node's turn to acknowledge, which depends on the address, so that not all
// nodes do at once.
func (l *Link) BuildStateMsg(now mono.Time, out Output) Events {
	if l.role == bcReceiver {
		if (uint32(l.rcvNxt)^l.own)&0xf != 0xf {
			return 0
		}
		l.rcvUnacked = 0
		l.sndNxt = l.rcvNxt // here the peer's
		return SendState
	}
	l.rcvUnacked = 0
	l.stats.SentAcks++
	l.buildProtoMsg(now, protoMsg{typ: wire.TypeState}, out)
	return 0
}

// BuildResetMsg sends a RESET, or an ACTIVATE while establishing; a RESET from state RESET tells the peer that this end
// goes down for good (net/tipc/link.c tipc_link_build_reset_msg).
func (l *Link) BuildResetMsg(now mono.Time, out Output) {
	p := protoMsg{typ: wire.TypeReset, stopping: l.state == Reset}
	if l.state == Establishing {
		p.typ = wire.TypeActivate
	}
	l.buildProtoMsg(now, p, out)
}

// buildProtoMsg builds and sends a LINK_PROTOCOL message (net/tipc/link.c tipc_link_build_proto_msg). Some states do not
// allow it, then nothing is sent.
func (l *Link) buildProtoMsg(now mono.Time, p protoMsg, out Output) {
	if l.role != unicast || l.IsBlocked() || p.typ == wire.TypeState && !l.IsUp() {
		return
	}
	l.Flush(now, out)
	if (p.probe || p.reply) && !l.deferq.q.Empty() {
		p.gap = l.deferGap()
	}
	bc := l.bcRcv
	m := wire.Msg(l.pmsg[:])
	wire.Init(m, l.own, wire.UserLinkProtocol, p.typ, wire.IntHeaderSize, l.peer)
	m.SetSession(l.session)
	m.SetBearerID(uint32(l.bearer))
	m.SetNetPlane(l.plane)
	m.SetNextSent(l.sndNxt)
	m.SetAck(l.rcvNxt - 1)
	m.SetBcastAck(bc.rcvNxt - 1)
	m.SetBcAckInvalid(!bc.IsUp())
	m.SetLastBcast(l.bcSnd.sndNxt - 1)
	m.SetLinkTolerance(uint32(p.tolerance))
	m.SetLinkPrio(uint32(p.priority))
	m.SetRedundantLink(bc.IsUp())
	m.SetPeerStopping(p.stopping)
	m.SetSeqNo(l.sndNxt + 1<<15 - 1)
	size := wire.IntHeaderSize
	if p.typ == wire.TypeState {
		size += l.buildState(m, p)
	} else {
		if p.typ == wire.TypeActivate {
			m.SetDestSessionValid(true)
			m.SetDestSession(l.peerSession)
		}
		m.SetMaxPkt(l.advertisedMTU)
		clear(m[size : size+wire.IfNameSize])
		copy(m[size:size+wire.IfNameSize-1], l.ifName)
		size += wire.IfNameSize
	}
	m.SetSize(size)
	if p.probe {
		l.stats.SentProbes++
	}
	if p.gap != 0 {
		l.stats.SentNacks++
	}
	send(out, m[:size], nil)
}

// buildState adds what only STATE messages have, and returns the length of the records behind the header.
func (l *Link) buildState(m wire.Msg, p protoMsg) (n int) {
	if l.peerCaps&wire.CapLinkProtoSeqno != 0 {
		m.SetSeqNo(l.sndNxtState)
		l.sndNxtState++
	}
	m.SetSeqGap(p.gap)
	bcGap := l.bcRcv.bcRcvGap()
	m.SetBcGap(bcGap)
	m.SetProbe(p.probe)
	m.SetIsKeepalive(p.probe || p.reply)
	data := m[wire.IntHeaderSize:]
	if l.peerCaps&wire.CapGapAckBlock != 0 {
		n = l.buildGapAck(data, p.gap != 0)
	}
	if l.mon != nil {
		n += l.mon.Prep(data[n:], &l.monState)
	}
	l.stats.SentStates++
	l.rcvUnacked = 0
	if bcGap != 0 {
		l.bcRcv.stats.SentNacks++
	}
	return n
}

// ValidateMsg reports whether a message belongs to the present session and is not out of date (net/tipc/link.c
// tipc_link_validate_msg). Messages other than LINK_PROTOCOL always pass.
func (l *Link) ValidateMsg(m wire.Msg) bool {
	if m.User() != wire.UserLinkProtocol {
		return true
	}
	session := m.Session()
	switch m.Type() {
	case wire.TypeReset:
		return !l.inSession || wire.SeqMore(session, l.peerSession)
	case wire.TypeActivate:
		return !l.inSession || !wire.SeqLess(session, l.peerSession)
	case wire.TypeState:
		switch {
		case !l.inSession || session != l.peerSession:
			return false
		case !l.IsUp() && m.Ack() != 0:
			return false
		case l.peerCaps&wire.CapLinkProtoSeqno == 0:
			return true
		}
		return !wire.SeqLess(m.SeqNo(), l.rcvNxtState)
	}
	return false
}

// protoReceive takes a LINK_PROTOCOL message (net/tipc/link.c tipc_link_proto_rcv).
func (l *Link) protoReceive(now mono.Time, m wire.Msg, out Output) Events {
	if l.role != unicast || l.IsBlocked() {
		return 0
	}
	if l.own > m.PrevNode() {
		l.plane = m.NetPlane() // the lower address decides
	}
	if !l.ValidateMsg(m) {
		return 0
	}
	if m.Type() == wire.TypeState {
		return l.stateReceive(now, m, out)
	}
	return l.resetReceive(m)
}

// adoptTolerance takes the peer's tolerance if it says one.
func (l *Link) adoptTolerance(m wire.Msg) {
	if t := int(m.LinkTolerance()); t >= MinTolerance && t <= MaxTolerance {
		l.tolerance = t
		l.bcRcv.tolerance = t
	}
}

// resetReceive takes a RESET or ACTIVATE.
func (l *Link) resetReceive(m wire.Msg) (rc Events) {
	maxPkt := m.MaxPkt()
	data := m.Data()
	if maxPkt < l.minMTU || len(data) < wire.IfNameSize {
		l.stats.BadMessages++
		return 0
	}
	l.setPeerIfName(data[:wire.IfNameSize])
	l.adoptTolerance(m)
	if prio := int(m.LinkPrio()); prio > l.priority && prio <= MaxPriority {
		l.priority = prio
	}
	if m.PeerStopping() { // the peer goes down and will start from scratch
		return l.Event(FailureEvt)
	}
	activate := m.Type() == wire.TypeActivate
	if activate && m.DestSessionValid() && l.session != m.DestSession() {
		// The peer answers a session that this end, made anew since, does not know. Choose a newer one.
		if wire.SeqLess(l.session, m.DestSession()) {
			l.session = m.DestSession() + 1
		}
		return 0
	}
	if !activate || !l.IsUp() {
		rc = l.Event(PeerResetEvt)
	}
	if activate && l.state == Establishing {
		rc = UpEvent
	}
	l.peerSession = m.Session()
	l.inSession = true
	l.peerBearer = m.BearerID()
	l.mtu = min(l.mtu, maxPkt)
	return rc
}

// setPeerIfName completes the link's name. The peer may send anything; what is not printable is replaced.
func (l *Link) setPeerIfName(field []byte) {
	var b [wire.IfNameSize]byte
	n := 0
	for ; n < len(field) && field[n] != 0; n++ {
		b[n] = field[n]
		if b[n] <= ' ' || b[n] > '~' {
			b[n] = '?'
		}
	}
	if name := b[:n]; l.name[len(l.base):] != string(name) {
		l.name = l.base + string(name)
	}
}

// stateReceive takes a STATE message.
func (l *Link) stateReceive(now mono.Time, m wire.Msg, out Output) (rc Events) {
	ga, glen, ok := l.gapAck(m, true)
	if !ok {
		l.stats.BadMessages++
		return 0
	}
	l.rcvNxtState = m.SeqNo() + 1
	l.adoptTolerance(m)
	if prio := int(m.LinkPrio()); prio != l.priority && prio >= 1 && prio <= MaxPriority {
		l.priority = prio
		rc = l.Event(FailureEvt)
	}
	l.silent = 0
	l.stats.RecvStates++
	reply := m.Probe()
	if reply {
		l.stats.RecvProbes++
	}
	if !l.IsUp() {
		if l.state == Establishing {
			rc = UpEvent
		}
		return rc
	}
	l.announced = m.NextSent()
	if l.mon != nil {
		l.mon.Receive(m.Data()[glen:], l.peer, &l.monState)
	}
	var gap uint16
	if (reply || m.IsKeepalive()) && wire.SeqMore(m.NextSent(), l.rcvNxt) && l.state != Synching && l.deferq.q.Empty() {
		gap = m.NextSent() - l.rcvNxt
	}
	if gap != 0 || reply {
		l.buildProtoMsg(now, protoMsg{typ: wire.TypeState, reply: reply, gap: gap}, out)
	}
	peersGap := m.SeqGap()
	released, retransmitted, failed := l.advance(now, m.Ack(), peersGap, ga, out)
	rc |= failed
	if peersGap != 0 {
		l.stats.RecvNacks++
	}
	if released > 0 || retransmitted {
		l.updateCwin(released, retransmitted)
	}
	if released > 0 {
		l.advanceBacklog(now, out)
	}
	l.prepareWakeup()
	return rc
}
