package topsrv

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// maxReceive is how many messages of one connection are taken before others get their turn (topsrv.c
// MAX_RECV_MSG_COUNT).
const maxReceive = 25

// Config has the bounds of a [Server]. Zero values mean the defaults.
type Config struct {
	MaxSessions int // connections served at a time; more are closed at once. Default 8,192. Linux has no limit
	MaxEvents   int // unread events of one session. Default: that of package names, 524,288
}

// Stats counts what a [Server] did.
type Stats struct {
	Sessions int    // now
	Accepted uint64 // connections
	Refused  uint64 // connections over MaxSessions
	Rejected uint64 // sessions ended because of a bad message or subscription
	Overflow uint64 // sessions ended because they did not read
	Events   uint64 // sent
}

// Server serves sessions over TIPC sockets, bound to {1, 1} on this node. It never blocks: whoever owns the sockets
// tells it by Wake which of them have something to do, and calls Poll.
type Server struct {
	names    *names.Table
	sockets  *socket.Table
	cfg      Config
	listener *socket.Sock
	accept   bool // the listener may have a connection
	ready    names.Ready
	conns    []*conn
	woken    []*conn // to be looked at by Poll
	spare    []*conn // memory of woken, in turns
	rec      [wire.SubscrSize]byte
	event    [wire.EventSize]byte
	stats    Stats
}

// conn is a session on a socket (struct tipc_conn).
type conn struct {
	ses    *Session
	srv    *Server
	sock   *socket.Sock
	index  int // in srv.conns
	woken  bool
	closed bool
}

// New returns a server that does nothing before Start.
func New(t *names.Table, sockets *socket.Table, cfg Config) *Server {
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 8192
	}
	return &Server{names: t, sockets: sockets, cfg: cfg}
}

// Start binds {1, 1} with node scope and listens (tipc_topsrv_create_listener).
func (s *Server) Start(now mono.Time) error {
	l, err := s.sockets.Create(now, socket.SeqPacket)
	if err != nil {
		return err
	}
	l.Owner = s
	l.SetImportance(int(wire.UserCritical))
	r := wire.ServiceRange{Type: names.TopSrv, Lower: names.TopSrv, Upper: names.TopSrv}
	if err = l.BindReserved(now, r, wire.ScopeNode); err == nil {
		err = l.Listen(0)
	}
	if err != nil {
		l.Close(now)
		return err
	}
	s.listener = l
	return nil
}

// Wake tells the server that a socket may be able to do more than before. It reports whether the socket is the
// server's own; others it leaves alone.
func (s *Server) Wake(k *socket.Sock) bool {
	switch o := k.Owner.(type) {
	case *Server:
		if o == s {
			s.accept = true
			return true
		}
	case *conn:
		if o.srv == s {
			s.wake(o)
			return true
		}
	}
	return false
}

func (s *Server) wake(c *conn) {
	if !c.woken && !c.closed {
		c.woken = true
		s.woken = append(s.woken, c)
	}
}

// Poll does what can be done without waiting: it accepts, receives and sends. It reports whether it did anything; if so
// there may be more to do.
func (s *Server) Poll(now mono.Time) bool {
	if s.listener == nil {
		return false
	}
	did := s.accept
	if s.accept {
		s.accept = false
		s.acceptAll(now)
	}
	for x := s.ready.Pop(); x != nil; x = s.ready.Pop() {
		did = true
		s.send(now, x.User.(*Session).User.(*conn))
	}
	woken := s.woken
	s.woken, s.spare = s.spare[:0], nil
	for _, c := range woken {
		did = true
		c.woken = false
		s.receive(now, c)
		s.send(now, c)
	}
	clear(woken)
	s.spare = woken
	return did
}

// acceptAll is tipc_topsrv_accept.
func (s *Server) acceptAll(now mono.Time) {
	for {
		k, err := s.listener.Accept(now)
		if err != nil {
			return
		}
		if len(s.conns) >= s.cfg.MaxSessions {
			s.stats.Refused++
			k.Close(now)
			continue
		}
		s.stats.Accepted++
		c := &conn{ses: NewSession(s.names, &s.ready, s.cfg.MaxEvents), srv: s, sock: k, index: len(s.conns)}
		c.ses.User, k.Owner = c, c
		s.conns = append(s.conns, c)
		s.wake(c) // the SYN may have carried a subscription
	}
}

// receive takes subscriptions until there is none left, or the connection has had its share (tipc_conn_recv_work).
func (s *Server) receive(now mono.Time, c *conn) {
	for range maxReceive {
		if c.closed {
			return
		}
		n, info, err := c.sock.Recv(now, s.rec[:], 0)
		switch {
		case err == socket.ErrWouldBlock:
			return
		case err != nil || info.Err != wire.CodeOK:
			s.drop(now, c)
		case c.ses.Receive(now, s.rec[:n]) != nil:
			s.stats.Rejected++
			s.drop(now, c)
		}
	}
	s.wake(c)
}

// send sends events until there is none left or the connection is congested (tipc_conn_send_to_sock). A congested one
// is woken when there is room.
func (s *Server) send(now mono.Time, c *conn) {
	if c.closed {
		return
	}
	if c.ses.Err() != nil {
		s.stats.Overflow++
		s.drop(now, c)
		return
	}
	for c.ses.Peek(&s.event) {
		_, err := c.sock.Send(now, s.event[:], socket.Dest{})
		if err == socket.ErrWouldBlock {
			return
		}
		if err != nil {
			s.drop(now, c)
			return
		}
		s.stats.Events++
		c.ses.Drop()
	}
}

// drop ends a session and its connection (tipc_conn_close).
func (s *Server) drop(now mono.Time, c *conn) {
	c.closed = true
	c.ses.Close()
	c.sock.Shutdown(now)
	c.sock.Close(now)
	last := len(s.conns) - 1
	s.conns[c.index] = s.conns[last]
	s.conns[c.index].index = c.index
	s.conns[last] = nil
	s.conns = s.conns[:last]
}

// Sessions is the number of sessions.
func (s *Server) Sessions() int { return len(s.conns) }

// Stats returns the present figures.
func (s *Server) Stats() Stats {
	st := s.stats
	st.Sessions = len(s.conns)
	return st
}

// Close ends all sessions and the service. The server cannot be used after that.
func (s *Server) Close(now mono.Time) {
	for len(s.conns) > 0 {
		s.drop(now, s.conns[len(s.conns)-1])
	}
	if s.listener != nil {
		s.listener.Close(now)
		s.listener = nil
	}
}
