package bearer

import "time"

// DirectReader is a Reader that a goroutine can also wait on in the system call itself. That is the fastest way to learn
// of a datagram, as no other thread takes part. Those of UDP on Linux are.
type DirectReader interface {
	Reader

	// ReadBatchDirect is ReadBatch that blocks the thread, and returns 0 when nothing has come for DirectTime or after
	// Kick.
	ReadBatchDirect(p []Packet) (int, error)

	// Kick ends a ReadBatchDirect that is under way, or a later one. It may be called by any goroutine. It can be lost.
	Kick()
}

// DirectTime is how long ReadBatchDirect waits, roughly.
const DirectTime = 100 * time.Millisecond
