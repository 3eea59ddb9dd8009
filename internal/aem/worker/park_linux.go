package worker

import (
	"sync/atomic"

	"midplane/internal/sys"
)

// threadPark puts a thread to sleep in the kernel. A goroutine that is locked to its thread costs two switches between
// threads when the runtime parks and readies it; here the thread itself sleeps and the runtime sees a system call.
type threadPark struct {
	word atomic.Uint32 // 1: a wake-up waits to be taken
}

func (p *threadPark) park() {
	for !p.word.CompareAndSwap(1, 0) {
		sys.FutexWait(&p.word, 0)
	}
}

func (p *threadPark) unpark() {
	if p.word.Swap(1) == 0 {
		sys.FutexWake(&p.word)
	}
}
