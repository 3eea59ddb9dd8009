package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// Dest is what a discovery request or response said about its sender.
type Dest struct {
	Bearer    int            // that it arrived on
	Addr      uint32         // of the node, not 0
	ID        wire.NodeID    // of the node; for nodes without CapNodeID128 the address in hex
	Caps      wire.Caps      //
	Signature uint16         // random number of the node's instance
	NetHash   uint32         // random number that tells namespaces of one host apart (header word 13)
	Media     wire.MediaAddr // where it can be reached
}

// CheckDest judges a discovery message of a peer (net/tipc/node.c tipc_node_check_dest): it creates the peer and the
// link over the bearer when they are new, and follows a peer that restarted or moved. respond says that the peer wants
// to be answered; duplicate that somebody else seems to use a known peer's address, about which the operator should be
// told.
//
// What the message says about signature and address is compared with what is known, and with the link's state:
//
//	signature address link   verdict
//	same      same    up     nothing new
//	same      same    down   respond; the link will come up
//	same      other   up     duplicate: ignore until the link goes down, if ever
//	same      other   down   moved: take the address, reset the link, respond
//	other     same    up     restarted, found out late: take the signature; the link resets by itself
//	other     same    down   restarted: take the signature, respond
//	other     other   up     duplicate: ignore until the link goes down, if ever
//	other     other   down   new, or restarted and moved: take both, reset the link, respond
func (t *Table) CheckDest(now mono.Time, d Dest) (respond, duplicate bool) {
	if d.Bearer < 0 || d.Bearer >= MaxBearers || !t.bearers[d.Bearer].enabled || t.own == 0 || t.isOwn(d.Addr) {
		return false, false
	}
	t.enter()
	defer t.leave(now)
	if q := t.byID[d.ID]; q != nil && q.addr != d.Addr && q.up() {
		return false, true // two nodes with one identity
	}
	p := t.findOrCreate(now, d)
	if p == nil {
		return false, false
	}
	le := &p.links[d.Bearer]
	l := le.link
	up := l != nil && l.IsUp()
	isReset := l != nil && l.IsReset()
	sameAddr := l != nil && le.addr == d.Media
	sameSig := uint32(d.Signature) == p.signature
	accept := false

	switch {
	case sameSig && sameAddr && up:
	case sameSig && sameAddr:
		respond = true
	case !sameAddr && up:
		duplicate = true
		if !sameSig {
			le.stranger = d.Media
		}
	case sameSig: // moved
		accept, respond = true, true
	case sameAddr:
		p.restarted(now, d.Signature)
		respond = !up
	default: // new
		p.restarted(now, d.Signature)
		accept, respond = true, true
	}
	if !accept {
		return respond, duplicate
	}
	if l == nil {
		if p.linkCnt == maxLinksPerPeer {
			return respond, false
		}
		l = p.newLink(now, d.Bearer)
		isReset = l.IsReset()
	}
	le.addr, le.stranger = d.Media, wire.MediaAddr{}
	if !isReset {
		t.linkDown(now, p, d.Bearer, false)
	}
	return respond, false
}

// restarted takes a peer's new signature. Links that are up may be to its former life.
func (p *peer) restarted(now mono.Time, signature uint16) {
	p.signature = uint32(signature)
	p.suspect, p.suspectAt = p.up(), now
}

// findOrCreate returns the peer that a discovery message speaks of, with its capabilities brought up to date
// (net/tipc/node.c tipc_node_create). It returns nil when there is no room.
//
// One thing differs from the kernel: a peer that is down and comes back under another address is forgotten and made
// anew at once. The kernel keeps the old address for up to 300 s, in which no link can come up.
func (t *Table) findOrCreate(now mono.Time, d Dest) *peer {
	p := t.find(d.Addr)
	if p == nil {
		if q := t.byID[d.ID]; q != nil {
			t.remove(q)
		}
	}
	if p != nil {
		p.netHash = d.NetHash
		if p.caps != d.Caps {
			p.caps = d.Caps
			for i := range p.links {
				if l := p.links[i].link; l != nil {
					l.UpdateCaps(d.Caps)
				}
			}
			t.updateCaps()
		}
		return p
	}
	if !t.makeRoom() {
		return nil
	}
	p = &peer{
		t: t, addr: d.Addr, id: d.ID, caps: d.Caps, netHash: d.NetHash, signature: invalidSig,
		state: SelfDownPeerLeaving, active: [2]int{noBearer, noBearer},
		deleteAt: now + cleanupAfter, interval: idleInterval,
	}
	for i := range p.links {
		p.links[i].p, p.links[i].bearer = p, i
	}
	p.bcRcv = t.newRcvLink(p)
	t.insert(p)
	t.timers.Set(&p.timer, p, now+mono.Time(p.interval)*ms)
	t.updateCaps()
	return p
}

// newLink makes the peer's link over a bearer, ready to be established.
func (p *peer) newLink(now mono.Time, bearer int) *link.Link {
	t, le := p.t, &p.links[bearer]
	l := t.newUcastLink(p, bearer)
	l.SetBundleEager(t.eager)
	l.Reset(now)
	l.Event(link.ResetEvt)
	if p.state == FailingOver {
		l.Event(link.FailoverBeginEvt)
	}
	le.link = l
	p.linkCnt++
	p.calcTimer(l)
	if p.linkCnt == 1 {
		t.timers.Set(&p.timer, p, now+mono.Time(p.interval)*ms)
	}
	return l
}

// TryAddr answers an address trial: it returns 0 when a node of that identity may use addr, or else the address that it
// should try instead (net/tipc/node.c tipc_node_try_addr). trial is the address that this node itself tries, 0: none;
// its own address it defends always.
func (t *Table) TryAddr(id wire.NodeID, addr, trial uint32) uint32 {
	if p := t.find(addr); p != nil {
		if p.id == id {
			return 0
		}
		return t.suggestAddr(addr)
	}
	if p := t.byID[id]; p != nil {
		return p.addr
	}
	if addr == trial || addr == t.own {
		return t.suggestAddr(addr)
	}
	return 0
}

func (t *Table) suggestAddr(addr uint32) uint32 {
	addr ^= t.cfg.Random
	for addr == 0 || t.find(addr) != nil {
		addr++
	}
	return addr
}
