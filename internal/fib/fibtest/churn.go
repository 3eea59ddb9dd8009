package fibtest

import (
	"math/rand/v2"
	"net/netip"
)

// Update is one change of a table: an announcement, which inserts or replaces, or a withdrawal.
type Update struct {
	Prefix   int // index into the prefixes of the Churn
	NextHop  uint32
	Withdraw bool
}

// Churn makes updates as routing protocols do. Their kinds, by share of events:
//
//	random         one prefix is announced with another next hop, or withdrawn if it is there, or comes back
//	flap           one prefix goes and comes several times
//	path hunting   one prefix is announced with one next hop after the other, and then withdrawn, or stays
//	burst          a session is lost: up to 2,000 prefixes in a row are withdrawn, and announced again with another next hop
//
// It is deterministic. Withdrawals are of prefixes that are there, so each update changes the table, but for
// announcements that happen to draw the same next hop.
type Churn struct {
	r     *rand.Rand
	there []bool
	queue []Update
	next  int
}

// NewChurn makes the updates of n prefixes, of which all are there at first.
func NewChurn(seed uint64, n int) *Churn {
	c := &Churn{r: Rand(seed), there: make([]bool, n)}
	for i := range c.there {
		c.there[i] = true
	}
	return c
}

// Next returns the next update.
func (c *Churn) Next() Update {
	for c.next == len(c.queue) {
		c.queue, c.next = c.queue[:0], 0
		c.event()
	}
	u := c.queue[c.next]
	c.next++
	c.there[u.Prefix] = !u.Withdraw
	return u
}

func (c *Churn) announce(p int) { c.queue = append(c.queue, Update{Prefix: p, NextHop: Hop(c.r)}) }
func (c *Churn) withdraw(p int) { c.queue = append(c.queue, Update{Prefix: p, Withdraw: true}) }

func (c *Churn) event() {
	p := c.r.IntN(len(c.there))
	switch k := c.r.IntN(1000); {
	case k < 800: // random
		if c.there[p] && c.r.IntN(2) == 0 {
			c.withdraw(p)
		} else {
			c.announce(p)
		}
	case k < 900: // flap
		for range 1 + c.r.IntN(6) {
			if c.there[p] {
				c.withdraw(p)
				c.announce(p)
			} else {
				c.announce(p)
				c.withdraw(p)
			}
		}
	case k < 998: // path hunting
		for range 2 + c.r.IntN(8) {
			c.announce(p)
		}
		if c.r.IntN(2) == 0 {
			c.withdraw(p)
		}
	default: // burst
		end := min(p+1+c.r.IntN(2000), len(c.there))
		for i := p; i < end; i++ {
			if c.there[i] {
				c.withdraw(i)
			}
		}
		nh := Hop(c.r)
		for i := p; i < end; i++ {
			c.queue = append(c.queue, Update{Prefix: i, NextHop: nh})
		}
	}
}

// Shuffled returns prefixes in random order.
func Shuffled(r *rand.Rand, l []netip.Prefix) []netip.Prefix {
	s := append([]netip.Prefix(nil), l...)
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}
