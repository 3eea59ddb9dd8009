package engine

import (
	"runtime"
	"sync"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
)

// reader is one receive stream of a bearer and the goroutine that reads it.
//
// For requests and answers in turns, most of the time goes into waking: the system wakes a thread for the reader's
// goroutine, and that one has the Go scheduler wake another for the receiver. So when a packet has woken the only
// receiver that waited, the goroutine stands back, and the receiver, when it would wait again, looks for packets
// itself for a short while (it leads). Whoever reads runs packets through the core in the same way.
//
// When looking was in vain, because the peer takes its time or the processors have other work, the goroutine reads
// again, and leading is not tried for a number of batches that doubles each time. It also reads again when more than
// one receiver or sender waits, in a flow of packets, and when nobody has led for guardTime; so a packet never waits
// longer than twice that to be handled.
type reader struct {
	e    *Engine
	p    *port
	r    bearer.Reader
	pkts []bearer.Packet // of whoever reads

	// Guarded by e.mu.
	busy  bool        // somebody reads
	stood bool        // the goroutine stands back; then busy, or guard runs
	turn  sync.Cond   // the goroutine waits here for !busy && !stood
	guard *time.Timer // sees that somebody leads
	armed bool        // it runs
	led   bool        // since it was set
	skip  int         // batches to read before leading is tried
	back  int         // what skip is set to when leading fails next, about
}

// Implementation constants, found by measuring over UDP on loopback: 12 us for a round trip in place of 30.
const (
	leadTries = 128 // looks for packets, each a system call that finds nothing
	leadNear  = 200 * time.Microsecond
	leadBatch = 2 // packets in a batch: more are a flow
	minSkip   = 4
	maxSkip   = 512
	guardTime = time.Millisecond
)

func newReader(e *Engine, p *port, r bearer.Reader) *reader {
	x := &reader{e: e, p: p, r: r, pkts: make([]bearer.Packet, bearer.BatchSize)}
	x.turn.L = (*locker)(e)
	x.guard = time.AfterFunc(time.Hour, x.watch)
	x.guard.Stop()
	return x
}

// run is the goroutine.
func (x *reader) run() {
	e := x.e
	defer x.guard.Stop()
	e.lock()
	for {
		for x.busy || x.stood {
			x.turn.Wait()
		}
		x.busy = true
		e.unlock()
		began := mono.Now()
		n, err := x.r.ReadBatch(x.pkts)
		near := mono.Now().Sub(began) < leadNear
		e.lock()
		x.busy = false
		if err != nil {
			e.unlock()
			return
		}
		x.handle(n)
		switch {
		case x.skip > 0:
			x.skip--
		case near && n <= leadBatch && e.waiting == 1 && e.woken == 1 && e.unicastReader() == x && runtime.GOMAXPROCS(0) > 1:
			x.stood = true
			x.arm()
		}
	}
}

// handle runs a batch of packets through the core, under one lock, and wakes whom it concerns.
func (x *reader) handle(n int) {
	e, p := x.e, x.p
	e.woken = 0
	if e.ports[p.id] != p || e.closed {
		return
	}
	now := mono.Now()
	for i := range x.pkts[:n] {
		e.stack.HandlePacket(now, p.id, x.pkts[i].Src, x.pkts[i].Data)
	}
	if p.learn != nil {
		for _, l := range e.stack.TakeLearned() {
			if l.Bearer == p.id {
				_ = p.learn.AddPeer(l.Addr.IP) // full: the peer has to be configured
			}
		}
	}
	e.settle()
}

// lead reads packets once on behalf of a receiver that would wait, if it is time for that. It reports whether it
// tried, and so had released the lock; if not, the receiver has to wait. Called and returns with e.mu held.
func (x *reader) lead() bool {
	e := x.e
	if !x.stood || x.busy || e.waiting > 0 || e.closed {
		return false
	}
	x.busy, x.led = true, true
	e.unlock()
	n := 0
	var err error
	for range leadTries {
		if n, err = x.r.TryReadBatch(x.pkts); n > 0 || err != nil {
			break
		}
		runtime.Gosched()
	}
	e.lock()
	x.busy = false
	if n == 0 {
		x.back = min(max(2*x.back, minSkip), maxSkip)
		x.skip = x.back
		x.release()
		return true
	}
	x.back = 0
	x.handle(n)
	if n > leadBatch || e.waiting > 0 || e.closed {
		x.release()
	} else {
		x.arm()
	}
	return true
}

// release has the goroutine read again.
func (x *reader) release() {
	x.stood = false
	x.turn.Signal()
}

func (x *reader) arm() {
	if !x.armed {
		x.armed, x.led = true, false
		x.guard.Reset(guardTime)
	}
}

// watch is the guard.
func (x *reader) watch() {
	x.e.mu.Lock()
	defer x.e.mu.Unlock()
	x.armed = false
	switch {
	case !x.stood || x.busy:
	case x.led:
		x.arm()
	default:
		x.release()
	}
}

// unicastReader is the reader that all packets of connections come through, nil if there is more than one.
func (e *Engine) unicastReader() (x *reader) {
	for _, p := range e.ports {
		if p == nil {
			continue
		}
		if x != nil {
			return nil
		}
		x = p.readers[0]
	}
	return x
}
