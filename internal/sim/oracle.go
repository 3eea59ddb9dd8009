package sim

import (
	"fmt"
	"time"

	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

func addrOf(id wire.NodeID) uint32 { return discover.AddrOf(id) }

// interval is the time between two runs of a link's timer (net/tipc/node.c tipc_node_calculate_timer).
func (sc *Scenario) interval() time.Duration {
	return min(time.Duration(sc.Tolerance)*time.Millisecond/4, 500*time.Millisecond)
}

// tolerance is how long a link is silent at least before it is given up, in virtual time: clocks may be fast.
func (sc *Scenario) tolerance() time.Duration {
	return time.Duration(sc.Tolerance) * time.Millisecond * time.Duration(million-sc.SkewPPM) / million
}

// patience is how long a link is silent at most before it is given up: the timer looks each interval, gives up when it
// has found silence more often than fit in the tolerance, and the last packet may have come just behind a look.
func (sc *Scenario) patience() time.Duration {
	d := time.Duration(sc.Tolerance)*time.Millisecond + 2*sc.interval()
	return d*time.Duration(million+sc.SkewPPM)/million + 5*time.Millisecond
}

// judgeDown decides whether what the network and the faults did explains that s has lost its link to p. That is so if
//
//   - s heard nothing of p for the tolerance, and at least three packets between them were lost in that time, or one of
//     them was stalled;
//   - p lost its end of the link just before, and so told s, or lost contact altogether and waits for s to lose it too,
//     or was switched on or off;
//   - the carrier at one of them went, or
//   - packets were lost for so long that one of them reached the limit of retransmission, 10 times the tolerance.
func (c *Cluster) judgeDown(s, p *site, seg int) {
	if c.sc.Unjudged {
		return
	}
	to, from := &c.segs[seg].paths[p.h.Index][s.h.Index], &c.segs[seg].paths[s.h.Index][p.h.Index]
	// A RESET may have been repeated, delayed and waited at a stalled host.
	recent := c.now.Add(-2*c.sc.patience() - c.segs[seg].maxDelay() - c.sc.MaxStall)
	silentSince := c.now.Add(-c.sc.tolerance())
	lossWindow := c.now.Add(-c.sc.patience() - c.segs[seg].maxDelay() - c.sc.MaxStall)
	switch {
	case p.booted >= recent, s.booted >= recent, s.carrier[seg] >= recent, p.carrier[seg] >= recent:
		return
	case p.st != nil && (p.links[seg][s.h.Index].lastDown >= max(recent, 1) || p.lost[s.h.Index] >= max(recent, 1)):
		return
	case to.lastRx <= silentSince && (to.dropsSince(lossWindow)+from.dropsSince(lossWindow) >= 3 || max(s.stallEnd, p.stallEnd) >= lossWindow):
		return
	case to.dropsSince(c.now.Add(-10*c.sc.tolerance()))+from.dropsSince(c.now.Add(-10*c.sc.tolerance())) >= 12:
		return
	}
	c.Failf("site %d lost its link to %d on %c for no reason: last packet %v ago, %d and %d lost in %v", s.h.Index, p.h.Index, 'A'+seg,
		c.since(to.lastRx), to.dropsSince(lossWindow), from.dropsSince(lossWindow), c.now.Sub(lossWindow))
}

// audit looks at every node from outside.
func (c *Cluster) audit() {
	for _, s := range c.sites {
		if s.st == nil || s.h.stalled > c.now || c.since(s.stallEnd) < c.sc.interval() {
			continue
		}
		for seg := range s.links {
			for peer := range s.links[seg] {
				v := &s.links[seg][peer]
				if !v.up {
					continue
				}
				heard := max(c.segs[seg].paths[peer][s.h.Index].lastRx, v.changed, s.stallEnd)
				if d := c.since(heard); d > c.sc.patience() {
					c.Failf("site %d has not heard of %d on %c for %v and keeps the link", s.h.Index, peer, 'A'+seg, d)
				}
			}
		}
		for _, p := range c.sites {
			if p != s && s.contact(p.h.Index) != s.st.Nodes().IsUp(p.addr) {
				c.Failf("site %d: links to %d up: %v, node up: %v", s.h.Index, p.h.Index, s.contact(p.h.Index), !s.contact(p.h.Index))
			}
		}
		if a := s.st.Addr(); a != 0 && a != s.addr {
			c.Failf("site %d has address %x instead of %x", s.h.Index, a, s.addr)
		}
		if n := s.st.Nodes().Stats().IllegalEvent; n != 0 {
			c.Failf("site %d: %d events that a node must not have", s.h.Index, n)
		}
	}
}

// converged reports what keeps the cluster from being whole: all running nodes have all links, and equal name tables,
// which hold exactly what is bound.
func (c *Cluster) converged() (why string) {
	var want tableSum
	running := 0
	for _, s := range c.sites {
		if s.st == nil {
			continue
		}
		running++
		if s.st.Addr() == 0 {
			return "a node has no address yet"
		}
		for p := range s.st.Names().Publications() {
			if p.Scope == wire.ScopeCluster && p.Addr.Node == s.addr {
				want.add(p)
			}
		}
	}
	for _, s := range c.sites {
		if s.st == nil {
			continue
		}
		for seg := range s.links {
			for _, p := range c.sites {
				if p != s && s.links[seg][p.h.Index].up != (p.st != nil) {
					return fmt.Sprintf("site %d: link to %d on %c is up: %v", s.h.Index, p.h.Index, 'A'+seg, p.st == nil)
				}
			}
		}
		var got tableSum
		for p := range s.st.Names().Publications() {
			if p.Scope == wire.ScopeCluster || p.Addr.Node != s.addr {
				got.add(p)
			}
		}
		if got != want {
			return fmt.Sprintf("site %d: name table has %d entries of the cluster, bound are %d", s.h.Index, got.n, want.n)
		}
	}
	return ""
}

// tableSum is a fingerprint of a set of bindings that does not depend on their order.
type tableSum struct {
	n   int
	sum uint64
}

func (t *tableSum) add(p *names.Publication) {
	t.n++
	h := uint64(14695981039346656037)
	for _, x := range [...]uint32{p.Range.Type, p.Range.Lower, p.Range.Upper, p.Addr.Node, p.Addr.Port, p.Key} {
		h = (h ^ uint64(x)) * 1099511628211
		h ^= h >> 32
	}
	t.sum += h
}

// complete checks that everything has arrived that was sent since contact was made.
func (c *Cluster) complete() {
	for _, from := range c.sites {
		for _, to := range c.sites {
			k := flowKey{from.h.Index, to.h.Index, from.life}
			if f := c.flows[k]; f != nil {
				c.missing(k, f, f.next)
			}
			if f := c.mflows[k]; f != nil {
				c.missingMcast(k, f, c.mflow(flowKey{from.h.Index, from.h.Index, from.life}).next)
			}
		}
		if from.st == nil {
			continue
		}
		for _, h := range from.halves {
			switch {
			case h.conn == nil:
				c.Failf("site %d: a connection of %d has not sent its number", from.h.Index, h.peer)
			case !h.conn.mayBreak:
				c.Failf("site %d: connection %d to %d hangs: connecting %v, sent %d of %d, received %d of %d", from.h.Index, h.conn.id, h.peer,
					h.pending, h.sent, h.conn.total[h.end], h.recvd, h.conn.total[1-h.end])
			}
		}
	}
}
