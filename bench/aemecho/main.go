//go:build linux

// Aemecho compares echo servers: ours on each back end with package net, gnet, netpoll and nbio, at 100, 1,000 and 10,000
// connections with 64 octets, one message in flight on each (closed loop).
//
// Each server is a process of its own, on one processor with GOMAXPROCS=1; the client, an epoll loop, has another. Servers
// take turns within a round, so that what disturbs the machine disturbs all; the numbers are medians over the rounds, and
// the ratios medians of ratios within a round. Latencies of a closed loop are those of a full server, so none are printed.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

var cells = []int{100, 1000, 10000}

const messageSize = 64

func main() {
	serve := flag.String("serve", "", "be that server (for this program itself)")
	quick := flag.Bool("quick", false, "one round of half a second: shows that it works, not how fast")
	rounds := flag.Int("rounds", 7, "rounds")
	seconds := flag.Float64("seconds", 2, "seconds of a cell")
	only := flag.String("only", "", "servers, separated by commas; default all")
	flag.Parse()
	if *serve != "" {
		fail(runServer(*serve))
		return
	}
	length := time.Duration(*seconds * float64(time.Second))
	if *quick {
		*rounds, length = 1, 500*time.Millisecond
	}
	names := serverNames
	if *only != "" {
		names = strings.Split(*only, ",")
	}
	fmt.Printf("echo of %d octets; %d processors, %s, load %s; %d rounds of %v\n", messageSize, runtime.NumCPU(), runtime.Version(), load(), *rounds, length)
	all := map[string]map[int][]result{}
	for _, n := range names {
		all[n] = map[int][]result{}
	}
	for round := range *rounds {
		for _, conns := range cells {
			order := slices.Clone(names)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, name := range order {
				r, err := measure(name, conns, length)
				if err != nil {
					fail(fmt.Errorf("%s at %d connections: %w", name, conns, err))
				}
				all[name][conns] = append(all[name][conns], r)
				fmt.Fprintf(os.Stderr, "round %d  %-10s %6d  %7.1f k/s  %5.1f us  %4d MB\n", round+1, name, conns, r.rate/1000, r.cpu, r.idle>>20)
			}
		}
	}
	report(names, all)
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "aemecho:", err)
		os.Exit(1)
	}
}
