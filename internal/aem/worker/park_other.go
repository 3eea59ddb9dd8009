//go:build !linux

package worker

import "sync"

// threadPark parks by a condition where there is no futex.
type threadPark struct {
	mu   sync.Mutex
	cond *sync.Cond
	set  bool
}

func (p *threadPark) park() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.set {
		if p.cond == nil {
			p.cond = sync.NewCond(&p.mu)
		}
		p.cond.Wait()
	}
	p.set = false
}

func (p *threadPark) unpark() {
	p.mu.Lock()
	p.set = true
	if p.cond != nil {
		p.cond.Signal()
	}
	p.mu.Unlock()
}
