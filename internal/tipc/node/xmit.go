package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Xmit sends one message, which q holds as one or more packets, to a node (net/tipc/node.c tipc_node_xmit). selector
// chooses between two active links; senders that want their messages in order use the same one for all. q is consumed.
// Messages to the own node are delivered when the outermost call ends, in order.
//
// Errors: [ErrLinkCong] (the message was taken), [ErrHostUnreach], [ErrMsgSize], [ErrNoBufs].
func (t *Table) Xmit(now mono.Time, q *buf.Queue, addr, selector uint32) error {
	if q.Empty() {
		return nil
	}
	t.enter()
	defer t.leave(now)
	if t.isOwn(addr) {
		t.localq.Splice(q)
		t.acts.push(action{kind: actLocal})
		return nil
	}
	p := t.find(addr)
	if p == nil || p.active[selector&1] == noBearer {
		q.Purge()
		return ErrHostUnreach
	}
	b := p.active[selector&1]
	le := &p.links[b]
	err := le.link.Xmit(now, q, le)
	if t.eager {
		t.noteHeldBack(le)
	}
	if err == ErrNoBufs {
		t.linkDown(now, p, b, false)
		return ErrNoBufs
	}
	return err
}

// XmitBuf sends a single packet (net/tipc/node.c tipc_node_xmit_skb). It is for messages that are never refused.
func (t *Table) XmitBuf(now mono.Time, b *buf.Buf, addr, selector uint32) error {
	t.oneq.PushBack(b)
	err := t.Xmit(now, &t.oneq, addr, selector)
	t.oneq.Purge()
	return err
}

// Broadcast sends a message of the name distributor to all peers that are up (net/tipc/node.c tipc_node_broadcast):
// as one broadcast when rcDests, the number of peers that cannot take that, is 0 and the node is not set to replicast;
// otherwise as a copy for each. b is consumed.
func (t *Table) Broadcast(now mono.Time, b *buf.Buf, rcDests int) {
	t.enter()
	defer t.leave(now)
	if rcDests == 0 && t.bc.mode() != ModeReplicast {
		t.oneq.PushBack(b)
		t.bcastXmit(now, &t.oneq)
		return
	}
	for _, p := range t.sorted {
		if !p.up() {
			continue
		}
		c := b.Clone()
		c.Msg.SetDestNode(p.addr)
		t.XmitBuf(now, c, p.addr, 0)
	}
	b.Release()
}

// Multicast sends one message, which pkts holds as one or more packets, to the nodes dests, this one included if they
// say so (net/tipc/bcast.c tipc_mcast_xmit). m is the sender's memory of how its last message travelled; when that
// changes, a pair of SYN messages lets receivers keep the order, see [FilterMcast]. pkts is consumed. congested is the
// number of links whose SOCK_WAKEUP message the sender has to wait for before it sends more; the message itself was
// taken. err is [ErrMsgSize] when it was too large for the broadcast link.
func (t *Table) Multicast(now mono.Time, pkts *buf.Queue, m *Method, dests *Dests) (congested int, err error) {
	defer pkts.Purge()
	if pkts.Empty() {
		return 0, nil
	}
	t.enter()
	defer t.leave(now)
	if dests.Local && !t.copyLocal(pkts) {
		return 0, ErrMsgSize
	}
	if len(dests.Remote) == 0 {
		return 0, nil
	}
	was, first := m.Rcast, m.Expires == 0
	t.bc.selectMethod(now, len(dests.Remote), t.caps, m)
	hdr := pkts.Front().Msg
	if hdr.User() == wire.UserFragmenter {
		hdr = hdr.InnerHdr()
	}
	hdr.SetIsRcast(m.Rcast)
	if was != m.Rcast && !first {
		// Both SYN messages go to all peers. In the kernel those that are not among dests, because their bindings are not
		// known here yet, get only one of the two, and hold what this socket sends later.
		dests = t.allPeers()
		if err := t.sendSync(now, hdr, m, dests); err != nil {
			return 0, err
		}
	}
	if m.Rcast {
		return congested + t.rcastXmit(now, pkts, dests), nil
	}
	n, err := t.bcastXmit(now, pkts)
	return congested + n, err
}

// copyLocal puts the whole message, reassembled, on the way to this node's sockets (net/tipc/msg.c
// tipc_msg_reassemble).
func (t *Table) copyLocal(pkts *buf.Queue) bool {
	front := pkts.Front()
	if pkts.Len() == 1 {
		t.localm.PushBack(front.Clone())
	} else {
		hdr := front.Msg.InnerHdr()
		n := hdr.Size()
		if n < wire.MinHeaderSize || n > wire.MaxMsgSize {
			return false
		}
		c, off := buf.Get(n), 0
		for b := front; b != nil; b = b.Next() {
			off += copy(c.Msg[off:], b.Msg.Data())
		}
		if off != n {
			c.Release()
			return false
		}
		t.localm.PushBack(c)
	}
	t.acts.push(action{kind: actLocalMc})
	return true
}

// bcastXmit sends pkts over the broadcast link (net/tipc/bcast.c tipc_bcast_xmit). pkts is consumed.
func (t *Table) bcastXmit(now mono.Time, pkts *buf.Queue) (congested int, err error) {
	if t.bcl.BcPeers() > 0 {
		err = t.bcl.Xmit(now, pkts, t.bcOut())
	}
	pkts.Purge()
	if err == ErrLinkCong {
		return 1, nil
	}
	return 0, err
}

// rcastXmit sends a copy of pkts to each destination (net/tipc/bcast.c tipc_rcast_xmit). It leaves pkts alone.
func (t *Table) rcastXmit(now mono.Time, pkts *buf.Queue, dests *Dests) (congested int) {
	selector := pkts.Front().Msg.LinkSelector()
	for _, addr := range dests.Remote {
		for b := pkts.Front(); b != nil; b = b.Next() {
			c := b.Clone()
			c.Msg.SetDestNode(addr)
			t.copyq.PushBack(c)
		}
		if t.Xmit(now, &t.copyq, addr, selector) == ErrLinkCong {
			congested++
		}
	}
	return congested
}

// sendSync sends the empty twin of a message that is the first to travel another way, the old way (net/tipc/bcast.c
// tipc_mcast_send_sync). hdr is the message's own header; it is marked SYN.
func (t *Table) sendSync(now mono.Time, hdr wire.Msg, m *Method, dests *Dests) (err error) {
	if t.caps&wire.CapMcastRbctl == 0 || hdr.Type() != wire.TypeMcast || len(hdr) < wire.McastHeaderSize {
		return nil
	}
	hdr.SetSyn(true)
	b := buf.Copy(hdr[:wire.McastHeaderSize])
	b.Msg.SetSize(wire.McastHeaderSize)
	b.Msg.SetIsRcast(!hdr.IsRcast())
	b.Msg.SetErrCode(wire.CodeNoPort)
	t.syncq.PushBack(b)
	if m.Rcast {
		_, err = t.bcastXmit(now, &t.syncq)
	} else {
		t.rcastXmit(now, &t.syncq, dests)
	}
	t.syncq.Purge()
	return err
}

// allPeers returns the peers that are up. The result is valid until the next call.
func (t *Table) allPeers() *Dests {
	t.everybody.Reset()
	for _, p := range t.sorted {
		if p.up() {
			t.everybody.Remote = append(t.everybody.Remote, p.addr)
		}
	}
	return &t.everybody
}
