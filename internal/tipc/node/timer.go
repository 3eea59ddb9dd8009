package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// Deadline is when [Table.Tick] wants to be called next, [mono.Never] when there is nothing to wait for.
func (t *Table) Deadline() mono.Time {
	d := t.timers.Next()
	for i := range t.bearers {
		if m := t.bearers[i].mon; m != nil {
			d = min(d, m.Deadline())
		}
	}
	return d
}

// Tick runs the timers that are due: supervision of links, and forgetting peers that have been down for 300 s
// (net/tipc/node.c tipc_node_timeout).
func (t *Table) Tick(now mono.Time) {
	if t.Deadline() > now {
		return
	}
	t.enter()
	defer t.leave(now)
	for i := range t.bearers {
		if m := t.bearers[i].mon; m != nil {
			m.Tick(now)
		}
	}
	for p := t.timers.Due(now); p != nil; p = t.timers.Due(now) {
		t.timeout(now, p)
	}
}

func (t *Table) timeout(now mono.Time, p *peer) {
	if !p.up() && now > p.deleteAt {
		t.remove(p)
		return
	}
	p.interval = idleInterval
	for i := range p.links {
		l := p.links[i].link
		if l == nil {
			continue
		}
		p.calcTimer(l)
		rc := l.Timeout(now, &p.links[i])
		if rc&link.DownEvent != 0 {
			t.linkDown(now, p, i, false)
		}
	}
	if t.bcastStuck(p) {
		t.stats.BcastStuck++
		t.resetLinks(now, p)
	}
	if p.behind() {
		p.behindAt = now
	}
	t.timers.Set(&p.timer, p, now+mono.Time(p.interval)*ms)
}

// bcastPatience is for how many tolerances a peer may let the oldest broadcast wait for its acknowledgement, as long as
// package link goes on with retransmission.
const bcastPatience = 10

const (
	// patience is for how many tolerances a message is under way at most: a link gives up what it sends again and again
	// after as many as the broadcast link does, then the other link has a go.
	patience = maxLinksPerPeer * bcastPatience

	// calm is for how many tolerances no link may have missed anything, to show that nothing is under way: in each, a peer
	// gets an acknowledgement, or loses the link, and sends a window of what waits there.
	calm = 4
)

// UnderWay reports whether what a peer in contact has sent before since may still be under way. Broadcasts always come.
// Anything else may not have been sent at all, so a time in which nothing was missing ends the waiting for it.
func (t *Table) UnderWay(now mono.Time, addr uint32, since mono.Time, bcast bool) bool {
	p := t.find(addr)
	if p == nil || !p.up() {
		return false
	}
	tol := mono.Time(p.links[p.active[0]].link.Tolerance()) * ms
	return now < since+patience*tol && (bcast || now < max(since, p.behindAt)+calm*tol)
}

// behind reports whether something that the peer has sent may be missing.
func (p *peer) behind() bool {
	for i := range p.links {
		if l := p.links[i].link; l != nil && (!l.IsUp() || l.Behind()) {
			return true
		}
	}
	return p.state != SelfUpPeerUp
}

// bcastStuck reports whether a peer has acknowledged nothing for too long while broadcasts wait for it. In the kernel,
// which only reacts to a peer that asks for the same packet again and again, a silent one stops the broadcasts to all
// others for ever.
func (t *Table) bcastStuck(p *peer) bool {
	oldest, ok := t.bcl.Oldest()
	acked := p.bcRcv.Acked()
	if !ok || !p.up() || !wire.SeqLess(acked, oldest) || acked != p.bcAcked {
		p.bcAcked, p.bcWaits = acked, 0
		return false
	}
	p.bcWaits++
	return p.bcWaits > bcastPatience*p.links[p.active[0]].link.Tolerance()/p.interval
}

// calcTimer lets the link with the lowest tolerance decide the peer's timer interval: a quarter of the tolerance, at
// most 500 ms (net/tipc/node.c tipc_node_calculate_timer).
func (p *peer) calcTimer(l *link.Link) {
	tol := l.Tolerance()
	p.interval = max(1, min(p.interval, maxInterval, tol/4))
	l.SetAbortLimit(tol / p.interval)
}
