package node

import (
	"time"

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
	t.timers.Set(&p.timer, p, now+mono.Time(p.interval)*ms)
}

// bcastPatience is for how many tolerances a peer may let the oldest broadcast wait for its acknowledgement, as long as
// package link goes on with retransmission.
const bcastPatience = 10

// Patience is how long a message from a peer can be under way at most while there is contact: a link gives up what it
// sends again and again after as many tolerances as the broadcast link does, then the other link has a go.
func (t *Table) Patience(addr uint32) time.Duration {
	tol := MinTolerance
	if p := t.find(addr); p != nil {
		for i := range p.links {
			if l := p.links[i].link; l != nil {
				tol = max(tol, l.Tolerance())
			}
		}
	}
	return time.Duration(maxLinksPerPeer*bcastPatience*tol) * time.Millisecond
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
