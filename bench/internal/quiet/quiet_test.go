package quiet

import (
	"runtime"
	"testing"
	"time"
)

// Twice as many that spin as there are processors are away for about half of the time.
func TestLost(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	for range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread()
			for {
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 * runtime.NumCPU()))
	if lost := Lost(500 * time.Millisecond); lost < 0.1 {
		t.Errorf("away for %.0f %% of the time, beside others that spin", 100*lost)
	}
}
