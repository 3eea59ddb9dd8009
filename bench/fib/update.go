package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"midplane/bench/internal/stat"
	"midplane/internal/fib/fibtest"
)

// spread is a number of times, in order.
type spread []float64

func spreadOf(l []float64) spread {
	s := slices.Clone(l)
	slices.Sort(s)
	return s
}

func (s spread) at(q float64) float64 { return s[min(int(float64(len(s))*q), len(s)-1)] }

func (s spread) mean() float64 {
	sum := 0.0
	for _, v := range s {
		sum += v
	}
	return sum / float64(len(s))
}

// clock is what it takes to ask what time it is, ns.
func clock() float64 {
	const n = 100_000
	start := time.Now()
	for range n {
		_ = time.Now()
	}
	return float64(time.Since(start)) / n
}

// updates measures one update after the other, by length of the prefix. Each round does the same updates to the same
// table, so what an update costs is the least of the rounds, and the rest is what else the machine did.
func updates() {
	both, err := fibtest.Prefixes()
	check(err)
	w := newWorld()
	defer w.close()
	hopOf := map[netip.Prefix]uint32{}
	l, hops := all()
	for i, p := range l {
		hopOf[p] = hops[i]
	}
	fmt.Printf("\nUpdates of the full table, us each: replace, delete and insert again of random prefixes (clock: %.0f ns, not taken off).\n", clock())
	fmt.Println("raw: all of all rounds. cost: of each update the least of the rounds, which all do the same.")
	fmt.Printf("%-16s %7s  %s  %s\n", "prefixes", "updates", "cost: mean    p50    p99  p99.9    max", "raw:  mean    p50    p99  p99.9     max")
	for family, name := range []string{"IPv4", "IPv6"} {
		for _, class := range []struct {
			label     string
			low, high int
			most      float64
		}{{"<= /8", 0, 8, 0}, {"/9 to /17", 9, 17, 0}, {">= /18", 18, 128, 50}} {
			var in []netip.Prefix
			for _, p := range both[family] {
				if p.Bits() >= class.low && p.Bits() <= class.high {
					in = append(in, p)
				}
			}
			if len(in) == 0 {
				fmt.Printf("%-16s none in the table\n", name+" "+class.label)
				continue
			}
			n := less(30_000)
			if class.high <= 17 {
				n = less(3000)
			}
			var raw []float64
			least := make([]float64, 3*n)
			for round := range *rounds {
				r := fibtest.Rand(uint64(class.low))
				for i := range n {
					p := in[r.IntN(len(in))]
					old := hopOf[p]
					t0 := time.Now()
					insert(w.ours, p, w.ids[old%fibtest.Hops+1])
					t1 := time.Now()
					w.ours.Delete(p)
					t2 := time.Now()
					insert(w.ours, p, w.ids[old])
					t3 := time.Now()
					for k, d := range []time.Duration{t1.Sub(t0), t2.Sub(t1), t3.Sub(t2)} {
						us := float64(d) / 1e3
						raw = append(raw, us)
						if at := &least[3*i+k]; round == 0 || us < *at {
							*at = us
						}
					}
				}
			}
			c, s := spreadOf(least), spreadOf(raw)
			verdict := ""
			if class.most > 0 {
				verdict = goal(c.at(.999) <= class.most, fmt.Sprintf("p99.9 <= %.0f us", class.most))
				if s.at(.999) > class.most {
					verdict += " (not raw)"
				}
			}
			fmt.Printf("%-16s %7d     %7.2f %6.2f %6.2f %6.2f %6.1f    %7.2f %6.2f %6.2f %6.2f %7.1f  %s\n", name+" "+class.label, 3*n,
				c.mean(), c.at(.5), c.at(.99), c.at(.999), c.at(1), s.mean(), s.at(.5), s.at(.99), s.at(.999), s.at(1), verdict)
		}
		bartUpdates(w, name, both[family], hopOf)
	}
}

// bartUpdates measures the same of bart, all lengths together.
func bartUpdates(w *world, name string, in []netip.Prefix, hopOf map[netip.Prefix]uint32) {
	pt := w.persist.Load()
	var line [4][]float64
	for range *rounds {
		for k, c := range []struct {
			n   int
			run func(p netip.Prefix, nh uint32)
		}{
			{less(30_000), func(p netip.Prefix, nh uint32) {
				insert(w.ours, p, w.ids[nh%fibtest.Hops+1])
				w.ours.Delete(p)
				insert(w.ours, p, w.ids[nh])
			}},
			{less(30_000), func(p netip.Prefix, nh uint32) {
				w.table.Insert(p, nh%fibtest.Hops+1)
				w.table.Delete(p)
				w.table.Insert(p, nh)
			}},
			{less(30_000), func(p netip.Prefix, nh uint32) {
				w.fast.Insert(p, nh%fibtest.Hops+1)
				w.fast.Delete(p)
				w.fast.Insert(p, nh)
			}},
			{less(2000), func(p netip.Prefix, nh uint32) {
				pt = pt.InsertPersist(p, nh%fibtest.Hops+1)
				pt = pt.DeletePersist(p)
				pt = pt.InsertPersist(p, nh)
			}},
		} {
			r := fibtest.Rand(77)
			start := time.Now()
			for range c.n {
				p := in[r.IntN(len(in))]
				c.run(p, hopOf[p])
			}
			line[k] = append(line[k], float64(time.Since(start))/float64(3*c.n)/1e3)
		}
	}
	fmt.Printf("%-16s mean us: fib %.2f, bart Table %.2f, Fast %.2f (both without readers beside), Persist %.2f (%.1f times fib)\n", name+" all lengths",
		stat.Median(line[0]), stat.Median(line[1]), stat.Median(line[2]), stat.Median(line[3]), stat.Ratio(line[3], line[0]))
}

// beside runs a reader alone and beside a writer that makes 100,000 updates a second, in turn.
func beside() {
	const rate = 100_000
	both, err := fibtest.Prefixes()
	check(err)
	w := newWorld()
	defer w.close()
	fmt.Printf("\nA reader beside a writer of %d updates/s (flaps, bursts, path hunting, random; withdrawals and announcements), ns of processor time a lookup (median)\n", rate)
	window := 400 * time.Millisecond
	if *quick {
		window /= 4
	}
	for family, name := range []string{"IPv4", "IPv6"} {
		l := keys("tbl", family)
		read := func() float64 { // during one window
			n, sum := 0, uint64(0)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			start, began := spent(), time.Now()
			for time.Since(began) < window {
				for range 1024 {
					nh, _ := w.ours.Lookup(l[n&(len(l)-1)])
					sum += uint64(nh)
					n++
				}
			}
			sink.Add(sum)
			return float64(spent()-start) / float64(n)
		}
		churn := fibtest.NewChurn(uint64(family), len(both[family]))
		var alone, with, rates []float64
		read()
		for range max(*rounds, 5) {
			alone = append(alone, read())
			var stop atomic.Bool
			var wg sync.WaitGroup
			var done int
			var took time.Duration
			wg.Go(func() {
				start := time.Now()
				for !stop.Load() {
					due := int(time.Since(start).Seconds() * rate)
					if done >= due {
						pause()
						continue
					}
					u := churn.Next()
					if p := both[family][u.Prefix]; u.Withdraw {
						w.ours.Delete(p)
					} else {
						insert(w.ours, p, w.ids[u.NextHop])
					}
					done++
				}
				took = time.Since(start)
			})
			with = append(with, read())
			stop.Store(true)
			wg.Wait()
			rates = append(rates, float64(done)/took.Seconds())
		}
		loss := (1 - 1/stat.Ratio(with, alone)) * 100
		fmt.Printf("%s: alone %.1f, beside %.1f: %.1f %% slower  %s; %.0f updates/s  %s\n", name, stat.Median(alone), stat.Median(with), loss, goal(loss < 20, "< 20 %"),
			stat.Median(rates), goal(stat.Median(rates) > rate*0.99, ">= 99 % of 100,000/s"))
	}
}

var sink atomic.Uint64

// pause spends a little while on the processor, as a writer that waits for the next message would not, but a goroutine
// that sleeps is woken too late.
func pause() {
	for range 200 {
		_ = sink.Load()
	}
}

// seed is the workload of the article that this package comes from: tables of 10,000 to 500,000 routes with 2,000
// changes a second, and lookups all the time.
func seed() {
	both, err := fibtest.Prefixes()
	check(err)
	fmt.Printf("\n2,000 changes/s (a delete, later an insert, in turn) beside lookups of one goroutine, IPv4, us; each measured alone, with the clock's %.0f ns\n", clock())
	fmt.Printf("%8s  %-22s %-22s %-22s %12s\n", "routes", "insert p50  p99 p99.9", "delete p50  p99 p99.9", "lookup p50  p99 p99.9", "changes")
	var first, last [3]float64
	sizes := []int{10_000, 50_000, 100_000, 200_000, 500_000}
	for _, size := range sizes {
		set, ids := newSet()
		t, err := set.Create(1, "")
		check(err)
		r := fibtest.Rand(11)
		l := fibtest.Shuffled(r, both[0])[:size]
		for _, p := range l {
			insert(t, p, ids[fibtest.Hop(r)])
		}
		var times [3][]float64
		duration := time.Duration(less(4000)) * time.Millisecond
		start := time.Now()
		changes := 0
		for next := start; ; {
			now := time.Now()
			if now.Sub(start) > duration {
				break
			}
			if now.Before(next) {
				a := fibtest.Within(r, l[r.IntN(size)])
				t0 := time.Now()
				nh, _ := t.Lookup(a)
				times[2] = append(times[2], float64(time.Since(t0))/1e3)
				sink.Add(uint64(nh))
				continue
			}
			next = next.Add(time.Millisecond)
			p := l[r.IntN(size)]
			t0 := time.Now()
			t.Delete(p)
			t1 := time.Now()
			insert(t, p, ids[fibtest.Hop(r)])
			t2 := time.Now()
			times[1] = append(times[1], float64(t1.Sub(t0))/1e3)
			times[0] = append(times[0], float64(t2.Sub(t1))/1e3)
			changes += 2
		}
		fmt.Printf("%8d", size)
		for k := range times {
			s := spreadOf(times[k])
			last[k] = s.at(.5)
			if size == sizes[0] {
				first[k] = s.at(.5)
			}
			fmt.Printf("  %9.2f %5.2f %6.2f", s.at(.5), s.at(.99), s.at(.999))
		}
		fmt.Printf(" %10.0f/s\n", float64(changes)/duration.Seconds())
		set.Close()
	}
	fmt.Printf("p50 at %d routes to that at %d: insert %.2f, delete %.2f, lookup %.2f\n", sizes[len(sizes)-1], sizes[0], last[0]/first[0], last[1]/first[1], last[2]/first[2])
}
