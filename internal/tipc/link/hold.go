package link

import (
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// SetHold makes the link take packets in sequence without delivering them, until [Link.ReleaseHold]: a link that has just
// come up must not overtake an older one. Tunnel packets and the broadcast start are dealt with at once all the same.
// The peer does not notice. The caller limits what is held, see [Link.Held].
//
// The kernel does without: it refuses data on a synchronising link, so that the peer has to send it again, but delivers
// too early what came out of order before the SYNCH message did, and what came before a failover that began in the
// middle of synchronisation.
func (l *Link) SetHold() { l.holding = true }

// Held is the number of packets held.
func (l *Link) Held() int { return l.held.Len() }

// ReleaseHold delivers what is held, in order, and ends the hold. It returns [DownEvent] when the link failed on the way;
// the rest is then gone. Nothing happens when there is none.
func (l *Link) ReleaseHold() (rc Events) {
	l.holding = false
	for b := l.held.PopFront(); b != nil; b = l.held.PopFront() {
		if rc != 0 {
			b.Release()
			continue
		}
		rc = l.input(b.Msg, b, l.inputq, &l.reasm)
	}
	return rc
}

// holdBack keeps a packet in sequence if it has to be held. b owns m's octets, or is nil; it is consumed if so.
func (l *Link) holdBack(m wire.Msg, b *buf.Buf) bool {
	if !l.holding || m.User() == wire.UserBcastProtocol {
		return false
	}
	if b == nil {
		b = buf.Copy(m)
	}
	l.held.PushBack(b)
	return true
}
