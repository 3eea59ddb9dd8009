package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"

	"midplane/bench/internal/stat"
	"midplane/fib"
)

// contender looks up all keys, one after the other, and returns the sum of what it found.
type contender struct {
	name string
	run  func(keys []netip.Addr) uint64
}

func (w *world) contenders() []contender {
	return []contender{
		{"fib", func(keys []netip.Addr) (sum uint64) {
			for _, a := range keys {
				nh, _ := w.ours.Lookup(a)
				sum += uint64(nh)
			}
			return sum
		}},
		{"fib batch", func(keys []netip.Addr) (sum uint64) {
			var nhs [256]fib.NextHopID
			for len(keys) > 0 {
				n := min(len(keys), len(nhs))
				w.ours.LookupBatch(keys[:n], nhs[:n])
				for _, nh := range nhs[:n] {
					sum += uint64(nh)
				}
				keys = keys[n:]
			}
			return sum
		}},
		{"bart Table", func(keys []netip.Addr) (sum uint64) {
			for _, a := range keys {
				nh, _ := w.table.Lookup(a)
				sum += uint64(nh)
			}
			return sum
		}},
		{"bart Fast", func(keys []netip.Addr) (sum uint64) {
			for _, a := range keys {
				nh, _ := w.fast.Lookup(a)
				sum += uint64(nh)
			}
			return sum
		}},
		{"bart Persist", func(keys []netip.Addr) (sum uint64) {
			for _, a := range keys {
				nh, _ := w.persist.Load().Lookup(a)
				sum += uint64(nh)
			}
			return sum
		}},
	}
}

// dependent is contenders where each lookup needs the result of the one before it, so that none overlaps the next.
func (w *world) dependent() []contender {
	chain := func(lookup func(netip.Addr) uint32) func([]netip.Addr) uint64 {
		return func(keys []netip.Addr) (sum uint64) {
			last := uint32(0)
			for i := range keys {
				last = lookup(keys[i+int(last>>31)]) // next hops have no bit 31
				sum += uint64(last)
			}
			return sum
		}
	}
	return []contender{
		{"fib", chain(func(a netip.Addr) uint32 { nh, _ := w.ours.Lookup(a); return uint32(nh) })},
		{"bart Table", chain(func(a netip.Addr) uint32 { nh, _ := w.table.Lookup(a); return nh })},
		{"bart Fast", chain(func(a netip.Addr) uint32 { nh, _ := w.fast.Lookup(a); return nh })},
		{"bart Persist", chain(func(a netip.Addr) uint32 { nh, _ := w.persist.Load().Lookup(a); return nh })},
	}
}

// pass returns the processor time of one lookup; with several readers, that time divided by their number, as they work
// at the same time.
func pass(c contender, keys []netip.Addr, readers int) (ns float64, sum uint64) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range readers {
		mine := keys[i*len(keys)/readers : (i+1)*len(keys)/readers]
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c.run(mine) // the caches hold what this contender needs, not what the one before it did
			start := spent()
			found := c.run(mine)
			took := spent() - start
			mu.Lock()
			defer mu.Unlock()
			ns += float64(took) / float64(len(keys)) / float64(readers)
			sum += found
		})
	}
	wg.Wait()
	return ns, sum
}

func lookups() {
	w := newWorld()
	defer w.close()
	fmt.Println("\nLookups, ns of processor time each (median), and how many times as fast fib is; one loop over 1,048,576 keys: loads of different lookups may overlap")
	fmt.Println("but for \"dependent\". tbl: a random address of a random prefix; rnd: a random address; hot: 4,096 addresses or one, of tbl.")
	fmt.Println("The batch is LookupBatch of 256; bart has none. Each measured pass comes after one of the same contender that is not.")
	fmt.Printf("%-26s %7s %7s %7s %7s %7s  %9s %9s %9s  %9s\n", "keys", "fib", "batch", "Table", "Fast", "Persist", "/Table", "/Fast", "/Persist", "batch/min")
	for family, name := range []string{"IPv4", "IPv6"} {
		least := []float64{7, 3.5}[family]
		for _, k := range []struct {
			kind, label string
			readers     int
			dependent   bool
			least       float64
		}{
			{"tbl", "tbl", 1, false, least},
			{"tbl", "tbl, dependent", 1, true, 0},
			{"tbl", "tbl, two readers", 2, false, least},
			{"rnd", "rnd", 1, false, 0},
			{"hot4096", "hot 4,096", 1, false, 5},
			{"hot4096", "hot 4,096, dependent", 1, true, 0},
			{"hot1", "hot 1", 1, false, 0},
		} {
			if k.readers > runtime.GOMAXPROCS(0) || !strings.Contains(name+" "+k.label, *rows) {
				continue
			}
			l := keys(k.kind, family)
			cs := w.contenders()
			if k.dependent {
				cs = w.dependent()
			}
			ns := map[string][]float64{}
			var want uint64
			for range *rounds {
				for i, c := range cs {
					t, sum := pass(c, l, k.readers)
					if i == 0 {
						want = sum
					}
					if sum != want { // next hop n has the id n, so sums can be compared
						check(fmt.Errorf("%s finds other next hops (sum %d) than %s (sum %d)", c.name, sum, cs[0].name, want))
					}
					ns[c.name] = append(ns[c.name], t)
				}
			}
			table, fast, persist := stat.Ratio(ns["bart Table"], ns["fib"]), stat.Ratio(ns["bart Fast"], ns["fib"]), stat.Ratio(ns["bart Persist"], ns["fib"])
			batch, batchMin := "-", "-"
			if b := ns["fib batch"]; b != nil {
				batch = fmt.Sprintf("%.1f", stat.Median(b))
				batchMin = fmt.Sprintf("%.1f", min(stat.Ratio(ns["bart Table"], b), stat.Ratio(ns["bart Fast"], b), stat.Ratio(ns["bart Persist"], b)))
			}
			verdict := ""
			if k.least > 0 {
				one, many := min(table, fast, persist), min(stat.Ratio(ns["bart Table"], ns["fib batch"]), stat.Ratio(ns["bart Fast"], ns["fib batch"]), stat.Ratio(ns["bart Persist"], ns["fib batch"]))
				verdict = goal(max(one, many) >= k.least, fmt.Sprintf(">= %.1f", k.least))
				if one < k.least && many >= k.least {
					verdict += " (by LookupBatch only)"
				}
			}
			fmt.Printf("%-26s %7.1f %7s %7.1f %7.1f %7.1f  %9.1f %9.1f %9.1f  %9s  %s\n", name+" "+k.label, stat.Median(ns["fib"]), batch,
				stat.Median(ns["bart Table"]), stat.Median(ns["bart Fast"]), stat.Median(ns["bart Persist"]), table, fast, persist, batchMin, verdict)
		}
	}
}
