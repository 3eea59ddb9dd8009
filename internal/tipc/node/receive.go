package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// Receive takes one datagram from a bearer (net/tipc/node.c tipc_rcv). pkt belongs to the Table during the call only and
// may be changed by it. Anything may be in it: what is not a valid message of a known peer in the right state is dropped
// and counted.
func (t *Table) Receive(now mono.Time, bearer int, src wire.MediaAddr, pkt []byte) {
	t.receive(now, bearer, src, pkt, nil)
}

// ReceiveBuf is [Table.Receive] of the datagram in b, which it takes over: what is to be kept is not copied.
func (t *Table) ReceiveBuf(now mono.Time, bearer int, src wire.MediaAddr, b *buf.Buf) {
	if !t.receive(now, bearer, src, b.Msg, b) {
		b.Release()
	}
}

// receive is Receive. own owns pkt, or is nil; the result tells whether it was consumed.
func (t *Table) receive(now mono.Time, bearer int, src wire.MediaAddr, pkt []byte, own *buf.Buf) (consumed bool) {
	if bearer < 0 || bearer >= MaxBearers || !t.bearers[bearer].up {
		t.stats.NoBearer++
		return false
	}
	m, err := wire.Validate(pkt)
	if err != nil {
		t.stats.Invalid++
		return false
	}
	if own != nil {
		own.Resize(len(m)) // without padding
	}
	t.enter()
	defer t.leave(now)

	user := m.User()
	if m.NonSeq() {
		if user == wire.UserLinkConfig {
			t.cfg.Up.Discovery(now, bearer, src, m)
			return false
		}
		return t.receiveBcast(now, src, m, own, bearer)
	}
	if !m.IsShort() && m.DestNode() != t.own {
		t.stats.NotForUs++
		return false
	}
	p := t.find(m.PrevNode())
	if p == nil {
		t.stats.UnknownPeer++
		return false
	}
	le := &p.links[bearer]
	if le.strange(src) {
		t.stats.Stranger++
		return false
	}

	// Keep the broadcast link in step with what the peer says about it.
	if user == wire.UserLinkProtocol {
		if !t.syncBcast(now, p, m, bearer) {
			t.stats.BadGapAck++
			return false
		}
	} else if p.bcRcv.Acked() != m.BcastAck() {
		t.ackBcast(now, p, m)
	}

	var rc link.Events
	if t.checkState(now, p, m, bearer) {
		if le.link != nil {
			if p.suspect {
				p.trust(now, m, le.link)
			}
			rc, consumed = takeIn(now, le.link, m, own, le)
		}
	} else {
		t.stats.BadState++
	}
	if rc&link.UpEvent != 0 {
		t.linkUp(now, p, bearer)
	}
	if rc&link.DownEvent != 0 {
		t.linkDown(now, p, bearer, false)
	}
	t.deliver(p, bearer)
	return consumed
}

// strange reports whether src is another node with the peer's address. In the kernel such a node, which is not let in,
// resets the peer's link all the same when its session number happens to be the larger one.
func (le *linkEntry) strange(src wire.MediaAddr) bool {
	return le.stranger.Media != 0 && le.stranger == src && le.link != nil && le.link.IsUp()
}

// takeIn gives the link a packet, with its Buf if that is there.
func takeIn(now mono.Time, l *link.Link, m wire.Msg, own *buf.Buf, out link.Output) (rc link.Events, consumed bool) {
	if own == nil {
		return l.Receive(now, m, out), false
	}
	return l.ReceiveBuf(now, own, out), true
}

// trust ends the suspicion that the links which are up are to a former life of the peer, when one of them is heard a
// timer interval after the new life was: what the former one sent has arrived by then, or never does.
func (p *peer) trust(now mono.Time, m wire.Msg, l *link.Link) {
	setup := m.User() == wire.UserLinkProtocol && m.Type() != wire.TypeState
	if !setup && l.IsUp() && now > p.suspectAt+mono.Time(p.interval)*ms && l.ValidateMsg(m) {
		p.suspect = false
	}
}

// deliver queues upcalls for what a packet made available, in the kernel's order: names before multicast before the
// rest.
func (t *Table) deliver(p *peer, bearer int) {
	if !p.namedq.Empty() {
		t.acts.push(action{kind: actNames, p: p})
	}
	if !p.bcq.Empty() {
		t.acts.push(action{kind: actMcast, p: p})
	}
	if !p.links[bearer].inputq.Empty() {
		t.acts.push(action{kind: actInput, p: p, bearer: int8(bearer)})
	}
}

// receiveBcast takes a broadcast packet (net/tipc/node.c tipc_node_bc_rcv, bcast.c tipc_bcast_rcv).
func (t *Table) receiveBcast(now mono.Time, src wire.MediaAddr, m wire.Msg, own *buf.Buf, bearer int) (consumed bool) {
	from := m.PrevNode()
	nack := m.User() == wire.UserBcastProtocol
	if nack && m.DestNode() != t.own {
		from = m.DestNode() // a NACK for another node: remember that it was asked for already
	}
	p := t.find(from)
	if p == nil {
		t.stats.UnknownPeer++
		return false
	}
	if p.links[bearer].strange(src) {
		t.stats.Stranger++
		return false
	}
	if m.McNetID() != t.netID {
		t.stats.ForeignNet++
		return false
	}
	if !p.bcRcv.IsUp() {
		t.stats.BcastNotUp++
		return false
	}
	var rc link.Events
	if nack {
		rc = p.bcRcv.BcNackReceive(now, m, t.bcOut())
	} else {
		rc, consumed = takeIn(now, p.bcRcv, m, own, nil)
	}
	t.wakeBcast()
	if rc&link.SendState != 0 {
		t.sendState(now, p, bearer) // broadcast acknowledgements travel on a unicast link
	}
	t.deliver(p, bearer)
	if rc&link.DownEvent != 0 {
		t.resetLinks(now, p)
	}
	return consumed
}

// syncBcast takes the broadcast part of a LINK_PROTOCOL message: the peer's acknowledgements and where it is in sending
// (net/tipc/node.c tipc_node_bc_sync_rcv, bcast.c tipc_bcast_sync_rcv). It returns false when the message is malformed.
func (t *Table) syncBcast(now mono.Time, p *peer, m wire.Msg, bearer int) bool {
	if m.Type() != wire.TypeState {
		p.bcRcv.BcInitReceive(m)
		return true
	}
	if m.BcAckInvalid() {
		return true
	}
	ga, ok := p.bcRcv.GapAck(m, false)
	if !ok {
		return false
	}
	rc := p.bcRcv.BcAckReceive(now, m.BcastAck(), m.BcGap(), ga, t.bcOut(), t.bcOut())
	rc |= p.bcRcv.BcSyncReceive(now, m, t.bcOut())
	t.wakeBcast()
	if rc&link.DownEvent != 0 {
		t.resetLinks(now, p)
		return true
	}
	// A probe is answered with a STATE message anyway; otherwise send one that carries the broadcast NACK. The same NACK
	// is not repeated before the peer would retransmit again: two nodes that both miss broadcasts of each other would
	// answer each other's STATE messages as fast as the network carries them.
	if rc&link.SendState != 0 && !m.Probe() {
		if missing := p.bcRcv.RcvNxt(); now >= p.bcNackAt || missing != p.bcNacked {
			p.bcNackAt, p.bcNacked = now+bcNackLimit, missing
			t.sendState(now, p, bearer)
		}
	}
	return true
}

// ackBcast takes the broadcast acknowledgement that any unicast header carries (net/tipc/bcast.c tipc_bcast_ack_rcv).
func (t *Table) ackBcast(now mono.Time, p *peer, m wire.Msg) {
	if m.BcAckInvalid() {
		return // sent before the peer knew where to start
	}
	p.bcRcv.BcAckReceive(now, m.BcastAck(), 0, wire.GapAck{}, t.bcOut(), nil)
	t.wakeBcast()
}

// sendState sends a STATE message on the peer's link over bearer, if there is one.
func (t *Table) sendState(now mono.Time, p *peer, bearer int) {
	if l := p.links[bearer].link; l != nil {
		l.BuildStateMsg(now, &p.links[bearer])
	}
}
