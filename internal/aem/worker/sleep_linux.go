package worker

import (
	"time"

	"midplane/internal/sys"
)

// CanSleep says that Sleep works.
const CanSleep = true

// Sleep puts the calling thread to sleep, past the timers of the runtime.
func Sleep(d time.Duration) { sys.SleepThread(d) }
