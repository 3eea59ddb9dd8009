//go:build linux

package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"midplane/bench/internal/stat"
)

// result of one server in one cell of one round.
type result struct {
	rate float64 // messages a second
	cpu  float64 // microseconds of the server's processor time a message
	idle int64   // octets resident with all connections open and silent
}

var peers = []string{"net", "gnet", "netpoll", "nbio"}

// slack is how much worse than a peer counts as level: what repeats of the same server differ by.
const slack = 0.03

func rate(r result) float64 { return r.rate }
func cpu(r result) float64  { return r.cpu }
func idle(r result) float64 { return float64(r.idle) }

// ratio is the median over rounds of a's value by b's in the same round.
func ratio(a, b []result, f func(result) float64) float64 {
	var v []float64
	for i := range min(len(a), len(b)) {
		v = append(v, f(a[i])/f(b[i]))
	}
	return stat.Median(v)
}

func report(names []string, all map[string]map[int][]result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "server")
	for _, c := range cells {
		fmt.Fprintf(w, "\t%d: k/s\tus/msg\tx net", c)
	}
	fmt.Fprintln(w, "\tMB idle")
	top := cells[len(cells)-1]
	for _, n := range names {
		fmt.Fprint(w, n)
		for _, c := range cells {
			rs := all[n][c]
			fmt.Fprintf(w, "\t%.1f\t%.1f\t", stat.MedianOf(rs, rate)/1000, stat.MedianOf(rs, cpu))
			if base := all["net"][c]; len(base) > 0 {
				fmt.Fprintf(w, "%.2f", ratio(rs, base, rate))
			}
		}
		fmt.Fprintf(w, "\t%.1f\n", stat.MedianOf(all[n][top], idle)/(1<<20))
	}
	w.Flush()
	fmt.Println("x net: messages a second by those of net in the same round. MB idle: resident, 10,000 silent connections.")
	for _, n := range names {
		if n == "aem/uring" || n == "aem/epoll" { // stdnet is for systems that have neither: shown, not judged
			judge(n, all)
		}
	}
}

// judge holds one of ours against the goals of issue 5, "Must show" 3.
func judge(name string, all map[string]map[int][]result) {
	verdict := func(ok bool, format string, args ...any) {
		word := "MISS"
		if ok {
			word = "PASS"
		}
		fmt.Printf("%s  %s: %s\n", word, name, fmt.Sprintf(format, args...))
	}
	net := all["net"]
	if len(net[cells[0]]) == 0 {
		return
	}
	for _, c := range cells {
		r := ratio(all[name][c], net[c], rate)
		verdict(r >= 1-slack, "messages/s at %d connections %.2f of net's, want no less than %.2f", c, r, 1-slack)
		r = ratio(all[name][c], net[c], cpu)
		verdict(r <= 1+slack, "CPU a message at %d connections %.2f of net's, want no more than %.2f", c, r, 1+slack)
	}
	top := cells[len(cells)-1]
	best, who := 0.0, ""
	for _, p := range peers {
		if rs := all[p][top]; len(rs) > 0 {
			if v := stat.MedianOf(rs, cpu); who == "" || v < best {
				best, who = v, p
			}
		}
	}
	r := ratio(all[name][top], all[who][top], cpu)
	verdict(r <= 1+slack, "CPU a message at %d connections %.2f of the best peer's (%s), want no more than %.2f", top, r, who, 1+slack)
	m := ratio(all[name][top], net[top], idle)
	verdict(m <= 0.25, "memory at %d idle connections %.2f of net's, want no more than 0.25", top, m)
}
