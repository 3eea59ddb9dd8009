// Package quiet tells whether a machine's processors are there when they are wanted: a virtual one may be taken away for milliseconds
// by others of the same host, which no number of its kernel need show.
package quiet

import (
	"runtime"
	"sync"
	"time"
)

// gap is between two looks at the clock if the processor was away.
const gap = 100 * time.Microsecond

// Lost spins on all processors for d and returns the greatest share of it that one of them was away.
func Lost(d time.Duration) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU()))
	lost := make([]time.Duration, runtime.NumCPU())
	var wg sync.WaitGroup
	for i := range lost {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			begin := time.Now()
			for last := time.Duration(0); last < d; {
				now := time.Since(begin)
				if now-last > gap {
					lost[i] += now - last
				}
				last = now
			}
		})
	}
	wg.Wait()
	worst := 0.0
	for _, l := range lost {
		worst = max(worst, float64(l)/float64(d))
	}
	return worst
}

// Wait waits until no processor is away for more than a share of the time, a number of looks of 200 ms at most, and returns what the last
// one saw.
func Wait(share float64, looks int) (lost float64) {
	for range looks {
		if lost = Lost(200 * time.Millisecond); lost <= share {
			break
		}
	}
	return lost
}
