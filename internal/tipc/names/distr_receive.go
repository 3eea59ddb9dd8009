package names

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Receive takes the name distribution messages on q, which came from the node from in this order over any of its
// links, and consumes them (tipc_named_rcv). Messages that make no sense are dropped and counted.
func (d *Distributor) Receive(_ mono.Time, q *buf.Queue, from uint32) {
	p := d.peers[from]
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		if p == nil {
			d.stats.UnknownPeer++
		} else {
			d.receive(p, b.Msg)
		}
		b.Release()
	}
}

func (d *Distributor) receive(p *peer, m wire.Msg) {
	// The kernel believes the origin that the message claims; a peer could so publish in the name of others. Messages
	// are not forwarded between nodes any more, so no honest one is lost.
	if m.User() != wire.UserNameDistr || m.OrigNode() != p.addr || d.t.isLocal(p.addr) {
		d.stats.WrongOrigin++
		return
	}
	seq := m.NamedSeqNo()
	opens := m.IsLastBulk() && !p.open // a second one is not heeded: every contact has one, and numbers never go back
	if opens {
		p.open, p.rcvNxt = true, seq
	}
	switch {
	case m.IsBulk() || m.IsLegacy():
		d.apply(p, m.Type(), m.Data())
	case p.open && seq == p.rcvNxt:
		p.rcvNxt++
		d.apply(p, m.Type(), m.Data())
	case p.open && wire.SeqLess(seq, p.rcvNxt):
		d.stats.Stale++
		return
	default:
		d.putOff(p, seq, m)
	}
	if opens {
		d.dropStale(p)
	}
	d.resume(p)
}

// resume applies deferred messages as long as the next one is there.
func (d *Distributor) resume(p *peer) {
	for p.open && len(p.deferred) > 0 {
		it, ok := p.deferred[p.rcvNxt]
		if !ok {
			return
		}
		d.forget(p, p.rcvNxt, it)
		p.rcvNxt++
		if it.n > 0 {
			d.applyItem(p, it.typ, it.one)
		}
		for _, i := range it.more {
			d.applyItem(p, it.typ, i)
		}
	}
}

// putOff keeps a message until its number is the next. Of two with one number the first counts.
func (d *Distributor) putOff(p *peer, seq uint16, m wire.Msg) {
	if _, ok := p.deferred[seq]; ok {
		d.stats.Stale++
		return
	}
	data := m.Data()
	it := deferred{typ: m.Type(), n: len(data) / wire.NameItemSize}
	if w := it.weight(); p.items+w > d.cfg.MaxDeferred || d.total+w > d.cfg.MaxDeferredTotal {
		d.stats.DeferOverflow++
		return
	}
	it.one, _ = wire.ParseNameItem(data)
	if it.n > 1 {
		it.more = make([]wire.NameItem, it.n-1)
		for k := range it.more {
			it.more[k], _ = wire.ParseNameItem(data[(k+1)*wire.NameItemSize:])
		}
	}
	d.countTail(data)
	if p.deferred == nil {
		p.deferred = map[uint16]deferred{}
	}
	p.deferred[seq] = it
	p.items += it.weight()
	d.total += it.weight()
}

func (d *Distributor) forget(p *peer, seq uint16, it deferred) {
	delete(p.deferred, seq)
	p.items -= it.weight()
	d.total -= it.weight()
	if len(p.deferred) == 0 {
		p.deferred = nil // a map does not shrink
	}
}

// dropStale forgets the deferred messages whose changes were part of the bulk.
func (d *Distributor) dropStale(p *peer) {
	for seq, it := range p.deferred {
		if wire.SeqLess(seq, p.rcvNxt) {
			d.forget(p, seq, it)
			d.stats.Stale++
		}
	}
}

// apply carries out the items of a message.
func (d *Distributor) apply(p *peer, typ uint8, data []byte) {
	if typ > wire.TypeWithdrawal {
		d.stats.BadType++
		return
	}
	d.countTail(data)
	for {
		it, ok := wire.ParseNameItem(data)
		if !ok {
			return
		}
		d.applyItem(p, typ, it)
		data = data[wire.NameItemSize:]
	}
}

func (d *Distributor) countTail(data []byte) {
	if len(data)%wire.NameItemSize != 0 {
		d.stats.Tail++
	}
}

// applyItem is tipc_update_nametbl. Refusing ranges with swapped bounds is what kernels do since 2026.
func (d *Distributor) applyItem(p *peer, typ uint8, it wire.NameItem) {
	addr := wire.SocketAddr{Port: it.Port, Node: p.addr}
	switch typ {
	case wire.TypePublication:
		switch d.t.insertRemote(it.Range, addr, it.Key) {
		case nil:
			d.stats.Published++
		case ErrRange:
			d.stats.BadRange++
		case ErrDuplicate:
			d.stats.Duplicate++
		default:
			d.stats.OverFull++
		}
	case wire.TypeWithdrawal:
		if d.t.removeRemote(it.Range, addr, it.Key) {
			d.stats.Withdrawn++
		} else {
			d.stats.UnknownWithdrawal++
		}
	default:
		d.stats.BadType++
	}
}
