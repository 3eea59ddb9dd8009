package tipc

import (
	"net"
	"time"

	"midplane/internal/tipc/sockif"
)

// Conn is a connection: a Stream, or a SeqPacket connection, on which each Read returns one message and each Write
// sends one. It is safe for concurrent use.
type Conn struct {
	s     sockif.Socket
	typ   SocketType
	local SocketAddr
	peer  SocketAddr
}

var _ net.Conn = (*Conn)(nil)

func newConn(s sockif.Socket, t SocketType) *Conn {
	return &Conn{s: s, typ: t, local: socketAddr(s.LocalAddr()), peer: socketAddr(s.PeerAddr())}
}

// Type returns Stream or SeqPacket.
func (c *Conn) Type() SocketType { return c.typ }

// Read reads what there is of a stream, at least one octet, or one message. A message longer than p is cut; see
// ReadMsg. The error is io.EOF when the peer closed the connection in order and all of it was read, and one that
// matches syscall.ECONNRESET when its process or node was lost. It blocks until there is something.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 && c.typ == Stream {
		return 0, nil
	}
	n, _, err := c.s.Recv(p)
	if err != nil {
		return n, opError("read", c.RemoteAddr(), err)
	}
	return n, nil
}

// ReadMsg is Read that also tells about the message: whether it was cut.
func (c *Conn) ReadMsg(p []byte) (int, MsgInfo, error) {
	n, info, err := c.s.Recv(p)
	if err != nil {
		return n, MsgInfo{}, opError("read", c.RemoteAddr(), err)
	}
	return n, msgInfo(info), nil
}

// Peek is Read that leaves the data to be read again.
func (c *Conn) Peek(p []byte) (int, error) {
	n, _, err := c.s.Peek(p)
	if err != nil {
		return n, opError("read", c.RemoteAddr(), err)
	}
	return n, nil
}

// Queued returns how many messages, or pieces of a stream, wait to be read.
func (c *Conn) Queued() int { return c.s.Queued() }

// Write sends p. On a SeqPacket connection that is one message of at most MaxMessage octets. It blocks while the peer
// does not read, or the link is congested. p is not kept.
func (c *Conn) Write(p []byte) (int, error) {
	sent := 0
	for {
		n, err := c.s.Send(p[sent:], sockif.Dest{})
		sent += n
		if err != nil {
			return sent, opError("write", c.RemoteAddr(), err)
		}
		if sent >= len(p) || c.typ != Stream {
			return sent, nil
		}
	}
}

// Close ends the connection; the peer reads io.EOF after what was sent before.
func (c *Conn) Close() error { return opError("close", c.peer, c.s.Close()) }

// LocalAddr returns the SocketAddr of this end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the SocketAddr of the other end; after DialMessage it is zero until the other end has answered.
func (c *Conn) RemoteAddr() net.Addr {
	if c.peer.IsZero() {
		return socketAddr(c.s.PeerAddr())
	}
	return c.peer
}

// SetDeadline sets both deadlines, see net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets when Read gives up with os.ErrDeadlineExceeded; the zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return opError("set deadline", c.peer, c.s.SetReadDeadline(t))
}

// SetWriteDeadline sets when Write gives up with os.ErrDeadlineExceeded; the zero time means never.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return opError("set deadline", c.peer, c.s.SetWriteDeadline(t))
}

// Listener accepts connections to a service. It is safe for concurrent use.
type Listener struct {
	binder
	typ SocketType
}

var _ net.Listener = (*Listener)(nil)

// Accept waits for the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn is Accept with the concrete type.
func (l *Listener) AcceptConn() (*Conn, error) {
	s, err := l.s.Accept()
	if err != nil {
		return nil, opError("accept", l.addr, err)
	}
	return newConn(s, l.typ), nil
}

// Addr returns the service that Listen was given.
func (l *Listener) Addr() net.Addr { return l.addr }

// SetDeadline sets when Accept gives up with os.ErrDeadlineExceeded; the zero time means never.
func (l *Listener) SetDeadline(t time.Time) error {
	return opError("set deadline", l.addr, l.s.SetReadDeadline(t))
}

// PacketConn is a connectionless socket, RDM or Datagram. It is safe for concurrent use.
type PacketConn struct{ binder }

var _ net.PacketConn = (*PacketConn)(nil)

// ReadFrom waits for the next message. A message longer than p is cut; see ReadMsg. addr is the sender's SocketAddr.
// When a message of one's own comes back undelivered, ReadFrom returns an *OpError with its Code: use ReadMsg to get
// the message, too. The socket is not broken by that.
func (c *PacketConn) ReadFrom(p []byte) (n int, addr net.Addr, err error) {
	n, info, err := c.ReadMsg(p)
	if err != nil {
		return n, nil, err
	}
	if info.Returned != 0 {
		return 0, info.From, &OpError{Op: "read", Addr: info.From, Code: info.Returned, Err: info.Returned}
	}
	return n, info.From, nil
}

// ReadMsg waits for the next message, or for one of one's own that comes back: see MsgInfo. It allocates nothing.
func (c *PacketConn) ReadMsg(p []byte) (int, MsgInfo, error) {
	n, info, err := c.s.Recv(p)
	if err != nil {
		return n, MsgInfo{}, opError("read", nil, err)
	}
	return n, msgInfo(info), nil
}

// PeekMsg is ReadMsg that leaves the message to be read again.
func (c *PacketConn) PeekMsg(p []byte) (int, MsgInfo, error) {
	n, info, err := c.s.Peek(p)
	if err != nil {
		return n, MsgInfo{}, opError("read", nil, err)
	}
	return n, msgInfo(info), nil
}

// Queued returns how many messages wait to be read.
func (c *PacketConn) Queued() int { return c.s.Queued() }

// WriteTo sends p, at most MaxMessage octets, as one message: to one socket of a service (ServiceAddr), to every socket
// bound in a range (ServiceRange), or to a socket (SocketAddr). p is not kept. It blocks while the link is congested,
// unless the socket is source-droppable. A service that nobody is bound to gives an error that matches
// syscall.EHOSTUNREACH; what fails later comes back as a message if SocketConfig.ReturnUndelivered says so.
func (c *PacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	to, err := dest(addr, true)
	if err != nil {
		return 0, opError("write", addr, err)
	}
	n, err := c.s.Send(p, to)
	return n, opError("write", addr, err)
}

// LocalAddr returns the socket's SocketAddr.
func (c *PacketConn) LocalAddr() net.Addr { return c.SocketAddr() }

// SetDeadline sets both deadlines, see net.PacketConn.
func (c *PacketConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets when ReadFrom and ReadMsg give up with os.ErrDeadlineExceeded; the zero time means never.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	return opError("set deadline", nil, c.s.SetReadDeadline(t))
}

// SetWriteDeadline sets when WriteTo gives up with os.ErrDeadlineExceeded; the zero time means never.
func (c *PacketConn) SetWriteDeadline(t time.Time) error {
	return opError("set deadline", nil, c.s.SetWriteDeadline(t))
}

func msgInfo(i sockif.Info) MsgInfo {
	m := MsgInfo{From: socketAddr(i.From), Returned: Code(i.Err), Truncated: i.Truncated}
	if i.HasDest {
		m.Dest = ServiceRange(i.Dest)
	}
	return m
}
