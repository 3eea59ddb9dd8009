package engine

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
	"midplane/internal/wait"
)

// Socket makes the calls of a core socket block. It implements sockif.Socket.
type Socket struct {
	e    *Engine
	s    *socket.Sock
	typ  sockif.Type
	port uint32

	wmu     sync.Mutex // held by Send on streams: a write is one piece. Taken before e.mu
	rd, wr  wait.Gate  // guarded by e.mu, as is closed
	closed  bool
	dialing bool    // Connect waits
	via     *reader // whose packets woke it last; nil: it was none, or users cannot lead it
	waiting int     // users in wait, if via was set
	woken   bool    // since a user of it began to lead
}

var (
	_ sockif.Socket = (*Socket)(nil)
	_ sockif.Opener = (*Engine)(nil)
)

// Socket implements sockif.Opener.
func (e *Engine) Socket(t sockif.Type, o sockif.Options) (sockif.Socket, error) {
	e.lock()
	defer e.unlock()
	if e.closed {
		return nil, net.ErrClosed
	}
	s, err := e.stack.Sockets().Create(mono.Now(), t)
	if err != nil {
		return nil, err
	}
	if o.Importance != 0 {
		err = s.SetImportance(int(o.Importance))
	}
	if o.SrcDroppable {
		s.SetSrcDroppable(true)
	}
	if o.Returnable {
		s.SetDestDroppable(false)
	}
	switch o.Mcast {
	case sockif.McastBroadcast:
		s.SetMcastBroadcast()
	case sockif.McastReplicast:
		s.SetMcastReplicast()
	}
	if o.NoDelay {
		s.SetNoDelay(true)
	}
	if o.RecvBuf > 0 {
		s.SetRecvBuf(o.RecvBuf)
	}
	if o.ConnTimeout > 0 {
		s.SetConnTimeout(o.ConnTimeout)
	}
	if err != nil {
		s.Close(mono.Now())
		return nil, err
	}
	return e.own(s, t), nil
}

func (e *Engine) own(s *socket.Sock, t sockif.Type) *Socket {
	u := &Socket{e: e, s: s, typ: t, port: s.Port()}
	u.rd.Init((*locker)(e))
	u.wr.Init((*locker)(e))
	s.Owner = u
	return u
}

// wake lets those look again whom the readiness concerns.
func (u *Socket) wake(r socket.Readiness) {
	const broken = socket.ReadyHup | socket.ReadyRdHup | socket.ReadyErr
	u.via = nil
	if x := u.e.via; x != nil && x.direct != nil {
		u.via = x
	}
	u.woken = true
	u.e.woken += u.waiting
	if r&(socket.ReadyIn|broken) != 0 {
		u.rd.Wake()
	}
	if r&(socket.ReadyOut|broken) != 0 || u.dialing {
		u.wr.Wake()
	}
}

// begin tells why a call through g cannot begin or go on.
func (u *Socket) begin(g *wait.Gate) error {
	switch {
	case u.closed || u.e.closed:
		return net.ErrClosed
	case g.Expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// LocalAddr implements sockif.Socket.
func (u *Socket) LocalAddr() wire.SocketAddr {
	u.e.mu.Lock()
	defer u.e.mu.Unlock()
	return wire.SocketAddr{Port: u.port, Node: u.e.stack.Addr()}
}

// PeerAddr implements sockif.Socket.
func (u *Socket) PeerAddr() wire.SocketAddr {
	u.e.mu.Lock()
	defer u.e.mu.Unlock()
	if u.closed || u.e.closed {
		return wire.SocketAddr{}
	}
	if a, err := u.s.PeerAddr(); err == nil {
		return a
	}
	return u.s.Info().Peer // of a connection that has ended already
}

// do runs a call that never waits.
func (u *Socket) do(f func(now mono.Time) error) error {
	u.e.lock()
	defer u.e.unlock()
	if u.closed || u.e.closed {
		return net.ErrClosed
	}
	return f(mono.Now())
}

// Bind implements sockif.Socket.
func (u *Socket) Bind(r wire.ServiceRange, scope wire.Scope) error {
	return u.do(func(now mono.Time) error { return u.s.Bind(now, r, scope) })
}

// Unbind implements sockif.Socket.
func (u *Socket) Unbind(r wire.ServiceRange, scope wire.Scope) error {
	return u.do(func(now mono.Time) error { return u.s.Unbind(now, r, scope) })
}

// Listen implements sockif.Socket.
func (u *Socket) Listen(backlog int) error {
	return u.do(func(mono.Time) error { return u.s.Listen(backlog) })
}

// Accept implements sockif.Socket.
func (u *Socket) Accept() (sockif.Socket, error) {
	u.e.lock()
	defer u.e.unlock()
	for {
		if err := u.begin(&u.rd); err != nil {
			return nil, err
		}
		c, err := u.s.Accept(mono.Now())
		if err == nil {
			return u.e.own(c, u.typ), nil
		}
		if err != socket.ErrWouldBlock {
			return nil, err
		}
		if err := u.rd.Wait(); err != nil {
			return nil, err
		}
	}
}

// Connect implements sockif.Socket.
func (u *Socket) Connect(ctx context.Context, to sockif.Dest) error {
	u.e.lock()
	defer u.e.unlock()
	if err := u.begin(&u.wr); err != nil {
		return err
	}
	u.dialing = true
	defer func() { u.dialing = false }()
	defer u.wr.WithContext(ctx)()
	err := u.s.Connect(mono.Now(), to)
	for err == socket.ErrInProgress || err == socket.ErrWouldBlock {
		if werr := u.wr.Wait(); werr != nil {
			return werr
		}
		if oerr := u.begin(&u.wr); oerr != nil {
			return oerr
		}
		switch err = u.s.ConnectResult(); err {
		case socket.ErrInProgress:
			if ctx.Err() != nil {
				return ctx.Err()
			}
		case socket.ErrNotConnected, socket.ErrPipe:
			// It was accepted, and ended before this goroutine ran: what came before can be received
			// (net/tipc/socket.c tipc_wait_for_connect).
			return nil
		}
	}
	return err
}

// Send implements sockif.Socket. A stream's p is sent as a whole, and not mixed with that of other goroutines.
func (u *Socket) Send(p []byte, to sockif.Dest) (sent int, err error) {
	if u.typ == sockif.Stream {
		u.wmu.Lock()
		defer u.wmu.Unlock()
	}
	u.e.lock()
	var now mono.Time
	defer func() { u.e.unlockAt(now) }()
	lead := true
	for {
		now = mono.Now()
		if err := u.begin(&u.wr); err != nil {
			return sent, err
		}
		if len(p) == 0 && u.typ == sockif.Stream {
			return sent, nil
		}
		n, err := u.s.Send(now, p, to)
		sent += n
		switch {
		case err == nil && (u.typ != sockif.Stream || n == len(p)):
			return sent, nil
		case err == nil:
			p = p[n:]
			continue
		case err != socket.ErrWouldBlock:
			return sent, err
		}
		p = p[n:]
		if err := u.wait(&u.wr, &lead); err != nil {
			now = mono.Now()
			return sent, err
		}
	}
}

// Recv implements sockif.Socket.
func (u *Socket) Recv(p []byte) (int, sockif.Info, error) { return u.recv(p, 0) }

// Peek implements sockif.Socket.
func (u *Socket) Peek(p []byte) (int, sockif.Info, error) { return u.recv(p, socket.RecvPeek) }

// Queued implements sockif.Socket.
func (u *Socket) Queued() int {
	u.e.mu.Lock()
	defer u.e.mu.Unlock()
	if u.closed || u.e.closed {
		return 0
	}
	return u.s.RecvQueueDepth()
}

func (u *Socket) recv(p []byte, flags socket.RecvFlags) (int, sockif.Info, error) {
	u.e.lock()
	var now mono.Time
	defer func() { u.e.unlockAt(now) }()
	lead := true
	for {
		now = mono.Now()
		if err := u.begin(&u.rd); err != nil {
			return 0, sockif.Info{}, err
		}
		n, i, err := u.s.Recv(now, p, flags)
		switch err {
		case nil:
			return n, sockif.Info{From: i.From, Dest: i.Dest, HasDest: i.HasDest, Err: i.Err, Truncated: i.Truncated}, nil
		case socket.ErrWouldBlock:
			if err := u.wait(&u.rd, &lead); err != nil {
				now = mono.Now()
				return 0, sockif.Info{}, err
			}
		case io.EOF:
			return 0, sockif.Info{}, err
		default:
			if i.Err != 0 {
				err = &sockif.Error{Code: i.Err, Err: err}
			}
			return 0, sockif.Info{}, err
		}
	}
}

// wait waits for the socket to become ready through g, or reads packets, which may make it so: the caller tries again.
// lead says whether it may lead.
func (u *Socket) wait(g *wait.Gate, lead *bool) error {
	e, x := u.e, u.via
	if x == nil {
		return g.Wait()
	}
	if !x.busy {
		if *lead && e.waiting == 0 && !g.Expired() {
			u.woken = false
			*lead = x.lead(u, g)
			return nil
		}
		x.handOver()
	}
	u.waiting++
	e.waiting++
	err := g.Wait()
	u.waiting--
	e.waiting--
	return err
}

// SetReadDeadline implements sockif.Socket.
func (u *Socket) SetReadDeadline(t time.Time) error { return u.setDeadline(&u.rd, t) }

// SetWriteDeadline implements sockif.Socket.
func (u *Socket) SetWriteDeadline(t time.Time) error { return u.setDeadline(&u.wr, t) }

func (u *Socket) setDeadline(g *wait.Gate, t time.Time) error {
	u.e.lock()
	defer u.e.unlock()
	if u.closed || u.e.closed {
		return net.ErrClosed
	}
	g.SetDeadline(t)
	return nil
}

// Close implements sockif.Socket. A connection is shut down in order: the peer reads what was sent, then io.EOF.
func (u *Socket) Close() error {
	u.e.lock()
	defer u.e.unlock()
	if u.closed || u.e.closed {
		return net.ErrClosed
	}
	u.closed = true
	u.rd.Stop()
	u.wr.Stop()
	u.rd.Wake()
	u.wr.Wake()
	now := mono.Now()
	if u.typ.Connected() {
		_ = u.s.Shutdown(now) // fails if there is no connection
	}
	u.s.Owner = nil
	u.s.Close(now)
	return nil
}
