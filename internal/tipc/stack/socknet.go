package stack

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// sockNet is the Stack as package socket sees it: the way down.
type sockNet struct{ s *Stack }

func (n sockNet) Xmit(now mono.Time, q *buf.Queue, dnode, selector uint32) error {
	return sockErr(n.s.nodes.Xmit(now, q, dnode, selector))
}

func (n sockNet) Multicast(now mono.Time, q *buf.Queue, m *socket.Method, d *socket.Dests) (int, error) {
	congested, err := n.s.nodes.Multicast(now, q, (*node.Method)(m), (*node.Dests)(d))
	return congested, sockErr(err)
}

// sockErr gives node's errors the identity that package socket compares with.
func sockErr(err error) error {
	switch err {
	case nil:
		return nil
	case node.ErrLinkCong:
		return socket.ErrLinkCong
	case node.ErrHostUnreach:
		return socket.ErrHostUnreach
	case node.ErrMsgSize:
		return socket.ErrMsgSize
	case node.ErrNoBufs:
		return socket.ErrNoBufs
	}
	return err
}

func (n sockNet) FilterMcast(defq, inputq *buf.Queue) {
	node.FilterMcast(n.s.nodes.Own(), defq, inputq)
}

func (n sockNet) MTU(dnode, selector uint32) int { return n.s.nodes.MTU(dnode, selector) }
func (n sockNet) BcastMTU() int                  { return n.s.nodes.BcastMTU() }
func (n sockNet) Caps(dnode uint32) wire.Caps    { return n.s.nodes.Caps(dnode) }

func (n sockNet) UnderWay(now mono.Time, node uint32, since mono.Time, bcast bool) bool {
	return n.s.nodes.UnderWay(now, node, since, bcast)
}

func (n sockNet) Publish(now mono.Time, r wire.ServiceRange, scope wire.Scope, a wire.SocketAddr, key uint32) (*names.Publication, error) {
	return n.s.names.Publish(now, r, scope, a, key)
}

func (n sockNet) Withdraw(now mono.Time, p *names.Publication) { n.s.names.Withdraw(now, p) }

func (n sockNet) Lookup(typ, inst, node uint32) (wire.SocketAddr, bool) {
	return n.s.names.Lookup(typ, inst, node)
}

func (n sockNet) AppendMulticastPorts(dst []uint32, r wire.ServiceRange, scope wire.Scope) []uint32 {
	return n.s.names.AppendMulticastPorts(dst, r, scope)
}

func (n sockNet) AppendMulticastNodes(dst []uint32, r wire.ServiceRange) ([]uint32, bool) {
	return n.s.names.AppendMulticastNodes(dst, r)
}
