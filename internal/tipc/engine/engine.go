// Package engine drives a stack.Stack: it gives the pure core time, datagrams and users.
//
// One mutex guards the stack. User goroutines run the core themselves under it; each bearer's reader goroutines hand in
// received packets, or users who wait for such read them themselves, and one timer calls Tick. Whoever leaves the lock
// first wakes the users whose sockets became ready, then sends the datagrams that the core produced, with the lock
// released. While one goroutine sends, others only leave their datagrams behind, and it takes them along in its next
// batch: batches grow with the load, and without load a message goes out on the goroutine that wrote it. Datagrams keep
// their order.
package engine

import (
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// Config describes a node. The zero value of each field has a default.
type Config struct {
	ID     wire.NodeID // zero: made at random
	Addr   uint32      // legacy address; 0: made from the identity, by trial
	NetID  uint32      // 0: 4711
	Logger *slog.Logger
}

// Engine is a running node. All methods are safe for concurrent use.
type Engine struct {
	log *slog.Logger
	rnd *rand.Rand // used by the stack

	// mu is a leaf: nothing else is locked, and nothing is waited for, while it is held.
	mu      sync.Mutex
	cfg     Config       // this and all below: guarded by mu
	stack   *stack.Stack // of that configuration
	ports   [node.MaxBearers]*port
	closed  bool
	sending bool      // somebody sends: whoever leaves the lock just leaves datagrams behind
	called  bool      // the sender goroutine was called, and has not come yet
	sent    sync.Cond // signalled when sending ends
	sentAt  mono.Time // when it ended last
	spare   *buf.Batch
	timer   *time.Timer
	armed   mono.Time // when timer fires; mono.Never: not at all
	vacant  mono.Time // when a vacant reader is to be taken over, at the earliest; 0: there is none
	via     *reader   // whose packets the core has taken since settle; nil: those of none
	alerts  alerts    // of duplicate addresses, given so far
	led     int       // readers that users lead
	waiting int       // users waiting that packets of readers have woken before
	woken   int       // of these, woken since run looked last

	overtime chan struct{} // tells the sender goroutine to take over
	wg       sync.WaitGroup
}

// maxRounds is how many batches a goroutine sends in a row that came for something else. A goroutine of the engine
// takes over then, so that no user's call is kept for ever under load.
const maxRounds = 4

// burst is how soon after the end of sending the next output is taken for part of a burst. It is below any network's
// round trip, so that requests and answers in turns are sent at once.
const burst = 5 * time.Microsecond

// fullBatch is how many octets of a burst are not kept for the sender goroutine if it has not come: one segmented send.
const fullBatch = 64000

// New starts a node without bearers.
func New(cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var seed [32]byte
	crand.Read(seed[:])
	rnd := rand.New(rand.NewChaCha8(seed))
	if cfg.ID == (wire.NodeID{}) && cfg.Addr == 0 {
		cfg.ID = randomID(rnd)
	}
	e := &Engine{log: cfg.Logger, rnd: rnd, cfg: cfg, armed: mono.Never, spare: &buf.Batch{}, overtime: make(chan struct{}, 1)}
	e.sent.L = &e.mu
	var err error
	if e.stack, err = e.newStack(cfg); err != nil {
		return nil, err
	}
	e.timer = time.AfterFunc(time.Hour, e.tick)
	e.timer.Stop()
	e.wg.Go(e.sendOvertime)
	e.lock()
	e.unlock()
	return e, nil
}

func (e *Engine) newStack(cfg Config) (*stack.Stack, error) {
	return stack.New(mono.Now(), stack.Config{ID: cfg.ID, Addr: cfg.Addr, NetID: cfg.NetID, Rand: e.rnd.Uint32})
}

// ErrInUse is returned by Reconfigure when bearers are enabled or sockets are open.
var ErrInUse = errors.New("bearers are enabled or sockets are open")

// Reconfigure changes identity, address or network id, which is possible as long as nothing depends on them: it makes
// the node anew. change gets the configuration in force.
func (e *Engine) Reconfigure(change func(*Config)) error {
	e.lock()
	defer e.unlock()
	if e.closed {
		return net.ErrClosed
	}
	for _, p := range e.ports {
		if p != nil {
			return ErrInUse
		}
	}
	for s := range e.stack.Sockets().Sockets() {
		if _, ok := s.Owner.(*Socket); ok {
			return ErrInUse
		}
	}
	cfg := e.cfg
	change(&cfg)
	s, err := e.newStack(cfg)
	if err != nil {
		return err
	}
	e.cfg, e.stack = cfg, s
	return nil
}

// randomID makes an identity that reads as a name, which the tipc tools show as it is. Linux would take it from the
// first bearer; two nodes on one host could then have the same.
func randomID(rnd *rand.Rand) (id wire.NodeID) {
	const hex = "0123456789abcdef"
	n := copy(id[:], "n-")
	for ; n < len(id); n++ {
		id[n] = hex[rnd.Uint32()&15]
	}
	return id
}

func (e *Engine) lock() { e.mu.Lock() }

// unlock ends a stay in the core: it lets the node's own services act, wakes users, sets the timer, and sends what
// there is to send. Every way out of the lock that may have changed the core goes through it.
func (e *Engine) unlock() { e.unlockAt(mono.Now()) }

// unlockAt is unlock by a caller who has just asked for the time, which takes as long as all the rest does.
func (e *Engine) unlockAt(now mono.Time) {
	e.settle(now)
	if e.sending || e.closed || !e.stack.HasOutput() {
		e.mu.Unlock()
		return
	}
	if now.Sub(e.sentAt) < burst && e.stack.OutputSize() < fullBatch {
		// One message right after the other: leave the sending to the engine's own goroutine. Until it runs, and
		// while it sends, more messages gather, which are cheaper together. It may be long in coming when all
		// processors are busy.
		e.callSender()
		return
	}
	e.sending = true
	e.send(e.stack.TakeOutput(e.spare), maxRounds)
}

// locker is the Engine as a sync.Locker, for the gates of sockets: waiting is a way out of the lock, too.
type locker Engine

func (l *locker) Lock()   { (*Engine)(l).lock() }
func (l *locker) Unlock() { (*Engine)(l).unlock() }

// settle is the part of unlock before the sending. Called with mu held.
func (e *Engine) settle(now mono.Time) {
	if e.closed {
		return
	}
	for s := e.stack.PopReady(now); s != nil; s = e.stack.PopReady(now) {
		if u, ok := s.Owner.(*Socket); ok {
			u.wake(s.Ready())
		}
	}
	e.via = nil
	if e.led > 0 {
		e.kickLeaders()
	}
	// A timer that fires too early does no harm, so it is only ever moved forward.
	d := e.stack.Deadline()
	if e.vacant != 0 {
		d = d.Min(e.vacant)
	}
	if d < e.armed {
		e.armed = d
		e.timer.Reset(max(0, d.Sub(now)))
	}
}

// send writes b and what else comes meanwhile. Called with mu held and sending set; returns with mu released. rounds
// limits the number of batches, 0 does not.
func (e *Engine) send(b *buf.Batch, rounds int) {
	for n := 1; ; n++ {
		e.spare = nil // b's counterpart is in the core
		ports := e.ports
		e.mu.Unlock()
		for id, p := range ports {
			if p != nil {
				_ = p.b.WriteBatch(b, id) // it can only be closed: then its links are gone
			}
		}
		e.mu.Lock()
		b.Reset() // not before: it gives back Bufs of the core
		e.spare = b
		if n == rounds {
			break
		}
		if b = e.stack.TakeOutput(e.spare); b == nil {
			e.doneSending()
			return
		}
	}
	e.sending = false
	e.sentAt = mono.Now()
	e.sent.Broadcast()
	e.callSender()
}

// callSender tells the sender goroutine that there is something to send. Called with mu held; releases it.
func (e *Engine) callSender() {
	if !e.called {
		e.called = true
		e.overtime <- struct{}{} // never blocks: it takes one before it can be called again
	}
	e.mu.Unlock()
}

// sendOvertime is the goroutine that sends bursts, and goes on where another has sent enough.
func (e *Engine) sendOvertime() {
	for range e.overtime {
		e.mu.Lock()
		e.called = false
		if !e.sending {
			if b := e.stack.TakeOutput(e.spare); b != nil {
				e.sending = true
				e.send(b, 0)
				continue
			}
		}
		e.mu.Unlock()
	}
}

// doneSending is the end of a time of sending. Called with mu held; releases it.
func (e *Engine) doneSending() {
	e.sending = false
	e.sentAt = mono.Now()
	e.sent.Broadcast()
	e.mu.Unlock()
}

// flush sends what there is, and waits until all is sent. Called and returns with mu held.
func (e *Engine) flush() {
	for {
		if e.sending {
			e.sent.Wait()
			continue
		}
		b := e.stack.TakeOutput(e.spare)
		if b == nil {
			return
		}
		e.sending = true
		e.send(b, 0)
		e.mu.Lock()
	}
}

func (e *Engine) tick() {
	e.lock()
	e.armed = mono.Never
	if !e.closed {
		now := mono.Now()
		e.stack.Tick(now)
		e.takeVacant(now)
	}
	e.unlock()
}

// Do calls f with the core locked. f must not block, nor keep the stack.
func (e *Engine) Do(f func(now mono.Time, s *stack.Stack)) {
	e.lock()
	defer e.unlock()
	f(mono.Now(), e.stack)
}

// Close stops the node in order: its sockets are closed, which ends connections and withdraws names, and its peers are
// told that it stops. All calls fail with net.ErrClosed from then on.
func (e *Engine) Close() error { return e.stop(true) }

// Abort stops the node as if its process had died: nobody is told.
func (e *Engine) Abort() error { return e.stop(false) }

func (e *Engine) stop(inOrder bool) error {
	e.lock()
	if e.closed {
		e.mu.Unlock()
		return net.ErrClosed
	}
	e.closed = true
	e.timer.Stop()
	for s := range e.stack.Sockets().Sockets() {
		if u, ok := s.Owner.(*Socket); ok {
			u.rd.Stop()
			u.wr.Stop()
			u.rd.Wake()
			u.wr.Wake()
		}
	}
	if inOrder {
		e.stack.Shutdown(mono.Now())
		e.flush()
	}
	for e.sending {
		e.sent.Wait()
	}
	ports := e.ports
	e.ports = [node.MaxBearers]*port{}
	e.mu.Unlock()
	for _, p := range ports {
		if p != nil {
			e.closePort(p)
		}
	}
	close(e.overtime)
	e.wg.Wait()
	return nil
}
