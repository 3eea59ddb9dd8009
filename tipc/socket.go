package tipc

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

// SocketConfig sets up a socket. A nil *SocketConfig and the zero value mean the defaults, which are Linux's.
type SocketConfig struct {
	// Type of the socket; 0 means Stream for Dial and Listen, RDM for ListenPacket.
	Type SocketType

	// Scope of the first binding; 0 means ClusterScope.
	Scope Scope

	// Importance of what is sent; the zero value is LowImportance.
	Importance Importance

	// Backlog is how many connections may wait to be accepted; 0 means 128.
	Backlog int

	// ReadBuffer is how much may wait to be read, in octets; 0 means 2 MiB. Connections announce it to their peer,
	// connectionless sockets return what exceeds it, times two for each level of importance.
	ReadBuffer int

	// DialTimeout bounds how long Dial tries; 0 means 8 s.
	DialTimeout time.Duration

	// NoDelay sends small parts of a stream at once. By default they are gathered while earlier ones are under way
	// in one direction only.
	NoDelay bool

	// SourceDroppable drops messages when a link is congested, in place of waiting. Datagram sockets always do.
	SourceDroppable bool

	// Multicast is how multicast messages of a connectionless socket travel; the zero value is MulticastAuto.
	Multicast MulticastMethod

	// ReturnUndelivered has messages of a connectionless socket come back when they cannot be delivered, see
	// PacketConn.ReadMsg. By default, as in Linux, they are dropped.
	ReturnUndelivered bool
}

func (c *SocketConfig) orDefault() SocketConfig {
	if c == nil {
		return SocketConfig{}
	}
	return *c
}

func (c SocketConfig) scope() wire.Scope {
	if c.Scope == 0 {
		return wire.ScopeCluster
	}
	return wire.Scope(c.Scope)
}

// open makes the socket.
func (n *Node) open(c SocketConfig, def SocketType, connected bool) (sockif.Socket, SocketType, error) {
	t := c.Type
	if t == 0 {
		t = def
	}
	switch {
	case !sockif.Type(t).Valid() || t.Connected() != connected:
		return nil, t, &sockif.Error{Err: syscall.EINVAL}
	case c.Multicast > MulticastReplicast || c.Importance > CriticalImportance || c.Backlog < 0 || c.ReadBuffer < 0 || c.DialTimeout < 0:
		return nil, t, &sockif.Error{Err: syscall.EINVAL}
	}
	s, err := n.opener.Socket(sockif.Type(t), sockif.Options{
		Importance: uint8(c.Importance), SrcDroppable: c.SourceDroppable, Returnable: c.ReturnUndelivered,
		Mcast:   sockif.Mcast(c.Multicast),
		NoDelay: c.NoDelay, RecvBuf: c.ReadBuffer, ConnTimeout: c.DialTimeout,
	})
	return s, t, err
}

// opError wraps what a socket returned.
func opError(op string, addr net.Addr, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	e := &OpError{Op: op, Addr: addr, Err: err}
	var se *sockif.Error
	if errors.As(err, &se) {
		e.Code = Code(se.Code)
		if err == error(se) {
			e.Err = se.Err
		}
	}
	return e
}

// dest translates an address. Multicast says whether a range is meant as all of its sockets, or must be one instance.
func dest(a net.Addr, multicast bool) (sockif.Dest, error) {
	switch a := a.(type) {
	case ServiceAddr:
		return sockif.Dest{Kind: sockif.ServiceDest, Range: wire.ServiceRange{Type: a.Type, Lower: a.Instance, Upper: a.Instance},
			Addr: wire.SocketAddr{Node: uint32(a.Node)}}, nil
	case ServiceRange:
		if multicast && a.IsValid() {
			return sockif.Dest{Kind: sockif.RangeDest, Range: wire.ServiceRange(a)}, nil
		}
	case SocketAddr:
		return sockif.Dest{Kind: sockif.SocketDest, Addr: wire.SocketAddr{Port: a.Port, Node: uint32(a.Node)}}, nil
	}
	return sockif.Dest{}, syscall.EINVAL
}

// bindable translates an address that a socket can bind to.
func bindable(a net.Addr) (wire.ServiceRange, error) {
	switch a := a.(type) {
	case ServiceAddr:
		if a.Node == 0 {
			return wire.ServiceRange(a.Range()), nil
		}
	case ServiceRange:
		if a.IsValid() {
			return wire.ServiceRange(a), nil
		}
	}
	return wire.ServiceRange{}, syscall.EINVAL
}

func socketAddr(a wire.SocketAddr) SocketAddr { return SocketAddr{a.Port, NodeAddr(a.Node)} }

// Dial connects to a service or a socket: addr is a ServiceAddr or a SocketAddr. Unlike with TCP, the connection is
// there when the other side has accepted it, not when it waits to be accepted. Dial gives up after cfg.DialTimeout,
// with an error that matches syscall.ETIMEDOUT. Nobody bound, or nobody accepting, is syscall.ECONNREFUSED or
// syscall.EHOSTUNREACH at once.
func (n *Node) Dial(addr net.Addr, cfg *SocketConfig) (*Conn, error) {
	return n.DialContext(context.Background(), addr, cfg)
}

// DialContext is Dial that also gives up when ctx ends. Once connected, ctx has no effect.
func (n *Node) DialContext(ctx context.Context, addr net.Addr, cfg *SocketConfig) (*Conn, error) {
	to, err := dest(addr, false)
	if err != nil {
		return nil, opError("dial", addr, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, opError("dial", addr, err)
	}
	s, t, err := n.open(cfg.orDefault(), Stream, true)
	if err != nil {
		return nil, opError("dial", addr, err)
	}
	if err := s.Connect(ctx, to); err != nil {
		s.Close()
		return nil, opError("dial", addr, err)
	}
	return newConn(s, t), nil
}

// DialMessage is Dial that does not wait: first goes out with the request for the connection, which saves a round trip
// when the other side takes it (implied connect). The other side reads first when it has accepted. Whether it did shows
// when something is read; until then the connection must not be written to. first has 1 to MaxMessage octets.
func (n *Node) DialMessage(addr net.Addr, first []byte, cfg *SocketConfig) (*Conn, error) {
	to, err := dest(addr, false)
	if err == nil && len(first) == 0 {
		err = syscall.EINVAL
	}
	if err != nil {
		return nil, opError("dial", addr, err)
	}
	s, t, err := n.open(cfg.orDefault(), Stream, true)
	if err != nil {
		return nil, opError("dial", addr, err)
	}
	if _, err := s.Send(first, to); err != nil {
		s.Close()
		return nil, opError("dial", addr, err)
	}
	return newConn(s, t), nil
}

// Pair makes two sockets of this node that are connected to each other, like socketpair(2).
func (n *Node) Pair(cfg *SocketConfig) (a, b *Conn, err error) {
	fail := func(err error) (*Conn, *Conn, error) { return nil, nil, opError("pair", nil, err) }
	l, t, err := n.open(cfg.orDefault(), Stream, true)
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	if err := l.Listen(1); err != nil {
		return fail(err)
	}
	s, _, err := n.open(cfg.orDefault(), Stream, true)
	if err != nil {
		return fail(err)
	}
	dialed := make(chan error, 1)
	go func() {
		err := s.Connect(context.Background(), sockif.Dest{Kind: sockif.SocketDest, Addr: l.LocalAddr()})
		if err != nil {
			l.Close() // ends Accept
		}
		dialed <- err
	}()
	c, err := l.Accept()
	if derr := <-dialed; derr != nil || err != nil {
		s.Close()
		if c != nil {
			c.Close()
		}
		if derr != nil {
			err = derr
		}
		return fail(err)
	}
	return newConn(s, t), newConn(c, t), nil
}

// Listen accepts connections to a service: addr is a ServiceAddr or a ServiceRange of a type from ReservedTypes on.
func (n *Node) Listen(addr net.Addr, cfg *SocketConfig) (*Listener, error) {
	c := cfg.orDefault()
	r, err := bindable(addr)
	if err != nil {
		return nil, opError("listen", addr, err)
	}
	s, t, err := n.open(c, Stream, true)
	if err != nil {
		return nil, opError("listen", addr, err)
	}
	backlog := c.Backlog
	if backlog == 0 {
		backlog = 128
	}
	// Listening before binding: whoever learns of the binding can connect.
	if err = s.Listen(backlog); err == nil {
		err = s.Bind(r, c.scope())
	}
	if err != nil {
		s.Close()
		return nil, opError("listen", addr, err)
	}
	return &Listener{binder{s, addr}, t}, nil
}

// ListenPacket makes a connectionless socket. With addr it is bound to that service: a ServiceAddr or ServiceRange of a
// type from ReservedTypes on. With nil it is not bound, and is reached by its SocketAddr only.
func (n *Node) ListenPacket(addr net.Addr, cfg *SocketConfig) (*PacketConn, error) {
	c := cfg.orDefault()
	s, _, err := n.open(c, RDM, false)
	if err != nil {
		return nil, opError("listen", addr, err)
	}
	p := &PacketConn{binder: binder{s, addr}}
	if addr != nil {
		r, err := bindable(addr)
		if err == nil {
			err = s.Bind(r, c.scope())
		}
		if err != nil {
			s.Close()
			return nil, opError("listen", addr, err)
		}
	}
	return p, nil
}

// binder is what sockets with bindings have in common.
type binder struct {
	s    sockif.Socket
	addr net.Addr // first binding
}

// Bind adds a binding: addr is a ServiceAddr or ServiceRange. A socket may have many.
func (b *binder) Bind(addr net.Addr, scope Scope) error {
	r, err := bindable(addr)
	if err == nil {
		err = b.s.Bind(r, SocketConfig{Scope: scope}.scope())
	}
	return opError("bind", addr, err)
}

// Unbind removes a binding that was made with the same range and scope.
func (b *binder) Unbind(addr net.Addr, scope Scope) error {
	r, err := bindable(addr)
	if err == nil {
		err = b.s.Unbind(r, SocketConfig{Scope: scope}.scope())
	}
	return opError("unbind", addr, err)
}

// SocketAddr returns the socket's own address.
func (b *binder) SocketAddr() SocketAddr { return socketAddr(b.s.LocalAddr()) }

// Close closes the socket. Its bindings are withdrawn in the whole cluster.
func (b *binder) Close() error { return opError("close", b.addr, b.s.Close()) }
