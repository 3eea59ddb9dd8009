package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"midplane/internal/ctlpath"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
	"midplane/internal/wait"
)

// Client makes sockets in the daemon whose control socket is at Path. It holds no connection of its own.
type Client struct {
	Path string

	mu     sync.Mutex
	socks  map[*Socket]struct{}
	closed bool
}

// NewClient returns a client of the daemon at path, after asking whether one is there.
func NewClient(path string) (*Client, error) {
	c, err := dial(path)
	if err != nil {
		return nil, err
	}
	c.Close()
	return &Client{Path: path, socks: map[*Socket]struct{}{}}, nil
}

func dial(path string) (net.Conn, error) {
	if err := ctlpath.Check(path); err != nil {
		return nil, err
	}
	return net.DialTimeout("unix", path, 5*time.Second)
}

// Close closes all sockets of the client.
func (c *Client) Close() error {
	c.mu.Lock()
	socks := c.socks
	c.socks, c.closed = nil, true
	c.mu.Unlock()
	for s := range socks {
		s.Close()
	}
	return nil
}

var (
	_ sockif.Opener = (*Client)(nil)
	_ sockif.Socket = (*Socket)(nil)
)

// Socket implements sockif.Opener.
func (c *Client) Socket(t sockif.Type, o sockif.Options) (sockif.Socket, error) {
	var flags uint8
	for i, b := range []bool{o.SrcDroppable, o.Returnable, o.NoDelay} {
		if b {
			flags |= 1 << i
		}
	}
	first := enc(nil).u8(version).u8(uint8(t)).u8(o.Importance).u8(flags).u8(uint8(o.Mcast)).u32(uint32(o.RecvBuf)).u32(uint32(o.ConnTimeout / time.Millisecond))
	s, err := c.open(t, kOpen, first)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Client) open(t sockif.Type, k kind, first []byte) (*Socket, error) {
	nc, err := dial(c.Path)
	if err != nil {
		return nil, err
	}
	s := &Socket{client: c, typ: t, conn: newConn(nc), credit: window, replies: map[uint16]*reply{}}
	s.rd.Init(&s.mu)
	s.wr.Init(&s.mu)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		nc.Close()
		return nil, net.ErrClosed
	}
	c.socks[s] = struct{}{}
	c.mu.Unlock()
	if _, err := io.WriteString(nc, Magic); err != nil {
		s.Close()
		return nil, err
	}
	go s.receive()
	d, err := s.request(context.Background(), k, first, nil)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.local = d.sock()
	s.peer = d.sock()
	return s, nil
}

// Socket is a socket in the daemon.
type Socket struct {
	client *Client
	conn   *conn
	typ    sockif.Type
	local  wire.SocketAddr

	smu sync.Mutex // held while one Send takes credit and writes, so that messages keep their order

	mu      sync.Mutex
	peer    wire.SocketAddr
	rd, wr  wait.Gate
	closed  bool
	dead    error // the connection to the daemon is gone
	credit  int   // octets that may be sent
	failed  error // what became of earlier data
	ended   error // nothing more will be received
	in      []message
	taken   int // octets consumed and not yet granted again
	accepts []accepted
	seq     uint16
	replies map[uint16]*reply
}

type message struct {
	info sockif.Info
	data []byte
	off  int
}

type accepted struct {
	token token
	peer  wire.SocketAddr
}

type reply struct {
	done    bool
	payload []byte
}

// receive is the goroutine that reads all frames. It never waits for anything but the daemon.
func (s *Socket) receive() {
	for {
		k, seq, p, err := s.conn.read()
		s.mu.Lock()
		if err != nil || !s.handle(k, seq, p) {
			if err == nil {
				err = errProtocol
			}
			s.dead = fmt.Errorf("the node is gone (%v): %w", err, net.ErrClosed)
			s.rd.Wake()
			s.wr.Wake()
			s.mu.Unlock()
			s.conn.c.Close()
			return
		}
		s.mu.Unlock()
	}
}

// handle takes one frame in. It reports whether the frame made sense.
func (s *Socket) handle(k kind, seq uint16, p []byte) bool {
	d := dec{b: p}
	switch k {
	case kReply:
		if r := s.replies[seq]; r != nil {
			r.done, r.payload = true, append([]byte(nil), p...)
			delete(s.replies, seq)
			s.wr.Wake()
		}
	case kData:
		info := d.info()
		if d.bad || len(s.in) > window/frameCost {
			return false
		}
		if s.peer == (wire.SocketAddr{}) && s.typ.Connected() {
			s.peer = info.From // the connection was asked for with a message
		}
		s.in = append(s.in, message{info: info, data: append([]byte(nil), d.b...)})
		s.rd.Wake()
	case kCredit:
		s.credit += int(d.u32())
		s.wr.Wake()
	case kAccepted:
		if len(s.accepts) > maxUnclaimed {
			return false
		}
		s.accepts = append(s.accepts, accepted{d.token(), d.sock()})
		s.rd.Wake()
	case kEnd:
		if s.ended = d.err(); s.ended == nil {
			return false
		}
		s.rd.Wake()
	case kFail:
		if s.failed = d.err(); s.failed == nil {
			return false
		}
		s.wr.Wake()
	default:
		return false
	}
	return !d.bad
}

// request sends a request and waits for its reply, whose rest it returns.
func (s *Socket) request(ctx context.Context, k kind, a, b []byte) (dec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wr.WithContext(ctx)()
	cost := len(a) + len(b) + frameCost
	for s.credit < cost {
		if err := s.waitWrite(ctx); err != nil {
			return dec{}, err
		}
	}
	if err := s.writable(ctx); err != nil {
		return dec{}, err
	}
	s.credit -= cost
	s.seq++
	seq := s.seq
	r := &reply{}
	s.replies[seq] = r
	s.mu.Unlock()
	err := s.conn.write(k, seq, a, b)
	s.mu.Lock()
	if err != nil {
		delete(s.replies, seq)
		if s.closed {
			err = net.ErrClosed
		}
		return dec{}, err
	}
	for !r.done {
		// A node that refuses the first request says why, and hangs up.
		if err := s.waitWrite(ctx); err != nil && !r.done {
			delete(s.replies, seq)
			return dec{}, err
		}
	}
	d := dec{b: r.payload}
	if err := d.err(); err != nil {
		return d, err
	}
	return d, nil
}

// writable tells why nothing can be sent.
func (s *Socket) writable(ctx context.Context) error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.dead != nil:
		return s.dead
	case s.wr.Expired():
		return s.wr.Wait()
	}
	return ctx.Err()
}

func (s *Socket) waitWrite(ctx context.Context) error {
	if err := s.writable(ctx); err != nil {
		return err
	}
	if err := s.wr.Wait(); err != nil {
		return err
	}
	return s.writable(ctx)
}

func (s *Socket) waitRead() error {
	if err := s.readable(); err != nil {
		return err
	}
	if err := s.rd.Wait(); err != nil {
		return err
	}
	return s.readable()
}

func (s *Socket) readable() error {
	if s.closed {
		return net.ErrClosed
	}
	return s.dead
}

// LocalAddr implements sockif.Socket.
func (s *Socket) LocalAddr() wire.SocketAddr { return s.local }

// PeerAddr implements sockif.Socket.
func (s *Socket) PeerAddr() wire.SocketAddr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

// Bind implements sockif.Socket.
func (s *Socket) Bind(r wire.ServiceRange, scope wire.Scope) error {
	_, err := s.request(context.Background(), kBind, enc(nil).rng(r).u8(uint8(scope)), nil)
	return err
}

// Unbind implements sockif.Socket.
func (s *Socket) Unbind(r wire.ServiceRange, scope wire.Scope) error {
	_, err := s.request(context.Background(), kUnbind, enc(nil).rng(r).u8(uint8(scope)), nil)
	return err
}

// Listen implements sockif.Socket.
func (s *Socket) Listen(backlog int) error {
	_, err := s.request(context.Background(), kListen, enc(nil).u32(uint32(backlog)), nil)
	return err
}

// Accept implements sockif.Socket.
func (s *Socket) Accept() (sockif.Socket, error) {
	for {
		a, err := s.nextAccepted()
		if err != nil {
			return nil, err
		}
		n, err := s.client.open(s.typ, kClaim, enc(nil).u8(version).token(a.token))
		if errors.Is(err, syscall.ENOENT) {
			continue // the node has given this listener up, which nextAccepted is about to hear
		}
		if err != nil {
			return nil, err
		}
		return n, nil
	}
}

func (s *Socket) nextAccepted() (a accepted, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return a, net.ErrClosed
		case s.rd.Expired():
			return a, s.rd.Wait()
		case len(s.accepts) > 0:
			a, s.accepts = s.accepts[0], s.accepts[1:]
			return a, nil
		case s.ended != nil:
			return a, s.ended
		}
		if err := s.waitRead(); err != nil {
			return a, err
		}
	}
}

// Connect implements sockif.Socket.
func (s *Socket) Connect(ctx context.Context, to sockif.Dest) error {
	d, err := s.request(ctx, kConnect, enc(nil).dest(to), nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.peer = d.sock()
	s.mu.Unlock()
	return nil
}

// Send implements sockif.Socket.
func (s *Socket) Send(p []byte, to sockif.Dest) (int, error) {
	if !s.typ.Connected() || to.Kind != sockif.NoDest {
		if len(p) > wire.MaxUserMsgSize {
			return 0, causes[9]
		}
		d, err := s.request(context.Background(), kSend, enc(nil).dest(to), p)
		if err != nil {
			return 0, err
		}
		return int(d.u32()), nil
	}
	if s.typ == sockif.SeqPacket && len(p) > wire.MaxUserMsgSize {
		return 0, causes[9]
	}
	s.smu.Lock()
	defer s.smu.Unlock()
	sent := 0
	for {
		part := p[sent:]
		if s.typ == sockif.Stream {
			part = part[:min(len(part), chunk)]
		}
		if err := s.takeCredit(len(part) + frameCost); err != nil {
			return sent, err
		}
		if err := s.conn.write(kData, 0, part, nil); err != nil {
			return sent, s.gone(err)
		}
		if sent += len(part); sent == len(p) {
			return sent, nil
		}
	}
}

func (s *Socket) takeCredit(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.failed != nil && !s.closed {
			return s.failed
		}
		if err := s.writable(context.Background()); err != nil {
			return err
		}
		if s.credit >= n {
			s.credit -= n
			return nil
		}
		if err := s.waitWrite(context.Background()); err != nil {
			return err
		}
	}
}

// gone makes sense of a failed write to the daemon.
func (s *Socket) gone(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return err
}

// Recv implements sockif.Socket.
func (s *Socket) Recv(p []byte) (int, sockif.Info, error) { return s.recv(p, s.consume) }

// Peek implements sockif.Socket.
func (s *Socket) Peek(p []byte) (int, sockif.Info, error) {
	return s.recv(p, func(p []byte) (int, sockif.Info) {
		m := &s.in[0]
		n := copy(p, m.data[m.off:])
		info := m.info
		info.Truncated = info.Truncated || s.typ != sockif.Stream && n < len(m.data)
		return n, info
	})
}

// Queued implements sockif.Socket: what has come over from the daemon.
func (s *Socket) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.in)
}

func (s *Socket) recv(p []byte, take func([]byte) (int, sockif.Info)) (int, sockif.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, sockif.Info{}, net.ErrClosed
		case s.rd.Expired():
			return 0, sockif.Info{}, s.rd.Wait()
		case len(s.in) > 0:
			n, info := take(p)
			return n, info, nil
		case s.ended != nil:
			return 0, sockif.Info{}, s.ended
		}
		if err := s.waitRead(); err != nil {
			return 0, sockif.Info{}, err
		}
	}
}

// consume takes the first message, or as much of a stream as there is, and grants the daemon new credit in steps of a
// quarter of the window.
func (s *Socket) consume(p []byte) (n int, info sockif.Info) {
	for len(s.in) > 0 {
		m := &s.in[0]
		k := copy(p[n:], m.data[m.off:])
		n += k
		m.off += k
		info = m.info
		if s.typ == sockif.Stream {
			if m.off < len(m.data) {
				break
			}
		} else if m.off < len(m.data) {
			info.Truncated = true
		}
		s.taken += len(m.data) + infoSize + frameCost
		s.in[0] = message{}
		s.in = s.in[1:]
		if s.typ != sockif.Stream || n == len(p) {
			break
		}
	}
	if s.taken >= window/4 {
		grant := s.taken
		s.taken = 0
		s.mu.Unlock()
		// A failure shows in receive.
		_ = s.conn.write(kCredit, 0, enc(nil).u32(uint32(grant)), nil)
		s.mu.Lock()
	}
	return n, info
}

// SetReadDeadline implements sockif.Socket.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.rd.SetDeadline(t)
	return nil
}

// SetWriteDeadline implements sockif.Socket.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.wr.SetDeadline(t)
	return nil
}

// Close implements sockif.Socket. Data accepted by Send is still delivered by the daemon.
func (s *Socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	s.rd.Stop()
	s.wr.Stop()
	s.rd.Wake()
	s.wr.Wake()
	s.mu.Unlock()
	s.client.mu.Lock()
	delete(s.client.socks, s)
	s.client.mu.Unlock()
	return s.conn.c.Close()
}
