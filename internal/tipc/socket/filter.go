package socket

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

// Receive takes one message for a socket of this node (tipc_sk_rcv): data, connection management or a SOCK_WAKEUP of a
// link. The message must have passed wire.Validate. The Table owns b from now on.
//
// A message that finds no socket, or that its socket does not take, goes back to its sender if it allows that.
func (t *Table) Receive(now mono.Time, b *buf.Buf) {
	t.inq.PushBack(b)
	if !t.busy {
		t.enter()
		t.leave(now)
	}
}

// ReceiveMulticast takes multicast messages, each for all sockets of this node that are bound to any part of its range
// (tipc_sk_mcast_rcv). It empties q.
func (t *Table) ReceiveMulticast(now mono.Time, q *buf.Queue) {
	nested := t.busy
	t.enter()
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		m := b.Msg
		if m.User() == wire.UserGroup || m.Type() == wire.TypeGroupUcast {
			t.inq.PushBack(b)
			continue
		}
		r := wire.ServiceRange{Type: m.NameType(), Lower: m.NameLower(), Upper: m.NameUpper()}
		// Other nodes cannot know of bindings with node scope.
		scope := wire.ScopeCluster
		if t.isOwn(m.OrigNode()) {
			scope = names.ScopeAny
		}
		if m.IsGroup() {
			r.Lower, r.Upper, scope = 0, ^uint32(0), m.LookupScope()
		}
		t.ports = t.net.AppendMulticastPorts(t.ports[:0], r, scope)
		for i, port := range t.ports {
			c := b
			if i < len(t.ports)-1 {
				c = b.Clone()
			}
			c.Msg.SetDestPort(port)
			t.inq.PushBack(c)
		}
		if len(t.ports) == 0 {
			t.stats.Dropped++
			b.Release()
		}
	}
	if !nested {
		t.leave(now)
	}
}

// receive handles one message.
func (t *Table) receive(now mono.Time, b *buf.Buf) {
	t.stats.Received++
	m := b.Msg
	switch m.User() {
	case wire.UserLow, wire.UserMedium, wire.UserHigh, wire.UserCritical, wire.UserConnManager, wire.UserGroup, wire.UserSockWakeup:
	default:
		// Not for sockets. Links do not deliver such messages.
		t.stats.Dropped++
		b.Release()
		return
	}
	s := t.socks[m.DestPort()]
	if s == nil {
		t.noSocket(now, b)
		return
	}
	b.BytesRead = 0
	switch {
	case !m.IsData():
		t.stats.Protocol++
		s.protoReceive(now, b)
	case m.Type() == wire.TypeMcast:
		s.receiveMcast(now, b)
	default:
		s.accept(now, b)
	}
	s.continueLinger(now)
}

// noSocket handles a message whose destination port is gone: one to a service address gets a second chance, once.
func (t *Table) noSocket(now mono.Time, b *buf.Buf) {
	port := b.Msg.DestPort()
	code := wire.CodeNoPort
	if t.lookupAgain(b.Msg, &code) {
		t.stats.Rerouted++
		t.xmitBuf(now, b, b.Msg.DestNode(), port)
		return
	}
	t.reject(now, b, code)
}

// lookupAgain looks for a new destination of a message to a service address (net/tipc/msg.c tipc_msg_lookup_dest).
func (t *Table) lookupAgain(m wire.Msg, code *wire.ErrCode) bool {
	if !m.IsData() || !m.IsNamed() || m.ErrCode() != wire.CodeOK || m.Hdrsz() < wire.NamedHeaderSize {
		return false
	}
	*code = wire.CodeNoName
	if m.RerouteCnt() > 0 {
		return false
	}
	var node uint32
	if m.LookupScope() == wire.ScopeNode {
		node = t.own
	}
	addr, ok := t.net.Lookup(m.NameType(), m.NameInst(), node)
	if !ok {
		return false
	}
	m.IncrRerouteCnt()
	if addr.Node != t.own {
		m.SetPrevNode(t.own)
	}
	m.SetDestNode(addr.Node)
	m.SetDestPort(addr.Port)
	*code = wire.CodeOK
	return true
}

// reject sends a message back to its sender, if that is allowed, and releases it (tipc_sk_respond). Where the MTU is
// small, less of the data goes back; Linux would send nothing.
func (t *Table) reject(now mono.Time, b *buf.Buf, code wire.ErrCode) bool {
	r, ok := msg.Reverse(t.own, b.Msg, code)
	b.Release()
	if !ok {
		t.stats.Dropped++
		return false
	}
	if code > wire.CodeOK && int(code) < len(t.stats.Rejected) {
		t.stats.Rejected[code]++
	}
	node, port := r.Msg.DestNode(), r.Msg.OrigPort()
	if mtu := t.net.MTU(node, port); mtu < len(r.Msg) && mtu >= r.Msg.Hdrsz() {
		r.Msg.SetSize(mtu)
		r.Resize(mtu)
	}
	t.xmitBuf(now, r, node, port)
	return true
}

// accept puts a data message on the receive queue, or refuses it (tipc_sk_filter_rcv).
func (s *Sock) accept(now mono.Time, b *buf.Buf) {
	m := b.Msg
	if s.typ.Connected() {
		if !s.filterConnect(now, m) {
			s.t.reject(now, b, wire.CodeNoPort)
			return
		}
	} else if m.IsConnected() {
		s.t.reject(now, b, wire.CodeNoPort)
		return
	}
	if m.IsGroup() {
		s.t.reject(now, b, wire.CodeNoPort)
		return
	}
	if s.rxUsed+truesize(b) >= s.rcvLimit(m) || s.backlog > 0 && s.state == Listening && s.rxq.Len() >= s.backlog {
		s.drops++
		s.t.reject(now, b, wire.CodeOverload)
		return
	}
	s.enqueue(b)
}

// enqueue puts a message on the receive queue.
func (s *Sock) enqueue(b *buf.Buf) {
	s.rxq.PushBack(b)
	s.rxUsed += truesize(b)
	s.t.stats.Delivered++
	s.t.wake(s)
}

// dequeue takes the first message off the receive queue.
func (s *Sock) dequeue() *buf.Buf {
	b := s.rxq.PopFront()
	if b != nil {
		s.rxUsed -= truesize(b)
	}
	return b
}

// truesize is what a waiting message counts against the receive buffer: the memory it holds, within reason.
func truesize(b *buf.Buf) int {
	return min(b.Cap()+bufOverhead, maxRatio*blockSize*int(b.Msg.Blocks()))
}

// rcvLimit is up to where the receive queue may fill with messages like m (rcvbuf_limit): the receive buffer, for
// messages outside of connections doubled for each level of importance. With message flow control, which old peers
// use, it is what 1025 messages of the largest size take.
func (s *Sock) rcvLimit(m wire.Msg) int {
	switch {
	case !m.IsConnected():
		return s.rcvBuf << min(m.Importance(), wire.SystemImportance)
	case s.peerCaps&wire.CapBlockFlowctl != 0:
		return s.rcvBuf
	}
	return flowMsgLimit
}

// filterConnect decides whether a socket for connections takes a message, and follows what the message means for its
// state (tipc_sk_filter_connect).
func (s *Sock) filterConnect(now mono.Time, m wire.Msg) bool {
	if m.IsMcast() {
		return false
	}
	s.oneway = 0
	code := m.ErrCode()
	switch s.state {
	case Connecting:
		if m.IsConnected() {
			if code != wire.CodeOK {
				break
			}
			s.finishConn(now, m.OrigPort(), m.OrigNode())
			s.phdr().SetImportance(m.Importance())
			s.t.wake(s)
			if m.DataSize() > 0 {
				return true
			}
			m.SetDestDroppable(true) // an empty ACK is dropped in silence
			return false
		}
		// Only the socket that the SYN went to may say anything else.
		if m.OrigPort() != s.peerPort() || m.OrigNode() != s.peerNodeAddr() {
			return false
		}
		if code == wire.CodeOverload && !s.txq.Empty() {
			s.scheduleRetry(now)
			return false
		}
	case Listening:
		if !m.IsSyn() && s.t.net.Caps(m.OrigNode())&wire.CapSynBit != 0 {
			return false
		}
		return !m.IsConnected() && code == wire.CodeOK
	case Established:
		if !s.txq.Empty() {
			s.pushBacklog(now, false)
		}
		switch {
		case !s.isPeerMsg(m):
			return false
		case code != wire.CodeOK:
			s.disconnect(code)
		case m.IsConnected() && m.AckRequired():
			s.sendAck(now, true)
		}
		return true
	default:
		return false
	}
	s.soErr = ErrConnRefused
	s.disconnect(code)
	return true
}
