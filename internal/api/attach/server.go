package attach

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

// Bounds of a server.
const (
	maxUnclaimed = 64              // accepted connections of one listener that its client has yet to claim
	drainTime    = 8 * time.Second // that data sent before Close may take to go out (net/tipc/socket.c CONN_TIMEOUT_DEFAULT)
)

// Server gives clients sockets of a node.
type Server struct {
	Node sockif.Opener

	mu     sync.Mutex
	claims map[token]*claim
}

type claim struct {
	sock  sockif.Socket
	owner *session
}

// session is one connection and its socket. Three goroutines work on it: run reads frames and never waits for the
// socket, work carries requests and data out in order, and one of deliver and accept brings in what arrives.
type session struct {
	srv  *Server
	conn *conn
	sock sockif.Socket
	typ  sockif.Type

	delivering bool // deliver or accept runs; of first and work alone

	ctx    context.Context // of Connect: ends with the client
	cancel context.CancelFunc

	mu        sync.Mutex
	cond      sync.Cond
	queue     []request
	owed      int // octets received and not granted again
	done      int // of these, octets dealt with
	credit    int // octets that may be sent to the client
	unclaimed int
	over      bool // the client is gone
	wg        sync.WaitGroup
}

type request struct {
	kind    kind
	seq     uint16
	payload []byte
}

// Serve handles one connection, after Magic, until the client closes it; ctx ends it as well. It closes c.
func (srv *Server) Serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	s := &session{srv: srv, conn: newConn(c), credit: window}
	s.ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	s.cond.L = &s.mu
	if !s.first() {
		return
	}
	s.wg.Go(s.work)
	s.run()
	s.finish()
}

// first handles Open or Claim, which makes the socket.
func (s *session) first() bool {
	k, seq, p, err := s.conn.read()
	if err != nil {
		return false
	}
	s.owed = len(p) + frameCost
	s.done = s.owed
	d := dec{b: p}
	if v := d.u8(); v != version {
		s.reply(seq, errors.New("the node speaks another version of the attach protocol"), nil)
		return false
	}
	switch k {
	case kOpen:
		s.typ = sockif.Type(d.u8())
		o := sockif.Options{Importance: d.u8()}
		flags := d.u8()
		o.SrcDroppable, o.Returnable, o.NoDelay = flags&1 != 0, flags&2 != 0, flags&4 != 0
		o.Mcast = sockif.Mcast(d.u8())
		o.RecvBuf = int(d.u32())
		o.ConnTimeout = time.Duration(d.u32()) * time.Millisecond
		if d.bad || !s.typ.Valid() || o.Importance > 3 || o.Mcast > sockif.McastReplicast {
			s.reply(seq, syscall.EINVAL, nil)
			return false
		}
		if s.sock, err = s.srv.Node.Socket(s.typ, o); err != nil {
			s.reply(seq, err, nil)
			return false
		}
	case kClaim:
		c := s.srv.take(d.token())
		if d.bad || c == nil {
			s.reply(seq, syscall.ENOENT, nil)
			return false
		}
		s.sock, s.typ = c.sock, c.owner.typ
		c.owner.claimed()
	default:
		return false
	}
	s.reply(seq, nil, enc(nil).sock(s.sock.LocalAddr()).sock(s.sock.PeerAddr()))
	if k == kClaim || !s.typ.Connected() {
		s.delivering = true
		s.wg.Go(s.deliver)
	}
	return true
}

func (srv *Server) take(t token) *claim {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	c := srv.claims[t]
	delete(srv.claims, t)
	return c
}

// run reads frames until the client is gone or breaks the rules.
func (s *session) run() {
	for {
		k, seq, p, err := s.conn.read()
		if err != nil {
			return
		}
		s.mu.Lock()
		if k == kCredit {
			d := dec{b: p}
			s.credit += int(d.u32())
			bad := d.bad || s.credit > window
			s.cond.Broadcast()
			s.mu.Unlock()
			if bad {
				return
			}
			continue
		}
		s.owed += len(p) + frameCost
		if s.owed > window {
			s.mu.Unlock()
			return
		}
		s.queue = append(s.queue, request{k, seq, append([]byte(nil), p...)})
		s.cond.Broadcast()
		s.mu.Unlock()
	}
}

// finish lets what was sent go out, then closes the socket and waits for the goroutines.
func (s *session) finish() {
	s.mu.Lock()
	s.over = true
	s.cond.Broadcast()
	s.mu.Unlock()
	s.conn.c.Close()
	s.cancel()
	_ = s.sock.SetWriteDeadline(time.Now().Add(drainTime)) // work may have closed it
	s.wg.Wait()
	s.srv.mu.Lock()
	var left []sockif.Socket
	for t, c := range s.srv.claims {
		if c.owner == s {
			left = append(left, c.sock)
			delete(s.srv.claims, t)
		}
	}
	s.srv.mu.Unlock()
	for _, l := range left {
		l.Close()
	}
}

// work carries out requests in order. When the client is gone and all is done it closes the socket, which ends
// deliver or accept.
func (s *session) work() {
	defer s.sock.Close()
	var failed error
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.over {
			s.cond.Wait()
		}
		if len(s.queue) == 0 {
			s.mu.Unlock()
			return
		}
		r := s.queue[0]
		s.queue[0] = request{}
		s.queue = s.queue[1:]
		s.mu.Unlock()

		if r.kind == kData {
			if failed == nil {
				if failed = s.sendAll(r.payload); failed != nil {
					s.conn.write(kFail, 0, enc(nil).err(failed), nil)
				}
			}
		} else if !s.do(r) {
			s.conn.c.Close() // run ends, and with it the session
			return
		}
		s.grant(len(r.payload) + frameCost)
	}
}

func (s *session) sendAll(p []byte) error {
	for {
		n, err := s.sock.Send(p, sockif.Dest{})
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// grant notes that n octets were dealt with, and gives the client credit back in steps of a quarter of the window:
// what is left then still fits the largest message.
func (s *session) grant(n int) {
	s.mu.Lock()
	s.done += n
	free := s.done
	if free < window/4 {
		s.mu.Unlock()
		return
	}
	s.done = 0
	s.owed -= free
	s.mu.Unlock()
	// A failed write shows in run.
	_ = s.conn.write(kCredit, 0, enc(nil).u32(uint32(free)), nil)
}

func (s *session) reply(seq uint16, err error, payload []byte) {
	// A failed write shows in run.
	_ = s.conn.write(kReply, seq, enc(nil).err(err), payload)
}

// do carries out one request; false ends the session.
func (s *session) do(r request) bool {
	d := dec{b: r.payload}
	var result enc
	var err error
	var start func()
	switch r.kind {
	case kBind, kUnbind:
		rng, scope := d.rng(), wire.Scope(d.u8())
		if d.bad {
			return false
		}
		if r.kind == kBind {
			err = s.sock.Bind(rng, scope)
		} else {
			err = s.sock.Unbind(rng, scope)
		}
	case kListen:
		backlog := d.u32()
		if d.bad {
			return false
		}
		if err = s.sock.Listen(int(min(backlog, 1<<16))); err == nil {
			start = s.accept
		}
	case kConnect:
		to := d.dest()
		if d.bad {
			return false
		}
		if err = s.sock.Connect(s.ctx, to); err == nil {
			result = result.sock(s.sock.PeerAddr())
			if s.typ.Connected() {
				start = s.deliver
			}
		}
	case kSend:
		to := d.dest()
		if d.bad {
			return false
		}
		var n int
		if n, err = s.sock.Send(d.b, to); err == nil && s.typ.Connected() && !s.delivering {
			start = s.deliver
		}
		result = result.u32(uint32(n))
	default:
		return false
	}
	s.reply(r.seq, err, result)
	if start != nil {
		s.delivering = true
		s.wg.Go(start)
	}
	return true
}

// deliver sends the client what the socket receives, as far as the client has granted. When the client is gone it goes
// on and drops what comes: two clients that ended while both were sending would wait for each other.
func (s *session) deliver() {
	buf := make([]byte, wire.MaxUserMsgSize)
	for {
		n, info, err := s.sock.Recv(buf)
		if err != nil {
			s.conn.write(kEnd, 0, enc(nil).err(err), nil)
			return
		}
		cost := n + infoSize + frameCost
		s.mu.Lock()
		for s.credit < cost && !s.over {
			s.cond.Wait()
		}
		s.credit -= cost
		over := s.over
		s.mu.Unlock()
		if !over {
			_ = s.conn.write(kData, 0, enc(nil).info(info), buf[:n]) // a failure shows in run
		}
	}
}

// accept announces connections to the client, which claims each with a connection of its own.
func (s *session) accept() {
	for {
		n, err := s.sock.Accept()
		if err != nil {
			s.conn.write(kEnd, 0, enc(nil).err(err), nil)
			return
		}
		s.mu.Lock()
		for s.unclaimed >= maxUnclaimed && !s.over {
			s.cond.Wait()
		}
		s.unclaimed++
		over := s.over
		s.mu.Unlock()
		if over {
			n.Close()
			return
		}
		srv := s.srv
		var t token
		rand.Read(t[:])
		srv.mu.Lock()
		if srv.claims == nil {
			srv.claims = map[token]*claim{}
		}
		srv.claims[t] = &claim{n, s}
		srv.mu.Unlock()
		if s.conn.write(kAccepted, 0, enc(nil).token(t).sock(n.PeerAddr()), nil) != nil {
			return // finish closes what was not claimed
		}
	}
}

func (s *session) claimed() {
	s.mu.Lock()
	s.unclaimed--
	s.cond.Broadcast()
	s.mu.Unlock()
}
