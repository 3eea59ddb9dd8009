package stack

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/wire"
)

// upcalls is the Stack as package node sees it: what comes up from the links.
type upcalls struct{ s *Stack }

func (u upcalls) Deliver(now mono.Time, q *buf.Queue) {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		u.s.sockets.Receive(now, b)
	}
}

func (u upcalls) DeliverMulticast(now mono.Time, q *buf.Queue) { u.s.sockets.ReceiveMulticast(now, q) }

func (u upcalls) DeliverNames(now mono.Time, q *buf.Queue, from uint32) {
	u.s.distr.Receive(now, q, from)
}

func (u upcalls) NodeUp(now mono.Time, addr uint32, caps wire.Caps) {
	u.s.distr.NodeUp(now, addr, caps)
}

// NodeDown forgets the peer's publications first, so that a user who is told of a broken connection and looks the
// service up again does not find the dead one.
func (u upcalls) NodeDown(now mono.Time, addr uint32, _ wire.Caps) {
	u.s.distr.NodeDown(now, addr)
	u.s.sockets.NodeDown(now, addr)
}

// LinkUp and LinkDown publish link states as {2, peer, peer} for this node's users (net/tipc/node.c
// tipc_node_write_unlock), and tell discovery that the bearer has one peer more or less.
func (u upcalls) LinkUp(now mono.Time, addr, linkID uint32, bearer int) {
	s := u.s
	s.disc.AddDest(bearer)
	r := wire.ServiceRange{Type: wire.LinkStateType, Lower: addr, Upper: addr}
	p, err := s.names.Publish(now, r, wire.ScopeNode, wire.SocketAddr{Port: linkID, Node: s.Addr()}, linkID)
	if err == nil {
		s.linkPubs[linkKey{addr, bearer}] = p
	}
}

func (u upcalls) LinkDown(now mono.Time, addr, _ uint32, bearer int) {
	s := u.s
	s.disc.RemoveDest(now, bearer)
	k := linkKey{addr, bearer}
	if p := s.linkPubs[k]; p != nil {
		delete(s.linkPubs, k)
		s.names.Withdraw(now, p)
	}
}

func (u upcalls) Discovery(now mono.Time, bearer int, src wire.MediaAddr, m wire.Msg) {
	u.s.disc.Receive(now, bearer, src, m)
}

// discUpcalls is the Stack as package discover sees it.
type discUpcalls struct{ s *Stack }

func (u discUpcalls) CheckDest(now mono.Time, d discover.Dest) (respond, duplicate bool) {
	return u.s.nodes.CheckDest(now, node.Dest(d))
}

func (u discUpcalls) TryAddr(id wire.NodeID, addr, trial uint32) uint32 {
	return u.s.nodes.TryAddr(id, addr, trial)
}

func (u discUpcalls) Finalize(now mono.Time, addr uint32) { u.s.finalize(now, addr) }

func (u discUpcalls) DuplicateAddr(_ mono.Time, bearer int, addr uint32, media wire.MediaAddr) {
	if len(u.s.duplicates) < maxDuplicates {
		u.s.duplicates = append(u.s.duplicates, Duplicate{bearer, addr, media})
	}
}

// maxDuplicates bounds the alerts that the driver has not fetched.
const maxDuplicates = 16

// TakeDuplicates returns the alerts of duplicate addresses since the last call, at most one a second and bearer; the
// slice is valid until the next packet. Discovery's Stats count all.
func (s *Stack) TakeDuplicates() []Duplicate {
	d := s.duplicates
	s.duplicates = s.duplicates[:0]
	return d
}

func (u discUpcalls) LearnPeer(_ mono.Time, bearer int, addr wire.MediaAddr) {
	if len(u.s.learn) < maxLearned {
		u.s.learn = append(u.s.learn, Learned{bearer, addr})
	}
}

// maxLearned bounds the learned addresses that the driver has not fetched.
const maxLearned = 64

// TakeLearned returns the addresses learned since the last call; the slice is valid until the next packet.
func (s *Stack) TakeLearned() []Learned {
	l := s.learn
	s.learn = s.learn[:0]
	return l
}
