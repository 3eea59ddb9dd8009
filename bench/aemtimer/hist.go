package main

import (
	"sync"
	"time"
	"unsafe"

	"midplane/aem"
	"midplane/internal/aem/hist"
)

const sizeofTimer = int(unsafe.Sizeof(aem.Timer{}))

// atomicHist is a histogram that callbacks of time.AfterFunc share, each of which runs in a goroutine.
type atomicHist struct {
	mu sync.Mutex
	h  hist.Hist
}

func (a *atomicHist) add(d time.Duration) {
	a.mu.Lock()
	a.h.Add(d)
	a.mu.Unlock()
}

func (a *atomicHist) hist() hist.Hist {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.h
}
