package worker

import "sync"

// single is what a process has one of. Who has taken it is guarded by the lock.
type single[T any] struct {
	sync.Mutex
	taken *T
}
