package worker

import (
	"time"

	"midplane/internal/sys"
)

// CanSleep says that Sleep works.
const CanSleep = true

// Sleep puts the calling thread to sleep, with keep past the runtime: the goroutine then keeps its P.
func Sleep(d time.Duration, keep bool) { sys.SleepThread(d, keep) }
