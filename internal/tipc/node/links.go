package node

import (
	"strconv"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/link"
	"midplane/internal/tipc/wire"
)

// Send puts a packet of a unicast link on its bearer; without a carrier only RESET messages may pass
// (net/tipc/bearer.c tipc_bearer_xmit).
func (le *linkEntry) Send(pkt []byte, own *buf.Buf) {
	t := le.p.t
	if b := &t.bearers[le.bearer]; b.enabled && (b.up || wire.Msg(pkt).IsReset()) {
		t.cfg.Out.Send(le.bearer, le.addr, pkt, own)
	}
}

// bcastOut puts packets of the broadcast link on the bearers.
type bcastOut Table

// bcOut is the output of the broadcast send link.
func (t *Table) bcOut() link.Output { return (*bcastOut)(t) }

// Send puts pkt on the bearer that reaches all peers, or without one on each that reaches any
// (net/tipc/bcast.c tipc_bcbase_xmit). That a receiver gets it twice does no harm.
func (o *bcastOut) Send(pkt []byte, own *buf.Buf) {
	t := (*Table)(o)
	if t.bc.primary != noBearer {
		t.sendBcast(t.bc.primary, pkt, own)
		return
	}
	for i, n := range t.bc.dests {
		if n > 0 {
			t.sendBcast(i, pkt, own)
		}
	}
}

func (t *Table) sendBcast(bearer int, pkt []byte, own *buf.Buf) {
	if b := &t.bearers[bearer]; b.up {
		t.cfg.Out.Send(bearer, b.Broadcast, pkt, own)
	}
}

// wakeBcast queues the upcall for senders that the broadcast link can serve again.
func (t *Table) wakeBcast() {
	if !t.bcq.Empty() {
		t.acts.push(action{kind: actBcWakeup})
	}
}

// newSendLink makes the broadcast send link.
func (t *Table) newSendLink() {
	t.bcl = link.NewBcastSender(link.BcastConfig{
		Own: t.own, NetID: t.netID, Name: BcastLinkName, MTU: sendMTU, MinWin: bcastWindow, MaxWin: bcastWindow, Inputq: &t.bcq,
	})
}

// newRcvLink makes a peer's broadcast receive link.
func (t *Table) newRcvLink(p *peer) *link.Link {
	return link.NewBcastReceiver(link.BcastConfig{
		Own: t.own, NetID: t.netID, Name: BcastLinkName + ":" + nodeName(p.id, p.addr), MTU: 1<<16 - 1,
		MinWin: t.bcl.MinWin(), MaxWin: t.bcl.MaxWin(), Peer: p.addr, PeerCaps: p.caps, BcSnd: t.bcl, Inputq: &p.bcq, Namedq: &p.namedq,
	})
}

// newUcastLink makes a peer's link over a bearer.
func (t *Table) newUcastLink(p *peer, bearer int) *link.Link {
	b, le := &t.bearers[bearer], &p.links[bearer]
	return link.New(link.Config{
		Own: t.own, SelfName: nodeName(t.id, t.own), Peer: p.addr, PeerName: nodeName(p.id, p.addr), PeerCaps: p.caps,
		IfName: b.ifName, Bearer: bearer, Plane: b.plane, Tolerance: b.Tolerance, Priority: b.Priority, MTU: b.MTU, MinMTU: b.MinMTU,
		MinWin: b.MinWin, MaxWin: b.MaxWin, Session: uint16(t.cfg.Rand()),
		BcSnd: t.bcl, BcRcv: p.bcRcv, Inputq: &le.inputq, Namedq: &p.namedq, Mon: b.mon,
	})
}

// nodeName is a node as part of a link's name: its identity if that has at most 16 characters, or else its address in
// hex (net/tipc/link.c tipc_link_create).
func nodeName(id wire.NodeID, addr uint32) string {
	if s := IDString(id); len(s) <= 16 {
		return s
	}
	return strconv.FormatUint(uint64(addr), 16)
}
