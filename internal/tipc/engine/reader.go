package engine

import (
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
	"midplane/internal/wait"
)

// Reading. A packet that a goroutine of the engine reads reaches its user by way of the scheduler and often of another
// thread, which costs more than all the rest of its way. So the user who would wait for it reads it himself where that
// is possible: he leads the reader. When he leaves, the reader is vacant, as he is likely to come back; if he does not,
// or if others wait, the engine's goroutine takes over.

// vacancy is after which time the engine's goroutine takes over.
const vacancy = 500 * time.Microsecond

// reader is one stream of received packets.
type reader struct {
	e      *Engine
	p      *port
	r      bearer.Reader
	direct bearer.DirectReader // nil: users cannot lead
	pkts   []bearer.Packet     // of whoever reads

	busy     bool          // somebody reads, or is about to; guarded by e.mu
	vacantAt mono.Time     // since when nobody does; guarded by e.mu
	user     *Socket       // who leads, or nil; guarded by e.mu
	gate     *wait.Gate    // through which user would wait
	kicked   bool          // user was told to look at something else
	takeover chan struct{} // tells the engine's goroutine that it is its turn; whoever sends sets busy first
}

func newReader(e *Engine, p *port, r bearer.Reader, unicast bool) *reader {
	x := &reader{e: e, p: p, r: r, pkts: make([]bearer.Packet, bearer.BatchSize), busy: true, takeover: make(chan struct{}, 1)}
	if unicast {
		x.direct, _ = r.(bearer.DirectReader)
	}
	return x
}

// run is the engine's goroutine for the reader.
func (x *reader) run() {
	e := x.e
	for {
		n, err := x.r.ReadBatch(x.pkts)
		if err != nil {
			return // x stays busy
		}
		e.lock()
		x.handle(n)
		e.woken = 0
		e.settle(mono.Now())
		vacate := x.direct != nil && e.woken == 1 && e.waiting == 1 && !x.p.gone
		if vacate {
			x.vacate()
		}
		e.unlock()
		if vacate {
			<-x.takeover
		}
	}
}

// handle takes the n packets that were read through the core, under one lock. Called with e.mu held.
func (x *reader) handle(n int) {
	e, p := x.e, x.p
	if e.ports[p.id] != p || e.closed {
		return
	}
	e.via = x
	e.sentAt = 0 // what is sent next is no burst, but answers
	now := mono.Now()
	for i := range x.pkts[:n] {
		pkt := &x.pkts[i]
		if pkt.Buf == nil {
			e.stack.HandlePacket(now, p.id, pkt.Src, pkt.Data)
			continue
		}
		e.stack.HandleBuf(now, p.id, pkt.Src, pkt.Buf)
		pkt.Buf = nil
	}
	for _, d := range e.stack.TakeDuplicates() {
		e.alert(now, d)
	}
	if p.learn == nil {
		return
	}
	for _, l := range e.stack.TakeLearned() {
		if l.Bearer == p.id {
			_ = p.learn.AddPeer(l.Addr.IP) // full: the peer has to be configured
		}
	}
}

// lead reads once in place of u, who would wait at g. It reports whether u may lead again. Called and returns with e.mu
// held; x must be vacant.
func (x *reader) lead(u *Socket, g *wait.Gate) bool {
	e := x.e
	x.busy, x.user, x.gate, x.kicked = true, u, g, false
	e.led++
	e.unlock()
	n, err := x.direct.ReadBatchDirect(x.pkts)
	e.lock()
	e.led--
	x.user = nil
	x.handle(n)
	if err != nil || e.waiting > 0 || x.p.gone {
		x.handOver()
		return false
	}
	x.vacate()
	return n > 0 || x.kicked
}

// kickLeaders makes users who lead look at what has changed for them meanwhile. Called with mu held.
func (e *Engine) kickLeaders() {
	for _, p := range e.ports {
		if p == nil {
			continue
		}
		for _, x := range p.readers {
			if u := x.user; u != nil && !x.kicked && (u.woken || u.closed || x.gate.Expired()) {
				x.kicked = true
				x.direct.Kick()
			}
		}
	}
}

// vacate leaves the reader to the next user. Called with e.mu held.
func (x *reader) vacate() {
	x.busy = false
	x.vacantAt = mono.Now()
	x.e.takeOverBy(x.vacantAt.Add(vacancy))
}

// handOver makes the engine's goroutine read. Called with e.mu held by whoever led, or when x is vacant.
func (x *reader) handOver() {
	x.busy = true
	x.takeover <- struct{}{} // never blocks: the goroutine has left, and one hands over at a time
}

// takeOverBy has takeVacant called by then. Called with mu held.
func (e *Engine) takeOverBy(t mono.Time) {
	if e.vacant == 0 || t < e.vacant {
		e.vacant = t
	}
}

// takeVacant hands over what has been vacant for long. Called with mu held.
func (e *Engine) takeVacant(now mono.Time) {
	if e.vacant == 0 || now < e.vacant {
		return
	}
	e.vacant = 0
	for _, p := range e.ports {
		if p == nil {
			continue
		}
		for _, x := range p.readers {
			switch {
			case x.busy:
			case now >= x.vacantAt.Add(vacancy):
				x.handOver()
			default:
				e.takeOverBy(x.vacantAt.Add(vacancy))
			}
		}
	}
}
