// Command fib measures Midplane's FIB beside gaissmai/bart (Table, Fast, and Persist, which is Table for readers that do
// not lock) on the Internet's full routing table. All contenders run in each round, one after the other, on the same keys
// (netip.Addr, made before, in random order), so that what else happens on the machine meets each alike; what is printed
// are medians of the rounds, and of the ratios within the rounds. Lookups are measured in processor time of the thread,
// so that other programs on the machine are in the numbers only by what they do to caches. See docs/performance.md.
//
//	cd bench && go run ./fib [-rounds 7] [-quick] [-only lookup,memory,load,update,beside,seed,many] [-rows NAME]
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"midplane/internal/fib/fibtest"
)

var (
	rounds = flag.Int("rounds", 7, "rounds; medians are reported")
	quick  = flag.Bool("quick", false, "a fifth of the work: to see that it runs, not for numbers")
	only   = flag.String("only", "", "comma-separated parts: lookup, memory, load, update, beside, seed, many; empty: all")
	rows   = flag.String("rows", "", "of the lookups only the rows whose name has this in it, such as \"IPv6 hot 4,096\"")
)

var missed int

func main() {
	flag.Parse()
	if *quick {
		*rounds = min(*rounds, 3)
	}
	prefixes, err := fibtest.Prefixes()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fib:", err)
		os.Exit(1)
	}
	fmt.Printf("%d IPv4 and %d IPv6 prefixes, %d next hops drawn at random; %s, %d processors, %s; %d rounds\n",
		len(prefixes[0]), len(prefixes[1]), fibtest.Hops, runtime.Version(), runtime.GOMAXPROCS(0), amd64(), *rounds)
	for _, part := range []struct {
		name string
		run  func()
	}{{"lookup", lookups}, {"memory", memory}, {"load", load}, {"update", updates}, {"beside", beside}, {"seed", seed}, {"many", many}} {
		if *only == "" || slices.Contains(strings.Split(*only, ","), part.name) {
			part.run()
			runtime.GC()
			debug.FreeOSMemory()
		}
	}
	if missed > 0 {
		fmt.Printf("\n%d goals MISSED\n", missed)
		os.Exit(2)
	}
	fmt.Println("\nall goals REACHED")
}

// amd64 says for which processors this was compiled.
func amd64() string {
	if i, ok := debug.ReadBuildInfo(); ok {
		for _, s := range i.Settings {
			if s.Key == "GOAMD64" {
				return "GOAMD64=" + s.Value
			}
		}
	}
	return runtime.GOARCH
}

// less is how much of the work is done.
func less(n int) int {
	if *quick {
		return n / 5
	}
	return n
}

// goal says whether a number is at least, or at most, what it should be.
func goal(reached bool, want string) string {
	if reached {
		return "REACHED " + want
	}
	missed++
	return "MISSED " + want
}
