package worker

import (
	"time"

	"midplane/internal/sys"
)

// CanSleep says that Sleep works.
const CanSleep = true

// Sleep puts the calling thread to sleep past the runtime: the goroutine keeps its P.
func Sleep(d time.Duration) { sys.SleepThread(d) }
