package sim

import (
	"math/rand/v2"
	"time"

	"midplane/internal/mono"
)

// inject plans the scenario's faults between start and end. All are over at end.
func (c *Cluster) inject(start, end mono.Time) {
	r := newRand(c.sc.Seed, 'f')
	for range c.sc.Faults {
		at := start + mono.Time(r.Int64N(int64(end-start)))
		// Short ones are bridged by links, medium ones are about the tolerance, long ones break links.
		tol := c.sc.Tolerance
		d := time.Duration([]int{tol / 10, tol / 2, tol, 2 * tol, 4 * tol}[r.IntN(5)]) * time.Millisecond
		d = time.Duration(float64(d) * (0.5 + r.Float64()))
		c.plan(r, at, min(at.Add(d), end))
	}
}

// plan draws one fault from at to end.
func (c *Cluster) plan(r *rand.Rand, at, end mono.Time) {
	seg := r.IntN(len(c.segs))
	a := r.IntN(len(c.sites))
	b := (a + 1 + r.IntN(len(c.sites)-1)) % len(c.sites)
	s := c.sites[a]
	side := r.Uint64() // of each site in a partition
	all := r.IntN(3) == 0
	during := func(name string, f func(on bool)) {
		c.At(at, func() { c.Tracef("** %s for %v", name, end.Sub(at)); f(true) })
		c.At(end, func() { c.Tracef("** end of %s", name); f(false) })
	}
	segs := func(f func(k int)) {
		for k := range c.segs {
			if k == seg || all {
				f(k)
			}
		}
	}
	switch x := r.IntN(100); {
	case x < 15:
		during("partition", func(on bool) {
			segs(func(k int) {
				for i := range c.sites {
					for j := range c.sites {
						if side>>(i&63)&1 != side>>(j&63)&1 {
							c.Cut(k, i, j, on)
						}
					}
				}
			})
		})
	case x < 30:
		during(spr("path %d to %d cut", a, b), func(on bool) { segs(func(k int) { c.Cut(k, a, b, on) }) })
	case x < 40:
		during(spr("site %d mute", a), func(on bool) {
			segs(func(k int) {
				for j := range c.sites {
					if j != a {
						c.Cut(k, a, j, on)
					}
				}
			})
		})
	case x < 50:
		during(spr("site %d cut off", a), func(on bool) {
			segs(func(k int) {
				for j := range c.sites {
					if j != a {
						c.Cut(k, a, j, on)
						c.Cut(k, j, a, on)
					}
				}
			})
		})
	case x < 58:
		loss := 0.2 + 0.8*r.Float64()
		during(spr("heavy loss on %c", 'A'+seg), func(on bool) {
			if on {
				c.extraLoss[seg] += loss
			} else {
				c.extraLoss[seg] -= loss
			}
			c.segs[seg].Loss = min(1, c.sc.Segments[seg].Loss+c.extraLoss[seg])
		})
	case x < 70:
		c.At(at, func() {
			if s.st != nil {
				c.Tracef("** site %d crashes for %v", a, end.Sub(at))
				s.stop(false)
			}
		})
		c.At(end, func() { c.restart(s) })
	case x < 76:
		c.At(at, func() {
			if s.st != nil {
				c.Tracef("** site %d leaves for %v", a, end.Sub(at))
				s.stop(true)
			}
		})
		c.At(end, func() { c.restart(s) })
	case x < 82:
		c.At(at, func() {
			if s.st != nil {
				c.Tracef("** site %d restarts at once", a)
				s.stop(false)
				s.start()
			}
		})
	case x < 92:
		c.At(at, func() {
			d := min(end.Sub(at), c.sc.MaxStall)
			c.Tracef("** site %d stalls for %v", a, d)
			if s.st != nil {
				s.h.Stall(d)
				s.stallEnd = max(s.stallEnd, c.now.Add(d))
			}
		})
	default:
		var life uint32
		c.At(at, func() {
			c.Tracef("** site %d: no carrier on %c for %v", a, 'A'+seg, end.Sub(at))
			life = s.life
			s.carry(seg, false)
		})
		c.At(end, func() {
			if s.life == life {
				s.carry(seg, true)
			}
		})
	}
}

func (c *Cluster) restart(s *site) {
	if s.st == nil {
		c.Tracef("** site %d starts again", s.h.Index)
		s.start()
	}
}

// carry takes the carrier of a bearer away, or gives it back. A stalled host notices when it runs again.
func (s *site) carry(seg int, on bool) {
	s.carrierUp[seg] = on
	s.applyCarrier(seg)
}

func (s *site) applyCarrier(seg int) {
	if s.st == nil {
		return
	}
	if s.h.stalled > s.c.now {
		life := s.life
		s.c.At(s.h.stalled+1, func() {
			if s.life == life {
				s.applyCarrier(seg)
			}
		})
		return
	}
	s.carrier[seg] = s.c.now
	s.h.Do(func(now mono.Time) {
		if err := s.st.BearerSetUp(now, seg, s.carrierUp[seg]); err != nil {
			s.c.Failf("site %d: carrier: %v", s.h.Index, err)
		}
	})
}
