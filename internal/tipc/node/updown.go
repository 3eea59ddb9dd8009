package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// linkUp takes a link into use when its handshake is complete (net/tipc/node.c __tipc_node_link_up). The first link to
// a peer carries everything; a second one shares the load when it has the same priority, replaces the first when it has
// a higher one, and waits as standby otherwise. What the link has to send goes out at once.
func (t *Table) linkUp(now mono.Time, p *peer, bearer int) {
	le := &p.links[bearer]
	l := le.link
	if l == nil || l.IsUp() || p.suspect {
		return
	}
	l.Event(link.EstablishEvt)
	if !l.IsUp() {
		return
	}
	var old *link.Link
	if b := p.active[0]; b != noBearer {
		old = p.links[b].link
	}
	p.working++
	le.id = l.ID()
	le.mtu = l.MSS()
	t.bearers[bearer].mon.PeerUp(p.addr)
	t.bc.dests[bearer]++
	t.selectPrimary()

	l.BuildStateMsg(now, le) // a STATE message goes first
	if old == nil {
		p.active = [2]int{bearer, bearer}
		p.event(SelfEstablContact)
		l.SetActive(true)
		link.AddBcPeer(now, t.bcl, l, le)
		t.selectPrimary()
		t.limitBcastMTU(max(l.MTU(), minLinkMTU))
		t.bc.calcThreshold(t.bcl.BcPeers())
		t.acts.push(action{kind: actNodeUp, p: p})
	} else {
		t.limitBcastMTU(max(l.MTU(), minLinkMTU))
		switch {
		case l.Priority() > old.Priority():
			p.active = [2]int{bearer, bearer}
			l.SetActive(true)
			old.SetActive(false)
		case l.Priority() == old.Priority():
			l.SetActive(true)
			p.active[1] = bearer
		}
		old.TunnelPrepare(now, l, wire.TypeSynch, le)
	}
	t.acts.push(action{kind: actLinkUp, p: p, bearer: int8(bearer), id: le.id})
}

// linkDown handles the loss of a link, or takes it down (net/tipc/node.c tipc_node_link_down). With del the link is
// forgotten; otherwise it starts to establish again.
func (t *Table) linkDown(now mono.Time, p *peer, bearer int, del bool) {
	le := &p.links[bearer]
	l := le.link
	if l == nil {
		return
	}
	if l.IsEstablishing() {
		l.Reset(now) // defuses a link that is about to come up
		l.Event(link.ResetEvt)
	} else {
		t.linkLost(now, p, bearer)
	}
	if del {
		p.dropLink(bearer)
	}
	t.acts.push(action{kind: actInput, p: p, bearer: int8(bearer)})
}

// linkLost is linkDown for a link that may be up (net/tipc/node.c __tipc_node_link_down). The load moves to the best
// remaining link, and what the lost one had not got across follows in tunnel messages; without another link contact is
// lost.
func (t *Table) linkLost(now mono.Time, p *peer, bearer int) {
	le := &p.links[bearer]
	l := le.link
	if l == nil || l.IsReset() {
		return
	}
	p.working--
	t.bearers[bearer].mon.PeerDown(p.addr)
	p.selectActive(bearer)
	if !p.up() {
		p.suspect = false
		if l.PeerIsDown() {
			p.event(PeerLostContact)
		}
		p.event(SelfLostContact)
		l.Event(link.ResetEvt)
		l.Reset(now)
		l.BuildResetMsg(now, le)
		if p.state == SelfDownPeerLeaving {
			p.restartHandshakes(now)
		}
		t.lostContact(now, p)
	} else {
		tb := p.active[0]
		tnl := p.links[tb].link
		tnl.Event(link.SynchEndEvt)
		p.event(SynchEnd)
		p.synchAt = tnl.RcvNxt() + failoverReach
		l.TunnelPrepare(now, tnl, wire.TypeFailover, &p.links[tb])
		l.Reset(now)
		l.Event(link.ResetEvt)
		l.Event(link.FailoverBeginEvt)
		p.event(FailoverBegin)
	}
	t.bc.dests[bearer]--
	t.selectPrimary()
	t.acts.push(action{kind: actLinkDown, p: p, bearer: int8(bearer), id: le.id})
}

// restartHandshakes makes links that are about to come up start again, when contact is lost and the peer has not been
// heard to have lost it. Nothing is taken from the peer until it has, so it must not come up by an ACTIVATE of ours: in
// the kernel it does when it had lost contact first, and has to wait for the tolerance to pass.
func (p *peer) restartHandshakes(now mono.Time) {
	for i := range p.links {
		if l := p.links[i].link; l != nil && l.IsEstablishing() {
			l.Reset(now)
			l.Event(link.ResetEvt)
		}
	}
}

// failoverReach is how far ahead of the tunnel link's next packet the end of a failover can lie before the peer has
// said where it is: as far as sequence numbers can be compared.
const failoverReach = 1<<15 - 2

// selectActive gives the two slots to the best links that are up, other than the one over bearer except.
func (p *peer) selectActive(except int) {
	p.active = [2]int{noBearer, noBearer}
	highest := 0
	for i := range p.links {
		l := p.links[i].link
		if l == nil || i == except || !l.IsUp() {
			continue
		}
		switch prio := l.Priority(); {
		case prio < highest:
		case prio > highest || p.active[0] == noBearer:
			highest = prio
			p.active = [2]int{i, i}
		default:
			p.active[1] = i
		}
	}
}

// lostContact cleans up after the last link to a peer (net/tipc/node.c node_lost_contact).
func (t *Table) lostContact(now mono.Time, p *peer) {
	p.deleteAt = now + cleanupAfter
	link.RemoveBcPeer(now, t.bcl, p.bcRcv, t.bcOut())
	t.selectPrimary()
	t.bc.calcThreshold(t.bcl.BcPeers())
	t.wakeBcast()
	p.namedq.Purge()
	for i := range p.links {
		if l := p.links[i].link; l != nil {
			l.Event(link.FailoverEndEvt) // abort a failover that was going on
		}
		t.acts.push(action{kind: actInput, p: p, bearer: int8(i)})
	}
	t.acts.push(action{kind: actMcast, p: p})
	t.acts.push(action{kind: actNodeDown, p: p})
}

// resetLinks takes all links to a peer down after a broadcast failure (net/tipc/node.c tipc_node_reset_links).
func (t *Table) resetLinks(now mono.Time, p *peer) {
	for i := range p.links {
		t.linkDown(now, p, i, false)
	}
}

// halfFailover starts a failover that the peer has begun for a link which never came up at this end
// (net/tipc/node.c tipc_node_link_failover): both links lost, the peer's end of one came up again and went down before
// ours did, so only the peer has something to tunnel. l is that link, or nil; tnl the one that carries the tunnel.
func (t *Table) halfFailover(now mono.Time, p *peer, l *link.Link, tnl *link.Link, bearer int) {
	if !tnl.IsUp() || l != nil && !l.IsReset() {
		return
	}
	tnl.Event(link.SynchEndEvt)
	p.event(SynchEnd)
	p.synchAt = tnl.RcvNxt() + failoverReach
	tnl.FailoverPrepare(now, &p.links[bearer])
	if l != nil {
		l.Reset(now) // the peer's session that it has heard is over; in the kernel the link may stay down for good
		l.Event(link.FailoverBeginEvt)
	}
	p.event(FailoverBegin)
}
