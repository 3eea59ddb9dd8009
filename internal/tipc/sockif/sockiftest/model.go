// Package sockiftest has a slow and obvious model of sockets in one process, for tests of what is built on sockif.
package sockiftest

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
	"midplane/internal/wait"
)

// Node is the model of a node: anycast goes to the first socket bound, queues hold Limit messages.
type Node struct {
	Limit int // messages or pieces of a stream that wait at a socket; 0 means 16

	mu    sync.Mutex
	last  uint32
	socks map[uint32]*socket
}

var _ sockif.Opener = (*Node)(nil)

type socket struct {
	n      *Node
	typ    sockif.Type
	port   uint32
	rd, wr wait.Gate
	bound  []wire.ServiceRange
	in     []item
	peer   *socket
	peerID wire.SocketAddr
	eof    bool
	listen int
	queue  []*socket
	closed bool
}

type item struct {
	info sockif.Info
	data []byte
}

const own = 0x01001001

// Socket implements sockif.Opener.
func (n *Node) Socket(t sockif.Type, _ sockif.Options) (sockif.Socket, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.socket(t), nil
}

func (n *Node) socket(t sockif.Type) *socket {
	if n.socks == nil {
		n.socks = map[uint32]*socket{}
	}
	n.last++
	s := &socket{n: n, typ: t, port: n.last}
	s.rd.Init(&n.mu)
	s.wr.Init(&n.mu)
	n.socks[s.port] = s
	return s
}

// Open counts the open sockets.
func (n *Node) Open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.socks)
}

// Close implements sockif.Opener.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.socks {
		s.close()
	}
	return nil
}

func (n *Node) limit() int {
	if n.Limit == 0 {
		return 16
	}
	return n.Limit
}

func (n *Node) lookup(to sockif.Dest) (list []*socket) {
	for port := uint32(1); port <= n.last; port++ {
		s := n.socks[port]
		if s == nil {
			continue
		}
		if to.Kind == sockif.SocketDest && port == to.Addr.Port {
			return []*socket{s}
		}
		for _, b := range s.bound {
			if to.Kind != sockif.SocketDest && b.Type == to.Range.Type && b.Lower <= to.Range.Upper && to.Range.Lower <= b.Upper {
				list = append(list, s)
				break
			}
		}
	}
	return list
}

func (s *socket) addr() wire.SocketAddr      { return wire.SocketAddr{Port: s.port, Node: own} }
func (s *socket) LocalAddr() wire.SocketAddr { return s.addr() }

func (s *socket) PeerAddr() wire.SocketAddr {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	return s.peerID
}

func (s *socket) Bind(r wire.ServiceRange, _ wire.Scope) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if r.Type < wire.ReservedTypes {
		return syscall.EACCES
	}
	s.bound = append(s.bound, r)
	return nil
}

func (s *socket) Unbind(r wire.ServiceRange, _ wire.Scope) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	for i, b := range s.bound {
		if b == r {
			s.bound = append(s.bound[:i], s.bound[i+1:]...)
			return nil
		}
	}
	return syscall.EINVAL
}

func (s *socket) Listen(backlog int) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	s.listen = max(1, backlog)
	return nil
}

func (s *socket) Connect(_ context.Context, to sockif.Dest) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	l := s.n.lookup(to)
	if len(l) == 0 {
		return &sockif.Error{Code: wire.CodeNoName, Err: syscall.ECONNREFUSED}
	}
	if len(l[0].queue) >= l[0].listen {
		return &sockif.Error{Code: wire.CodeOverload, Err: syscall.ECONNREFUSED}
	}
	p := s.n.socket(s.typ)
	s.peer, p.peer = p, s
	s.peerID, p.peerID = p.addr(), s.addr()
	l[0].queue = append(l[0].queue, p)
	l[0].rd.Wake()
	return nil
}

func (s *socket) Accept() (sockif.Socket, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	for {
		switch {
		case s.closed:
			return nil, net.ErrClosed
		case s.rd.Expired():
			return nil, s.rd.Wait()
		case len(s.queue) > 0:
			p := s.queue[0]
			s.queue = s.queue[1:]
			return p, nil
		}
		if err := s.rd.Wait(); err != nil {
			return nil, err
		}
	}
}

func (s *socket) Send(p []byte, to sockif.Dest) (int, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.typ != sockif.Stream && len(p) > wire.MaxUserMsgSize {
		return 0, syscall.EMSGSIZE
	}
	for {
		switch {
		case s.closed:
			return 0, net.ErrClosed
		case s.wr.Expired():
			return 0, s.wr.Wait()
		case !s.typ.Connected():
			return s.sendTo(p, to)
		case s.peer == nil || s.peer.closed:
			return 0, syscall.EPIPE
		case len(s.peer.in) < s.n.limit():
			p = p[:min(len(p), 1<<16)]
			s.peer.put(item{sockif.Info{From: s.addr()}, p})
			return len(p), nil
		}
		if err := s.wr.Wait(); err != nil {
			return 0, err
		}
	}
}

func (s *socket) sendTo(p []byte, to sockif.Dest) (int, error) {
	l := s.n.lookup(to)
	if len(l) == 0 {
		return 0, &sockif.Error{Code: wire.CodeNoName, Err: syscall.EHOSTUNREACH}
	}
	if to.Kind != sockif.RangeDest {
		l = l[:1]
	}
	for _, d := range l {
		d.put(item{sockif.Info{From: s.addr(), Dest: to.Range, HasDest: to.Kind != sockif.SocketDest}, p})
	}
	return len(p), nil
}

func (s *socket) put(i item) {
	i.data = append([]byte(nil), i.data...)
	s.in = append(s.in, i)
	s.rd.Wake()
}

func (s *socket) Queued() int {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	return len(s.in)
}

func (s *socket) Recv(p []byte) (int, sockif.Info, error) { return s.recv(p, false) }
func (s *socket) Peek(p []byte) (int, sockif.Info, error) { return s.recv(p, true) }

func (s *socket) recv(p []byte, peek bool) (int, sockif.Info, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, sockif.Info{}, net.ErrClosed
		case s.rd.Expired():
			return 0, sockif.Info{}, s.rd.Wait()
		case len(s.in) > 0:
			i := &s.in[0]
			n := copy(p, i.data)
			info := i.info
			if peek {
				info.Truncated = s.typ != sockif.Stream && n < len(i.data)
				return n, info, nil
			}
			if s.typ == sockif.Stream && n < len(i.data) {
				i.data = i.data[n:]
				return n, info, nil
			}
			info.Truncated = n < len(i.data)
			s.in = s.in[1:]
			if s.peer != nil {
				s.peer.wr.Wake()
			}
			return n, info, nil
		case s.eof:
			return 0, sockif.Info{}, io.EOF
		}
		if err := s.rd.Wait(); err != nil {
			return 0, sockif.Info{}, err
		}
	}
}

func (s *socket) SetReadDeadline(t time.Time) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	s.rd.SetDeadline(t)
	return nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	s.wr.SetDeadline(t)
	return nil
}

func (s *socket) Close() error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.close()
	return nil
}

func (s *socket) close() {
	s.closed = true
	delete(s.n.socks, s.port)
	s.rd.Wake()
	s.wr.Wake()
	if p := s.peer; p != nil {
		p.eof = true
		p.rd.Wake()
		p.wr.Wake()
	}
	for _, q := range s.queue {
		q.close()
	}
}
