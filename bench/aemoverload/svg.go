package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The colours of Okabe and Ito, which people tell apart whatever their eyes see of colours.
var colours = []string{"#999999", "#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#009e73", "#d55e00", "#0072b2", "#000000"}

// svg draws the 99th percentile of light requests over load, and below it the heavy requests that were answered in time, of the
// steady cells without garbage.
func svg(list []cell, chosen []server, all map[cell]map[string][]measured) string {
	var steady []cell
	for _, c := range list {
		if c.Scenario == "steady" && !c.Garbage {
			steady = append(steady, c)
		}
	}
	slices.SortFunc(steady, func(a, b cell) int { return int(100 * (a.Load - b.Load)) })
	const (
		left, width   = 80.0, 560.0
		top1, height1 = 50.0, 300.0
		top2, height2 = 420.0, 140.0
	)
	most := steady[len(steady)-1].Load
	x := func(load float64) float64 { return left + width*load/most }
	const lo, hi = -1.0, 4.0 // powers of ten of milliseconds
	y := func(d time.Duration) float64 {
		v := math.Log10(max(d.Seconds()*1000, 0.1))
		return top1 + height1*(hi-min(v, hi))/(hi-lo)
	}
	capacity := 0.0
	for _, c := range steady {
		for _, s := range chosen {
			capacity = max(capacity, summarize(all[c][s.name]).goodput)
		}
	}
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 620" font-family="sans-serif" font-size="13">`)
	p(`<rect width="820" height="620" fill="white"/>`)
	p(`<text x="%v" y="24" font-size="16">Light requests while heavy ones are offered at a multiple of capacity</text>`, left)
	p(`<text x="%v" y="%v">99th percentile of latency, ms</text>`, left, top1-8)
	for e := lo; e <= hi; e++ {
		at := top1 + height1*(hi-e)/(hi-lo)
		p(`<line x1="%v" x2="%v" y1="%.1f" y2="%.1f" stroke="#ddd"/>`, left, left+width, at, at)
		p(`<text x="%v" y="%.1f" text-anchor="end">%g</text>`, left-8, at+4, math.Pow(10, e))
	}
	p(`<text x="%v" y="%v">heavy requests answered within %v, 1/s</text>`, left, top2-8, deadline)
	for i := range 3 {
		v := capacity * float64(i) / 2
		at := top2 + height2*(1-float64(i)/2)
		p(`<line x1="%v" x2="%v" y1="%.1f" y2="%.1f" stroke="#ddd"/>`, left, left+width, at, at)
		p(`<text x="%v" y="%.1f" text-anchor="end">%.0f</text>`, left-8, at+4, v)
	}
	for _, c := range steady {
		p(`<text x="%.1f" y="%v" text-anchor="middle">%g</text>`, x(c.Load), top1+height1+18, c.Load)
		p(`<text x="%.1f" y="%v" text-anchor="middle">%g</text>`, x(c.Load), top2+height2+18, c.Load)
	}
	p(`<text x="%v" y="%v" text-anchor="middle">load, times capacity</text>`, left+width/2, top2+height2+38)
	for i, s := range chosen {
		colour, stroke := colours[slices.IndexFunc(servers, func(o server) bool { return o.name == s.name })%len(colours)], 2
		if ours(s.name) {
			stroke = 4
		}
		var line1, line2 []string
		for _, c := range steady {
			m := summarize(all[c][s.name])
			line1 = append(line1, fmt.Sprintf("%.1f,%.1f", x(c.Load), y(m.p99)))
			line2 = append(line2, fmt.Sprintf("%.1f,%.1f", x(c.Load), top2+height2*(1-m.goodput/max(capacity, 1))))
		}
		for _, l := range [][]string{line1, line2} {
			p(`<polyline points="%s" fill="none" stroke="%s" stroke-width="%d"/>`, strings.Join(l, " "), colour, stroke)
		}
		at := top1 + 20*float64(i)
		p(`<line x1="%v" x2="%v" y1="%v" y2="%v" stroke="%s" stroke-width="%d"/>`, left+width+20, left+width+45, at, at, colour, stroke)
		p(`<text x="%v" y="%v">%s</text>`, left+width+52, at+4, s.name)
	}
	p(`</svg>`)
	return b.String()
}
