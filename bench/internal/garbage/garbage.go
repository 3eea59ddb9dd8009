// Package garbage keeps the garbage collector of a process that is measured busy.
package garbage

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// live tells processes that are started how many MB the garbage keeps alive.
const live = "BENCH_LIVE_MB"

// Keep sets how many MB live in processes that this one starts, 1 or more.
func Keep(mb int) { os.Setenv(live, strconv.Itoa(mb)) }

type node struct {
	next *node
	_    [56]byte
}

var kept atomic.Pointer[[]*node]

// Make makes about 60 MB of garbage a second, in small objects with pointers, until stop is set. As much lives as the process that
// started this one has said, else 1 MB.
func Make(stop *atomic.Bool) {
	mb, _ := strconv.Atoi(os.Getenv(live))
	l := make([]*node, 256*max(mb, 1)) // chains of 64 nodes of 64 octets
	kept.Store(&l)
	for i := 0; !stop.Load(); i++ {
		for j := range 16 {
			var n *node
			for range 64 {
				n = &node{next: n}
			}
			l[(i*16+j)%len(l)] = n
		}
		time.Sleep(time.Millisecond)
	}
}
