package sim

import (
	"fmt"
	"io"
	"time"

	"midplane/internal/mono"
)

func spr(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// Result is what a run gave.
type Result struct {
	Err    error // violation, or nil
	Hash   uint64
	World  WorldStats
	Stats  ClusterStats
	Trace  []string // the latest lines, if they were kept
	Events int
}

// Options of a run, which do not change what happens.
type Options struct {
	Trace io.Writer // write all of the trace here
	Keep  int       // or keep its latest lines for the Result
}

// Times of a run.
const (
	settleTime  = 2500 * time.Millisecond // from the last start to the first fault: address trial, discovery, links
	auditEvery  = 100 * time.Millisecond
	healTime    = 70 * time.Second // slow discovery polls each 60 s
	drainTime   = 3 * time.Second
	finalTime   = 20 * time.Second // for what was sent to arrive
	sampleEvery = 500 * time.Millisecond
)

// Run plays a scenario: nodes start, applications talk while faults come and go; then the network heals, the cluster
// must become whole, everything must arrive, and a last message between each two nodes must get through.
func Run(sc Scenario, o Options) Result {
	c := newCluster(sc)
	switch {
	case o.Trace != nil:
		c.TraceTo(o.Trace)
	case o.Keep > 0:
		c.TraceKeep(o.Keep)
	}
	c.play()
	return Result{Err: c.err, Hash: c.hash, World: c.stats, Stats: c.cs, Trace: c.Trace()}
}

func (c *Cluster) play() {
	boot := newRand(c.sc.Seed, 'b')
	for _, s := range c.sites {
		at := mono.Time(0)
		if c.sc.BootOver > 0 {
			at = mono.Time(boot.Int64N(int64(c.sc.BootOver)))
		}
		c.At(at, s.start)
	}
	c.every(auditEvery, c.audit)
	start := mono.Time(0).Add(c.sc.BootOver + settleTime)
	end := start.Add(c.sc.Chaos)
	if c.sc.Pause > 0 {
		for _, s := range c.sites {
			c.act(s, mono.Time(0).Add(c.sc.BootOver), end)
		}
	}
	if c.sc.Faults > 0 {
		c.inject(start, end)
	}
	if c.Run(end+1) != nil {
		return
	}

	c.Tracef("** the network heals")
	for _, s := range c.segs {
		s.Loss, s.Dup, s.Reorder = 0, 0, 0
	}
	for limit := end.Add(healTime); ; {
		why := c.converged()
		if why == "" {
			break
		}
		if c.now >= limit {
			c.Failf("no convergence in %v: %s", healTime, why)
			return
		}
		if c.Run(c.now.Add(sampleEvery)) != nil {
			return
		}
	}
	c.cs.Healed = c.now.Sub(end)
	c.Tracef("** the cluster is whole")
	if c.Run(c.now.Add(drainTime)) != nil {
		return
	}
	c.farewell()
}

// every calls f again and again.
func (c *Cluster) every(d time.Duration, f func()) {
	c.After(d, func() {
		f()
		c.every(d, f)
	})
}

// act lets the applications of a site act at random times until end.
func (c *Cluster) act(s *site, at, end mono.Time) {
	at = at.Add(time.Duration(c.load.ExpFloat64() * float64(c.sc.Pause)))
	if at >= end {
		return
	}
	c.At(at, func() {
		if s.st != nil {
			s.h.Do(s.action)
		}
		c.act(s, c.now, end)
	})
}

// action is one random action of a site's applications.
func (s *site) action(now mono.Time) {
	c := s.c
	to := c.load.IntN(len(c.sites))
	switch x := c.load.IntN(100); {
	case x < 50:
		s.sendRDM(now, to, 1+c.load.IntN(3))
	case x < 55:
		s.sendRDM(now, to, 100) // congestion
	case x < 75:
		s.sendMcast(now)
	case x < 85:
		if len(s.halves) < 8 {
			s.connect(now, to)
		}
	default:
		s.rebind(now)
	}
	s.pollConns(now)
}

// farewell ends a run: each site sends each other one a last message, and when all that is under way has arrived,
// nothing may be missing.
func (c *Cluster) farewell() {
	left := map[flowKey]bool{}
	for _, s := range c.sites {
		for _, p := range c.sites {
			if s.st != nil && p.st != nil {
				left[flowKey{s.h.Index, p.h.Index, s.life}] = true
			}
		}
	}
	limit := c.now.Add(finalTime)
	for {
		for _, s := range c.sites {
			for _, p := range c.sites {
				k := flowKey{s.h.Index, p.h.Index, s.life}
				if !left[k] {
					continue
				}
				f := c.flow(k)
				before := f.next
				s.h.Do(func(now mono.Time) { s.sendRDM(now, p.h.Index, 1) })
				if f.next != before {
					delete(left, k)
				}
			}
			if s.st != nil {
				s.h.Do(s.sendMcast)
			}
		}
		if c.Run(c.now.Add(sampleEvery)) != nil {
			return
		}
		if len(left) == 0 {
			break
		}
		if c.now >= limit {
			c.Failf("%d of the last messages could not be sent: %v", len(left), left)
			return
		}
	}
	for seen := -1; ; { // slow networks take their time
		got := c.cs.Messages + c.cs.Multicasts + c.cs.Octets
		if got == seen {
			break
		}
		seen = got
		if c.Run(c.now.Add(drainTime)) != nil {
			return
		}
	}
	c.complete()
	if why := c.converged(); why != "" && c.err == nil {
		c.Failf("after the end: %s", why)
	}
	c.bounded()
}

// bounded checks that nothing piles up in a cluster at rest.
func (c *Cluster) bounded() {
	for _, s := range c.sites {
		if s.st == nil {
			continue
		}
		for sk := range s.st.Sockets().Sockets() {
			if d := sk.RecvQueueDepth(); d != 0 {
				c.Failf("site %d: %d messages wait at port %d in a cluster at rest", s.h.Index, d, sk.Port())
			}
			if i := sk.Info(); i.LinkCong || i.SendQ != 0 && i.Connected && !i.ConnCong {
				c.Failf("site %d: port %d was not woken: %+v", s.h.Index, sk.Port(), i)
			}
		}
		if n, most := s.st.Sockets().Len(), 5+len(s.halves); n > most { // one is the topology server's
			c.Failf("site %d: %d sockets are left of %d", s.h.Index, n, most)
		}
		peers := 0
		for range s.st.Nodes().Nodes() {
			peers++
		}
		if peers >= len(c.sites) {
			c.Failf("site %d knows %d peers of %d", s.h.Index, peers, len(c.sites)-1)
		}
	}
}
