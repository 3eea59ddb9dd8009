package engine

import (
	"fmt"
	"net"
	"net/netip"

	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/stack"
)

// port is an enabled bearer.
type port struct {
	b       bearer.Bearer
	id      int
	learn   peerList  // nil: it has no list of peers
	readers []*reader // the first is that of unicast
	gone    bool      // close was called; guarded by the engine's mu
}

// peerList is a bearer that sends to a list of peers in place of multicast.
type peerList interface {
	AddPeer(netip.AddrPort) error
}

// closePort closes the driver. All readers end, vacant ones too. Called without e.mu.
func (e *Engine) closePort(p *port) error {
	e.mu.Lock()
	p.gone = true
	for _, x := range p.readers {
		if !x.busy {
			x.handOver()
		}
	}
	e.mu.Unlock()
	return p.b.Close()
}

// EnableBearer puts b into use. cfg's fields that b knows better are taken from b. The engine owns b from then on, and
// closes it in the end, also after an error.
func (e *Engine) EnableBearer(b bearer.Bearer, cfg stack.Bearer) error {
	cfg.Name, cfg.MTU, cfg.Addr, cfg.Broadcast = b.Name(), b.MTU(), b.Addr(), b.BroadcastAddr()
	cfg.Replicast = !b.BroadcastSupport()
	p := &port{b: b, id: -1}
	if l, ok := bearer.Driver(b).(peerList); ok && cfg.Replicast {
		p.learn, cfg.Learn = l, true
	}
	e.lock()
	err := error(net.ErrClosed)
	if !e.closed {
		// The port is there before the first datagram of discovery goes out.
		p.id, err = e.stack.BearerEnable(mono.Now(), cfg)
	}
	if err != nil {
		e.unlock()
		b.Close()
		return err
	}
	e.ports[p.id] = p
	for i, r := range b.Readers() {
		x := newReader(e, p, r, i == 0)
		p.readers = append(p.readers, x)
		e.wg.Go(x.run)
	}
	if ev := b.Events(); ev != nil {
		e.wg.Go(func() { e.watch(p, ev) })
	}
	e.unlock()
	e.log.Info("bearer enabled", "name", cfg.Name, "addr", cfg.Addr.String(), "mtu", cfg.MTU)
	return nil
}

// watch follows the changes below a bearer (net/tipc/bearer.c tipc_l2_device_event).
func (e *Engine) watch(p *port, events <-chan bearer.Event) {
	for ev := range events {
		e.log.Info("bearer changed", "name", p.b.Name(), "event", ev.Kind.String())
		if ev.Kind == bearer.Gone {
			_ = e.DisableBearer(p.b.Name()) // it may be disabled already
			continue
		}
		e.lock()
		if e.ports[p.id] == p && !e.closed {
			now := mono.Now()
			var err error
			switch ev.Kind {
			case bearer.LinkDown, bearer.LinkUp:
				err = e.stack.BearerSetUp(now, p.id, ev.Kind == bearer.LinkUp)
			case bearer.MTUChanged:
				if err = e.stack.Nodes().BearerSetMTU(p.id, ev.MTU); err == nil {
					err = e.stack.BearerReset(now, p.id)
				}
			case bearer.AddrChanged:
				err = e.stack.BearerSetAddr(now, p.id, ev.Addr)
			}
			if err != nil {
				e.log.Warn("bearer changed", "name", p.b.Name(), "err", err)
			}
		}
		e.unlock()
	}
}

// DisableBearer takes the bearer out of use: its links go down, and their peers are told.
func (e *Engine) DisableBearer(name string) error {
	e.lock()
	if id, ok := e.stack.BearerByName(name); ok && !e.closed && e.ports[id] != nil {
		p := e.ports[id]
		err := e.stack.BearerDisable(mono.Now(), id)
		e.settle(mono.Now())
		e.flush()
		if e.ports[id] == p {
			e.ports[id] = nil
		}
		e.unlock()
		e.log.Info("bearer disabled", "name", name)
		if cerr := e.closePort(p); err == nil {
			err = cerr
		}
		return err
	}
	e.unlock()
	return fmt.Errorf("%w: %s", stack.ErrNoBearer, name)
}

// Bearer returns the driver of an enabled bearer.
func (e *Engine) Bearer(name string) (bearer.Bearer, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.ports {
		if p != nil && p.b.Name() == name {
			return bearer.Driver(p.b), true
		}
	}
	return nil, false
}
