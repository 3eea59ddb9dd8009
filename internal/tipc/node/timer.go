package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/link"
)

// Deadline is when [Table.Tick] wants to be called next, [mono.Never] when there is nothing to wait for.
func (t *Table) Deadline() mono.Time {
	d := t.nextPeer()
	for i := range t.bearers {
		if m := t.bearers[i].mon; m != nil {
			d = min(d, m.Deadline())
		}
	}
	return d
}

func (t *Table) nextPeer() mono.Time {
	if len(t.timers) == 0 {
		return mono.Never
	}
	return t.timers[0].timer
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
	for t.nextPeer() <= now {
		t.timeout(now, t.timers[0])
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
	t.timers.move(p, now+mono.Time(p.interval)*ms)
}

// calcTimer lets the link with the lowest tolerance decide the peer's timer interval: a quarter of the tolerance, at
// most 500 ms (net/tipc/node.c tipc_node_calculate_timer).
func (p *peer) calcTimer(l *link.Link) {
	tol := l.Tolerance()
	p.interval = max(1, min(p.interval, maxInterval, tol/4))
	l.SetAbortLimit(tol / p.interval)
}
