package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Node is what a host runs: stack.Stack, or anything that behaves like it.
type Node interface {
	HandlePacket(now mono.Time, bearer int, src wire.MediaAddr, pkt []byte)
	Tick(now mono.Time)
	Deadline() mono.Time
	Settle(now mono.Time)
	TakeOutput(empty *buf.Batch) *buf.Batch
}

// bufNode is a Node that can take over a datagram without copying it.
type bufNode interface {
	HandleBuf(now mono.Time, bearer int, src wire.MediaAddr, b *buf.Buf)
}

// World is virtual time, a network and its hosts. See the package comment; use [NewWorld]. It belongs to one goroutine.
type World struct {
	now    mono.Time
	events eventHeap
	segs   []*Segment
	hosts  []*Host
	net    *rand.Rand // of the network
	pool   packetPool

	// MaxSteps is how many steps all nodes together may take; 0: no limit. More is a violation.
	MaxSteps uint64

	stats  WorldStats
	hash   uint64 // of all that was noted
	tracer *tracer
	err    error
}

// WorldStats counts what a World did.
type WorldStats struct {
	Sent, SentOctets uint64 // datagrams given to the network; a broadcast counts once
	Delivered        uint64
	Lost             uint64 // by loss, cuts and full queues
	Steps            uint64 // calls into nodes
}

// Host is a place for a node: it keeps its addresses and its clock when the node restarts.
type Host struct {
	w     *World
	Index int
	Node  Node // nil: switched off
	// After is called at the end of each step of the node, to let its applications act. now is the host's time.
	After func(now mono.Time)

	clock   clock
	inst    uint32    // counts the nodes that ran here
	timer   mono.Time // earliest timer event that is queued
	stalled mono.Time // the host does not run before
	inbox   []*packet // arrived meanwhile
	empty   *buf.Batch
	spins   int
	spinAt  mono.Time
}

// inboxLimit is how many datagrams wait at a stalled host; more are lost.
const inboxLimit = 4096

// maxSpins is how often a node may be ticked without time going on.
const maxSpins = 200

// NewWorld makes hosts without nodes, all attached to each of the segments.
func NewWorld(seed uint64, hosts int, segments []Profile) *World {
	w := &World{net: newRand(seed, 'n'), hash: 14695981039346656037}
	for i, p := range segments {
		if p.Media == 0 {
			p.Media = wire.MediaUDP
		}
		if p.MTU == 0 {
			p.MTU = 14000
			if p.Media == wire.MediaEth {
				p.MTU = 1500
			}
		}
		s := &Segment{Profile: p, id: i, busy: make([]mono.Time, hosts), paths: make([][]path, hosts)}
		for j := range s.paths {
			s.paths[j] = make([]path, hosts)
		}
		w.segs = append(w.segs, s)
	}
	for i := range hosts {
		w.hosts = append(w.hosts, &Host{w: w, Index: i, timer: mono.Never, empty: &buf.Batch{}})
	}
	return w
}

// Now is the virtual time.
func (w *World) Now() mono.Time { return w.now }

// Host returns host i.
func (w *World) Host(i int) *Host { return w.hosts[i] }

// Err is the first violation that was found.
func (w *World) Err() error { return w.err }

// Stats returns the counters.
func (w *World) Stats() WorldStats { return w.stats }

// Hash is a fingerprint of everything that happened: equal runs have equal hashes.
func (w *World) Hash() uint64 { return w.hash }

// Failf reports a violation. Only the first counts; Run returns soon after.
func (w *World) Failf(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: %s", time.Duration(w.now), fmt.Sprintf(format, args...))
		w.Tracef("VIOLATION %v", w.err)
	}
}

// At calls f at virtual time t, outside of any node.
func (w *World) At(t mono.Time, f func()) {
	w.events.push(event{at: max(t, w.now), kind: evCall, do: f})
}

// After calls f after d.
func (w *World) After(d time.Duration, f func()) { w.At(w.now.Add(d), f) }

// SetClock sets how much faster (or slower) than virtual time the host's clock runs, in millionths, and its reading at
// virtual time 0.
func (h *Host) SetClock(base mono.Time, ppm int64) { h.clock = clock{base, ppm} }

// Time is the host's clock now.
func (h *Host) Time() mono.Time { return h.clock.local(h.w.now) }

// Start puts a node on the host, and calls boot in its first step. make must not use the clock of another host.
func (h *Host) Start(n Node, boot func(now mono.Time)) {
	h.Stop()
	h.Node = n
	h.w.note(noteStart, h.Index, 0, nil)
	h.Do(boot)
}

// Stop switches the host off: it neither sends nor receives any more, and what is under way to it is lost.
func (h *Host) Stop() {
	h.Node = nil
	h.inst++
	h.timer = mono.Never
	h.stalled = 0
	for _, p := range h.inbox {
		h.w.freePacket(p)
	}
	h.inbox = h.inbox[:0]
	h.w.note(noteStop, h.Index, 0, nil)
}

// Stall makes the host not run for d. What arrives waits.
func (h *Host) Stall(d time.Duration) {
	h.stalled = max(h.stalled, h.w.now.Add(d))
	inst := h.inst
	h.w.At(h.stalled, func() {
		if h.inst == inst && h.Node != nil && h.stalled <= h.w.now {
			h.resume()
		}
	})
}

func (h *Host) resume() {
	for len(h.inbox) > 0 && h.Node != nil && h.w.err == nil {
		p := h.inbox[0]
		h.inbox = h.inbox[1:]
		h.receive(p)
	}
	h.inbox = nil
	if h.Node != nil {
		h.tick()
	}
}

// Do runs f as a step of the host's node: applications use it to call into the node. It does nothing while the host is
// off or stalled, and then returns false.
func (h *Host) Do(f func(now mono.Time)) bool {
	if h.Node == nil || h.stalled > h.w.now {
		return false
	}
	h.w.stats.Steps++
	now := h.Time()
	if f != nil {
		f(now)
	}
	h.finish(now)
	return true
}

func (h *Host) receive(p *packet) {
	w := h.w
	w.stats.Delivered++
	w.stats.Steps++
	s := w.segs[p.seg]
	if onLink(p.data) {
		s.paths[p.from][h.Index].lastRx = w.now
	}
	w.note(noteDeliver, h.Index, p.seg, p.data)
	now := h.Time()
	// Drivers hand in long datagrams in a Buf; here every other one is, so that both ways are taken.
	if n, ok := h.Node.(bufNode); ok && len(p.data)%2 == 0 {
		n.HandleBuf(now, p.seg, s.addr(p.from), buf.Copy(p.data))
	} else {
		h.Node.HandlePacket(now, p.seg, s.addr(p.from), p.data)
	}
	w.freePacket(p)
	h.finish(now)
}

// onLink reports whether a datagram shows that the sender's end of the link between two nodes is up: not discovery, not
// broadcast, and not an attempt to set the link up.
func onLink(pkt []byte) bool {
	m := wire.Msg(pkt)
	return !m.NonSeq() && m.PeerLinkIsUp()
}

func (h *Host) tick() {
	w := h.w
	w.stats.Steps++
	if h.spinAt != w.now {
		h.spinAt, h.spins = w.now, 0
	}
	if h.spins++; h.spins > maxSpins {
		w.Failf("host %d wants to be ticked at once again and again", h.Index)
		return
	}
	now := h.Time()
	h.Node.Tick(now)
	h.finish(now)
}

// finish ends a step: applications, output, timer.
func (h *Host) finish(now mono.Time) {
	h.Node.Settle(now)
	if h.After != nil {
		h.After(now)
		h.Node.Settle(now)
	}
	for out := h.Node.TakeOutput(h.empty); out != nil; out = h.Node.TakeOutput(h.empty) {
		for i, d := range out.Datagrams {
			h.w.transmit(h.Index, d.Bearer, d.Dst, out.Bytes(i))
		}
		out.Reset()
		h.empty = out
	}
	h.schedule()
}

func (h *Host) schedule() {
	at := h.clock.global(h.Node.Deadline())
	if at == mono.Never {
		return
	}
	if at = max(at, h.w.now, h.stalled); at < h.timer {
		h.timer = at
		h.w.events.push(event{at: at, kind: evTimer, host: int32(h.Index), inst: h.inst})
	}
}

// Run lets time pass until t, or until a violation is found.
func (w *World) Run(t mono.Time) error {
	for w.err == nil && len(w.events.e) > 0 && w.events.e[0].at <= t {
		if w.MaxSteps != 0 && w.stats.Steps > w.MaxSteps {
			w.Failf("more than %d steps: a storm", w.MaxSteps)
			break
		}
		e := w.events.pop()
		w.now = e.at
		w.dispatch(&e)
	}
	if w.err == nil {
		w.now = max(w.now, t)
	}
	return w.err
}

func (w *World) dispatch(e *event) {
	if e.kind == evCall {
		e.do()
		return
	}
	h := w.hosts[e.host]
	if h.inst != e.inst || h.Node == nil {
		if e.pkt != nil {
			w.segs[e.pkt.seg].paths[e.pkt.from][h.Index].drop(w.now)
			w.stats.Lost++
			w.freePacket(e.pkt)
		}
		return
	}
	switch e.kind {
	case evTimer:
		if h.timer != e.at {
			return // superseded by an earlier one
		}
		h.timer = mono.Never
		if h.stalled > w.now {
			return // resume ticks
		}
		if h.clock.local(w.now) < h.Node.Deadline() {
			h.schedule()
			return
		}
		h.tick()
	case evDeliver:
		switch {
		case h.stalled <= w.now:
			h.receive(e.pkt)
		case len(h.inbox) < inboxLimit:
			h.inbox = append(h.inbox, e.pkt)
		default:
			w.segs[e.pkt.seg].paths[e.pkt.from][h.Index].drop(w.now)
			w.stats.Lost++
			w.freePacket(e.pkt)
		}
	}
}
