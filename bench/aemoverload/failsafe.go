package main

import (
	"context"
	"runtime"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/priority"
)

// serveFailsafe admits requests by priority through failsafe-go's adaptive limiter, with the settings that its documentation
// begins with; its limit starts at the number of processors.
func serveFailsafe(ready func(string)) error {
	p := adaptivelimiter.NewPrioritizer()
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			p.Calibrate()
		}
	}()
	n := uint(runtime.NumCPU())
	limiter := adaptivelimiter.NewBuilder[any]().
		WithLimits(1, 64, n).
		WithQueueing(2, 3).
		WithMaxWaitTime(deadline).
		BuildPrioritized(p)
	return serveConns(ready, func(kind byte) byte {
		level := priority.VeryHigh
		if kind == heavy {
			level = priority.Low
		}
		permit, err := limiter.AcquirePermitWithPriority(context.Background(), level)
		if err != nil {
			return shed
		}
		work(kind)
		permit.Record()
		return answered
	})
}
