package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// checkState decides whether a packet may go to the link it arrived on, and follows what it says about the peer: that
// the peer sees us, that it has lost us, that it fails over or synchronises (net/tipc/node.c tipc_node_check_state).
//
// One thing is stricter than in the kernel, which lets messages overtake each other when a SYNCH message is lost once, or
// when a link fails while another is synchronising with it: what arrives on a new link is held back by the link, see
// link.SetHold, until everything that the peer sent before on the other link has been delivered.
func (t *Table) checkState(now mono.Time, p *peer, m wire.Msg, bearer int) bool {
	l := p.links[bearer].link
	if l == nil {
		return false
	}
	user, typ, seqno := m.User(), m.Type(), m.SeqNo()
	tunnel := user == wire.UserTunnel
	if p.state == SelfUpPeerUp && !tunnel {
		return true
	}
	rcvNxt := l.RcvNxt()
	pb := p.parallel(bearer)
	var pl *link.Link
	if pb != noBearer {
		pl = p.links[pb].link
	}
	if !l.ValidateMsg(m) {
		return false
	}

	switch p.state {
	case SelfUpPeerComing:
		if !l.IsUp() || !m.PeerLinkIsUp() {
			return true
		}
		p.event(PeerEstablContact)
	case SelfDownPeerLeaving:
		if m.PeerNodeIsUp() {
			return false
		}
		p.event(PeerLostContact)
		return true
	case SelfLeavingPeerDown:
		return false
	}

	if user != wire.UserLinkProtocol && wire.SeqLess(seqno, rcvNxt) {
		return true // a duplicate, the link will drop it
	}

	if tunnel && typ == wire.TypeFailover {
		if n := m.MsgCnt(); n == 0 || n > maxTunnelled {
			return false
		}
		t.peerFailover(now, p, m, bearer, pb)
	}
	synch := tunnel && typ == wire.TypeSynch && seqno == 1
	if p.state == FailingOver && l.IsUp() {
		if wire.SeqMore(rcvNxt, p.synchAt) { // all that was tunnelled is here: the lost link may come back
			p.event(FailoverEnd)
			if pl != nil {
				pl.Event(link.FailoverEndEvt)
			}
			t.release(now, p, bearer)
		} else if synch {
			l.SetHold() // what follows was sent after what is going to be tunnelled
		}
		return l.Held() < 4*maxHeld || user == wire.UserLinkProtocol || tunnel
	}
	if synch && pl != nil && pl.IsEstablishing() {
		// The peer would not synchronise with a link that is not up; what it sent on it was lost so far. In the kernel it is
		// overtaken by what arrives here.
		t.linkUp(now, p, pb)
	}
	if pl == nil || !pl.IsUp() {
		return true
	}
	if synch {
		t.peerSynch(now, p, m, bearer)
	}
	if p.state != Synching {
		return true
	}
	return t.checkSynch(now, p, m, bearer, l, pl)
}

// maxTunnelled is the most packets that a FAILOVER message may announce: as far as sequence numbers can be compared. It is
// more than a link's queues can hold. The kernel does not check, and a lie would keep it in NODE_FAILINGOVER.
const maxTunnelled = 1<<15 - 1

// parallel returns the bearer of the peer's other link, or noBearer.
func (p *peer) parallel(bearer int) int {
	for i := range p.links {
		if i != bearer && p.links[i].link != nil {
			return i
		}
	}
	return noBearer
}

// peerFailover follows a FAILOVER message: the peer has lost the parallel link, so it is lost here too, and the last
// packet of the tunnel tells when the failover is complete. When the parallel link was down before the tunnel link came
// up, no failover was started here, and the peer still needs an answer to end its own.
func (t *Table) peerFailover(now mono.Time, p *peer, m wire.Msg, bearer, pb int) {
	end := m.SeqNo() + m.MsgCnt() - 1
	var pl *link.Link
	if pb != noBearer {
		pl = p.links[pb].link
		if !pl.IsReset() {
			t.linkLost(now, p, pb)
			p.links[bearer].inputq.Splice(&p.links[pb].inputq)
		}
	}
	if p.state != FailingOver {
		t.halfFailover(now, p, pl, p.links[bearer].link, bearer)
	}
	if wire.SeqLess(end, p.synchAt) {
		p.synchAt = end
	}
}

// peerSynch follows the SYNCH message with which the peer opens a second link: nothing may be taken from that link
// before the first link has delivered everything that the peer sent before.
func (t *Table) peerSynch(now mono.Time, p *peer, m wire.Msg, bearer int) {
	end := m.SyncPt()
	if p.caps&wire.CapTunnelEnhanced == 0 {
		end = m.InnerHdr().SeqNo() + m.MsgCnt() - 1
	}
	l := p.links[bearer].link
	if !l.IsUp() {
		t.linkUp(now, p, bearer)
	}
	if p.state == SelfUpPeerUp && l.IsUp() { // it is refused while the peer is suspect
		p.synchAt = end
		l.Event(link.SynchBeginEvt)
		l.SetHold()
		p.event(SynchBegin)
	}
}

// checkSynch opens the new link when the old one has reached the synch point. Until then the new link holds back what
// it receives, and when that gets too much it is not let through.
func (t *Table) checkSynch(now mono.Time, p *peer, m wire.Msg, bearer int, l, pl *link.Link) bool {
	tnlBearer, oldBearer := p.parallel(bearer), bearer
	tnl, old := pl, l
	if l.IsSynching() {
		tnl, tnlBearer, old, oldBearer = l, bearer, pl, tnlBearer
	}
	delivered := old.RcvNxt() - uint16(p.links[oldBearer].inputq.Len())
	if wire.SeqMore(delivered, p.synchAt) {
		tnl.Event(link.SynchEndEvt)
		p.event(SynchEnd)
		t.release(now, p, tnlBearer)
		return true
	}
	return l == old || l.Held() < maxHeld || m.User() == wire.UserLinkProtocol || m.User() == wire.UserTunnel
}

// maxHeld bounds the packets that a synchronising link holds back. The kernel holds none, so that the peer has to send
// them all again.
const maxHeld = 4096

// release delivers what the link over a bearer held back.
func (t *Table) release(now mono.Time, p *peer, bearer int) {
	l := p.links[bearer].link
	if l.Held() == 0 {
		l.ReleaseHold()
		return
	}
	rc := l.ReleaseHold()
	t.deliver(p, bearer)
	if rc&link.DownEvent != 0 {
		t.linkDown(now, p, bearer, false)
	}
}
