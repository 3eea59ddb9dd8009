package fibtool

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"midplane/fib"
)

// bench measures package fib in this process: what the structure does, on this machine, with nothing around it.
func bench(c *call) error {
	sizes := []int{10_000, 50_000, 100_000, 500_000}
	changes := 20_000
	keys := []keyword{
		c.number("routes", 1, 2_000_000, func(n uint64) { sizes = []int{int(n)} }),
		c.number("changes", 1, 10_000_000, func(n uint64) { changes = int(n) }),
	}
	if err := c.keywords(keys, nil); err != nil {
		return err
	}
	if !c.JSON {
		c.printf("%-8s %-7s %10s %10s %10s %10s\n", "routes", "op", "p50", "p99", "p99.9", "max")
	}
	return c.list(func() error {
		for _, n := range sizes {
			if err := c.benchSize(n, changes, func(op string, q [4]time.Duration) {
				c.printf("%-8d %-7s %10v %10v %10v %10v\n", n, op, q[0], q[1], q[2], q[3])
			}); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		for _, n := range sizes {
			if err := c.benchSize(n, changes, func(op string, q [4]time.Duration) {
				w := &c.w
				w.BeginObject()
				w.Field("routes", n)
				w.Field("op", op)
				for i, name := range []string{"p50_ns", "p99_ns", "p999_ns", "max_ns"} {
					w.Field(name, uint64(q[i]))
				}
				w.EndObject()
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// benchSize fills a table with random prefixes of the lengths that the Internet has, and changes and asks it.
func (c *call) benchSize(size, changes int, show func(op string, q [4]time.Duration)) error {
	r := rand.New(rand.NewPCG(1, uint64(size)))
	var set fib.Set
	t, err := set.Create(1, "bench")
	if err != nil {
		return err
	}
	hops := make([]fib.NextHopID, 64)
	for i := range hops {
		if hops[i], err = set.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: uint32(i + 1)}); err != nil {
			return err
		}
	}
	var all []netip.Prefix
	for len(all) < size {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		p := randomPrefix(r)
		_, replaced, err := t.Insert(p, hops[r.IntN(len(hops))])
		if err != nil {
			return fmt.Errorf("%d routes: %w", len(all), err)
		}
		if !replaced {
			all = append(all, p)
		}
	}
	inserts, deletes, lookups := make([]time.Duration, changes), make([]time.Duration, changes), make([]time.Duration, changes)
	for i := range changes {
		p := all[r.IntN(len(all))]
		nh := hops[r.IntN(len(hops))]
		a := time.Now()
		_, _, err := t.Delete(p)
		b := time.Now()
		if err == nil {
			_, _, err = t.Insert(p, nh)
		}
		inserts[i], deletes[i] = time.Since(b), b.Sub(a)
		if err != nil {
			return err
		}
	}
	// A lookup is shorter than the clock is fine: 64 are timed together, of addresses all over the table.
	const group = 64
	addrs := make([]netip.Addr, group)
	for i := range changes {
		for k := range addrs {
			addrs[k] = all[r.IntN(len(all))].Addr()
		}
		a := time.Now()
		for _, addr := range addrs {
			t.Lookup(addr)
		}
		lookups[i] = time.Since(a) / group
	}
	show("insert", quantiles(inserts))
	show("delete", quantiles(deletes))
	show("lookup", quantiles(lookups))
	return nil
}

// randomPrefix draws a prefix: six in ten of length 24, the others of 16 to 23, as in the Internet's table.
func randomPrefix(r *rand.Rand) netip.Prefix {
	bits := 24
	if r.IntN(10) >= 6 {
		bits = 16 + r.IntN(8)
	}
	n := 1<<24 + r.Uint32N(222<<24)
	a := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return netip.PrefixFrom(a, bits).Masked()
}

func quantiles(l []time.Duration) (q [4]time.Duration) {
	slices.Sort(l)
	at := func(f float64) time.Duration { return l[min(int(f*float64(len(l))), len(l)-1)] }
	return [4]time.Duration{at(0.5), at(0.99), at(0.999), l[len(l)-1]}
}
