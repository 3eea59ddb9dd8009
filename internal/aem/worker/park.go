package worker

// Parker is where one worker waits for work. Unpark may come before Park, which then returns at once; several before one
// Park count as one.
type Parker struct {
	locked bool
	thread threadPark
	ch     chan struct{}
}

// NewParker makes the parker of a worker, which is locked to its thread or not.
func NewParker(locked bool) *Parker {
	p := &Parker{locked: locked}
	if !locked {
		p.ch = make(chan struct{}, 1)
	}
	return p
}

// Park waits until Unpark. Only the worker calls it.
func (p *Parker) Park() {
	if p.locked {
		p.thread.park()
		return
	}
	<-p.ch
}

// Unpark lets Park return. It does not block.
func (p *Parker) Unpark() {
	if p.locked {
		p.thread.unpark()
		return
	}
	select {
	case p.ch <- struct{}{}:
	default:
	}
}
