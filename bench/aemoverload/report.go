package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"midplane/bench/internal/stat"
)

// summary are the medians of the rounds.
type summary struct {
	p50, p99, p999 time.Duration
	heavyP50       time.Duration
	goodput        float64 // heavy requests a second that were answered in time
	share          float64 // of the machine's capacity
	answered       float64 // share of the light requests
	shed           float64 // share of the heavy requests
	growth         int     // KiB of memory after the first third of the run
	rss            int     // KiB at the end
	late           time.Duration
	again          int // runs that were done again
}

func summarize(l []measured) summary {
	again := 0
	for _, m := range l {
		again += m.again
	}
	share := func(a, b int) float64 { return float64(a) / float64(max(b, 1)) }
	return summary{
		p50: stat.MedianOf(l, func(m measured) time.Duration { return m.LightP50 }), p99: stat.MedianOf(l, func(m measured) time.Duration { return m.LightP99 }),
		p999: stat.MedianOf(l, func(m measured) time.Duration { return m.LightP999 }), heavyP50: stat.MedianOf(l, func(m measured) time.Duration { return m.HeavyP50 }),
		goodput:  stat.MedianOf(l, func(m measured) float64 { return float64(m.HeavyInTime) / m.Seconds }),
		share:    stat.MedianOf(l, func(m measured) float64 { return float64(m.HeavyInTime) / m.Seconds / m.Capacity }),
		answered: stat.MedianOf(l, func(m measured) float64 { return share(m.LightAnswered, m.LightSent) }),
		shed:     stat.MedianOf(l, func(m measured) float64 { return share(m.HeavyShed, m.HeavySent) }),
		growth:   stat.MedianOf(l, func(m measured) int { return m.rssEnd - m.rssEarly }), rss: stat.MedianOf(l, func(m measured) int { return m.rssEnd }),
		late: stat.MedianOf(l, func(m measured) time.Duration { return m.Late }), again: again,
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000) }

func report(list []cell, chosen []server, all map[cell]map[string][]measured) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, c := range list {
		l := all[c][chosen[0].name]
		fmt.Fprintf(w, "%s: the machine does %.0f heavy requests/s, and wakes a raised thread beside them %s ms late (p99)\n", c,
			stat.MedianOf(l, func(m measured) float64 { return m.Capacity }), ms(stat.MedianOf(l, func(m measured) time.Duration { return m.Wake })))
		fmt.Fprintln(w, "  \tlight p50\tp99\tp99.9 ms\tanswered\theavy in time/s\tof capacity\tshed\theavy p50 ms\tRSS MB\tgrew\tgenerator late p99 ms\truns again")
		for _, s := range chosen {
			m := summarize(all[c][s.name])
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%.0f %%\t%.0f\t%.0f %%\t%.0f %%\t%s\t%d\t%+d\t%s\t%d\n", s.name, ms(m.p50), ms(m.p99), ms(m.p999), 100*m.answered,
				m.goodput, 100*m.share, 100*m.shed, ms(m.heavyP50), m.rss>>10, m.growth>>10, ms(m.late), m.again)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	goals(list, chosen, all)
}

// ours reports whether a server is one of aem's.
func ours(name string) bool { return strings.HasPrefix(name, "aem") }

// goals says which of what issue 5 asks for was reached, for each way in which aem serves, in each cell at 1.5 and 3 times
// capacity.
func goals(list []cell, chosen []server, all map[cell]map[string][]measured) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "goals above capacity\t\tlight p99 ≤ 2 ms\tp99.9 ≤ 5 ms\theavy in time ≥ 70 % of capacity\tmemory flat (≤ 8 MB, or within the heap's budget)\tnobody else within 10 times of the p99")
	pass := func(ok bool, format string, args ...any) string {
		if ok {
			return "PASS " + fmt.Sprintf(format, args...)
		}
		return "MISS " + fmt.Sprintf(format, args...)
	}
	for _, c := range list {
		if c.Load < goalLoad {
			continue
		}
		best, name := time.Duration(0), "nobody"
		for _, s := range chosen {
			if o := summarize(all[c][s.name]); !ours(s.name) && (best == 0 || o.p99 < best) {
				best, name = o.p99, s.name
			}
		}
		for _, s := range chosen {
			if !ours(s.name) {
				continue
			}
			m := summarize(all[c][s.name])
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c, s.name, pass(m.p99 <= 2*time.Millisecond, "%s", ms(m.p99)), pass(m.p999 <= 5*time.Millisecond, "%s", ms(m.p999)),
				pass(m.share >= 0.7, "%.0f %%", 100*m.share), pass(flat(c, m), "%+d MB", m.growth>>10),
				pass(best >= 10*m.p99 || best == 0, "%s, %.1f times", name, float64(best)/float64(max(m.p99, 1))))
		}
	}
	w.Flush()
}

// flat reports whether memory did not grow while there was too much to do. Garbage may fill the heap up to its budget, and what is not
// heap is less than 64 MB.
func flat(c cell, m summary) bool {
	return m.growth <= 8<<10 || c.Garbage && m.rss <= (*budget+64)<<10
}
