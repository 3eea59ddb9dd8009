//go:build !linux

package worker

import "time"

// CanSleep says that Sleep works.
const CanSleep = false

// Sleep does nothing where a thread cannot sleep by itself.
func Sleep(time.Duration, bool) {}
